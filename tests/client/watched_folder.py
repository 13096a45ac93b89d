"""Waiting for what happens to files in a folder, without polling: inotify(7) through libc."""

import ctypes
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

# <sys/inotify.h>
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100
_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(condition: Callable[[], bool], folder: Path, *, timeout_s: float) -> None:
    """Look at the condition now and whenever a file in the folder appears or grows, until it holds."""
    descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC))
    try:
        # Watched before the first look: nothing can happen between the two unnoticed.
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        _checked(_libc.inotify_add_watch(descriptor, os.fsencode(folder), mask))
        until = time.monotonic() + timeout_s
        while not condition():
            ready, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            assert ready, {path.name: path.stat().st_size for path in folder.iterdir()}
            os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    return result
