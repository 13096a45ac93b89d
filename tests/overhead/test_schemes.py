"""What ``--scheme`` spells."""

import pytest

from secagg.ckks import PROFILES
from secagg.errors import ConfigError
from secagg.overhead.schemes import ALL_SCHEMES, Scheme
from secagg.overhead.sweep import names_in
from secagg.plan import ProtectionMode


def test_every_profile_and_share_asked_for_is_a_scheme():
    shares = {Scheme.parse(name).protection.ratio for name in ALL_SCHEMES if name.startswith("selective:")}
    assert shares == {0.01, 0.05, 0.1, 0.3, 0.5}
    assert {"plain", *PROFILES} < set(ALL_SCHEMES)


def test_a_selective_scheme_may_name_its_profile():
    assert Scheme.parse("selective:0.1").profile.name == "compact"
    named = Scheme.parse("selective:0.25:robust")
    assert (named.profile.name, named.protection.ratio) == ("robust", 0.25)
    assert named.protection.mode is ProtectionMode.SELECTIVE and named.encrypts and not named.quantised


def test_plain_encrypts_nothing_whatever_its_profile():
    plain = Scheme.parse("plain")
    assert not plain.encrypts and not plain.quantised and plain.has_room(10**6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("paillier", "'paillier' is unknown; choose from plain, compact"),
        ("selective", "the ratio is the share of encrypted entries"),
        ("selective:0", "the ratio is the share"),
        ("selective:1.5", "the ratio is the share"),
        ("selective:nan", "the ratio is the share"),
        ("selective:ten", "the ratio is the share"),
        ("selective:0.1:paillier", "is unknown; choose from"),
        ("plain:0.1", "is unknown; choose from"),
    ],
)
def test_what_is_no_scheme_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError) as caught:
        Scheme.parse(text)
    assert says in caught.value.message and "\n" not in caught.value.message


def test_a_scheme_says_when_there_are_too_many_clients():
    with pytest.raises(ConfigError, match="71 clients; scheme compact-10 has headroom for 70"):
        Scheme.parse("compact-10").check_clients(71)
    Scheme.parse("compact-10").check_clients(70)


def test_options_may_be_repeated_or_hold_several_names():
    assert names_in(["plain, compact", "compact", "robust,"]) == ["plain", "compact", "robust"]
    assert names_in([]) == []
