"""Writing large payloads past the page cache.

An upload is written once and read once, by another process, when it is complete. Through the page cache
every byte costs the allocation of a page, which is dear on a virtual machine whose host takes free memory
back, and leaves a backlog of dirty pages that every sync of the journal then waits for. Written directly
the bytes are on the disk when the call returns.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from pathlib import Path

BLOCK_BYTES = 4096
"""Offset, length and memory address of a direct write are multiples of it; no common disk asks for more."""

_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_aligned = threading.local()


def write_at(path: Path, data: bytes, offset: int) -> None:
    """Writes bytes into an existing file, past the page cache where file system and alignment allow it.

    Raises:
        FileNotFoundError: the file is not there; none is made.
        OSError: as from ``os.pwrite``; some of the bytes may have been written.
    """
    direct = len(data) - len(data) % BLOCK_BYTES if offset % BLOCK_BYTES == 0 else 0
    if direct and not _write_directly(path, data, offset, direct):
        direct = 0
    if direct < len(data):
        _write_all(path, memoryview(data)[direct:], offset + direct, flags=0)


def _write_directly(path: Path, data: bytes, offset: int, length: int) -> bool:
    """Writes the first ``length`` bytes directly; False if this file system has no direct writes."""
    buffer = _buffer(length)
    buffer[:length] = data[:length] if length < len(data) else data
    with memoryview(buffer) as whole, whole[:length] as view:
        try:
            _write_all(path, view, offset, flags=getattr(os, "O_DIRECT", 0))
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
    return True


def _buffer(length: int) -> mmap.mmap:
    """This thread's page-aligned memory of at least this length."""
    known: mmap.mmap | None = getattr(_aligned, "buffer", None)
    if known is None or len(known) < length:
        known = mmap.mmap(-1, length)
        _aligned.buffer = known
    return known


def _write_all(path: Path, view: memoryview, offset: int, *, flags: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags)
    try:
        while view:
            written = os.pwrite(file, view, offset)
            view, offset = view[written:], offset + written
    finally:
        os.close(file)
