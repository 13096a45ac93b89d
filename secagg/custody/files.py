"""Files of keys and certificates: private ones for the owner only, all of them whole or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg.errors import Code, CustodyError

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
PUBLIC_FILE_MODE = 0o644


def write_file(path: Path, data: bytes, *, private: bool) -> None:
    """Writes a file so that a reader sees the old content or the new, whatever happens in between.

    Args:
        path: where; its folder must exist.
        data: the content.
        private: readable by its owner only (mode 0600), otherwise by everyone (0644).

    Raises:
        OSError: if the folder is missing or closed, or the disk is full; nothing is left behind then.
    """
    # mkstemp creates the file as 0600, so a secret is at no time readable by others.
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        # Nobody asked for the temporary file: name the one that was asked for.
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), PRIVATE_FILE_MODE if private else PUBLIC_FILE_MODE)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """The content of a private file.

    Raises:
        CustodyError: IDENTITY_INVALID if the file is missing, or readable or writable by others.
    """
    data = read_public(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise CustodyError(
            Code.IDENTITY_INVALID,
            f"private key file {path} has mode {mode:04o}, so others may read it; run: chmod 600 {path}",
        )
    return data


def read_public(path: Path) -> bytes:
    """The content of a certificate or public key file.

    Raises:
        CustodyError: IDENTITY_INVALID if the file can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CustodyError(Code.IDENTITY_INVALID, f"can't read {path}: {error.strerror}") from None


def make_private_folder(path: Path) -> None:
    """Makes a folder only its owner may enter (0700), with its parents; one that exists is narrowed."""
    path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER_MODE)
    path.chmod(PRIVATE_FOLDER_MODE)


@contextmanager
def new_folder(path: Path, *, what: str) -> Iterator[Path]:
    """A private folder that appears under its name only when the block has filled it without error.

    Args:
        path: where the folder is to appear; nothing, or an empty folder, may be there.
        what: what it will hold, for the message.

    Raises:
        CustodyError: IDENTITY_INVALID if something is there already; it is left as it is.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise CustodyError(
            Code.IDENTITY_INVALID, f"{path} exists already; {what} never replaces one: choose another place"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process: a second one that changes the same federation waits.

    Raises:
        CustodyError: IDENTITY_INVALID if the folder can't be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise CustodyError(Code.IDENTITY_INVALID, f"can't open {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
