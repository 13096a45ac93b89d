"""Forms whose bytes are bound to who made them: nothing but what an honest party signed may be accepted."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError, Message

from benchmarks.fuzzing import content
from benchmarks.fuzzing.content import CLIENT, DEALER, FEDERATION_ID, KEY_ID, MANIFEST, PEER, ROUND, Source
from benchmarks.fuzzing.form import Form
from secagg._proto import aggregator_pb2 as pb
from secagg.custody.descriptor import SignedDescriptor
from secagg.envelope import SIGNATURE_BYTES, Ballot, Domain, PayloadKind, UpdateHeader, sign, verify
from secagg.errors import Code, RoundError, TransferError
from secagg.plan import RoundPlan
from secagg.rule import Answer, Stage
from secagg.selection import Mask
from secagg.server.admission import check_against_plan, signed_header
from secagg.server.work import check_mask, check_update

SIGNED_PAYLOADS = (("robust", "layers"), ("compact", "full"), ("robust", "plain"))
RATIO = 0.25
"""Of a proposed mask."""
_LENGTH = struct.Struct("<I")


def signed_forms(folder: Path) -> list[Form]:
    """Uploads from announcement to acceptance, ballots, the descriptor."""
    return [
        *(_update(name, protection, folder) for name, protection in SIGNED_PAYLOADS),
        _mask(folder),
        _ballot(),
        _descriptor(),
    ]


def decoded(kind: Any, data: bytes) -> Any:
    """A protobuf message; gRPC answers for the server where there is none.

    Raises:
        RoundError: REQUEST_MALFORMED.
    """
    try:
        message: Message = kind.FromString(data)
    except DecodeError:
        raise RoundError(Code.REQUEST_MALFORMED, "no message of this type") from None
    return message


def header_of(plan: RoundPlan, payload: bytes, kind: PayloadKind = PayloadKind.UPDATE) -> UpdateHeader:
    """What a client says of a payload."""
    scales = content.scales_of(plan) if kind is PayloadKind.UPDATE else None
    return UpdateHeader(
        federation_id=FEDERATION_ID,
        round=plan.round,
        client=PEER.name,
        kind=kind,
        profile=plan.profile,
        key_id=KEY_ID,
        manifest_sha256=MANIFEST.digest,
        mask_sha256=plan.mask_sha256,
        scales=scales.to_bytes() if scales else b"",
        sample_count=40,
        payload_bytes=len(payload),
        content_sha256=sha256(payload).digest(),
    )


def ballot_of(seed: str, size: int) -> bytes:
    """A ballot's canonical bytes."""
    weights = np.abs(Source(seed).floats(size)).astype(np.float64)
    weights[::3] = 0.0
    return Ballot(
        federation_id=FEDERATION_ID,
        round=ROUND,
        client=PEER.name,
        stage=Stage.SCREENING if size % 2 else Stage.STATISTICS,
        statistics_sha256=sha256(seed.encode()).digest(),
        answer=Answer.of(weights),
    ).to_bytes()


def _upload_of(header: UpdateHeader, payload: bytes) -> bytes:
    """The request that announces a payload, and the payload, in one: u32 length of the request first."""
    data = header.to_bytes()
    request = pb.CreateUploadRequest(
        round=header.round,
        kind=pb.PayloadKind.ValueType(header.kind),
        idempotency_key=sha256(data).digest(),
        header=data,
        signature=sign(CLIENT, Domain.UPDATE, data),
    ).SerializeToString()
    return _LENGTH.pack(len(request)) + request + payload


def _announced(data: bytes, plan: RoundPlan) -> tuple[pb.CreateUploadRequest, UpdateHeader, bytes]:
    """What the server does with a request, and the payload that follows."""
    if len(data) < _LENGTH.size:
        raise RoundError(Code.REQUEST_MALFORMED, "no request")
    (size,) = _LENGTH.unpack_from(data)
    request = decoded(pb.CreateUploadRequest, data[_LENGTH.size : _LENGTH.size + size])
    header = signed_header(PEER, request, FEDERATION_ID)
    check_against_plan(header, plan)
    payload = data[_LENGTH.size + size :]
    if len(payload) != header.payload_bytes:
        raise TransferError(Code.UPLOAD_INCOMPLETE, f"{len(payload)} bytes")
    return request, header, payload


def _update(name: str, protection: str, folder: Path) -> Form:
    plan, job, path = content.plan_of(name, protection), content.job_of(name, protection), folder / "upload"
    payloads = [content.payload_of(plan, f"signed {seed}") for seed in range(3)]

    def parse(data: bytes) -> object:
        request, header, payload = _announced(data, plan)
        check_update(job, content.write(path, payload), header.content_sha256)
        return request.header, request.signature, payload

    return Form(
        name=f"signed update {name} {protection}",
        messages=tuple(_upload_of(header_of(plan, payload), payload) for payload in payloads),
        parse=parse,
        authenticated=True,
    )


def _mask(folder: Path) -> Form:
    plan, path = content.plan_of("robust", "full"), folder / "upload"
    masks = [Mask(content.hidden(f"signed {seed}", MANIFEST.size, RATIO)).to_bytes() for seed in range(3)]

    def parse(data: bytes) -> object:
        request, header, payload = _announced(data, plan)
        check_mask(content.write(path, payload), MANIFEST.size, RATIO, header.content_sha256)
        return request.header, request.signature, payload

    return Form(
        name="signed mask",
        messages=tuple(_upload_of(header_of(plan, mask, PayloadKind.MASK), mask) for mask in masks),
        parse=parse,
        authenticated=True,
    )


def _ballot() -> Form:
    ballots = [ballot_of(f"signed {seed}", 40) for seed in range(3)]

    def parse(data: bytes) -> object:
        signature, ballot = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        verify(PEER.signing_public_key, Domain.BALLOT, ballot, signature)
        return Ballot.from_bytes(ballot).to_bytes(), signature

    return Form(
        name="signed ballot",
        messages=tuple(sign(CLIENT, Domain.BALLOT, ballot) + ballot for ballot in ballots),
        parse=parse,
        authenticated=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchor:
    """What a descriptor is held against."""

    dealer_public_key: Ed25519PublicKey
    federation_id: bytes


def _descriptor() -> Form:
    signed = [SignedDescriptor.sign(DEALER, content.descriptor_of(name)) for name in ("compact", "robust")]
    anchor = _Anchor(dealer_public_key=DEALER.signing_key.public_key(), federation_id=FEDERATION_ID)

    def parse(data: bytes) -> object:
        item = SignedDescriptor(data=data[SIGNATURE_BYTES:], signature=data[:SIGNATURE_BYTES])
        return item.open(anchor).to_bytes(), item.signature

    return Form(
        name="signed descriptor",
        messages=tuple(item.signature + item.data for item in signed),
        parse=parse,
        authenticated=True,
    )
