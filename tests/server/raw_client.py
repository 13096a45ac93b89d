"""A client that speaks the wire contract call by call, so that tests can also speak it wrongly."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from secagg._proto import aggregator_pb2 as pb
from secagg._proto.aggregator_pb2_grpc import AggregatorServiceStub
from secagg.aggregate import Onto, Shares, open_aggregate
from secagg.ckks import Opener, Sealer
from secagg.ckks.profiles import profile
from secagg.custody.descriptor import SignedDescriptor
from secagg.custody.grant import open_grant
from secagg.custody.identity import ClientIdentity
from secagg.envelope import Ballot, Domain, PayloadKind, UpdateHeader, sign
from secagg.model_file import load_model
from secagg.payload import Quantisation, seal_update
from secagg.plan import RoundPlan, RoundState, plan_from_proto
from secagg.rpc_status import from_rpc_error
from secagg.rule import Answer, Rule, Stage, Statistics, StatisticsRequest
from secagg.scales import Scales
from secagg.selection import Layout, Mask, derive_mask
from secagg.statistics.opening import Expectation, joined, open_statistics
from secagg.update import Manifest

WAIT_S = 25.0
SAMPLE_COUNT = 100
RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
)
"""Tests that restart servers should not wait for gRPC's own growing pauses."""


class Sealed:
    """A payload with the request that announces it."""

    def __init__(self, request: pb.CreateUploadRequest, payload: bytes) -> None:
        self.request = request
        self.payload = payload

    @property
    def header(self) -> UpdateHeader:
        return UpdateHeader.from_bytes(self.request.header)


