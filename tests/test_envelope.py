"""What must hold of update headers, ballots and the signatures over them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from secagg.envelope import (
    Ballot,
    Domain,
    PayloadKind,
    UpdateHeader,
    sign,
    update_id,
    valid_client_name,
    verify,
)
from secagg.errors import Code, RoundError, UpdateError
from secagg.rule import Answer, Reason, Stage


@dataclass
class Key:
    signing_key: Ed25519PrivateKey


HEADER = UpdateHeader(
    federation_id=bytes(range(16)),
    round=7,
    client="hospital-a",
    kind=PayloadKind.UPDATE,
    profile="robust",
    key_id=b"k" * 16,
    manifest_sha256=b"m" * 32,
    mask_sha256=b"s" * 32,
    scales=bytes((0, 255, 3)),
    sample_count=600,
    payload_bytes=12_345,
    content_sha256=b"c" * 32,
)
BALLOT = Ballot(
    federation_id=bytes(range(16)),
    round=7,
    client="hospital-a",
    stage=Stage.STATISTICS,
    statistics_sha256=b"t" * 32,
    answer=Answer.of(np.array([0.0, 0.25, 1.0])),
)


def answering(weights: object, reasons: object = None) -> Ballot:
    """The ballot with other weights, and other reasons if any are given."""
    values = np.array(weights)
    given = np.zeros(values.shape, dtype=np.uint8) if reasons is None else np.array(reasons)
    return replace(BALLOT, answer=Answer(weights=values, reasons=given))


client_names = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,63}", fullmatch=True)
counts = st.integers(1, 2**64 - 1)


def digests(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


headers = st.builds(
    UpdateHeader,
    federation_id=digests(16),
    round=counts,
    client=client_names,
    kind=st.sampled_from(PayloadKind),
    profile=st.from_regex(r"[a-z]{1,64}", fullmatch=True),
    key_id=digests(16),
    manifest_sha256=digests(32),
    mask_sha256=st.one_of(st.just(b""), digests(32)),
    scales=st.binary(max_size=300),
    sample_count=counts,
    payload_bytes=counts,
    content_sha256=digests(32),
)
ballots = st.builds(
    Ballot,
    federation_id=digests(16),
    round=counts,
    client=client_names,
    stage=st.sampled_from(Stage),
    statistics_sha256=digests(32),
    answer=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(Reason)), min_size=1, max_size=40).map(
        lambda items: Answer(
            weights=np.array([weight for weight, _ in items]),
            reasons=np.array([reason for _, reason in items], dtype=np.uint8),
        )
    ),
)


@given(headers)
def test_header_survives_its_bytes(header: UpdateHeader) -> None:
    """Parsing inverts writing."""
    assert UpdateHeader.from_bytes(header.to_bytes()) == header


@given(ballots)
def test_ballot_survives_its_bytes(ballot: Ballot) -> None:
    """Parsing inverts writing."""
    assert Ballot.from_bytes(ballot.to_bytes()) == ballot


@given(headers, st.data())
def test_a_changed_header_is_refused_or_is_another_header(header: UpdateHeader, data: st.DataObject) -> None:
    """No two byte strings mean the same header, so a signature covers exactly one meaning."""
    original = header.to_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        parsed = UpdateHeader.from_bytes(bytes(changed))
    except UpdateError as error:
        assert error.code is Code.ENVELOPE_MALFORMED
    else:
        assert parsed != header
        assert parsed.to_bytes() == changed


@given(ballots, st.data())
def test_a_changed_ballot_is_refused_or_is_another_ballot(ballot: Ballot, data: st.DataObject) -> None:
    """The same for ballots."""
    original = ballot.to_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        parsed = Ballot.from_bytes(bytes(changed))
    except RoundError as error:
        assert error.code is Code.BALLOT_INVALID
    else:
        assert parsed != ballot
        assert parsed.to_bytes() == changed


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_the_code(data: bytes) -> None:
    """Nothing but the typed refusal comes out of either parser."""
    with pytest.raises(UpdateError, match=Code.ENVELOPE_MALFORMED):
        UpdateHeader.from_bytes(data)
    with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
        Ballot.from_bytes(data)


def test_every_truncation_and_any_surplus_is_refused() -> None:
    """Lengths are exact."""
    header, ballot = HEADER.to_bytes(), BALLOT.to_bytes()
    for end in range(len(header)):
        with pytest.raises(UpdateError, match=Code.ENVELOPE_MALFORMED):
            UpdateHeader.from_bytes(header[:end])
    for end in range(len(ballot)):
        with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
            Ballot.from_bytes(ballot[:end])
    with pytest.raises(UpdateError, match="1 bytes follow"):
        UpdateHeader.from_bytes(header + b"\0")
    with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
        Ballot.from_bytes(ballot + b"\0")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("federation_id", b"x" * 15),
        ("key_id", b""),
        ("manifest_sha256", b"x" * 31),
        ("mask_sha256", b"x" * 16),
        ("content_sha256", b"x" * 33),
        ("round", 0),
        ("round", 2**64),
        ("sample_count", 0),
        ("sample_count", -1),
        ("payload_bytes", 0),
        ("client", ""),
        ("client", "../alice"),
        ("client", "Alice"),
        ("client", "a" * 65),
        ("profile", ""),
        ("profile", "p" * 65),
        ("profile", "two words"),
    ],
)
def test_header_field_out_of_range_is_refused(field: str, value: object) -> None:
    """Each refusal names the field."""
    with pytest.raises(UpdateError, match=field.split("_")[0]) as refusal:
        replace(HEADER, **{field: value})
    assert refusal.value.code is Code.ENVELOPE_MALFORMED


@pytest.mark.parametrize(
    "weights", [[], [-0.01], [1.01], [float("nan")], [float("inf")], [[0.5]], [0.0] * 100_001]
)
def test_ballot_weights_out_of_range_are_refused(weights: list[float]) -> None:
    """Only finite weights in [0, 1], in a row of sensible length."""
    with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
        answering(weights)


@pytest.mark.parametrize(
    "reasons", [[], [0], [0, 0, 0], [[0, 0]], [0, max(Reason) + 1], [0, 255], [0.5, 0], [-1, 0]]
)
def test_ballot_reasons_out_of_range_are_refused(reasons: list[int]) -> None:
    """One for each weight, each of those that are known."""
    with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
        answering([1.0, 0.0], reasons)


@pytest.mark.parametrize("stage", [0, 3, 255])
def test_a_ballot_on_an_unknown_stage_is_refused(stage: int) -> None:
    """The byte after the client's name."""
    data = bytearray(BALLOT.to_bytes())
    at = 25 + 1 + len(BALLOT.client)
    assert data[at] == Stage.STATISTICS
    data[at] = stage
    with pytest.raises(RoundError, match=Code.BALLOT_INVALID):
        Ballot.from_bytes(bytes(data))


