"""Artifacts that clients download: which there are, and how they are streamed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code, RoundError, TransferError
from secagg.plan import DEFAULT_CHUNK_BYTES
from secagg.server.coordinator import Coordinator
from secagg.server.spool import digest_of

_MAX_DIGESTS = 256
_MAX_CHUNKS = 8

_FileKey = tuple[Path, int, int, int]
"""Path, inode, time of change and size: another file under the same name is another key."""


class Downloads:
    """Finds and streams artifacts."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._digests: dict[_FileKey, bytes] = {}
        self._chunks: OrderedDict[tuple[_FileKey, int], asyncio.Task[pb.DownloadResponse]] = OrderedDict()

    def find(self, client: str, kind: int, number: int) -> Path:
        """The file of an artifact.

        Raises:
            TransferError: ARTIFACT_UNKNOWN if there is none, not yet, or no longer.
        """
        path = self._path(client, kind, number)
        if path is None or not path.is_file():
            name = next((text for text, value in pb.ArtifactKind.items() if value == kind), str(kind))
            raise TransferError(
                Code.ARTIFACT_UNKNOWN, f"there is no {name} for round {number}, or no longer", round=number
            )
        return path

    def _path(self, client: str, kind: int, number: int) -> Path | None:
        deployment, spool = self._coordinator.deployment, self._coordinator.spool
        if kind == pb.ARTIFACT_KIND_INITIAL_MODEL:
            return deployment.initial_model_path
        if kind == pb.ARTIFACT_KIND_KEY_GRANT:
            return deployment.grant_path(client)
        try:
            round_, plan = self._coordinator.round(number), self._coordinator.plan(number)
        except RoundError:
            return None
        if kind == pb.ARTIFACT_KIND_MASK and plan.mask_sha256:
            return spool.mask(plan.mask_sha256)
        # A file that is there but not in the journal yet does not exist for anyone.
        if kind == pb.ARTIFACT_KIND_SCREENING and round_.screening_sha256:
            return spool.screening(number)
        if kind == pb.ARTIFACT_KIND_STATISTICS and round_.statistics_sha256:
            return spool.statistics(number)
        if kind == pb.ARTIFACT_KIND_AGGREGATE and round_.aggregate_sha256:
            return spool.aggregate(number)
        return None

    async def stream(self, client: str, path: Path, offset: int) -> AsyncGenerator[pb.DownloadResponse, None]:
        """An artifact's chunks from an offset on; each is read when the one before it has been sent.

        So a client that asks and does not read holds one chunk.

        Raises:
            TransferError: OFFSET_MISMATCH if the offset lies behind the end.
        """
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        reading: list[asyncio.Task[pb.DownloadResponse]] = []
        try:
            status = os.fstat(file)
            if offset > status.st_size:
                raise TransferError(
                    Code.OFFSET_MISMATCH,
                    f"offset {offset} lies behind the {status.st_size} bytes",
                    total_bytes=status.st_size,
                )
            key = (path, status.st_ino, status.st_mtime_ns, status.st_size)
            digest = await self._digest(key)

            last = False
            while not last:
                read = partial(_read, file, offset, status.st_size, digest)
                chunk = await self._chunk(key, offset, read, reading)
                size = min(DEFAULT_CHUNK_BYTES, status.st_size - offset)
                offset += size
                last = offset == status.st_size
                self._coordinator.observer.sent(client, size)
                yield chunk
                del chunk
        finally:
            if reading:
                # A thread may still be reading: its descriptor must not be closed and used anew.
                await asyncio.wait(reading)
            os.close(file)

    def _chunk(
        self,
        key: _FileKey,
        offset: int,
        read: Callable[[], pb.DownloadResponse],
        reading: list[asyncio.Task[pb.DownloadResponse]],
    ) -> asyncio.Task[pb.DownloadResponse]:
        """A chunk that is read already, or being read, for whichever client; else it is read now.

        All clients of a round download the same aggregate at about the same time: it is read and hashed
        once, and is in memory once.
        """
        task = self._chunks.get((key, offset))
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._coordinator.spawn(self._coordinator.in_thread(read))
            self._chunks[key, offset] = task
            reading[:] = [t for t in reading if not t.done()] + [task]
            while len(self._chunks) > _MAX_CHUNKS:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end((key, offset))
        return task

    async def _digest(self, key: _FileKey) -> bytes:
        if key not in self._digests:
            if len(self._digests) >= _MAX_DIGESTS:
                self._digests.clear()
            self._digests[key] = await self._coordinator.in_thread(digest_of, key[0])
        return self._digests[key]


def _read(file: int, offset: int, total_bytes: int, total_sha256: bytes) -> pb.DownloadResponse:
    data = os.pread(file, DEFAULT_CHUNK_BYTES, offset)
    return pb.DownloadResponse(
        offset=offset,
        data=data,
        sha256=hashlib.sha256(data).digest(),
        total_bytes=total_bytes,
        total_sha256=total_sha256,
    )
