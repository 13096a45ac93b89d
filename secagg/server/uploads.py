"""Uploads in progress: announced, sent in chunks, checked as a whole, accepted."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from secagg._proto import aggregator_pb2 as pb
from secagg.custody.trust import Peer
from secagg.envelope import PayloadKind, UpdateHeader, update_id
from secagg.errors import Code, RoundError, SecaggError, TransferError
from secagg.plan import DIGEST_BYTES, RoundState
from secagg.server import work
from secagg.server.admission import check_against_plan, located, refuse_replay, signed_header
from secagg.server.coordinator import Coordinator, retrieve
from secagg.server.events import Acceptance, MaskArrived, Round, UploadAccepted, UploadBegun
from secagg.server.journal import Journal, UploadRecord

MAX_UPLOAD_ID_CHARS = 64
WRITES_AT_ONCE = 4


@dataclass(slots=True, kw_only=True)
class Upload:
    """An unfinished upload.

    Args:
        committed: bytes safely stored; grows by whole chunks.
        lock: held while a chunk is written or the whole is checked, so that a connection which was cut
            and its successor can't write over each other.
        finishing: the check in progress, which repeated calls of FinishUpload share.
    """

    record: UploadRecord
    header: UpdateHeader
    chunk_bytes: int
    committed: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    finishing: asyncio.Task[bytes] | None = None

    @property
    def is_mask(self) -> bool:
        """True if the payload is a proposed mask."""
        return self.header.kind is PayloadKind.MASK


class Uploads:
    """All unfinished uploads of a server: at most one per client and kind."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._open: dict[str, Upload] = {}
        # One announcement at a time: replacing an upload and checking for it must not interleave.
        self._creating = asyncio.Lock()
        # More writes at once would not be faster, and each holds a chunk in memory.
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)
        coordinator.when_ended = self.drop_round

    async def recover(self, records: Sequence[UploadRecord]) -> None:
        """Takes up what was in progress when the server ended; the spool says how far it had come."""
        for record in records:
            header = UpdateHeader.from_bytes(record.header)
            chunk_bytes = self._coordinator.plan(record.round).chunk_bytes
            committed = await self._coordinator.in_thread(
                self._coordinator.spool.committed, record.upload_id, header.payload_bytes, chunk_bytes
            )
            self._open[record.upload_id] = Upload(
                record=record, header=header, chunk_bytes=chunk_bytes, committed=committed
            )

    async def create(self, peer: Peer, request: pb.CreateUploadRequest) -> pb.CreateUploadResponse:
        """Announces an upload, or finds the one that was announced with the same key and header.

        Raises:
            SecaggError: as the contract of CreateUpload says.
        """
        header = signed_header(peer, request, self._coordinator.deployment.descriptor.federation_id)
        try:
            # Shielded: a client that goes away must not leave an upload half announced.
            creating = self._coordinator.spawn(self._create(header, request))
            creating.add_done_callback(retrieve)
            return await asyncio.shield(creating)
        except SecaggError as error:
            raise located(error, header) from None

    async def _create(self, header: UpdateHeader, request: pb.CreateUploadRequest) -> pb.CreateUploadResponse:
        coordinator = self._coordinator
        async with self._creating:
            plan, round_ = coordinator.plan(request.round), coordinator.round(request.round)
            known = await coordinator.journal.call(
                Journal.upload_by_key, header.client, request.idempotency_key
            )
            if known is not None:
                return self._known(known, header, request)
            is_mask = header.kind is PayloadKind.MASK
            self._require_open(round_, header)
            if not is_mask:
                await self._refuse_replay(header)
            check_against_plan(header, plan)
            if is_mask and header.content_sha256 in round_.masks:
                return pb.CreateUploadResponse(
                    committed_bytes=header.payload_bytes, chunk_bytes=plan.chunk_bytes, accepted=True
                )
            record = UploadRecord(
                upload_id=secrets.token_hex(16),
                round=round_.number,
                client=header.client,
                kind=int(header.kind),
                idempotency_key=request.idempotency_key,
                header=request.header,
                signature=request.signature,
            )
            await coordinator.in_thread(coordinator.spool.begin, record.upload_id)
            if is_mask:
                await coordinator.journal.call(Journal.open_upload, record)
            else:
                await coordinator.apply(round_.number, UploadBegun(), opened=record)
            await self._forget_replaced(record)
            self._open[record.upload_id] = Upload(
                record=record, header=header, chunk_bytes=plan.chunk_bytes, committed=0
            )
            return pb.CreateUploadResponse(upload_id=record.upload_id, chunk_bytes=plan.chunk_bytes)

    def _known(
        self, known: UploadRecord, header: UpdateHeader, request: pb.CreateUploadRequest
    ) -> pb.CreateUploadResponse:
        if known.header != request.header or known.round != request.round:
            raise RoundError(
                Code.REQUEST_MALFORMED, "this idempotency key stands for another upload; choose a new one"
            )
        upload = self._open.get(known.upload_id)
        if upload is not None:
            self._require_open(self._coordinator.round(known.round), header)
        return pb.CreateUploadResponse(
            upload_id=known.upload_id,
            committed_bytes=header.payload_bytes if upload is None else upload.committed,
            chunk_bytes=self._coordinator.plan(known.round).chunk_bytes,
            accepted=known.accepted,
        )

    async def send(self, peer: Peer, chunks: AsyncIterator[pb.SendChunksRequest]) -> int:
        """Takes chunks in order; each is written while the next one is on its way.

        Returns:
            How many bytes are committed.

        Raises:
            TransferError, RoundError: as the contract of SendChunks says; the chunks before stay.
        """
        upload: Upload | None = None
        writing: asyncio.Task[None] | None = None
        async for chunk in chunks:
            if upload is None:
                upload = self._find(peer, chunk.upload_id)
            if chunk.upload_id != upload.record.upload_id:
                raise RoundError(Code.REQUEST_MALFORMED, "one stream carries chunks of one upload only")
            if writing is not None:
                await writing
            writing = self._coordinator.spawn(self._take(upload, chunk))
            # If the stream is cut here the write goes on; nobody will ask for its result then.
            writing.add_done_callback(retrieve)
            # A stream that waits for its next chunk must not keep the last one in memory.
            del chunk
        if upload is None or writing is None:
            raise RoundError(Code.REQUEST_MALFORMED, "the stream ended without a chunk")
        await writing
        return upload.committed

    async def _take(self, upload: Upload, chunk: pb.SendChunksRequest) -> None:
        async with upload.lock, self._writing:
            # protobuf copies the bytes whenever it is asked for them: once, and not before it is our turn.
            data, offset, sha256 = chunk.data, chunk.offset, chunk.sha256
            del chunk
            self._require_open(self._coordinator.round(upload.record.round), upload.header)
            _check_chunk(upload, offset, len(data), sha256)
            await self._coordinator.in_thread(
                self._coordinator.spool.write_chunk, upload.record.upload_id, offset, data, sha256
            )
            upload.committed += len(data)
        self._coordinator.observer.received(upload.record.client, len(data))

    async def status(self, peer: Peer, upload_id: str) -> pb.GetUploadResponse:
        """How far an upload has come.

        Raises:
            TransferError: UPLOAD_UNKNOWN.
        """
        upload = self._open.get(upload_id)
        if upload is not None and upload.record.client == peer.name:
            return pb.GetUploadResponse(committed_bytes=upload.committed)
        header = await self._accepted(peer, upload_id)
        return pb.GetUploadResponse(committed_bytes=header.payload_bytes, accepted=True)

    async def finish(self, peer: Peer, upload_id: str) -> bytes:
        """Checks the whole payload and accepts it; once it returns, the journal holds the acceptance.

        Returns:
            The update's id, 16 bytes; empty for a mask.

        Raises:
            SecaggError: as the contract of FinishUpload says.
        """
        upload = self._open.get(upload_id)
        if upload is None or upload.record.client != peer.name:
            header = await self._accepted(peer, upload_id)
            return b"" if header.kind is PayloadKind.MASK else update_id(header)
        if upload.finishing is None:
            upload.finishing = self._coordinator.spawn(self._finish(upload))
            upload.finishing.add_done_callback(retrieve)
        try:
            return await asyncio.shield(upload.finishing)
        except SecaggError as error:
            raise located(error, upload.header) from None

    async def _finish(self, upload: Upload) -> bytes:
        try:
            async with upload.lock:
                if upload.committed != upload.header.payload_bytes:
                    raise TransferError(
                        Code.UPLOAD_INCOMPLETE,
                        f"{upload.committed} of {upload.header.payload_bytes} bytes have arrived",
                        committed_bytes=upload.committed,
                    )
                await self._check_and_accept(upload)
        finally:
            upload.finishing = None
        return b"" if upload.is_mask else update_id(upload.header)

    async def _check_and_accept(self, upload: Upload) -> None:
        coordinator, record = self._coordinator, upload.record
        partial = coordinator.spool.partial(record.upload_id)
        final = (
            coordinator.spool.mask(upload.header.content_sha256)
            if upload.is_mask
            else coordinator.spool.update(record.round, update_id(upload.header))
        )
        try:
            self._require_open(coordinator.round(record.round), upload.header)
            await self._check(upload)
            await coordinator.in_thread(coordinator.spool.publish, partial, final)
            await self._accept(upload)
        except SecaggError:
            accepted = coordinator.round(record.round).accepted
            if not upload.is_mask and update_id(upload.header) not in [a.update_id for a in accepted]:
                await coordinator.in_thread(coordinator.spool.drop, final)
            await self._drop(upload)
            raise
        del self._open[record.upload_id]
        coordinator.observer.emit(
            "accepted",
            round=record.round,
            client=record.client,
            kind=upload.header.kind.name.lower(),
            bytes=upload.header.payload_bytes,
        )

    async def _check(self, upload: Upload) -> None:
        coordinator, header = self._coordinator, upload.header
        path = coordinator.spool.partial(upload.record.upload_id)
        if upload.is_mask:
            plan = coordinator.plan(upload.record.round)
            await coordinator.workers.run(
                work.check_mask, path, plan.manifest.size, plan.protection.ratio, header.content_sha256
            )
        else:
            job = coordinator.job(upload.record.round)
            await coordinator.workers.run(work.check_update, job, path, header.content_sha256)

    async def _accept(self, upload: Upload) -> None:
        coordinator, header = self._coordinator, upload.header
        number, upload_id = upload.record.round, upload.record.upload_id
        async with coordinator.exclusive:
            if upload.is_mask:
                arrived = MaskArrived(client=header.client, mask_sha256=header.content_sha256)
                await coordinator.commit(number, arrived, accepted=upload_id)
                return
            # Again, now that no other acceptance can come between: the same content may have been on its
            # way twice.
            await self._refuse_replay(header)
            acceptance = Acceptance(
                client=header.client,
                update_id=update_id(header),
                sample_count=header.sample_count,
                content_sha256=header.content_sha256,
            )
            enrolled = frozenset(coordinator.deployment.roster.names)
            await coordinator.commit(
                number, UploadAccepted(acceptance=acceptance, enrolled=enrolled), accepted=upload_id
            )

    async def drop_round(self, number: int) -> None:
        """Forgets the unfinished uploads of a round that has ended, and of those before it."""
        for upload in [u for u in self._open.values() if u.record.round <= number]:
            async with upload.lock:
                await self._drop(upload)

    async def _drop(self, upload: Upload) -> None:
        upload_id = upload.record.upload_id
        self._open.pop(upload_id, None)
        await self._coordinator.journal.call(Journal.drop_uploads, [upload_id])
        await self._coordinator.in_thread(
            self._coordinator.spool.drop, self._coordinator.spool.partial(upload_id)
        )

    async def _forget_replaced(self, record: UploadRecord) -> None:
        """The journal has replaced the client's unfinished upload of this kind; so do memory and spool."""
        for old in [
            u for u in self._open.values() if (u.record.client, u.record.kind) == (record.client, record.kind)
        ]:
            del self._open[old.record.upload_id]
            await self._coordinator.in_thread(
                self._coordinator.spool.drop, self._coordinator.spool.partial(old.record.upload_id)
            )

    async def _refuse_replay(self, header: UpdateHeader) -> None:
        earlier = await self._coordinator.journal.call(
            Journal.replays, update_id=update_id(header), content_sha256=header.content_sha256
        )
        refuse_replay(header, earlier, hides=self._coordinator.deployment.hides)

    def _require_open(self, round_: Round, header: UpdateHeader) -> None:
        """Refuses an upload early that the state machine would refuse at its end."""
        number = round_.number
        if header.kind is PayloadKind.MASK:
            if round_.state is not RoundState.AGGREGATED:
                raise _closed(round_)
            if round_.confirmed.get(header.client) != header.content_sha256:
                raise TransferError(
                    Code.MASK_MISMATCH, f"this mask was not proposed when round {number} was confirmed"
                )
        elif header.client in round_.contributors:
            raise TransferError(Code.UPLOAD_DUPLICATE, f"round {number} has an update of this client already")
        elif round_.state not in (RoundState.ANNOUNCED, RoundState.COLLECTING):
            raise _closed(round_)

    def _find(self, peer: Peer, upload_id: str) -> Upload:
        upload = self._open.get(upload_id)
        if upload is None or upload.record.client != peer.name:
            raise _unknown(upload_id)
        return upload

    async def _accepted(self, peer: Peer, upload_id: str) -> UpdateHeader:
        """The header of an accepted upload of this client."""
        if len(upload_id) > MAX_UPLOAD_ID_CHARS:
            raise _unknown(upload_id)
        record = await self._coordinator.journal.call(Journal.upload, upload_id)
        if record is None or not record.accepted or record.client != peer.name:
            raise _unknown(upload_id)
        return UpdateHeader.from_bytes(record.header)


