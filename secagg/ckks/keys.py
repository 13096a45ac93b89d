"""CKKS keys: made by the dealer, kept by decryptors; the aggregator only sees the public one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from secagg.ckks.context import CoefficientRing, coefficient_ring, ring_of
from secagg.ckks.parameters import HEADER_BYTES, Profile
from secagg.ckks.profiles import profile_by_code
from secagg.ckks.wire import Form, check_header, header, pack_polynomial, unpack_polynomial
from secagg.errors import CiphertextError, Code

KEY_ID_BYTES = 16


@dataclass(frozen=True, eq=False)
class SecretKey:
    """The ternary secret s of a federation. Its repr says nothing and it can't be pickled or copied.

    Args:
        profile: the parameters it belongs to.
        coefficients: int8 [N], each -1, 0 or 1.
    """

    profile: Profile
    coefficients: NDArray[np.int8] = field(repr=False)

    def __repr__(self) -> str:
        return f"<SecretKey of profile {self.profile.name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled; hand over its to_bytes() where it may really go")

    def to_bytes(self) -> bytes:
        """Header, then 2 bits per coefficient (0, 1, or 2 for -1), four to a byte, the first lowest."""
        codes = np.where(self.coefficients < 0, 2, self.coefficients).astype(np.uint8).reshape(-1, 4)
        packed = codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6
        return header(Form.SECRET_KEY, self.profile) + packed.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> SecretKey:
        """Inverse of ``to_bytes``; the profile is read from the bytes.

        Raises:
            CiphertextError: KEY_MALFORMED for another version, form, profile or length, or a coefficient
                that is none of -1, 0, 1, or a key that is zero. The message never quotes the key.
        """
        profile = _profile_of(data, Form.SECRET_KEY)
        if len(data) != HEADER_BYTES + profile.poly_degree // 4:
            raise _malformed(
                f"a secret key has {HEADER_BYTES + profile.poly_degree // 4} bytes, not {len(data)}"
            )
        packed = np.frombuffer(data, dtype=np.uint8, offset=HEADER_BYTES)
        codes = (packed[:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3).reshape(-1)
        if (codes == 3).any() or not codes.any():
            raise _malformed("a secret key's coefficients must be -1, 0 or 1, and not all 0")
        return cls(profile, np.where(codes == 2, -1, codes).astype(np.int8))

    @cached_property
    def seal_key(self) -> Any:
        """The SEAL object."""
        ring, rows = ring_of(self.profile), [self._ntt(prime) for prime in self.profile.key_primes]
        return ring.secret_form.load(seal.SecretKey(), ring.seal, np.stack(rows))

    @cached_property
    def seal_decryptor(self) -> Any:
        """SEAL's decryptor under this key."""
        return seal.Decryptor(ring_of(self.profile).seal, self.seal_key)

    @cached_property
    def seal_encryptor(self) -> Any:
        """SEAL's symmetric encryptor under this key."""
        return seal.Encryptor(ring_of(self.profile).seal, self.seal_key)

    @cached_property
    def seal_factor(self) -> Any:
        """s as a plaintext of a profile's coefficient ring, to multiply second polynomials with."""
        ring = ring_of(self.profile)
        assert isinstance(ring, CoefficientRing)
        return ring.plaintext(self._ntt(ring.prime))

    def _ntt(self, prime: int) -> NDArray[np.uint64]:
        """s modulo a key prime, in SEAL's NTT order: uint64 [N]."""
        ring = coefficient_ring(self.profile.poly_degree, prime)
        residues = ring.reduce(self.coefficients.astype(np.int64))[None, :]
        row: NDArray[np.uint64] = ring.transform(residues, to_ntt=True)[0]
        return row


@dataclass(frozen=True, eq=False)
class PublicKey:
    """An encryption of zero under the secret: all the aggregator needs to re-randomise what it releases.

    Args:
        profile: the parameters it belongs to.
        residues: uint64 [2, key primes, N] in NTT order.
    """

    profile: Profile
    residues: NDArray[np.uint64] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Header, then both polynomials modulo every key prime, packed."""
        packed = (pack_polynomial(part, self.profile.key_primes) for part in self.residues)
        return header(Form.PUBLIC_KEY, self.profile) + b"".join(packed)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicKey:
        """Inverse of ``to_bytes``; the profile is read from the bytes.

        Raises:
            CiphertextError: KEY_MALFORMED for another version, form, profile or length, a residue that is
                not below its prime, or a polynomial that is zero.
        """
        profile = _profile_of(data, Form.PUBLIC_KEY)
        body = memoryview(data)[HEADER_BYTES:]
        half = len(body) // 2
        try:
            parts = [
                unpack_polynomial(part, profile.key_primes, profile.poly_degree)
                for part in (body[:half], body[half:])
            ]
        except CiphertextError as error:
            raise _malformed(f"public key: {error.message}") from None
        if not (parts[0].any() and parts[1].any()):
            raise _malformed("a public key with a polynomial that is zero")
        return cls(profile, np.stack(parts))

    @cached_property
    def key_id(self) -> bytes:
        """First 16 bytes of SHA-256 over the profile's name and the key's bytes."""
        digest = hashlib.sha256(self.profile.name.encode() + b"\0" + self.to_bytes())
        return digest.digest()[:KEY_ID_BYTES]

    @cached_property
    def seal_encryptor(self) -> Any:
        """SEAL's public-key encryptor."""
        ring = ring_of(self.profile)
        key = ring.public_form.load(seal.PublicKey(), ring.seal, self.residues)
        return seal.Encryptor(ring.seal, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """What the dealer makes. Its parts guard themselves: repr is safe, pickling raises."""

    secret: SecretKey
    public: PublicKey

    @property
    def key_id(self) -> bytes:
        """16 bytes that name the pair."""
        return self.public.key_id


def generate(profile: Profile) -> KeyPair:
    """A fresh key pair from SEAL's generator, which seeds itself from the operating system."""
    ring = ring_of(profile)
    residues, _ = ring.secret_form.read(seal.KeyGenerator(ring.seal).secret_key())
    first = coefficient_ring(profile.poly_degree, profile.key_primes[0])
    coefficients = first.centred(first.transform(residues[:1], to_ntt=False)[0])
    return pair_of(SecretKey(profile, coefficients.astype(np.int8)))


def pair_of(secret: SecretKey) -> KeyPair:
    """A secret key with a fresh public key; two calls give two key ids."""
    ring, public = ring_of(secret.profile), seal.PublicKey()
    seal.KeyGenerator(ring.seal, secret.seal_key).create_public_key(public)
    residues, _ = ring.public_form.read(public)
    return KeyPair(secret=secret, public=PublicKey(secret.profile, residues))


def _profile_of(data: bytes, form: Form) -> Profile:
    if len(data) < HEADER_BYTES:
        raise _malformed(f"a key of {len(data)} bytes is shorter than its header")
    profile = profile_by_code(data[2])
    if profile is None:
        raise _malformed(f"a key of the unknown profile code {data[2]}")
    try:
        check_header(data, form, profile)
    except CiphertextError as error:
        raise _malformed(error.message) from None
    return profile


def _malformed(message: str) -> CiphertextError:
    return CiphertextError(Code.KEY_MALFORMED, message)
