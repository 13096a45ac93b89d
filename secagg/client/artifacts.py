"""What a client downloads, and what opens it under the federation's key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg._proto import aggregator_pb2 as pb
from secagg.client.federation import Federation
from secagg.client.outbox import StateFolder
from secagg.client.transfer import download
from secagg.custody.custody import Custody, Decryptor
from secagg.custody.shared import open_custody
from secagg.errors import Code, UpdateError
from secagg.selection.layout import Layout

MAX_GRANT_BYTES = 1024 * 1024


class Artifacts:
    """Downloads for one client, and holds the opened key, which stays in this process's memory.

    Args:
        federation: says what the federation is, and holds the connection.
        folder: where downloads go.
        workers: processes that seal and open long vectors; 1: this one; 0: one per core.
    """

    def __init__(self, federation: Federation, folder: StateFolder, *, workers: int) -> None:
        self._federation = federation
        self._folder = folder
        self._workers = workers
        self._custody: Custody | None = None
        self.open_s = 0.0
        """Seconds spent opening so far, transfers not counted."""

    def close(self) -> None:
        """End the processes that seal and open; safe to repeat."""
        if self._custody is not None:
            self._custody.close()

    def download(self, kind: pb.ArtifactKind.ValueType, round: int, max_bytes: int) -> Path:
        """Download an artifact; the file it is in."""
        return download(
            self._federation.connection,
            kind=kind,
            round=round,
            folder=self._folder.downloads,
            max_bytes=max_bytes,
        )

    def fetch(self, kind: pb.ArtifactKind.ValueType, round: int, max_bytes: int) -> bytes:
        """An artifact that fits in memory; its file is not kept."""
        path = self.download(kind, round, max_bytes)
        data = path.read_bytes()
        path.unlink()
        return data

    def custody_of(self, key_id: bytes) -> Custody:
        """This client's hold on the federation's key, fetched and opened once.

        Raises:
            CustodyError: GRANT_INVALID if there is no grant for this client, or it isn't the dealer's.
            UpdateError: KEY_MISMATCH if another key was dealt.
        """
        if self._custody is None or self._custody.key_id != key_id:
            grant = self.fetch(pb.ARTIFACT_KIND_KEY_GRANT, 0, MAX_GRANT_BYTES)
            self._custody = open_custody(
                self._federation.identity, self._federation.descriptor, grant, workers=self._workers
            )
        if self._custody.key_id != key_id:
            raise UpdateError(
                Code.KEY_MISMATCH,
                f"key {key_id.hex()} is asked for; this client was dealt {self._custody.key_id.hex()}",
            )
        return self._custody

    def opener(self, key_id: bytes, layout: Layout) -> Decryptor | None:
        """What opens, if the layout hides anything. Raises as ``custody_of``."""
        return self.custody_of(key_id).opener() if layout.mask.hidden_count else None

    @contextmanager
    def timed(self, what: str, round: int) -> Iterator[None]:
        """Count what the block takes, and tell of it."""
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.open_s += spent
        self._federation.connection.on_event("opened", {"artifact": what, "round": round, "open_s": spent})
