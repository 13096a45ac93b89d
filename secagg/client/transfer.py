"""Uploads and downloads that go on where they were cut: chunks, offsets, and a digest for each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import grpc

from secagg._proto import aggregator_pb2 as pb
from secagg.client.channel import CALL_TIMEOUT_S, Connection, Patience, is_retryable
from secagg.errors import Code, RoundError, TransferError
from secagg.plan import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from secagg.rpc_status import from_rpc_error

RESYNC = frozenset(
    {
        Code.OFFSET_MISMATCH,
        Code.CHUNK_CORRUPT,
        Code.CHUNK_TRUNCATED,
        Code.UPLOAD_UNKNOWN,
        Code.UPLOAD_INCOMPLETE,
    }
)
"""Refusals after which asking the committed size and going on there can help."""
MAX_RESYNCS = 5
"""How often that is tried without a byte of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One payload to hand in.

    Args:
        round: the round it belongs to.
        kind: a ``secagg.v1.PayloadKind``.
        idempotency_key: 16 to 64 bytes; the same for every attempt, also after a restart.
        header: the canonical envelope header.
        signature: Ed25519 over it, 64 bytes.
        size: of the payload, in bytes.
        open: gives the payload from its beginning; called once per attempt.
        chunk_digests: SHA-256 of each chunk of the plan's size, taken while the payload was sealed, so that
            sending need not hash; empty to have it done then.
    """

    round: int
    kind: pb.PayloadKind.ValueType
    idempotency_key: bytes
    header: bytes
    signature: bytes
    size: int
    open: Callable[[], BinaryIO]
    chunk_digests: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an accepted upload leaves behind.

    Args:
        update_id: 16 bytes; empty for a mask.
        resumed_at: the committed sizes at which the upload went on after a cut or a restart.
    """

    update_id: bytes
    resumed_at: tuple[int, ...]


def upload(connection: Connection, item: Upload) -> Receipt:
    """Hand in a payload; returns once it is accepted, however often the connection is cut meanwhile.

    Raises:
        SecaggError: the server's refusal, or SERVER_UNREACHABLE; what is committed stays so, and the same
            call later, in this process or another, goes on there.
    """
    patience = connection.patience()
    resumed_at: list[int] = []
    furthest, resyncs, cuts = 0, 0, 0
    while True:
        sent_before, started = connection.traffic.bytes_up, time.monotonic()
        try:
            created = _create(connection, item)
            if created.committed_bytes > furthest:
                furthest, resyncs = created.committed_bytes, 0
                patience.progress()
            if not created.accepted and (created.committed_bytes or cuts):
                resumed_at.append(created.committed_bytes)
            if not created.accepted and created.committed_bytes < item.size:
                _send(connection, item, created)
            update_id = _finish(connection, item, created.upload_id)
            return Receipt(update_id=update_id, resumed_at=tuple(resumed_at))
        except grpc.RpcError as error:
            refusal = from_rpc_error(error)
            resync = refusal.code in RESYNC and resyncs < MAX_RESYNCS
            if not (resync or is_retryable(error)):
                raise refusal from None
            resyncs += resync
            cuts += 1
            connection.on_event("upload_cut", {"round": item.round, "reason": refusal.message})
            moved = connection.traffic.bytes_up > sent_before
            patience.pause(refusal, busy_s=time.monotonic() - started if moved else 0.0)


def _create(connection: Connection, item: Upload) -> pb.CreateUploadResponse:
    """Announce the upload, or learn how far an earlier attempt at it came."""
    created = connection.stub.CreateUpload(
        pb.CreateUploadRequest(
            round=item.round,
            kind=item.kind,
            idempotency_key=item.idempotency_key,
            header=item.header,
            signature=item.signature,
        ),
        timeout=CALL_TIMEOUT_S,
    )
    if not MIN_CHUNK_BYTES <= created.chunk_bytes <= MAX_CHUNK_BYTES or created.committed_bytes > item.size:
        raise RoundError(
            Code.REQUEST_MALFORMED,
            f"the server answered chunk_bytes {created.chunk_bytes} and committed_bytes "
            f"{created.committed_bytes} for a payload of {item.size}",
            round=item.round,
            upload=created.upload_id,
        )
    return created


def _send(connection: Connection, item: Upload, created: pb.CreateUploadResponse) -> None:
    """One stream of chunks from the committed size to the end."""
    connection.on_event(
        "upload_started", {"round": item.round, "offset": created.committed_bytes, "size": item.size}
    )
    connection.stub.SendChunks(
        _chunks(connection, item, created.upload_id, created.committed_bytes, created.chunk_bytes),
        timeout=CALL_TIMEOUT_S,
    )


