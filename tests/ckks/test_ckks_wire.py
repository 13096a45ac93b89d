"""Bytes from elsewhere have exactly the form an honest party writes, or are refused before SEAL sees any."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed_readers import sealed_reader

from secagg.ckks import PROFILES, Opener, Profile, SecretKey, profile, weighted_sum
from secagg.ckks.context import context_of
from secagg.ckks.seal_stream import Form
from secagg.ckks.wire import (
    ReleasedScalar,
    check_sealed_vector,
    pack_aggregate,
    pack_scalar,
    pack_sealed,
    parse_aggregate,
    parse_scalar,
    parse_sealed,
)
from secagg.errors import CiphertextError, Code, ServerError

VECTORS = Path(__file__).parent.parent / "vectors"
ANSWERS = json.loads((VECTORS / "ckks.json").read_text())
FAULTS = json.loads((VECTORS / "ckks_malformed.json").read_text())
VALUES = 1000


def known_sealed(name: str) -> bytes:
    """The committed sealed vector."""
    return (VECTORS / f"ckks_{name}.sealed").read_bytes()


def known_aggregate(name: str) -> bytes:
    """The aggregate of the committed sealed vector."""
    preset, weight = profile(name), ANSWERS[name]["weight"]
    reader = sealed_reader(known_sealed(name), preset)
    return b"".join(weighted_sum([reader], [weight], VALUES, preset))


def known_opener(name: str) -> Opener:
    """An opener with the committed key."""
    return Opener(SecretKey.from_bytes((VECTORS / f"ckks_{name}.secret").read_bytes()))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_committed_sealed_vector_still_sums_and_opens_to_the_committed_answers(name: str) -> None:
    """Wire form, seed expansion and key form are the same in every build: the aggregate's digest shows it."""
    aggregate, answer = known_aggregate(name), ANSWERS[name]
    assert hashlib.sha256(aggregate).hexdigest() == answer["aggregate_sha256"]
    opened = known_opener(name).open_vector(aggregate, VALUES)
    assert opened[:8] == pytest.approx(answer["opened"], abs=1e-13)
    bound = profile(name).error_bound(VALUES, np.array([answer["weight"]]), 1.0)
    assert np.abs(opened - np.linspace(-1, 1, VALUES)).max() <= bound


def test_committed_scalar_still_opens_to_the_committed_number() -> None:
    """Integer arithmetic: the very same double."""
    data = (VECTORS / "ckks_robust.scalar").read_bytes()
    assert known_opener("robust").open_scalar(data) == ANSWERS["robust"]["scalar"]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_parsed_forms_pack_to_the_same_bytes(name: str) -> None:
    """Sealed ciphertext, aggregate ciphertext, scalar: byte-identical round trips."""
    preset = profile(name)
    sealed, aggregate = known_sealed(name)[3:], known_aggregate(name)[7:]
    assert pack_sealed(parse_sealed(sealed, preset), preset) == sealed
    assert pack_aggregate(parse_aggregate(aggregate, preset), preset) == aggregate
    if preset.inner_products:
        scalar = (VECTORS / f"ckks_{name}.scalar").read_bytes()
        assert pack_scalar(parse_scalar(scalar, preset), preset) == scalar
        shape = (3, len(preset.primes), preset.poly_degree)
        bilinear = ReleasedScalar(weight_total=7, constant=(1, 2), polynomials=np.ones(shape, np.uint64))
        assert len(pack_scalar(bilinear, preset)) == preset.released_bytes


def faulty(data: bytes, fault: dict[str, Any]) -> bytes:
    """The committed bytes with one fault from the list of malformed inputs."""
    if "keep" in fault:
        return data[: fault["keep"]]
    if "append" in fault:
        return data + bytes.fromhex(fault["append"])
    at = fault["at"] % len(data)
    if "write" in fault:
        new = bytes.fromhex(fault["write"])
    else:
        new = bytes.fromhex(fault["fill"]) * min(fault.get("size", len(data)), len(data) - at)
    return data[:at] + new + data[at + len(new) :]


