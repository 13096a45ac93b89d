"""Uploads in progress: announced, sent in chunks, checked as a whole, accepted."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial

from secagg._proto import aggregator_pb2 as pb
from secagg.custody.trust import Peer
from secagg.envelope import PayloadKind, UpdateHeader, update_id
from secagg.errors import Code, RoundError, SecaggError, TransferError, is_shortage
from secagg.plan import RoundState
from secagg.server import work
from secagg.server.admission import check_against_plan, located, refuse_replay, signed_header
from secagg.server.coordinator import Coordinator, retrieve
from secagg.server.events import Acceptance, MaskArrived, Round, UploadAccepted, UploadBegun
from secagg.server.journal import Journal
from secagg.server.records import UploadRecord
from secagg.server.unfinished import MAX_UPLOAD_ID_CHARS, Upload, check_chunk, closed, unknown

WRITES_AT_ONCE = 4


class Uploads:
    """All unfinished uploads of a server: at most one per client and kind."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._open: dict[str, Upload] = {}
        # One announcement of a client and kind at a time: replacing an upload and checking for it must not
        # interleave. Only enrolled clients get here, so the locks are few.
        self._creating: defaultdict[tuple[str, PayloadKind], asyncio.Lock] = defaultdict(asyncio.Lock)
        # More writes at once would not be faster, and each holds a chunk in memory.
        self._writers = ThreadPoolExecutor(WRITES_AT_ONCE, thread_name_prefix="spool")
        coordinator.when_ended.append(self.drop_round)

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
        lock = self._creating[header.client, header.kind]
        # Not shielded: calls that are cancelled while they queue leave the queue.
        await lock.acquire()
        # Shielded: a client that goes away must not leave an upload half announced.
        creating = self._coordinator.spawn(self._create(header, request))
        creating.add_done_callback(retrieve)
        creating.add_done_callback(lambda _: lock.release())
        try:
            return await asyncio.shield(creating)
        except SecaggError as error:
            raise located(error, header) from None

    async def _create(self, header: UpdateHeader, request: pb.CreateUploadRequest) -> pb.CreateUploadResponse:
        coordinator = self._coordinator
        async with AsyncExitStack() as held:
            for old in self._unfinished(header):
                # A write or check of what may be replaced ends first: its file's final name is that of every
                # upload with the same header.
                await held.enter_async_context(old.lock)
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
        writing: asyncio.Future[None] | None = None
        async for chunk in chunks:
            if upload is None:
                upload = self._find(peer, chunk.upload_id)
            if chunk.upload_id != upload.record.upload_id:
                raise RoundError(Code.REQUEST_MALFORMED, "one stream carries chunks of one upload only")
            if writing is not None:
                await asyncio.shield(writing)
            writing = await self._write(upload, chunk)
            # A stream that waits for its next chunk must not keep the last one in memory.
            del chunk
        if upload is None or writing is None:
            raise RoundError(Code.REQUEST_MALFORMED, "the stream ended without a chunk")
        await asyncio.shield(writing)
        return upload.committed

    async def _write(self, upload: Upload, chunk: pb.SendChunksRequest) -> asyncio.Future[None]:
        """Begins to write a chunk; the upload stays locked until that is done.

        What is returned must be shielded when it is awaited: a stream that is cut must not release the lock
        while its thread still writes.
        """
        with ExitStack() as stack:
            await upload.lock.acquire()
            stack.callback(upload.lock.release)
            self._require_current(upload)
            self._require_open(self._coordinator.round(upload.record.round), upload.header)
            # protobuf copies the bytes whenever it is asked for them, so it is asked once.
            data = chunk.data
            check_chunk(upload, chunk.offset, len(data), chunk.sha256)
            writing = asyncio.get_running_loop().run_in_executor(
                self._writers,
                self._coordinator.spool.write_chunk,
                upload.record.upload_id,
                chunk.offset,
                data,
                chunk.sha256,
            )
            writing.add_done_callback(partial(self._written, upload, len(data)))
            stack.pop_all()
        return writing

    def _written(self, upload: Upload, size: int, writing: asyncio.Future[None]) -> None:
        upload.lock.release()
        if not writing.cancelled() and writing.exception() is None:
            upload.committed += size
            self._coordinator.observer.received(upload.record.client, size)

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
                self._require_current(upload)
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
        published = False
        try:
            self._require_open(coordinator.round(record.round), upload.header)
            await self._check(upload)
            published = True
            await coordinator.in_thread(coordinator.spool.publish, partial, final)
            await self._accept(upload)
        except (SecaggError, OSError) as error:
            if is_shortage(error) and coordinator.spool.partial(record.upload_id).exists():
                # The payload is whole and in place: the client is asked to repeat the call later.
                raise
            # Only what this very upload put there: a file of that name may be an accepted update.
            accepted = [a.update_id for a in coordinator.round(record.round).accepted]
            if published and not upload.is_mask and update_id(upload.header) not in accepted:
                await coordinator.in_thread(coordinator.spool.drop, final)
            await self._drop(upload)
            raise
        self._open.pop(record.upload_id, None)
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
                scales=header.scales,
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
        for old in self._unfinished(UpdateHeader.from_bytes(record.header)):
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
                raise closed(round_)
            if round_.confirmed.get(header.client) != header.content_sha256:
                raise TransferError(
                    Code.MASK_MISMATCH, f"this mask was not proposed when round {number} was confirmed"
                )
        elif header.client in round_.contributors:
            raise TransferError(Code.UPLOAD_DUPLICATE, f"round {number} has an update of this client already")
        elif round_.state not in (RoundState.ANNOUNCED, RoundState.COLLECTING):
            raise closed(round_)

    def _unfinished(self, header: UpdateHeader) -> list[Upload]:
        """This client's unfinished uploads of this kind; one, or none."""
        return [
            upload
            for upload in self._open.values()
            if (upload.header.client, upload.header.kind) == (header.client, header.kind)
        ]

    def _require_current(self, upload: Upload) -> None:
        """Refuses to go on with an upload that was replaced or dropped while its lock was waited for."""
        if self._open.get(upload.record.upload_id) is not upload:
            raise unknown(upload.record.upload_id)

    def _find(self, peer: Peer, upload_id: str) -> Upload:
        upload = self._open.get(upload_id)
        if upload is None or upload.record.client != peer.name:
            raise unknown(upload_id)
        return upload

    async def _accepted(self, peer: Peer, upload_id: str) -> UpdateHeader:
        """The header of an accepted upload of this client."""
        if len(upload_id) > MAX_UPLOAD_ID_CHARS:
            raise unknown(upload_id)
        record = await self._coordinator.journal.call(Journal.upload, upload_id)
        if record is None or not record.accepted or record.client != peer.name:
            raise unknown(upload_id)
        return UpdateHeader.from_bytes(record.header)