def _chunks(
    connection: Connection, item: Upload, upload_id: str, offset: int, chunk_bytes: int
) -> Iterator[pb.SendChunksRequest]:
    """The payload's chunks from ``offset`` on; gRPC draws them in a thread of its own."""
    known = len(item.chunk_digests) == -(-item.size // chunk_bytes) and offset % chunk_bytes == 0
    with item.open() as payload:
        payload.seek(offset)
        while data := payload.read(min(chunk_bytes, item.size - offset)):
            digest = item.chunk_digests[offset // chunk_bytes] if known else hashlib.sha256(data).digest()
            yield pb.SendChunksRequest(upload_id=upload_id, offset=offset, data=data, sha256=digest)
            # Reached when gRPC asks for the next chunk, so this one is in its hands.
            connection.traffic.bytes_up += len(data)
            connection.on_event("chunk_sent", {"round": item.round, "offset": offset, "size": len(data)})
            offset += len(data)


def _finish(connection: Connection, item: Upload, upload_id: str) -> bytes:
    """Have the payload checked and counted; the id of the update."""
    connection.on_event("upload_finishing", {"round": item.round})
    finished = connection.stub.FinishUpload(
        pb.FinishUploadRequest(upload_id=upload_id), timeout=CALL_TIMEOUT_S
    )
    connection.on_event("accepted", {"round": item.round, "update_id": finished.update_id.hex()})
    return finished.update_id


class _Partial:
    """The part of an artifact that is on disk, with a running digest over it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._file.seek(0)
        self._hash = hashlib.sha256()
        self.size = 0
        while piece := self._file.read(MAX_CHUNK_BYTES):
            self._hash.update(piece)
            self.size += len(piece)

    def append(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    def close(self) -> None:
        self._file.close()


def download(
    connection: Connection, *, kind: pb.ArtifactKind.ValueType, round: int, folder: Path, max_bytes: int
) -> Path:
    """Fetch an artifact into a file; goes on where an earlier attempt, also of a killed process, stopped.

    Args:
        kind: a ``secagg.v1.ArtifactKind``.
        round: the artifact's round, 0 for what belongs to the federation.
        folder: where the file goes; the name follows from kind and round.
        max_bytes: more than this is refused, so that a server can't fill the disk.

    Returns:
        The file's path; its SHA-256 was the announced one.

    Raises:
        SecaggError: the server's refusal; SIZE_MISMATCH, CHUNK_CORRUPT or CONTENT_MISMATCH for bytes that
            aren't what they are said to be; SERVER_UNREACHABLE.
    """
    name = f"{pb.ArtifactKind.Name(kind).removeprefix('ARTIFACT_KIND_').lower()}-{round}"
    target, partial_path = folder / name, folder / f"{name}.partial"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request = pb.DownloadRequest(kind=kind, round=round)
    partial = _Partial(partial_path)
    try:
        _fetch(connection, request, partial, max_bytes)
    finally:
        partial.close()
    partial_path.replace(target)
    connection.on_event("downloaded", {"artifact": name, "size": target.stat().st_size})
    return target


def _fetch(connection: Connection, request: pb.DownloadRequest, partial: _Partial, max_bytes: int) -> None:
    """Call ``Download`` until the artifact is whole."""
    patience = connection.patience()
    resyncs = 0
    while True:
        before = partial.size
        try:
            _receive(connection, request, partial, patience, max_bytes)
            return
        except grpc.RpcError as error:
            refusal = from_rpc_error(error)
            if refusal.code is Code.OFFSET_MISMATCH and partial.size:
                partial.restart()
            elif not is_retryable(error):
                raise refusal from None
        except TransferError as error:
            if error.code is Code.SIZE_MISMATCH:
                raise
            refusal = error
            if error.code is Code.CONTENT_MISMATCH:
                partial.restart()
        resyncs = 0 if partial.size > before else resyncs + (refusal.code is not Code.SERVER_UNREACHABLE)
        if resyncs > MAX_RESYNCS:
            raise refusal
        patience.pause(refusal)


def _receive(
    connection: Connection, request: pb.DownloadRequest, partial: _Partial, patience: Patience, max_bytes: int
) -> None:
    """One stream of chunks, appended as they are found whole.

    Raises:
        TransferError: CHUNK_CORRUPT, SIZE_MISMATCH, CONTENT_MISMATCH (also if nothing came after an
            earlier part, whose total is then unknown), CHUNK_TRUNCATED if the stream ended early.
        grpc.RpcError: whatever ended the call.
    """
    request.offset = partial.size
    kind = pb.ArtifactKind.Name(request.kind)
    connection.on_event(
        "download_started", {"artifact": kind, "round": request.round, "offset": partial.size}
    )
    total, total_sha256 = -1, b""
    stream = connection.stub.Download(request, timeout=CALL_TIMEOUT_S)
    try:
        for message in stream:
            if total < 0:
                total, total_sha256 = message.total_bytes, message.total_sha256
            if max(total, message.total_bytes) > max_bytes:
                _refuse(
                    Code.SIZE_MISMATCH, f"{kind} has {message.total_bytes} bytes; at most {max_bytes} fit"
                )
            if (message.total_bytes, message.total_sha256) != (total, total_sha256):
                _refuse(Code.CONTENT_MISMATCH, f"{kind} changed while it was being downloaded")
            if message.offset != partial.size or partial.size + len(message.data) > total:
                _refuse(Code.CHUNK_CORRUPT, f"{kind}: a chunk at {message.offset} arrived at {partial.size}")
            if hashlib.sha256(message.data).digest() != message.sha256:
                _refuse(Code.CHUNK_CORRUPT, f"{kind}: the chunk at {message.offset} has another SHA-256")
            partial.append(message.data)
            connection.traffic.bytes_down += len(message.data)
            connection.on_event(
                "chunk_received", {"artifact": kind, "round": request.round, "offset": message.offset}
            )
            patience.progress()
    finally:
        with suppress(grpc.RpcError):
            stream.cancel()
    if total < 0 and partial.size:
        _refuse(Code.CONTENT_MISMATCH, f"{kind}: nothing follows the {partial.size} bytes that were there")
    if partial.size < total or total < 0:
        _refuse(Code.CHUNK_TRUNCATED, f"{kind} ended after {partial.size} bytes, before its end")
    if partial.sha256 != total_sha256:
        _refuse(Code.CONTENT_MISMATCH, f"{kind} has another SHA-256 than announced")


def _refuse(code: Code, message: str) -> NoReturn:
    raise TransferError(code, message)
