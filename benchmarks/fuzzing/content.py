"""Valid messages that are the same in every process: no random number but from a text seed.

Any residues below their primes are a valid ciphertext, so none of these needs SEAL to be made.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from secagg.ckks import Profile, PublicKey, SecretKey, profile
from secagg.ckks.tenseal_form import write_tenseal_vector
from secagg.ckks.wire import (
    ReleasedScalar,
    SealedCiphertext,
    aggregate_header,
    pack_aggregate,
    pack_scalar,
    pack_sealed,
    sealed_header,
)
from secagg.custody.descriptor import Descriptor
from secagg.custody.trust import Peer
from secagg.plan import Protection, RoundPlan, Significance
from secagg.scales import Scales
from secagg.selection import Layout, derive_mask
from secagg.selection.mask import entries_to_hide
from secagg.server.work import RoundJob
from secagg.update import Manifest, TensorSpec

FEDERATION_ID = bytes(range(16))
KEY_ID = bytes(range(16, 32))
ROUND = 7
MANIFEST = Manifest(
    tensors=(TensorSpec(name="first.weight", shape=(50, 100)), TensorSpec(name="last.weight", shape=(10, 50)))
)
PROTECTIONS = {
    "full": Protection.full(),
    "layers": Protection.selective(significance=Significance.LAYERS, layers=("last.weight",)),
    "plain": Protection.plain(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A key pair from a seed."""

    signing_key: Ed25519PrivateKey


DEALER = Signing(signing_key=Ed25519PrivateKey.from_private_bytes(sha256(b"dealer").digest()))
CLIENT = Signing(signing_key=Ed25519PrivateKey.from_private_bytes(sha256(b"client").digest()))
PEER = Peer(
    name="hospital-1",
    fingerprint=sha256(b"certificate").hexdigest(),
    signing_public_key=CLIENT.signing_key.public_key(),
    hpke_public_key=X25519PrivateKey.from_private_bytes(sha256(b"hpke").digest()).public_key(),
    not_valid_after=datetime(2100, 1, 1, tzinfo=UTC),
)


class Source:
    """Numbers and bytes from a seed."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        return self._random.randbytes(size)

    def residues(self, primes: tuple[int, ...], degree: int) -> NDArray[np.uint64]:
        """Uniform residues [primes, degree]."""
        words = np.frombuffer(self.take(8 * len(primes) * degree), dtype="<u8").reshape(len(primes), degree)
        return (words % np.array(primes, dtype=np.uint64)[:, None]).astype(np.uint64)

    def floats(self, count: int) -> NDArray[np.float32]:
        """Values within ± 1."""
        integers = np.frombuffer(self.take(2 * count), dtype="<i2")
        return (integers / 2.0**15).astype(np.float32)


def plan_of(name: str, protection: str, *, statistics: bool = False) -> RoundPlan:
    """A round's plan."""
    layout, used = _layout(protection, statistics), profile(name)
    unit = 100 if used.quantised else 0
    return RoundPlan(
        round=ROUND,
        protection=PROTECTIONS[protection],
        mask_sha256=b"",
        profile=name,
        key_id=KEY_ID,
        manifest=MANIFEST,
        rule="mean",
        statistics_blocks=layout.statistics_blocks,
        base_round=ROUND - 1,
        max_sample_count=1000,
        payload_bytes=layout.payload_bytes(used),
        count_unit=unit,
        divisor=512 if statistics else 0,
        earlier_round=ROUND - 2 if statistics else 0,
    )


def job_of(name: str, protection: str) -> RoundJob:
    """The same for a worker."""
    return RoundJob(plan=plan_of(name, protection), federation_id=FEDERATION_ID, mask_path=None)


def layout_of(plan: RoundPlan) -> Layout:
    """The order in which a plan's entries travel."""
    mask = derive_mask(plan.protection, plan.manifest, FEDERATION_ID, plan.round)
    return Layout(plan.manifest, mask, plan.statistics_blocks)


def _layout(protection: str, statistics: bool) -> Layout:
    mask = derive_mask(PROTECTIONS[protection], MANIFEST, FEDERATION_ID, ROUND)
    return Layout(MANIFEST, mask, (("last.weight",),) if statistics else ())


def secret_key(used: Profile) -> SecretKey:
    """A ternary key."""
    digits = np.frombuffer(Source(f"secret {used.name}").take(used.poly_degree), dtype=np.uint8) % 3
    return SecretKey(used, (digits.astype(np.int8) - 1))


