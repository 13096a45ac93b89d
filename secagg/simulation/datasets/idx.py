"""The IDX format of the MNIST family, read without trusting what a header announces.

Layout (LeCun, Cortes, Burges, "The MNIST database"): two zero bytes, a type code, the number of
dimensions, one big-endian u32 per dimension, then the elements in C order, big-endian.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 4
MAX_BYTES = 2 * 2**30
"""Limit on one file's elements: 2 GiB, ten times what the largest of the family needs."""
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxHeader:
    """Element type (a numpy dtype string) and shape of an IDX file."""

    dtype: str
    shape: tuple[int, ...]


def read_idx(path: Path) -> NDArray[np.generic]:
    """The array in an IDX file, gzip-compressed or not, in the machine's byte order.

    Raises:
        ConfigError: DATA_MISSING if it can't be opened; DATA_MALFORMED for a wrong magic, type or
            number of dimensions, an empty or oversized shape, and data that end early or go on.
    """
    with _open(path) as file:
        header = _header(path, file)
        expected = prod(header.shape) * np.dtype(header.dtype).itemsize
        content = bytearray()
        # In pieces: a header that promises more than the file holds costs no memory.
        while len(content) <= expected:
            piece = _read(path, file, min(_PIECE, expected + 1 - len(content)))
            if not piece:
                break
            content += piece
    if len(content) < expected:
        raise _malformed(path, f"{len(content)} of the {expected} bytes its header announces are there")
    if len(content) > expected:
        raise _malformed(path, f"bytes follow the {expected} its header announces")
    array = np.frombuffer(content, dtype=header.dtype).reshape(header.shape)
    return array.astype(array.dtype.newbyteorder("="))


def read_idx_header(path: Path) -> IdxHeader:
    """Only the header; same errors as ``read_idx``."""
    with _open(path) as file:
        return _header(path, file)


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(Code.DATA_MISSING, f"{path} can't be read: {error.strerror}") from None
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not compressed:
        return file
    file.close()
    return gzip.open(path, "rb")


def _header(path: Path, file: IO[bytes] | gzip.GzipFile) -> IdxHeader:
    magic = _read(path, file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES:
        raise _malformed(path, f"it begins with {magic.hex() or 'nothing'}, which is no IDX magic number")
    if not 1 <= magic[3] <= MAX_DIMENSIONS:
        raise _malformed(path, f"it has {magic[3]} dimensions; 1 to {MAX_DIMENSIONS} are read")
    sizes = _read(path, file, 4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise _malformed(path, "it ends within its header")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    dtype = TYPES[magic[2]]
    if 0 in shape or prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise _malformed(path, f"shape {shape} is empty or exceeds {MAX_BYTES} bytes")
    return IdxHeader(dtype=dtype, shape=shape)


def _read(path: Path, file: IO[bytes] | gzip.GzipFile, count: int) -> bytes:
    try:
        return file.read(count)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _malformed(path, f"its gzip stream is broken: {error}") from None
    except OSError as error:
        raise ConfigError(Code.DATA_MISSING, f"{path} can't be read: {error.strerror}") from None


def _malformed(path: Path, complaint: str) -> ConfigError:
    return ConfigError(Code.DATA_MALFORMED, f"IDX file {path}: {complaint}")