def _check_chunk(upload: Upload, offset: int, size: int, sha256: bytes) -> None:
    ids: dict[str, object] = {"upload": upload.record.upload_id, "committed_bytes": upload.committed}
    if offset != upload.committed:
        raise TransferError(
            Code.OFFSET_MISMATCH,
            f"the chunk begins at {offset}; {upload.committed} bytes are committed",
            **ids,
        )
    expected = min(upload.chunk_bytes, upload.header.payload_bytes - upload.committed)
    if size > expected:
        raise TransferError(Code.CHUNK_OVERSIZED, f"the chunk has {size} bytes; {expected} are due", **ids)
    if size < expected or not size:
        raise TransferError(Code.CHUNK_TRUNCATED, f"the chunk has {size} bytes; {expected} are due", **ids)
    if len(sha256) != DIGEST_BYTES:
        raise RoundError(
            Code.REQUEST_MALFORMED, f"the chunk's SHA-256 has {len(sha256)} bytes, not {DIGEST_BYTES}"
        )


def _closed(round_: Round) -> RoundError:
    return RoundError(
        Code.ROUND_CLOSED, f"round {round_.number} takes no such upload; it is {round_.state.name}"
    )


def _unknown(upload_id: str) -> TransferError:
    return TransferError(
        Code.UPLOAD_UNKNOWN, "there is no such upload of this client", upload=upload_id[:MAX_UPLOAD_ID_CHARS]
    )
