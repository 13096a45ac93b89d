"""Bytes from elsewhere have exactly the form an honest party writes, or are refused before SEAL sees any."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealed_vectors import sealed_reader

from secagg.ckks import PROFILES, Opener, PublicKey, SecretKey, Steps, aggregate_vector, profile
from secagg.ckks.bounds import error_bound, product_error_bound
from secagg.ckks.wire import (
    WIRE_VERSION,
    Form,
    ReleasedScalar,
    ScalarKind,
    check_header,
    check_length,
    pack_aggregate,
    pack_scalar,
    pack_sealed,
    parse_aggregate,
    parse_aggregate_header,
    parse_scalar,
    parse_sealed,
    scalar_bytes,
)
from secagg.errors import CiphertextError, Code

VECTORS = Path(__file__).parent.parent / "vectors"
ANSWERS = json.loads((VECTORS / "ckks.json").read_text())
FAULTS = json.loads((VECTORS / "ckks_malformed.json").read_text())
VALUES = 1000
CODES = (Code.CIPHERTEXT_MALFORMED, Code.PROFILE_MISMATCH, Code.KEY_MALFORMED)
SCALARS = ("linear", "bilinear")


@cache
def known(name: str, kind: str) -> bytes:
    """Committed bytes; an aggregate is made from the committed sealed vector."""
    if kind != "aggregate":
        return (VECTORS / f"ckks_{name}.{kind}").read_bytes()
    reader = sealed_reader(known(name, "sealed"), profile(name))
    return b"".join(aggregate_vector([reader], [ANSWERS[name]["weight"]], VALUES, profile(name)))


@cache
def known_opener(name: str) -> Opener:
    """An opener with the committed key."""
    return Opener(SecretKey.from_bytes(known(name, "secret")))


def steps_of(name: str) -> Steps | None:
    """What the committed vector is sealed in."""
    return Steps.uniform(VALUES, ANSWERS[name]["step"]) if profile(name).quantised else None


def open_vector(name: str, data: bytes) -> object:
    """What a client does with an aggregate vector."""
    return known_opener(name).open_vector(data, VALUES, steps=steps_of(name))


def check_and_sum(name: str, data: bytes) -> bytes:
    """What the server does with a sealed vector."""
    preset = profile(name)
    check_header(data, Form.SEALED, preset)
    check_length(data, preset.sealed_bytes(VALUES), "a sealed vector")
    return b"".join(aggregate_vector([sealed_reader(data, preset)], [1], VALUES, preset))


PARSERS: dict[str, Callable[[str, bytes], object]] = {
    "sealed": check_and_sum,
    "aggregate": open_vector,
    "linear": lambda name, data: known_opener(name).open_scalar(data),
    "bilinear": lambda name, data: known_opener(name).open_scalar(data),
    "secret": lambda _, data: SecretKey.from_bytes(data),
    "public": lambda _, data: PublicKey.from_bytes(data),
}
"""What reads bytes of each form."""

EVERY_FORM = [
    (name, form)
    for name in sorted(PROFILES)
    for form in PARSERS
    if form not in SCALARS or profile(name).inner_products
]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_committed_sealed_vector_still_sums_and_opens_to_the_committed_answers(name: str) -> None:
    """Wire form, seed expansion and key form are the same in every build: the aggregate's digest shows it."""
    aggregate, answer, preset = known(name, "aggregate"), ANSWERS[name], profile(name)
    assert hashlib.sha256(aggregate).hexdigest() == answer["aggregate_sha256"]
    opened = known_opener(name).open_vector(aggregate, VALUES, steps=steps_of(name))
    # Slots go through SEAL's FFT, whose last bits may differ between builds.
    assert opened[:8] == pytest.approx(answer["opened"], abs=1e-13, rel=0)
    bound = error_bound(preset, VALUES, np.array([answer["weight"]]), max_abs=0.9, step=answer["step"])
    assert np.abs(opened - np.linspace(-0.9, 0.9, VALUES)).max() <= bound


@pytest.mark.parametrize("kind", SCALARS)
def test_committed_scalar_still_opens_to_the_committed_number(kind: str) -> None:
    """Integer arithmetic: the very same double; and it is the squared norm of the committed vector."""
    number, values = known_opener("robust").open_scalar(known("robust", kind)), np.linspace(-0.9, 0.9, VALUES)
    assert number == ANSWERS["robust"][kind]
    norm = float(np.linalg.norm(values))
    assert abs(number - norm**2) <= product_error_bound(profile("robust"), norm, norm, VALUES)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_committed_keys_are_still_a_pair_with_the_committed_id(name: str) -> None:
    """Their bytes are reproduced, and the id covers the public key's bytes and the profile's name."""
    secret, public = (
        SecretKey.from_bytes(known(name, "secret")),
        PublicKey.from_bytes(known(name, "public")),
    )
    assert secret.to_bytes() == known(name, "secret")
    assert public.to_bytes() == known(name, "public")
    assert public.key_id.hex() == ANSWERS[name]["key_id"]
    digest = hashlib.sha256(name.encode() + b"\0" + known(name, "public")).digest()
    assert public.key_id == digest[:16]
    assert secret.profile == public.profile == profile(name)


