"""The sealed update on disk, kept until its round is over, so that a killed client goes on with it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from secagg.client.feedback import ErrorFeedback
from secagg.errors import Code, ConfigError, UpdateError
from secagg.selection.mask import Mask

ENTRY_VERSION = 1
KEY_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sealed update.

    Args:
        round: the round it was sealed for.
        plan: the serialised ``secagg.v1.RoundPlan`` it was sealed under.
        header: the canonical envelope header.
        signature: Ed25519 over it, 64 bytes.
        idempotency_key: 16 random bytes, the same for every attempt to upload this payload.
        size: of the payload, in bytes.
        chunk_digests: SHA-256 of each chunk of the plan's size.
        seal_s: seconds the sealing took.
        update_id: 16 bytes once the server has accepted the update, empty before.
    """

    round: int
    plan: bytes
    header: bytes
    signature: bytes
    idempotency_key: bytes
    size: int
    chunk_digests: tuple[bytes, ...]
    seal_s: float
    update_id: bytes = b""

    @property
    def accepted(self) -> bool:
        """True once the server has counted it; the payload is not kept any longer then."""
        return bool(self.update_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPayload:
    """A payload that is whole on disk, before its header is signed.

    Args:
        size: in bytes.
        sha256: over all of it.
        chunk_digests: SHA-256 of each chunk.
    """

    size: int
    sha256: bytes
    chunk_digests: tuple[bytes, ...]


class StateFolder:
    """What a client keeps on disk: its outbox, and downloads that are under way. One process at a time.

    Args:
        path: made if it is missing, readable by its owner only.

    Raises:
        ConfigError: CONFIG_INVALID if another process works in it, or it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.downloads = path / "downloads"
        self._outbox = path / "outbox"
        self._required = path / "required-mask"
        self.feedback = ErrorFeedback(path)
        """What rounding has left over of earlier updates, under a quantising profile."""
        try:
            self._outbox.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                Code.CONFIG_INVALID, f"state folder {path} can't be used: {error.strerror}; give another"
            ) from None
        try:
            # The kernel drops the lock with the process, also after SIGKILL.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"state folder {path} is in use by another client process; give each its own (state=…)",
            ) from None

    @property
    def payload_path(self) -> Path:
        """Where a sealed payload lies."""
        return self._outbox / "payload"

    def open_payload(self) -> BinaryIO:
        """The sealed payload, from its beginning."""
        return self.payload_path.open("rb")

    def write_payload(self, pieces: Iterable[bytes], chunk_bytes: int) -> SealedPayload:
        """Write a payload piece by piece; only one piece is in memory at a time.

        Args:
            chunk_bytes: size of the chunks it will travel in; the last may be shorter.

        The payload counts as sealed only after ``commit``; a crash before leaves nothing to resume.
        """
        self.discard()
        digests = Digests(chunk_bytes)
        descriptor = os.open(self.payload_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
                digests.update(piece)
            file.flush()
            os.fsync(file.fileno())
        return digests.sealed()

    def commit(self, entry: Entry) -> Entry:
        """Make a written payload the pending update; survives a crash from here on."""
        self._write(entry)
        return entry

    def mark_accepted(self, entry: Entry, update_id: bytes) -> Entry:
        """Note the receipt and let the payload go.

        Raises:
            UpdateError: ENVELOPE_MALFORMED for an id that isn't 16 bytes.
        """
        if len(update_id) != 16:
            raise UpdateError(
                Code.ENVELOPE_MALFORMED, f"the receipt's update id has {len(update_id)} bytes, not 16"
            )
        accepted = replace(entry, update_id=update_id)
        self._write(accepted)
        self.payload_path.unlink(missing_ok=True)
        return accepted

    def pending(self) -> Entry | None:
        """The update an earlier process left, or None; what can't be gone on with is removed."""
        try:
            entry = _entry_from_json((self._outbox / "update.json").read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            # A version this build doesn't know, or a damaged disk: the round is trained again.
            self.discard()
            return None
        whole = self.payload_path.is_file() and self.payload_path.stat().st_size == entry.size
        if not entry.accepted and not whole:
            self.discard()
            return None
        return entry

    def keep_required_mask(self, round: int, mask: Mask) -> None:
        """Note what the mask of the round after ``round`` must hide; one note is kept."""
        self._replace(self._required, struct.pack("<Q", round) + mask.to_bytes())

    def required_mask(self, round: int) -> Mask | None:
        """The note made after this round; None if there is none, or only another round's."""
        try:
            data = self._required.read_bytes()
            return Mask.from_bytes(data[8:]) if data[:8] == struct.pack("<Q", round) else None
        except (FileNotFoundError, UpdateError):
            return None

    def discard(self) -> None:
        """Empty the outbox and the downloads."""
        # The entry goes first: a payload without an entry is nothing, an entry without one a lie.
        (self._outbox / "update.json").unlink(missing_ok=True)
        self.payload_path.unlink(missing_ok=True)
        shutil.rmtree(self.downloads, ignore_errors=True)

    def close(self) -> None:
        """Let another process in; safe to repeat."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self, entry: Entry) -> None:
        self._replace(self._outbox / "update.json", _entry_to_json(entry))

    def _replace(self, path: Path, data: bytes) -> None:
        """Write a file anew; after a crash it is the old one or the new one."""
        temporary = path.with_name(f"{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Digests:
    """SHA-256 of a stream as a whole and of each chunk of it."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._size = 0
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._done: list[bytes] = []

    def update(self, piece: bytes) -> None:
        self._whole.update(piece)
        view = memoryview(piece)
        while view:
            taken = view[: self._chunk_bytes - self._size % self._chunk_bytes]
            self._chunk.update(taken)
            self._size += len(taken)
            view = view[len(taken) :]
            if self._size % self._chunk_bytes == 0:
                self._done.append(self._chunk.digest())
                self._chunk = hashlib.sha256()

    def sealed(self) -> SealedPayload:
        """What is known of the stream at its end."""
        rest = [self._chunk.digest()] if self._size % self._chunk_bytes else []
        return SealedPayload(size=self._size, sha256=self._whole.digest(), chunk_digests=(*self._done, *rest))


def new_idempotency_key() -> bytes:
    """16 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


_BYTE_FIELDS = ("plan", "header", "signature", "idempotency_key", "update_id")


def _entry_to_json(entry: Entry) -> bytes:
    fields: dict[str, Any] = {name: getattr(entry, name).hex() for name in _BYTE_FIELDS}
    fields["chunk_digests"] = [digest.hex() for digest in entry.chunk_digests]
    fields |= {"version": ENTRY_VERSION, "round": entry.round, "size": entry.size, "seal_s": entry.seal_s}
    return json.dumps(fields, sort_keys=True).encode()


def _entry_from_json(data: bytes) -> Entry:
    fields = json.loads(data)
    if fields["version"] != ENTRY_VERSION:
        raise ValueError(f"outbox version {fields['version']}")
    return Entry(
        round=int(fields["round"]),
        size=int(fields["size"]),
        chunk_digests=tuple(bytes.fromhex(digest) for digest in fields["chunk_digests"]),
        seal_s=float(fields["seal_s"]),
        **{name: bytes.fromhex(fields[name]) for name in _BYTE_FIELDS},
    )
