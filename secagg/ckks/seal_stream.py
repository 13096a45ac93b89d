"""Numpy residues <-> SEAL objects, through SEAL's own streams in anonymous memory.

A SEAL stream is a 16-byte header (magic 0xA15E, header size, version major and minor, compression, a reserved
byte, total size u64) and a body. The body of a vector of residues is some metadata, a nested stream (header,
u64 count, little-endian u64 residues) and, for a seeded ciphertext, the record of the seed. Which version
the library writes, and what metadata goes with an object, is learnt once per process from objects the
library itself has made (``Form.of``); residues from elsewhere are then set into that form, so no version is
fixed anywhere.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from secagg.errors import Code, ServerError

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_PARMS_ID_BYTES = 32
_IS_NTT_AT = 32
_NESTED_COUNT_BYTES = 8
_NONE, _ZLIB, _ZSTD = 0, 1, 2
PRNG_BLAKE2XB = 1
SEED_BYTES = 64


class Saveable(Protocol):
    """Any SEAL object that writes itself to a path."""

    def save(self, path: str, /) -> None:
        """Write the object's stream."""
        ...


def save_body(item: Saveable) -> tuple[bytes, bytes]:
    """Header and uncompressed body of an object's stream.

    Raises:
        ServerError: INTERNAL if this SEAL writes a form that this module does not know.
    """
    descriptor = os.memfd_create("secagg-seal")
    try:
        item.save(f"/proc/self/fd/{descriptor}")
        stream = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
    header, body = stream[: _HEADER.size], stream[_HEADER.size :]
    magic, size, _, _, compression, _, _ = _HEADER.unpack(header)
    if magic != _MAGIC or size != _HEADER.size:
        raise _unknown(f"header {header.hex()}")
    if compression == _ZSTD:
        return header, zstandard.ZstdDecompressor().decompressobj().decompress(body)
    if compression == _ZLIB:
        return header, zlib.decompress(body)
    if compression != _NONE:
        raise _unknown(f"compression {compression}")
    return header, body


def load_body(item: Any, seal_context: Any, header: bytes, *parts: bytes) -> Any:
    """Fill a SEAL object from an uncompressed body made here; ``header`` gives the version.

    Args:
        item: an empty SEAL object with ``load(context, path)``.
        seal_context: the ``SEALContext``.
        header: the header of a stream that this process's SEAL wrote.
        parts: the body, in pieces.
    """
    magic, size, major, minor, _, reserved, _ = _HEADER.unpack(header)
    total = _HEADER.size + sum(len(part) for part in parts)
    plain_header = _HEADER.pack(magic, size, major, minor, _NONE, reserved, total)
    descriptor = os.memfd_create("secagg-seal")
    try:
        os.writev(descriptor, [plain_header, *parts])
        item.load(seal_context, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What surrounds the residues of one kind of SEAL object.

    Args:
        header: a stream header, for its version.
        prefix: metadata, nested header and count, up to the first residue.
        suffix: what follows the last residue, without the seed's 64 bytes.
        shape: of the residues: (parts, primes, N) or (primes, N).
        seeded: True if 64 seed bytes end the body.
    """

    header: bytes
    prefix: bytes
    suffix: bytes
    shape: tuple[int, ...]
    seeded: bool

    @classmethod
    def of(cls, sample: Saveable, shape: tuple[int, ...], *, seeded: bool = False) -> Form:
        """The form of objects like ``sample``.

        Raises:
            ServerError: INTERNAL if the sample's stream is not as the module describes it.
        """
        header, body = save_body(sample)
        words = int(np.prod(shape))
        nested = body.find(header[:4], _PARMS_ID_BYTES)
        start = nested + _HEADER.size + _NESTED_COUNT_BYTES
        end = len(body) - (SEED_BYTES if seeded else 0)
        if nested < 0 or start + 8 * words > end:
            raise _unknown(f"a body of {len(body)} bytes for {words} residues")
        (count,) = struct.unpack_from("<Q", body, start - _NESTED_COUNT_BYTES)
        suffix = body[start + 8 * words : end]
        if not words <= count <= words + 1 or bool(suffix) != seeded:
            raise _unknown(f"{count} words and a tail of {len(suffix)} bytes for {words} residues")
        if seeded and suffix[-1] != PRNG_BLAKE2XB:
            raise _unknown(f"random generator {suffix[-1]}; seeds here are for Blake2xb")
        return cls(header=header, prefix=body[:start], suffix=suffix, shape=shape, seeded=seeded)

    def load(
        self,
        item: Any,
        seal_context: Any,
        residues: NDArray[np.uint64],
        *,
        seed: bytes = b"",
        ntt: bool = True,
    ) -> Any:
        """Fill an empty SEAL object with residues, each already known to be below its prime.

        Args:
            item: an empty ``Ciphertext``, ``Plaintext``, ``SecretKey`` or ``PublicKey``.
            seal_context: the ``SEALContext``.
            residues: uint64 of this form's shape.
            seed: 64 bytes for a seeded form, otherwise empty.
            ntt: False if the residues are coefficients (ciphertexts only).
        """
        prefix = self.prefix
        if not ntt:
            prefix = prefix[:_IS_NTT_AT] + b"\0" + prefix[_IS_NTT_AT + 1 :]
        if residues.shape != self.shape or len(seed) != (SEED_BYTES if self.seeded else 0):
            raise ValueError(f"residues of shape {residues.shape} do not fit a form of shape {self.shape}")
        words = np.ascontiguousarray(residues, dtype="<u8").tobytes()
        return load_body(item, seal_context, self.header, prefix, words, self.suffix, seed)

    def read(self, item: Saveable) -> tuple[NDArray[np.uint64], bytes]:
        """Residues (uint64 of this form's shape) and seed (empty if not seeded) of an object of this kind.

        Raises:
            ServerError: INTERNAL if the object's stream has another form.
        """
        _, body = save_body(item)
        start, words = len(self.prefix), int(np.prod(self.shape))
        tail = body[start + 8 * words :]
        if len(tail) != len(self.suffix) + (SEED_BYTES if self.seeded else 0):
            raise _unknown(f"a body of {len(body)} bytes for {words} residues")
        residues = np.frombuffer(body, dtype="<u8", count=words, offset=start).reshape(self.shape)
        return residues, tail[len(self.suffix) :]


def _unknown(what: str) -> ServerError:
    return ServerError(
        Code.INTERNAL,
        f"this TenSEAL writes SEAL streams of an unknown form ({what}); use tenseal 0.3.15 to 0.3.18",
    )