def public_key(used: Profile) -> PublicKey:
    """Uniform residues, which is what a public key looks like."""
    source = Source(f"public {used.name}")
    return PublicKey(used, np.stack([source.residues(used.key_primes, used.poly_degree) for _ in range(2)]))


def sealed_vector(used: Profile, values: int, source: Source) -> bytes:
    """What looks like a sealed vector; nothing for no values."""
    if not values:
        return b""
    pieces = [sealed_header(used)]
    for _ in range(used.ciphertext_count(values)):
        polynomial = source.residues(used.primes, used.poly_degree)
        pieces.append(pack_sealed(SealedCiphertext(polynomial=polynomial, seed=source.take(64)), used))
    return b"".join(pieces)


def aggregate_vector(used: Profile, values: int, total: int, source: Source) -> bytes:
    """What looks like an aggregate vector; nothing for no values."""
    if not values:
        return b""
    pieces = [aggregate_header(used, total)]
    for _ in range(used.ciphertext_count(values)):
        both = [source.residues(used.primes, used.poly_degree) for _ in range(2)]
        pieces.append(pack_aggregate(np.stack(both), used))
    return b"".join(pieces)


def payload_of(plan: RoundPlan, seed: str) -> bytes:
    """An update's payload."""
    layout, used, source = layout_of(plan), profile(plan.profile), Source(seed)
    sealed = [sealed_vector(used, count, source) for count in layout.hidden_counts]
    visible = [source.floats(count).astype("<f4").tobytes() for count in layout.visible_counts]
    return b"".join((*sealed, *visible))


def scalar_of(kind: int, seed: str) -> bytes:
    """A released scalar of one or two polynomials."""
    used, source = profile("robust"), Source(seed)
    polynomials = source.residues(used.primes * kind, used.poly_degree)
    constant = int(source.residues(used.primes, 1)[0, 0])
    return pack_scalar(ReleasedScalar(weight_total=3, constant=constant, polynomials=polynomials), used)


def scales_of(plan: RoundPlan) -> Scales | None:
    """What a quantising plan's values are sealed in."""
    return Scales(exponents=(0, -3)) if profile(plan.profile).quantised else None


def hidden(seed: str, size: int, ratio: float) -> NDArray[np.bool_]:
    """Which entries a proposed mask hides: exactly as many as the ratio asks for."""
    chosen = np.zeros(size, dtype=np.bool_)
    order = np.argsort(np.frombuffer(Source(seed).take(8 * size), dtype="<u8"))
    chosen[order[: entries_to_hide(size, ratio)]] = True
    return chosen


def descriptor_of(name: str) -> Descriptor:
    """What the dealer promises."""
    return Descriptor(
        federation_id=FEDERATION_ID,
        name="hospitals",
        sequence=2,
        profile=name,
        key_id=KEY_ID,
        manifest_sha256=MANIFEST.digest,
        initial_model_sha256=sha256(b"model").digest(),
        protection=PROTECTIONS["layers"],
        rule="mean",
        min_clients=3,
        max_sample_count=1000,
    )


def tenseal_vectors(values: int) -> tuple[bytes, ...]:
    """A TenSEAL vector of several ciphertexts: not compressed, and with zlib and zstd streams."""
    used = profile("nvflare")
    plain = write_tenseal_vector(aggregate_vector(used, values, 1, Source("tenseal")), values, used)
    return plain, _compressed(plain, 1), _compressed(plain, 2)


def _compressed(message: bytes, compression: int) -> bytes:
    """The message with its streams compressed as SEAL would."""
    head, at = message[: 2 + message[1]], 2 + message[1]
    pieces = [head]
    while message[at] == 0x12:
        length, at = _varint_at(message, at + 1)
        header, body = message[at : at + 8], message[at + 16 : at + length]
        packed = zlib.compress(body, 1) if compression == 1 else zstandard.ZstdCompressor(1).compress(body)
        total = 16 + len(packed)
        stream = header[:5] + bytes((compression,)) + header[6:8] + struct.pack("<Q", total) + packed
        pieces.append(b"\x12" + _varint(total) + stream)
        at += length
    return b"".join((*pieces, message[at:]))


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] >= 128:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes((*digits, value))


def write(path: Path, data: bytes) -> Path:
    """The file that a spool or a download would have."""
    path.write_bytes(data)
    return path
