"""Payloads and artifacts on disk: complete files under their final names, everything else apart.

    partial/UPLOAD_ID        a payload as far as it has arrived; its length is what is committed
    updates/ROUND/UPDATE_ID  an accepted update
    screening/ROUND          what a round is screened by
    statistics/ROUND         released statistics
    history/CLIENT           the sum of a client's updates, under rules that look at it
    histories/ROUND/CLIENT   the same with the updates of a round that has not ended
    aggregates/ROUND         aggregates
    masks/SHA256             masks of plans and proposals
    scratch/…                what a worker process is writing

Files move between these folders by rename after they and the folder have been synced, so a name
outside ``partial`` and ``scratch`` always stands for a whole file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path

from secagg.errors import Code, ServerError, TransferError
from secagg.server.disk import write_at

_FOLDERS = (
    "partial",
    "updates",
    "screening",
    "statistics",
    "history",
    "histories",
    "aggregates",
    "masks",
    "scratch",
)


class Spool:
    """The spool folder of one server; all methods block, none is given names from the network.

    Args:
        root: the folder; made if it is missing, readable by its owner only.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, exist_ok=True)
        for name in _FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)

    def partial(self, upload_id: str) -> Path:
        """Where an unfinished payload grows."""
        return self.root / "partial" / upload_id

    def update(self, round_number: int, update_id: bytes) -> Path:
        """Where an accepted update lies."""
        return self.root / "updates" / str(round_number) / update_id.hex()

    def statistics(self, round_number: int) -> Path:
        """Where a round's released statistics lie."""
        return self.root / "statistics" / str(round_number)

    def screening(self, round_number: int) -> Path:
        """Where the statistics lie that a round is screened by."""
        return self.root / "screening" / str(round_number)

    def history(self, client: str) -> Path:
        """Where the sum of a client's updates of ended rounds lies; ``client`` is a certificate's name."""
        return self.root / "history" / client

    def upcoming_history(self, round_number: int, client: str) -> Path:
        """Where the same lies with the client's update of a round."""
        return self.root / "histories" / str(round_number) / client

    def keep_histories(self, round_number: int) -> None:
        """Makes a round's upcoming histories the histories; can be repeated."""
        folder = self.root / "histories" / str(round_number)
        if folder.exists():
            for path in folder.iterdir():
                path.replace(self.root / "history" / path.name)

    def aggregate(self, round_number: int) -> Path:
        """Where a round's aggregate lies."""
        return self.root / "aggregates" / str(round_number)

    def mask(self, mask_sha256: bytes) -> Path:
        """Where a mask's bitmap lies."""
        return self.root / "masks" / mask_sha256.hex()

    def scratch(self) -> Path:
        """A new name for a worker process to write to; no earlier process knows it."""
        return self.root / "scratch" / secrets.token_hex(16)

    def begin(self, upload_id: str) -> None:
        """Makes the empty file of a new upload."""
        self.partial(upload_id).touch(mode=0o600, exist_ok=True)

    def committed(self, upload_id: str, payload_bytes: int, chunk_bytes: int) -> int:
        """How much of a payload survives a restart: whole chunks; what follows them is cut off."""
        path = self.partial(upload_id)
        if not path.exists():
            self.begin(upload_id)
        size = path.stat().st_size
        whole = (
            payload_bytes if size == payload_bytes else min(size, payload_bytes) // chunk_bytes * chunk_bytes
        )
        if size != whole:
            os.truncate(path, whole)
        return whole

    def write_chunk(self, upload_id: str, offset: int, data: bytes, sha256: bytes) -> None:
        """Checks a chunk's digest and writes it; what survives a crash is seen from the file's length.

        Raises:
            TransferError: CHUNK_CORRUPT, or UPLOAD_UNKNOWN if the upload was dropped meanwhile; the file
                is as it was.
        """
        if hashlib.sha256(data).digest() != sha256:
            raise TransferError(
                Code.CHUNK_CORRUPT,
                f"the chunk at offset {offset} does not have the SHA-256 it came with",
                upload=upload_id,
                committed_bytes=offset,
            )
        try:
            write_at(self.partial(upload_id), data, offset)
        except FileNotFoundError:
            raise TransferError(
                Code.UPLOAD_UNKNOWN, f"upload {upload_id} was replaced or dropped", upload=upload_id
            ) from None

    def publish(self, source: Path, target: Path) -> None:
        """Syncs a complete file and gives it its final name."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(source)
        source.replace(target)
        _sync(target.parent)

    def take_back(self, path: Path, upload_id: str) -> None:
        """Makes a file that was given its final name, but never accepted, an unfinished payload again."""
        path.replace(self.partial(upload_id))

    def drop(self, path: Path) -> None:
        """Removes a file if it is there."""
        path.unlink(missing_ok=True)

    def reconcile(
        self, unfinished: Collection[str], current_round: int, accepted: Collection[bytes]
    ) -> list[Path]:
        """Brings the spool in line with the journal after a start.

        Args:
            unfinished: ids of uploads in progress; other partial files are removed.
            current_round: the round that has not ended; updates of other rounds are removed.
            accepted: ids of its accepted updates.

        Returns:
            Files of the current round's folder that no acceptance explains: a crash came between their
            rename and the commit. The caller takes them back or drops them.
        """
        for path in (self.root / "scratch").iterdir():
            path.unlink()
        for path in (self.root / "partial").iterdir():
            if path.name not in unfinished:
                path.unlink()
        names = {update_id.hex() for update_id in accepted}
        strays: list[Path] = []
        for folder in (self.root / "updates").iterdir():
            if folder.name != str(current_round):
                shutil.rmtree(folder)
            else:
                strays = [path for path in folder.iterdir() if path.name not in names]
        return strays

    def clean(
        self, ended_round: int, keep_aggregates: Collection[int], keep_masks: Collection[bytes]
    ) -> None:
        """Deletes what an ended round leaves behind, but for these aggregates and masks."""
        for path in (self.root / "scratch").iterdir():
            path.unlink(missing_ok=True)
        for name in ("updates", "histories"):
            folder = self.root / name / str(ended_round)
            if folder.exists():
                shutil.rmtree(folder)
        self.drop(self.statistics(ended_round))
        self.drop(self.screening(ended_round))
        kept = {str(number) for number in keep_aggregates}
        for path in (self.root / "aggregates").iterdir():
            if path.name not in kept:
                path.unlink()
        digests = {digest.hex() for digest in keep_masks}
        for path in (self.root / "masks").iterdir():
            if path.name not in digests:
                path.unlink()


def digest_of(path: Path) -> bytes:
    """SHA-256 of a file, 32 bytes.

    Raises:
        ServerError: SPOOL_CORRUPT if it is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        raise ServerError(Code.SPOOL_CORRUPT, f"{path} is missing") from None


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
