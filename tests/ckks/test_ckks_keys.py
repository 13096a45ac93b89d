"""Keys travel without any library's version inside, and give nothing away on the way."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from secagg.ckks import (
    KeyPair,
    Opener,
    PublicKey,
    Sealer,
    SecretKey,
    generate,
    pair_of,
    profile,
    weighted_sum,
)
from secagg.ckks.opening import LweSecret
from secagg.errors import CiphertextError, Code


def test_secret_rebuilt_from_its_bytes_opens_what_the_original_sealed(pair: KeyPair) -> None:
    """Only ternary coefficients travel; the rebuilt key opens within the bound, and seals for the other."""
    used = pair.secret.profile
    rebuilt = SecretKey.from_bytes(pair.secret.to_bytes())
    values = np.linspace(-3, 3, 5000)
    for sealing, opening in ((pair.secret, rebuilt), (rebuilt, pair.secret)):
        data = Sealer(sealing).seal(values)
        step = used.sealed_ciphertext_bytes
        reader = lambda index, data=data, step=step: data[3 + index * step : 3 + (index + 1) * step]  # noqa: E731
        opened = Opener(opening).open_vector(b"".join(weighted_sum([reader], [1], 5000, used)), 5000)
        assert np.abs(opened - values).max() <= used.error_bound(5000, np.array([1]), 3.0)


def test_keys_survive_a_round_trip_byte_for_byte(pair: KeyPair) -> None:
    """Both keys, and with the public one its id."""
    assert SecretKey.from_bytes(pair.secret.to_bytes()).to_bytes() == pair.secret.to_bytes()
    public = PublicKey.from_bytes(pair.public.to_bytes())
    assert public.to_bytes() == pair.public.to_bytes()
    assert public.key_id == pair.key_id
    assert len(pair.key_id) == 16


def test_secret_is_ternary_and_balanced(pair: KeyPair) -> None:
    """Uniform over -1, 0, 1: each count within six deviations of N/3."""
    counts = np.bincount(pair.secret.coefficients + 1, minlength=3)
    assert counts.sum() == pair.secret.profile.poly_degree
    assert np.abs(counts - 4096 / 3).max() <= 6 * (4096 * 2 / 9) ** 0.5


def test_every_pair_has_its_own_id() -> None:
    """Also two public keys of one secret."""
    first = generate(profile("precise"))
    assert len({first.key_id, generate(profile("precise")).key_id, pair_of(first.secret).key_id}) == 3


def test_nothing_of_a_secret_is_in_a_repr(pair: KeyPair) -> None:
    """The repr of each object that holds a secret names the profile and no coefficient."""
    for item in (pair.secret, pair, Sealer(pair.secret), Opener(pair.secret), LweSecret(pair.secret)):
        assert "coefficients" not in repr(item)
        assert "array" not in repr(item)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secret_can_not_be_pickled_or_copied(pair: KeyPair, duplicate: Callable[[object], object]) -> None:
    """TypeError from every object that holds a secret, so none reaches a worker process by accident."""
    for item in (pair.secret, Sealer(pair.secret), Opener(pair.secret), LweSecret(pair.secret)):
        with pytest.raises(TypeError):
            duplicate(item)


@pytest.mark.parametrize(
    "fault",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: b"\x02" + data[1:],
        lambda data: data[:1] + b"\x01" + data[2:],
        lambda data: data[:2] + b"\xee" + data[3:],
    ],
    ids=["truncated", "trailing", "empty", "version", "form", "profile"],
)
def test_malformed_key_is_refused(pair: KeyPair, fault: Callable[[bytes], bytes]) -> None:
    """Each fault is KEY_MALFORMED, for both keys, and the message quotes no key byte."""
    for cls, data in ((SecretKey, pair.secret.to_bytes()), (PublicKey, pair.public.to_bytes())):
        with pytest.raises(CiphertextError) as caught:
            cls.from_bytes(fault(data))
        assert caught.value.code is Code.KEY_MALFORMED
        assert data[3:11].hex() not in str(caught.value)


def test_key_with_impossible_content_is_refused(pair: KeyPair) -> None:
    """A coefficient code that means nothing, a zero secret, a residue beyond its prime, a zero polynomial."""
    secret, public = pair.secret.to_bytes(), pair.public.to_bytes()
    half = (len(public) - 3) // 2
    for cls, data in (
        (SecretKey, secret[:3] + b"\xff" + secret[4:]),
        (SecretKey, secret[:3] + bytes(len(secret) - 3)),
        (PublicKey, public[:3] + b"\xff" * 16 + public[19:]),
        (PublicKey, public[:3] + bytes(half) + public[3 + half :]),
    ):
        with pytest.raises(CiphertextError) as caught:
            cls.from_bytes(data)
        assert caught.value.code is Code.KEY_MALFORMED


def test_vector_under_another_key_opens_to_noise(pair: KeyPair) -> None:
    """Why key ids are bound to updates: nothing fails, but the numbers are absurd."""
    used = pair.secret.profile
    data = Sealer(generate(used).secret).seal(np.ones(16))
    opened = Opener(pair.secret).open_vector(b"".join(weighted_sum([lambda _: data[3:]], [1], 16, used)), 16)
    assert np.abs(opened).max() > 1e3
