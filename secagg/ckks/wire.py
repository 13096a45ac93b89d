"""The bytes of sealed vectors, aggregate vectors, released scalars and keys.

Every form begins with three bytes: version, form, profile code. Lengths follow from the profile and the
number of values alone. Everything is checked here, in numpy, before a SEAL object is built: nothing from the
network reaches another parser.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.packing import pack, pack_pairs, packed_bytes, pair_of, unpack, unpack_pairs
from secagg.ckks.parameters import HEADER_BYTES, SEED_BYTES, Profile
from secagg.ckks.profiles import profile_by_code
from secagg.errors import CiphertextError, Code

WIRE_VERSION = 2
_TOTAL = struct.Struct("<I")
_CONSTANT = struct.Struct("<Q")
AGGREGATE_HEADER_BYTES = HEADER_BYTES + _TOTAL.size
_SCALAR_FRONT_BYTES = HEADER_BYTES + 1 + _TOTAL.size + _CONSTANT.size


class Form(IntEnum):
    """What the bytes are; the second byte of everything here."""

    SEALED = 1
    AGGREGATE = 2
    SCALAR = 3
    SECRET_KEY = 4
    PUBLIC_KEY = 5


class ScalarKind(IntEnum):
    """How many polynomials a released scalar brings along: see ``ReleasedScalar``."""

    LINEAR = 1
    BILINEAR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCiphertext:
    """A fresh ciphertext: its first polynomial, uint64 [primes, N], and the seed of the second."""

    polynomial: NDArray[np.uint64]
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedScalar:
    """An LWE-like sample under the secrets (s), or (s, s·σ(s)), that hides one number.

    Opened, it is b + Σ_j ⟨a_j, s_j⟩ mod p, ⟨a, s⟩ being the constant coefficient of the product.

    Args:
        weight_total: what the number must be divided by beside the squared scale.
        constant: b, below p.
        polynomials: a_j as coefficients, uint64 [1 or 2, N].
    """

    weight_total: int
    constant: int
    polynomials: NDArray[np.uint64]


def header(form: Form, profile: Profile) -> bytes:
    """The three bytes in front."""
    return bytes((WIRE_VERSION, form, profile.code))


def check_header(data: bytes | memoryview, form: Form, profile: Profile) -> None:
    """See that bytes begin as this form under this profile does.

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for too few bytes, another version or form; PROFILE_MISMATCH for
            another profile.
    """
    if len(data) < HEADER_BYTES:
        raise malformed(f"{len(data)} bytes are less than a header")
    if data[0] != WIRE_VERSION:
        raise malformed(f"wire version {data[0]} is unknown; this build reads {WIRE_VERSION}")
    if data[1] != form:
        raise malformed(f"form {data[1]} where {form.name.lower()} ({form.value}) belongs")
    if data[2] != profile.code:
        other = profile_by_code(data[2])
        raise CiphertextError(
            Code.PROFILE_MISMATCH,
            f"bytes of profile {other.name if other else f'code {data[2]}'}, not of {profile.name}",
        )


def check_length(data: bytes | memoryview, expected: int, what: str) -> None:
    """See that bytes have exactly the expected length.

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED.
    """
    if len(data) != expected:
        raise malformed(f"{what} has {expected} bytes, not {len(data)}")


def pack_polynomial(residues: NDArray[np.uint64], primes: tuple[int, ...]) -> bytes:
    """Residues [primes, N] at their primes' widths, one prime after the other."""
    return b"".join(pack(row, prime.bit_length()) for row, prime in zip(residues, primes, strict=True))


def unpack_polynomial(data: bytes | memoryview, primes: tuple[int, ...], degree: int) -> NDArray[np.uint64]:
    """Inverse of ``pack_polynomial``: uint64 [primes, N].

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for another length or a residue that is not below its prime.
    """
    view = memoryview(data)
    check_length(view, sum(packed_bytes(degree, p.bit_length()) for p in primes), "a polynomial")
    if len(primes) == 1:
        return unpack(view, degree, primes[0])[None, :]
    residues = np.empty((len(primes), degree), dtype=np.uint64)
    at = 0
    for row, prime in enumerate(primes):
        size = packed_bytes(degree, prime.bit_length())
        residues[row] = unpack(view[at : at + size], degree, prime)
        at += size
    return residues