def test_ballots_of_the_first_version_are_refused() -> None:
    """They do not say which stage they answer."""
    with pytest.raises(RoundError, match="version 1 is unknown") as caught:
        Ballot.from_bytes(b"\x01" + BALLOT.to_bytes()[1:])
    assert caught.value.code is Code.BALLOT_INVALID


def test_a_ballot_on_one_stage_is_none_on_the_other() -> None:
    """A signature covers what was asked."""
    assert replace(BALLOT, stage=Stage.SCREENING) != BALLOT
    assert replace(BALLOT, stage=Stage.SCREENING).to_bytes() != BALLOT.to_bytes()


def test_a_ballot_has_one_form_for_zero() -> None:
    """-0.0 is written as 0.0, and refused where it is read."""
    ballot = answering([1.0, -0.0])
    assert ballot == answering([1.0, 0.0])
    with pytest.raises(RoundError, match="canonical"):
        Ballot.from_bytes(ballot.to_bytes()[:-10] + struct.pack("<d", -0.0) + bytes(2))


def test_ballot_answers_cannot_be_changed_afterwards() -> None:
    """A ballot keeps its own read-only copy."""
    weights, reasons = np.array([0.5, 0.5]), np.zeros(2, dtype=np.uint8)
    ballot = replace(BALLOT, answer=Answer(weights=weights, reasons=reasons))
    weights[0], reasons[0] = 1.0, Reason.RULE
    assert ballot.answer.weights[0] == 0.5 and ballot.answer.reasons[0] == Reason.KEPT
    with pytest.raises(ValueError, match="read-only"):
        ballot.answer.weights[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        ballot.answer.reasons[0] = Reason.RULE


def test_a_signature_of_one_domain_verifies_in_no_other() -> None:
    """A ballot's signature is no update's signature, even over the same bytes."""
    key = Key(Ed25519PrivateKey.generate())
    for made in Domain:
        signature = sign(key, made, b"the same bytes")
        for checked in Domain:
            if checked is made:
                verify(key.signing_key.public_key(), checked, b"the same bytes", signature)
            else:
                with pytest.raises(UpdateError, match=Code.SIGNATURE_INVALID):
                    verify(key.signing_key.public_key(), checked, b"the same bytes", signature)


def test_tampered_bytes_another_key_and_odd_lengths_are_refused() -> None:
    """Every bit of the header counts, and so does the key."""
    key, other = Key(Ed25519PrivateKey.generate()), Key(Ed25519PrivateKey.generate())
    data = HEADER.to_bytes()
    signature = sign(key, Domain.UPDATE, data)
    public = key.signing_key.public_key()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(UpdateError, match=Code.SIGNATURE_INVALID):
            verify(public, Domain.UPDATE, changed, signature)
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(64), sign(other, Domain.UPDATE, data)):
        with pytest.raises(UpdateError, match=Code.SIGNATURE_INVALID):
            verify(public, Domain.UPDATE, data, wrong)


def test_update_id_changes_with_any_field() -> None:
    """Two payloads, or the same one in two rounds, never share an id."""
    ids = {
        update_id(HEADER),
        update_id(replace(HEADER, round=8)),
        update_id(replace(HEADER, client="hospital-b")),
        update_id(replace(HEADER, content_sha256=b"d" * 32)),
    }
    assert len(ids) == 4
    assert all(len(i) == 16 for i in ids)


@pytest.mark.parametrize("name", ["a", "hospital-a", "client_01.north", "0", "a" * 64])
def test_ordinary_names_are_allowed(name: str) -> None:
    """What people call machines and sites."""
    assert valid_client_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a/b", "a\\b", "a b", "A", "é", "a\0", "a\n"])
def test_names_that_are_unsafe_as_paths_or_arguments_are_not(name: str) -> None:
    """No path separator, no hidden file, no option, no control character."""
    assert not valid_client_name(name)
