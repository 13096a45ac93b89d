"""The roster: which certificates may take part, reread whenever its file changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NoReturn

from secagg.custody.files import write_file
from secagg.custody.trust import check_client_name
from secagg.errors import Code, CustodyError, is_shortage

ROSTER_VERSION = 1
ROSTER_FILE = "roster.json"

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Roster:
    """Name -> certificate fingerprint, from ``server/roster.json``.

    A client is enrolled while its name stands here with the fingerprint of the certificate it shows, so
    revoking one is writing the file without it: every later call sees the new content.

    Args:
        path: the file.

    Raises:
        CustodyError: IDENTITY_INVALID from every method while the file is missing or malformed; nobody
            is let in then.
        OSError: if the file can't be read because this machine is out of open files or memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, str] = {}

    @property
    def entries(self) -> dict[str, str]:
        """A copy: name -> SHA-256 of the certificate, 64 hexadecimal digits."""
        return dict(self._current())

    @property
    def names(self) -> tuple[str, ...]:
        """The enrolled clients, sorted."""
        return tuple(sorted(self._current()))

    def __len__(self) -> int:
        return len(self._current())

    def __contains__(self, name: object) -> bool:
        return name in self._current()

    def require(self, fingerprint: str, name: str) -> None:
        """Lets an enrolled client pass.

        Raises:
            CustodyError: NOT_ENROLLED if the name is not on the roster, or with another certificate.
        """
        enrolled = self._current().get(name)
        if enrolled is None:
            raise CustodyError(
                Code.NOT_ENROLLED, f"client {name!r} is not on this federation's roster", client=name
            )
        if enrolled != fingerprint:
            raise CustodyError(
                Code.NOT_ENROLLED,
                f"client {name!r} is enrolled with certificate {enrolled[:16]}…, not {fingerprint[:16]}…",
                client=name,
            )

    def _current(self) -> dict[str, str]:
        try:
            status = self._path.stat()
            # A replaced file has another inode, even within one tick of the file system's clock.
            state = (status.st_ino, status.st_mtime_ns, status.st_size)
            if state != self._seen:
                self._entries = _parse(self._path.read_bytes(), self._path)
                self._seen = state
        except OSError as error:
            if is_shortage(error):  # says nothing about who is enrolled
                raise
            _invalid(self._path, error.strerror)
        return self._entries


def write_roster(path: Path, entries: dict[str, str]) -> None:
    """Writes the file that ``Roster`` reads."""
    content = {"version": ROSTER_VERSION, "clients": dict(sorted(entries.items()))}
    write_file(path, json.dumps(content, indent=2).encode() + b"\n", private=False)


def _parse(content: bytes, path: Path) -> dict[str, str]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        _invalid(path, "it is not JSON")
    if not isinstance(document, dict) or set(document) != {"version", "clients"}:
        _invalid(path, "it must hold version and clients, and nothing else")
    if document["version"] != ROSTER_VERSION:
        _invalid(path, f"its version is unknown; this build reads {ROSTER_VERSION}")
    if not isinstance(document["clients"], dict):
        _invalid(path, "clients must map names to certificate fingerprints")
    for name, fingerprint in document["clients"].items():
        check_client_name(name)
        if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
            _invalid(path, f"the fingerprint of {name!r} is not 64 hexadecimal digits")
    return document["clients"]


def _invalid(path: Path, reason: str | None) -> NoReturn:
    raise CustodyError(Code.IDENTITY_INVALID, f"roster {path}: {reason}; nobody is let in")