def check_and_sum(data: bytes, preset: Profile) -> bytes:
    """What the server does with a sealed vector."""
    check_sealed_vector(data, VALUES, preset)
    return b"".join(weighted_sum([sealed_reader(data, preset)], [1], VALUES, preset))


def parsers(name: str) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Form -> honest bytes and what reads them."""
    opener = known_opener(name)
    forms: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "sealed": (known_sealed(name), lambda data: check_and_sum(data, profile(name))),
        "aggregate": (known_aggregate(name), lambda data: opener.open_vector(data, VALUES)),
    }
    if profile(name).inner_products:
        forms["scalar"] = ((VECTORS / f"ckks_{name}.scalar").read_bytes(), opener.open_scalar)
    return forms


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, fault, id=f"{name} {fault['form']}: {fault['fault']}")
        for name, preset in sorted(PROFILES.items())
        for fault in FAULTS
        if fault["form"] != "scalar" or preset.inner_products
    ],
)
def test_malformed_bytes_are_refused_with_their_code(
    name: str, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file fault has one code, and no SEAL object is built from the bytes."""
    honest, parse = parsers(name)[fault["form"]]
    parse(honest)

    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a SEAL object was built")

    monkeypatch.setattr(Form, "load", forbidden)
    with pytest.raises(CiphertextError) as caught:
        parse(faulty(honest, fault))
    assert caught.value.code == fault["code"]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_bytes_of_the_other_profile_are_refused(name: str) -> None:
    """PROFILE_MISMATCH names both."""
    other = next(known for known in PROFILES if known != name)
    with pytest.raises(CiphertextError, match=f"{other}.*{name}") as caught:
        check_sealed_vector(known_sealed(other), VALUES, profile(name))
    assert caught.value.code is Code.PROFILE_MISMATCH


MUTATED = {name: parsers(name) for name in PROFILES}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    """Flipped bits, cuts, repeats: a CiphertextError, or bytes of the right form that open to some number."""
    name = data.draw(st.sampled_from(sorted(PROFILES)))
    form = data.draw(st.sampled_from(sorted(MUTATED[name])))
    honest, parse = MUTATED[name][form]
    mutated = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(honest) - 1)))
        if place < len(mutated):
            mutated[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.just(len(mutated)), st.integers(0, len(mutated))))
    tail = data.draw(st.one_of(st.just(b""), st.binary(max_size=20)))
    try:
        parse(bytes(mutated[:cut]) + tail)
    except CiphertextError as error:
        assert error.code in (Code.CIPHERTEXT_MALFORMED, Code.PROFILE_MISMATCH)


class OtherGenerator:
    """A seeded ciphertext whose seed record names another random generator."""

    def __init__(self, preset: Profile) -> None:
        context = context_of(preset)
        form = context.seeded_form
        residues = np.ones(form.shape, dtype="<u8").tobytes()
        body = form.prefix + residues + form.suffix[:-1] + b"\x02" + bytes(64)
        self._stream = (
            form.header[:5] + b"\0" + form.header[6:8] + (16 + len(body)).to_bytes(8, "little") + body
        )

    def save(self, path: str, /) -> None:
        """Write the stream."""
        Path(path).write_bytes(self._stream)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_seeds_are_only_ever_taken_for_the_generator_the_wire_form_means(name: str) -> None:
    """The wire has no generator byte to forge; a SEAL build that would seed another generator is refused."""
    preset = profile(name)
    with pytest.raises(ServerError, match="random generator 2"):
        Form.of(OtherGenerator(preset), (len(preset.primes), preset.poly_degree), seeded=True)


def test_no_library_version_is_inside_the_bytes() -> None:
    """SEAL's magic number and header do not appear at the front of any committed form."""
    for path in sorted(VECTORS.glob("ckks_*")):
        if path.suffix != ".json":
            assert path.read_bytes()[:2] != b"\x5e\xa1"
            assert b"\x5e\xa1\x10\x04" not in path.read_bytes()[:256]
    assert seal.Ciphertext().size() == 0
