"""Which uploads are let in: what a client signed, held against its certificate and the round's plan."""

from __future__ import annotations

from collections.abc import Sequence

from secagg._proto import aggregator_pb2 as pb
from secagg.ckks.profiles import profile
from secagg.custody.trust import Peer
from secagg.envelope import (
    MAX_HEADER_BYTES,
    SIGNATURE_BYTES,
    Domain,
    PayloadKind,
    UpdateHeader,
    update_id,
    verify,
)
from secagg.errors import Code, RoundError, SecaggError, TransferError, UpdateError
from secagg.plan import RoundPlan, RoundState
from secagg.scales import Scales
from secagg.selection import Mask
from secagg.server.records import Replay

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 64
MAX_SAMPLE_COUNT = 2**63 - 1
"""What the journal can hold; far above what any plan counts."""


def signed_header(peer: Peer, request: pb.CreateUploadRequest, federation_id: bytes) -> UpdateHeader:
    """The header of a request, after checking its form, its signature and whose it is.

    Raises:
        RoundError: REQUEST_MALFORMED.
        UpdateError: ENVELOPE_MALFORMED, SIGNATURE_INVALID.
    """
    if request.kind not in (pb.PAYLOAD_KIND_UPDATE, pb.PAYLOAD_KIND_MASK):
        raise _malformed(f"payload kind {request.kind} is unknown")
    if not MIN_KEY_BYTES <= len(request.idempotency_key) <= MAX_KEY_BYTES:
        raise _malformed(
            f"the idempotency key has {len(request.idempotency_key)} bytes; "
            f"{MIN_KEY_BYTES} to {MAX_KEY_BYTES} are allowed"
        )
    if len(request.header) > MAX_HEADER_BYTES:
        raise UpdateError(
            Code.ENVELOPE_MALFORMED,
            f"the header has {len(request.header)} bytes; at most {MAX_HEADER_BYTES} are allowed",
        )
    if len(request.signature) != SIGNATURE_BYTES:
        raise UpdateError(
            Code.SIGNATURE_INVALID,
            f"the signature has {len(request.signature)} bytes; an update carries {SIGNATURE_BYTES}",
        )
    header = UpdateHeader.from_bytes(request.header)
    verify(peer.signing_public_key, Domain.UPDATE, request.header, request.signature)
    if header.client != peer.name:
        raise UpdateError(
            Code.SIGNATURE_INVALID, f"the header names {header.client!r}, the certificate {peer.name!r}"
        )
    if header.federation_id != federation_id:
        raise UpdateError(Code.ENVELOPE_MALFORMED, "the header is for another federation")
    if int(header.kind) != int(request.kind):
        raise _malformed(f"the request announces kind {request.kind}, its header {int(header.kind)}")
    return header


def check_against_plan(header: UpdateHeader, plan: RoundPlan) -> None:
    """Holds a header against the plan of the round it was announced for.

    Raises:
        RoundError: ROUND_MISMATCH.
        UpdateError: PROFILE_MISMATCH, KEY_MISMATCH, MANIFEST_MISMATCH, MASK_MISMATCH, SAMPLE_COUNT_INVALID,
            ENVELOPE_MALFORMED for scales that the profile has no use for, or not one per tensor.
        TransferError: SIZE_MISMATCH.
    """
    if header.round != plan.round:
        raise RoundError(
            Code.ROUND_MISMATCH, f"the header is for round {header.round}, the request for {plan.round}"
        )
    _compare(Code.PROFILE_MISMATCH, "profile", header.profile, plan.profile)
    _compare(Code.KEY_MISMATCH, "key id", header.key_id.hex(), plan.key_id.hex())
    _compare(
        Code.MANIFEST_MISMATCH, "manifest digest", header.manifest_sha256.hex(), plan.manifest.digest.hex()
    )
    if header.sample_count > MAX_SAMPLE_COUNT:
        raise UpdateError(
            Code.SAMPLE_COUNT_INVALID,
            f"sample_count is {header.sample_count}; it must be ≤ {MAX_SAMPLE_COUNT}",
        )
    quantised = header.kind is PayloadKind.UPDATE and profile(plan.profile).quantised
    scales = len(plan.manifest.tensors) if quantised else 0
    if len(header.scales) != scales:
        raise UpdateError(
            Code.ENVELOPE_MALFORMED, f"the header has {len(header.scales)} scales; the plan asks for {scales}"
        )
    if scales:
        Scales.from_bytes(header.scales)
    size = plan.payload_bytes
    if header.kind is PayloadKind.MASK:
        size = Mask.wire_bytes(plan.manifest.size)
    else:
        _compare(Code.MASK_MISMATCH, "mask digest", header.mask_sha256.hex(), plan.mask_sha256.hex())
    if header.payload_bytes != size:
        raise TransferError(
            Code.SIZE_MISMATCH, f"the header announces {header.payload_bytes} bytes; the plan asks for {size}"
        )


def refuse_replay(header: UpdateHeader, earlier: Sequence[Replay], *, hides: bool) -> None:
    """Refuses an update that was accepted before, under this header or any other.

    Two payloads with ciphertexts are never equal by chance, so equal content is a copy. A client may
    hand in its own again if the round it was for has been aborted before anything was released of it: no
    number is released twice. Without ciphertexts equal content proves nothing (two clients that did not
    train send the same model); the signed header still does.

    Args:
        earlier: accepted updates with this header or content.
        hides: True if payloads carry ciphertexts.

    Raises:
        TransferError: UPLOAD_REPLAYED.
    """
    mine = update_id(header)
    for replay in earlier:
        own = replay.client == header.client
        own_retry = own and replay.state is RoundState.ABORTED and not replay.released
        if replay.update_id == mine or (hides and not own_retry):
            raise TransferError(
                Code.UPLOAD_REPLAYED,
                f"this update was accepted in round {replay.round} already",
                round=replay.round,
            )


def located(error: SecaggError, header: UpdateHeader) -> SecaggError:
    """The same refusal with round and client among its ids."""
    ids = {"round": header.round, "client": header.client} | error.ids
    return type(error)(error.code, error.message, **ids)


def _compare(code: Code, what: str, found: str, planned: str) -> None:
    if found != planned:
        raise UpdateError(
            code, f"the header's {what} is {found or 'empty'}; the plan's is {planned or 'empty'}"
        )


def _malformed(message: str) -> RoundError:
    return RoundError(Code.REQUEST_MALFORMED, message)
