"""A model as one ``.npz`` file of float32 tensors, read without trusting a byte of it."""

from __future__ import annotations

import io
import os
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError
from secagg.regular_file import open_regular
from secagg.update import MAX_TENSORS, Manifest, Tensors

DEFAULT_MAX_BYTES = 8 * 2**30
HEADER_BYTES = 10_000
"""What numpy itself believes of a header, and more than any ``.npy`` header of ≤ 8 dimensions needs."""


def model_to_bytes(tensors: Tensors) -> bytes:
    """The ``.npz`` form of named float32 tensors, uncompressed, in their order.

    Raises:
        UpdateError: for tensors that make no manifest, or hold anything but finite float32.
    """
    Manifest.of(tensors).flatten(tensors)
    out = io.BytesIO()
    # numpy.savez takes names as keyword arguments, so a tensor called "file" would not survive it.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, tensor in tensors.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(tensor), version=(1, 0), allow_pickle=False)
    return out.getvalue()


UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    # Both from numpy's own reader of a damaged header.
    tokenize.TokenError,
    SyntaxError,
    MemoryError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
"""What the zip and array readers of the standard library and numpy raise for damaged files."""


def save_model(path: Path, tensors: Tensors) -> None:
    """Write a model file; a reader sees the old file or the whole new one.

    Raises:
        UpdateError: as ``model_to_bytes``; nothing is written then.
    """
    data = model_to_bytes(tensors)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_model(path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> dict[str, NDArray[np.float32]]:
    """Named float32 tensors from a model file, in the file's order.

    Raises:
        ConfigError: DATA_MISSING, or DATA_MALFORMED as ``read_model``; either names the file.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(
            Code.DATA_MISSING, f"model file {path} can't be read: {error.strerror}; give an .npz of float32"
        ) from None
    try:
        return read_model(data, max_bytes=max_bytes)
    except ConfigError as error:
        raise ConfigError(error.code, f"{path}: {error.message}") from None


def read_model(data: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> dict[str, NDArray[np.float32]]:
    """Named float32 tensors from the bytes of an ``.npz``, in the archive's order.

    Args:
        data: the archive; it may come from the network, nothing in it is unpickled.
        max_bytes: limit on the tensors' bytes in total, held against what each header announces before
            memory for it is taken.

    Raises:
        ConfigError: DATA_MALFORMED for anything but a zip of C-ordered, finite float32 arrays in the limit.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    left = max_bytes
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if not 1 <= len(members) <= MAX_TENSORS:
                raise _malformed(f"it holds {len(members)} members; 1 to {MAX_TENSORS} are possible")
            for info in members:
                name = info.filename.removesuffix(".npy")
                if name == info.filename or name in tensors:
                    raise _malformed(f"member {info.filename[:80]!r} is no array, or appears twice")
                with archive.open(info) as member:
                    tensor = _read_array(member, name, left)
                left -= tensor.nbytes
                tensors[name] = tensor
    except UNREADABLE as error:
        raise _malformed(f"it is no readable .npz: {error}") from None
    return tensors


def _read_array(member: IO[bytes], name: str, left: int) -> NDArray[np.float32]:
    """One float32 array of at most ``left`` bytes; the header is read first and believed only within it."""
    version = npy.read_magic(member)
    if version != (1, 0):
        raise _malformed(f"tensor {name!r} has .npy version {version}; (1, 0) is read")
    shape, fortran, dtype = npy.read_array_header_1_0(member, max_header_size=HEADER_BYTES)
    if dtype != np.dtype("<f4") or fortran:
        raise _malformed(
            f"tensor {name!r} is {dtype}{' in Fortran order' if fortran else ''}; float32 is asked"
        )
    count = 1
    for size in shape:
        if size < 1:
            raise _malformed(f"tensor {name!r} has the empty shape {shape}")
        count *= size
    if 4 * count > left:
        raise _malformed(f"tensor {name!r} of shape {shape} exceeds the {left} bytes that are left")
    content = member.read(4 * count + 1)
    if len(content) != 4 * count:
        raise _malformed(f"tensor {name!r} of shape {shape} has {len(content)} bytes, not {4 * count}")
    tensor = np.frombuffer(content, dtype="<f4").reshape(shape).astype(np.float32)
    if not np.isfinite(tensor).all():
        raise _malformed(f"tensor {name!r} holds NaN or infinite values")
    return tensor


def _malformed(message: str) -> ConfigError:
    return ConfigError(Code.DATA_MALFORMED, f"model file: {message}")