@pytest.mark.parametrize(("name", "form"), EVERY_FORM)
def test_every_committed_form_begins_with_version_form_and_profile(name: str, form: str) -> None:
    """Three bytes; the version is 2, since version 1 was another engine's."""
    number = {"sealed": 1, "aggregate": 2, "linear": 3, "bilinear": 3, "secret": 4, "public": 5}[form]
    assert WIRE_VERSION == 2
    assert known(name, form)[:3] == bytes((2, number, profile(name).code))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_parsed_forms_pack_to_the_same_bytes(name: str) -> None:
    """Sealed ciphertext, aggregate ciphertext: byte-identical round trips, of exactly the promised length."""
    preset = profile(name)
    sealed, aggregate = known(name, "sealed"), known(name, "aggregate")
    assert len(sealed) == preset.sealed_bytes(VALUES)
    assert len(aggregate) == preset.aggregate_bytes(VALUES)
    assert pack_sealed(parse_sealed(sealed[3:], preset), preset) == sealed[3:]
    assert pack_aggregate(parse_aggregate(aggregate[7:], preset), preset) == aggregate[7:]
    assert parse_aggregate_header(aggregate, preset) == ANSWERS[name]["weight"]


@pytest.mark.parametrize("kind", SCALARS)
def test_parsed_scalar_packs_to_the_same_bytes(kind: str) -> None:
    """Of exactly the promised length."""
    robust, data = profile("robust"), known("robust", kind)
    assert len(data) == scalar_bytes(ScalarKind[kind.upper()], robust)
    assert pack_scalar(parse_scalar(data, robust), robust) == data


@given(total=st.integers(1, 1024), data=st.data())
def test_any_scalar_survives_a_round_trip(total: int, data: st.DataObject) -> None:
    """Weight total, constant and residues at their limits, for both kinds."""
    robust = profile("robust")
    residue = st.one_of(st.sampled_from([0, robust.modulus - 1]), st.integers(0, robust.modulus - 1))
    kind, constant = data.draw(st.sampled_from([1, 2])), data.draw(residue)
    polynomials = np.full((kind, robust.poly_degree), data.draw(residue), dtype=np.uint64)
    polynomials[:, data.draw(st.integers(0, robust.poly_degree - 1))] = data.draw(residue)
    scalar = ReleasedScalar(weight_total=total, constant=constant, polynomials=polynomials)
    again = parse_scalar(pack_scalar(scalar, robust), robust)
    assert (again.weight_total, again.constant) == (total, constant)
    assert np.array_equal(again.polynomials, polynomials)


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
        size = fault.get("size", len(data) - at)
        if "half" in fault:
            # One of the two polynomials behind the front.
            size = (len(data) - at) // 2
            at += size * (fault["half"] - 1)
        new = bytes.fromhex(fault["fill"]) * size
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, fault, id=f"{name} {fault['form']}: {fault['fault']}")
        for name, form in EVERY_FORM
        for fault in FAULTS
        if fault["form"] == form
    ],
)
def test_malformed_bytes_are_refused_with_their_code(name: str, fault: dict[str, Any]) -> None:
    """Each fault of the list has one code, and without it the bytes are read."""
    honest, parse = known(name, fault["form"]), PARSERS[fault["form"]]
    data = faulty(honest, fault)
    assert data != honest
    with pytest.raises(CiphertextError) as caught:
        parse(name, data)
    assert caught.value.code == fault["code"]


@pytest.mark.parametrize(("name", "form"), EVERY_FORM)
def test_committed_bytes_are_read(name: str, form: str) -> None:
    """What the faults are made in has none."""
    PARSERS[form](name, known(name, form))


@pytest.mark.parametrize(
    ("name", "other"), [(name, other) for name in PROFILES for other in PROFILES if name != other]
)
def test_bytes_of_another_profile_are_refused(name: str, other: str) -> None:
    """PROFILE_MISMATCH names both, also where the two have one ring and bytes of one length."""
    with pytest.raises(CiphertextError, match=f"profile {other}, not of {name}") as caught:
        check_and_sum(name, known(other, "sealed"))
    assert caught.value.code is Code.PROFILE_MISMATCH
    with pytest.raises(CiphertextError) as caught:
        open_vector(name, known(other, "aggregate"))
    alike = len(known(other, "aggregate")) == len(known(name, "aggregate"))
    assert caught.value.code is (Code.PROFILE_MISMATCH if alike else Code.CIPHERTEXT_MALFORMED)


@pytest.mark.parametrize("name", [name for name in sorted(PROFILES) if not profile(name).inner_products])
def test_profile_without_products_reads_no_scalar(name: str) -> None:
    """Whatever the bytes are, also with its own code in front."""
    for data in (b"", known("robust", "linear"), bytes((2, 3, profile(name).code, 1)) + bytes(30732)):
        with pytest.raises(CiphertextError) as caught:
            known_opener(name).open_scalar(data)
        assert caught.value.code is Code.PROFILE_MISMATCH


@settings(max_examples=200)
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    """Flipped bits, cuts, repeats: a CiphertextError, or bytes of the right form that open to some number."""
    name, form = data.draw(st.sampled_from(EVERY_FORM))
    mutated = bytearray(known(name, form))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(mutated) - 1)))
        mutated[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.one_of(st.just(len(mutated)), st.integers(0, len(mutated))))
    tail = data.draw(st.one_of(st.just(b""), st.binary(max_size=20)))
    try:
        PARSERS[form](name, bytes(mutated[:cut]) + tail)
    except CiphertextError as error:
        assert error.code in CODES


def test_every_form_and_every_fault_is_covered() -> None:
    """The list of malformed inputs names the forms that are read here, each fault once."""
    assert {fault["form"] for fault in FAULTS} == set(PARSERS)
    assert len({(fault["form"], fault["fault"]) for fault in FAULTS}) == len(FAULTS)


def test_no_library_version_is_inside_the_bytes() -> None:
    """SEAL's magic number and header appear nowhere in any committed form but by chance of 2^-32 a byte."""
    for name, form in EVERY_FORM:
        assert b"\x5e\xa1\x10\x04" not in known(name, form)
