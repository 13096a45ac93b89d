"""One unfinished upload: how far it has come, and what may follow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from secagg.envelope import PayloadKind, UpdateHeader
from secagg.errors import Code, RoundError, TransferError
from secagg.plan import DIGEST_BYTES
from secagg.server.events import Round
from secagg.server.records import UploadRecord

MAX_UPLOAD_ID_CHARS = 64


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


def check_chunk(upload: Upload, offset: int, size: int, sha256: bytes) -> None:
    """See that a chunk is the one that is due.

    Raises:
        TransferError: OFFSET_MISMATCH, CHUNK_OVERSIZED, CHUNK_TRUNCATED.
        RoundError: REQUEST_MALFORMED for a digest of another length.
    """
    ids: dict[str, object] = {"upload": upload.record.upload_id, "committed_bytes": upload.committed}
    if offset != upload.committed:
        raise TransferError(
            Code.OFFSET_MISMATCH,
            f"the chunk begins at {offset}; {upload.committed} bytes are committed",
            **ids,
        )
    expected = min(upload.chunk_bytes, upload.header.payload_bytes - upload.committed)
    if size != expected or not size:
        code = Code.CHUNK_OVERSIZED if size > expected else Code.CHUNK_TRUNCATED
        raise TransferError(code, f"the chunk has {size} bytes; {expected} are due", **ids)
    if len(sha256) != DIGEST_BYTES:
        raise RoundError(
            Code.REQUEST_MALFORMED, f"the chunk's SHA-256 has {len(sha256)} bytes, not {DIGEST_BYTES}"
        )


def closed(round_: Round) -> RoundError:
    """The refusal of an upload that the round does not take, or no longer."""
    return RoundError(
        Code.ROUND_CLOSED, f"round {round_.number} takes no such upload; it is {round_.state.name}"
    )


def unknown(upload_id: str) -> TransferError:
    """The refusal of an id that stands for no upload of the caller's."""
    return TransferError(
        Code.UPLOAD_UNKNOWN, "there is no such upload of this client", upload=upload_id[:MAX_UPLOAD_ID_CHARS]
    )