def sealed_header(profile: Profile) -> bytes:
    """What precedes the ciphertexts of a sealed vector."""
    return header(Form.SEALED, profile)


def pack_sealed(ciphertext: SealedCiphertext, profile: Profile) -> bytes:
    """Seed, then polynomial."""
    return ciphertext.seed + pack_polynomial(ciphertext.polynomial, profile.primes)


def pack_sealed_batch(polynomials: NDArray[np.uint64], seeds: Sequence[bytes], profile: Profile) -> bytes:
    """Several ciphertexts of a profile with one prime, one after the other: ``pack_sealed`` of each.

    Args:
        polynomials: uint64 [k, N].
        seeds: k of 64 bytes.
    """
    (prime,) = profile.primes
    packed = np.empty(len(polynomials), dtype=_sealed_row(profile))
    packed["seed"] = np.frombuffer(b"".join(seeds), dtype=f"V{SEED_BYTES}")
    pack_pairs(polynomials.reshape(len(polynomials), -1, 2), prime.bit_length(), packed["pairs"])
    return packed.tobytes()


@cache
def _sealed_row(profile: Profile) -> np.dtype[np.void]:
    """A sealed ciphertext of a profile with one prime, as numpy reads it."""
    pair = pair_of(profile.primes[0].bit_length())
    return np.dtype([("seed", f"V{SEED_BYTES}"), ("pairs", pair, (profile.poly_degree // 2,))])


def parse_sealed(data: bytes | memoryview, profile: Profile) -> SealedCiphertext:
    """One ciphertext of a sealed vector.

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for another length, a residue that is not below its prime, or a
            polynomial that is zero (such a "transparent" ciphertext would hide nothing).
    """
    check_length(data, profile.sealed_ciphertext_bytes, "a sealed ciphertext")
    polynomial = unpack_polynomial(memoryview(data)[SEED_BYTES:], profile.primes, profile.poly_degree)
    # Looking at one residue first spares the rest of nearly every polynomial.
    if not (polynomial[0, 0] or polynomial.any()):
        raise malformed("a sealed ciphertext whose polynomial is zero")
    return SealedCiphertext(polynomial=polynomial, seed=bytes(data[:SEED_BYTES]))


def parse_sealed_batch(
    pieces: Sequence[bytes | memoryview], profile: Profile
) -> tuple[NDArray[np.uint64], list[bytes]]:
    """Several ciphertexts of sealed vectors: ``parse_sealed`` of each, at less than the price of each.

    Returns:
        Their polynomials, uint64 [k, primes, N], and their seeds.

    Raises:
        CiphertextError: as ``parse_sealed``.
    """
    for piece in pieces:
        check_length(piece, profile.sealed_ciphertext_bytes, "a sealed ciphertext")
    if len(profile.primes) > 1:
        parsed = [parse_sealed(piece, profile) for piece in pieces]
        return np.stack([item.polynomial for item in parsed]), [item.seed for item in parsed]
    packed = np.frombuffer(b"".join(pieces), dtype=_sealed_row(profile))
    polynomials = unpack_pairs(packed["pairs"], profile.primes[0])
    if not (polynomials[:, 0].all() or polynomials.any(axis=1).all()):
        raise malformed("a sealed ciphertext whose polynomial is zero")
    return polynomials[:, None, :], [bytes(piece[:SEED_BYTES]) for piece in pieces]


def aggregate_header(profile: Profile, weight_total: int) -> bytes:
    """What precedes the ciphertexts of an aggregate vector."""
    return header(Form.AGGREGATE, profile) + _TOTAL.pack(weight_total)


def parse_aggregate_header(data: bytes | memoryview, profile: Profile) -> int:
    """The weight total, 1 to the profile's.

    Raises:
        CiphertextError: as ``check_header``; CIPHERTEXT_MALFORMED for an impossible weight total.
    """
    check_header(data, Form.AGGREGATE, profile)
    if len(data) < AGGREGATE_HEADER_BYTES:
        raise malformed(f"{len(data)} bytes are less than an aggregate vector's header")
    return _weight_total(data, HEADER_BYTES, profile)


def pack_aggregate(residues: NDArray[np.uint64], profile: Profile) -> bytes:
    """Both polynomials of one ciphertext, from residues uint64 [2, primes, N]."""
    return b"".join(pack_polynomial(part, profile.primes) for part in residues)


def parse_aggregate(data: bytes | memoryview, profile: Profile) -> NDArray[np.uint64]:
    """One ciphertext of an aggregate vector: uint64 [2, primes, N].

    Raises:
        CiphertextError: CIPHERTEXT_MALFORMED for another length, a residue that is not below its prime, or a
            polynomial that is zero.
    """
    check_length(data, profile.aggregate_ciphertext_bytes, "an aggregate ciphertext")
    view, half = memoryview(data), profile.polynomial_bytes
    parts = [unpack_polynomial(view[at : at + half], profile.primes, profile.poly_degree) for at in (0, half)]
    if not (parts[0].any() and parts[1].any()):
        raise malformed("an aggregate ciphertext with a polynomial that is zero")
    return np.stack(parts)


def scalar_bytes(kind: ScalarKind, profile: Profile) -> int:
    """Exact length of a released scalar of this kind."""
    return _SCALAR_FRONT_BYTES + kind * profile.polynomial_bytes


def pack_scalar(scalar: ReleasedScalar, profile: Profile) -> bytes:
    """Header, kind byte, u32 weight total, b as u64, then the polynomials."""
    kind = ScalarKind(len(scalar.polynomials))
    front = header(Form.SCALAR, profile) + bytes((kind,)) + _TOTAL.pack(scalar.weight_total)
    polynomials = (pack_polynomial(part[None, :], profile.primes) for part in scalar.polynomials)
    return front + _CONSTANT.pack(scalar.constant) + b"".join(polynomials)


def scalar_kind(data: bytes | memoryview, profile: Profile) -> ScalarKind:
    """The kind of the released scalar that bytes begin with, so that its length is known.

    Raises:
        CiphertextError: as ``check_header``; CIPHERTEXT_MALFORMED for an unknown kind.
    """
    check_header(data, Form.SCALAR, profile)
    if len(data) <= HEADER_BYTES:
        raise malformed("a released scalar ends before its kind")
    try:
        return ScalarKind(data[HEADER_BYTES])
    except ValueError:
        raise malformed(f"a released scalar of unknown kind {data[HEADER_BYTES]}") from None


def parse_scalar(data: bytes | memoryview, profile: Profile) -> ReleasedScalar:
    """A released scalar.

    Raises:
        CiphertextError: PROFILE_MISMATCH for a profile without inner products; as ``scalar_kind``;
            CIPHERTEXT_MALFORMED for another length, an impossible weight total, or a residue that is not
            below its prime.
    """
    if not profile.inner_products:
        raise CiphertextError(Code.PROFILE_MISMATCH, f"profile {profile.name} has no released scalars")
    kind = scalar_kind(data, profile)
    check_length(data, scalar_bytes(kind, profile), "a released scalar of this kind")
    view = memoryview(data)
    total = _weight_total(view, HEADER_BYTES + 1, profile)
    (constant,) = _CONSTANT.unpack_from(view, HEADER_BYTES + 1 + _TOTAL.size)
    if constant >= profile.modulus:
        raise malformed("a released scalar's constant is not below its prime")
    size = profile.polynomial_bytes
    polynomials = [
        unpack_polynomial(view[start : start + size], profile.primes, profile.poly_degree)[0]
        for start in range(_SCALAR_FRONT_BYTES, len(view), size)
    ]
    return ReleasedScalar(weight_total=total, constant=constant, polynomials=np.stack(polynomials))


def _weight_total(data: bytes | memoryview, at: int, profile: Profile) -> int:
    total: int = _TOTAL.unpack_from(data, at)[0]
    if not 1 <= total <= profile.weight_total:
        raise malformed(
            f"a weight total of {total}; 1 to {profile.weight_total} are possible under {profile.name}"
        )
    return total


def malformed(message: str) -> CiphertextError:
    """The error of bytes that no honest party writes."""
    return CiphertextError(Code.CIPHERTEXT_MALFORMED, message)
