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
import threading
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from secagg.errors import Code, ServerError

STREAM_HEADER = struct.Struct("<HBBBBHQ")
STREAM_MAGIC = 0xA15E
PARMS_ID_BYTES = 32
_IS_NTT_AT = 32
_NESTED_COUNT_BYTES = 8
COMPRESSION_NONE, COMPRESSION_ZLIB, COMPRESSION_ZSTD = 0, 1, 2
PRNG_BLAKE2XB = 1
SEED_BYTES = 64


class Saveable(Protocol):
    """Any SEAL object that writes itself to a path."""

    def save(self, path: str, /) -> None:
        """Write the object's stream."""
        ...


class _Scratch(threading.local):
    """One anonymous file per thread, since SEAL's bindings only know paths."""

    def __init__(self) -> None:
        self.inflater = zstandard.ZstdDecompressor()
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._descriptor = os.memfd_create("secagg-seal", os.MFD_CLOEXEC)

    @property
    def descriptor(self) -> int:
        """The open file; a forked child, which shares its parent's, gets one of its own."""
        if self._owner != os.getpid():
            self._open()
        return self._descriptor

    @property
    def path(self) -> str:
        """Its path, in this process."""
        return f"/proc/self/fd/{self.descriptor}"

    def __del__(self) -> None:
        os.close(self._descriptor)


_scratch = _Scratch()


def save_body(item: Saveable) -> tuple[bytes, bytes]:
    """Header and uncompressed body of an object's stream.

    Raises:
        ServerError: INTERNAL if this SEAL writes a form that this module does not know.
    """
    item.save(_scratch.path)
    stream = os.pread(_scratch.descriptor, os.fstat(_scratch.descriptor).st_size, 0)
    header, body = stream[: STREAM_HEADER.size], memoryview(stream)[STREAM_HEADER.size :]
    magic, size, _, _, compression, _, _ = STREAM_HEADER.unpack(header)
    if magic != STREAM_MAGIC or size != STREAM_HEADER.size:
        raise _unknown(f"header {header.hex()}")
    if compression == COMPRESSION_ZSTD:
        return header, _scratch.inflater.decompressobj().decompress(body)
    if compression == COMPRESSION_ZLIB:
        return header, zlib.decompress(body)
    if compression != COMPRESSION_NONE:
        raise _unknown(f"compression {compression}")
    return header, bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What surrounds the residues of one kind of SEAL object.

    Args:
        header: of a stream without compression that holds such an object; its version is the library's.
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
        nested = body.find(header[:4], PARMS_ID_BYTES)
        start = nested + STREAM_HEADER.size + _NESTED_COUNT_BYTES
        end = len(body) - (SEED_BYTES if seeded else 0)
        if nested < 0 or start + 8 * words > end:
            raise _unknown(f"a body of {len(body)} bytes for {words} residues")
        (count,) = struct.unpack_from("<Q", body, start - _NESTED_COUNT_BYTES)
        suffix = body[start + 8 * words : end]
        if not words <= count <= words + 1 or bool(suffix) != seeded:
            raise _unknown(f"{count} words and a tail of {len(suffix)} bytes for {words} residues")
        if seeded and suffix[-1] != PRNG_BLAKE2XB:
            raise _unknown(f"random generator {suffix[-1]}; seeds here are for Blake2xb")
        magic, size, major, minor, _, reserved, _ = STREAM_HEADER.unpack(header)
        total = STREAM_HEADER.size + len(body)
        plain = STREAM_HEADER.pack(magic, size, major, minor, COMPRESSION_NONE, reserved, total)
        return cls(header=plain, prefix=body[:start], suffix=suffix, shape=shape, seeded=seeded)

    def load(
        self,
        item: Any,
        seal_context: Any,
        residues: NDArray[np.uint64],
        *,
        seed: bytes = b"",
        ntt: bool | None = None,
    ) -> Any:
        """Fill an empty SEAL object with residues, each already known to be below its prime.

        Args:
            item: an empty ``Ciphertext``, ``Plaintext``, ``SecretKey`` or ``PublicKey``.
            seal_context: the ``SEALContext``.
            residues: uint64 of this form's shape.
            seed: 64 bytes for a seeded form, otherwise empty.
            ntt: whether the residues are in NTT order (ciphertexts only); None: as in the sample.
        """
        prefix = self.prefix
        if ntt is not None:
            prefix = prefix[:_IS_NTT_AT] + bytes((ntt,)) + prefix[_IS_NTT_AT + 1 :]
        if residues.shape != self.shape or len(seed) != (SEED_BYTES if self.seeded else 0):
            raise ValueError(f"residues of shape {residues.shape} do not fit a form of shape {self.shape}")
        words = np.ascontiguousarray(residues, dtype="<u8").data
        # What lies behind the stream's own end, of a longer one before it, is never read.
        os.pwritev(_scratch.descriptor, [self.header, prefix, words, self.suffix, seed], 0)
        item.load(seal_context, _scratch.path)
        return item

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