class RawClient:
    """One enrolled client; everything it does is one call."""

    def __init__(self, federation: Path, name: str, address: str) -> None:
        server = federation / "server"
        self.identity = ClientIdentity.load(federation / "clients" / name)
        self.descriptor = SignedDescriptor.load(server / "descriptor.signed").open(self.identity.anchor)
        self.secret = open_grant(
            self.identity, self.descriptor, (server / "grants" / self.identity.name).read_bytes()
        )
        self.profile = profile(self.descriptor.profile)
        self.model = load_model(server / "initial_model.npz")
        self.name = self.identity.name
        self.bases = {0: Manifest.of(self.model).flatten(self.model)}
        """Opened models by round, for the rounds that start from them, add to them or are compared with
        them.
        """
        credentials = grpc.ssl_channel_credentials(
            self.identity.authority_pem, self.identity.tls_key_pem, self.identity.certificate_pem
        )
        self.channel = grpc.aio.secure_channel(address, credentials, options=RECONNECT)
        self.stub: Any = AggregatorServiceStub(self.channel)

    async def close(self) -> None:
        await self.channel.close()

    async def plan(self, after: int = 0) -> RoundPlan:
        answer = await self.stub.AwaitPlan(pb.AwaitPlanRequest(after_round=after, wait_s=WAIT_S))
        assert answer.WhichOneof("outcome") == "plan", answer
        return plan_from_proto(answer.plan)

    async def reach(self, number: int, state: RoundState) -> pb.AwaitRoundResponse:
        request = pb.AwaitRoundRequest(round=number, state=pb.RoundState.ValueType(state), wait_s=WAIT_S)
        answer = await self.stub.AwaitRound(request)
        assert answer.state >= state or answer.state == RoundState.ABORTED, answer
        return answer

    def layout(self, plan: RoundPlan, mask: Mask | None = None) -> Layout:
        derived = derive_mask(plan.protection, plan.manifest, self.descriptor.federation_id, plan.round, mask)
        return Layout(plan.manifest, derived, plan.statistics_blocks)

    def scales(self, plan: RoundPlan) -> Scales | None:
        """What the round's updates are sealed in; None unless the profile quantises."""
        if not self.profile.quantised:
            return None
        return Scales.around(self.bases[plan.base_round], plan.manifest)

    def seal(self, plan: RoundPlan, flat: NDArray[np.float32], **changes: Any) -> Sealed:
        """A signed update from the model after training; ``changes`` replace header fields before it is
        signed.
        """
        if plan.divisor:
            flat = flat - self.bases[plan.base_round]
        mask = changes.pop("mask", None)
        layout, scales = self.layout(plan, mask), self.scales(plan)
        sealer = Sealer(self.secret) if any(layout.hidden_counts) else None
        weight = plan.own_weight(changes.get("sample_count", SAMPLE_COUNT))
        quantisation = Quantisation(scales=scales, weight=weight) if scales else None
        payload = b"".join(seal_update(flat, layout, sealer, quantisation))
        return self.sign(plan, payload, **changes)

    def sign(self, plan: RoundPlan, payload: bytes, **changes: Any) -> Sealed:
        scales = None if changes.get("kind") is PayloadKind.MASK else self.scales(plan)
        header = UpdateHeader(
            federation_id=self.descriptor.federation_id,
            round=plan.round,
            client=self.name,
            kind=PayloadKind.UPDATE,
            profile=plan.profile,
            key_id=plan.key_id,
            manifest_sha256=plan.manifest.digest,
            mask_sha256=plan.mask_sha256,
            scales=scales.to_bytes() if scales else b"",
            sample_count=SAMPLE_COUNT,
            payload_bytes=len(payload),
            content_sha256=hashlib.sha256(payload).digest(),
        )
        data = replace(header, **changes).to_bytes()
        kind = changes.get("kind", PayloadKind.UPDATE)
        request = pb.CreateUploadRequest(
            round=plan.round,
            kind=pb.PayloadKind.ValueType(int(kind)),
            idempotency_key=secrets.token_bytes(16),
            header=data,
            signature=sign(self.identity, Domain.UPDATE, data),
        )
        return Sealed(request, payload)

    async def create(self, sealed: Sealed) -> pb.CreateUploadResponse:
        return await self.stub.CreateUpload(sealed.request)

    async def send(self, upload_id: str, payload: bytes, chunk_bytes: int, offset: int = 0) -> int:
        answer = await self.stub.SendChunks(chunks(upload_id, payload, chunk_bytes, offset))
        return answer.committed_bytes

    async def finish(self, upload_id: str) -> bytes:
        return (await self.stub.FinishUpload(pb.FinishUploadRequest(upload_id=upload_id))).update_id

    async def upload(self, sealed: Sealed) -> bytes:
        created = await self.create(sealed)
        if not created.accepted:
            if created.committed_bytes < len(sealed.payload):
                await self.send(
                    created.upload_id, sealed.payload, created.chunk_bytes, created.committed_bytes
                )
            return await self.finish(created.upload_id)
        return b""

    async def download(self, kind: int, number: int, offset: int = 0) -> bytes:
        data = b""
        total, digest = 0, b""
        request = pb.DownloadRequest(kind=pb.ArtifactKind.ValueType(kind), round=number, offset=offset)
        async for part in self.stub.Download(request):
            assert part.offset == offset + len(data)
            assert hashlib.sha256(part.data).digest() == part.sha256
            data += part.data
            total, digest = part.total_bytes, part.total_sha256
        assert len(data) == total - offset
        if not offset:
            assert hashlib.sha256(data).digest() == digest
        return data

    async def statistics(
        self, plan: RoundPlan, request: StatisticsRequest, stage: Stage
    ) -> tuple[Statistics, bytes]:
        """A stage's statistics as a rule sees them, and the digest of its artifact."""
        opened, digest = await self._statistics(plan, request, stage)
        if stage is Stage.STATISTICS and request.screened:
            screening, _ = await self._statistics(plan, request, Stage.SCREENING)
            opened = joined(screening, opened)
        return opened, digest

    async def _statistics(
        self, plan: RoundPlan, request: StatisticsRequest, stage: Stage
    ) -> tuple[Statistics, bytes]:
        kinds = {
            Stage.SCREENING: pb.ARTIFACT_KIND_SCREENING,
            Stage.STATISTICS: pb.ARTIFACT_KIND_STATISTICS,
        }
        data = await self.download(kinds[stage], plan.round)
        layout = self.layout(plan)
        expected = Expectation(
            round=plan.round,
            stage=stage,
            layout=layout,
            profile=self.profile,
            request=request,
            references=[
                self.bases[number] for number in (plan.base_round, plan.earlier_round)[: request.references]
            ],
        )
        opener = Opener(self.secret) if any(layout.hidden_counts) else None
        return open_statistics(data, expected, opener), hashlib.sha256(data).digest()

    async def vote(self, plan: RoundPlan, rule: Rule, stage: Stage = Stage.STATISTICS) -> Answer:
        """Opens a stage's statistics and hands in the rule's ballot."""
        request = rule.request(plan.manifest)
        assert request is not None
        statistics, digest = await self.statistics(plan, request, stage)
        answer = rule.screen(statistics) if stage is Stage.SCREENING else rule.decide(statistics)
        await self.submit(plan.round, answer, digest, stage=stage)
        return answer

    async def judge(self, plan: RoundPlan, rule: Rule) -> None:
        """Answers whatever is asked until the round is decided."""
        for state, stage in ((RoundState.SCREENED, Stage.SCREENING), (RoundState.SCORED, Stage.STATISTICS)):
            status = await self.reach(plan.round, state)
            if status.ballot_wanted and status.state == state:
                await self.vote(plan, rule, stage)

    async def submit(
        self, number: int, answer: Answer | NDArray[np.float64], digest: bytes, **changes: Any
    ) -> None:
        ballot = Ballot(
            federation_id=self.descriptor.federation_id,
            round=number,
            client=self.name,
            stage=Stage.STATISTICS,
            statistics_sha256=digest,
            answer=answer if isinstance(answer, Answer) else Answer.of(answer),
        )
        data = replace(ballot, **changes).to_bytes()
        await self.stub.SubmitBallot(
            pb.SubmitBallotRequest(
                round=number, ballot=data, signature=sign(self.identity, Domain.BALLOT, data)
            )
        )

    async def open(self, plan: RoundPlan, mask: Mask | None = None) -> NDArray[np.float32]:
        """The round's aggregate, float32 [d]."""
        return self.opened(plan, await self.download(pb.ARTIFACT_KIND_AGGREGATE, plan.round), mask)

    def opened(self, plan: RoundPlan, data: bytes, mask: Mask | None = None) -> NDArray[np.float32]:
        layout = self.layout(plan, mask)
        opener = Opener(self.secret) if any(layout.hidden_counts) else None
        scales = self.scales(plan)
        flat = open_aggregate(
            data,
            round=plan.round,
            layout=layout,
            profile=self.profile,
            opener=opener,
            shares=Shares(unit=plan.count_unit, scales=scales) if scales else None,
            onto=self.onto(plan),
        )
        self.bases[plan.round] = flat
        return flat

    def onto(self, plan: RoundPlan) -> Onto | None:
        """What a round's aggregate adds to; None if models travel."""
        if not plan.divisor:
            return None
        return Onto(since=plan.since, model=self.bases[plan.since], divisor=plan.divisor)

    async def confirm(self, number: int, mask_sha256: bytes = b"") -> bool:
        request = pb.ConfirmRoundRequest(round=number, next_mask_sha256=mask_sha256)
        return (await self.stub.ConfirmRound(request)).mask_wanted


def chunks(
    upload_id: str, payload: bytes, chunk_bytes: int, offset: int = 0
) -> Iterable[pb.SendChunksRequest]:
    for start in range(offset, len(payload), chunk_bytes):
        data = payload[start : start + chunk_bytes]
        yield pb.SendChunksRequest(
            upload_id=upload_id, offset=start, data=data, sha256=hashlib.sha256(data).digest()
        )


async def refusal(call: Any) -> Any:
    """The typed error of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError(f"the call was answered: {answer}")


async def drain(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]
