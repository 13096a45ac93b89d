"""The gRPC service: who is calling, what they ask, and a refusal with a code for everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from secagg._proto import aggregator_pb2 as pb
from secagg._proto.aggregator_pb2_grpc import AggregatorServiceServicer
from secagg.custody.trust import Peer
from secagg.envelope import Ballot, Domain, verify
from secagg.errors import Code, RoundError
from secagg.plan import DIGEST_BYTES, RoundState, Significance
from secagg.rule import Stage
from secagg.server.coordinator import Coordinator
from secagg.server.downloads import Downloads
from secagg.server.events import BallotCast, Confirmation, Confirmed, Round, Vote
from secagg.server.gate import Limits, peer_of, read_within
from secagg.server.uploads import Uploads

MAX_WAIT_S = 30.0
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class AggregatorService(AggregatorServiceServicer):
    """``secagg.v1.AggregatorService`` over a coordinator; the contract stands in the proto file.

    What goes wrong in a call becomes its refusal in the ``Gate`` that stands before all of them.

    Every call first reads the caller from its certificate and looks it up on the roster; streams do so again
    with every chunk, so that revoking a client ends them.
    """

    def __init__(self, coordinator: Coordinator, uploads: Uploads, limits: Limits) -> None:
        self._coordinator = coordinator
        self._uploads = uploads
        self._downloads = Downloads(coordinator)
        self._idle_s = limits.idle_s

    def _caller(self, context: Context) -> Peer:
        """Who calls, enrolled and unexpired."""
        peer = peer_of(context)
        self._require_enrolled(peer)
        return peer

    def _require_enrolled(self, peer: Peer) -> None:
        peer.require_unexpired()
        self._coordinator.deployment.roster.require(peer.fingerprint, peer.name)

    async def GetFederation(  # noqa: N802 - the contract's names
        self,
        request: pb.GetFederationRequest,  # noqa: ARG002
        context: Context,
    ) -> pb.GetFederationResponse:
        """What this federation is."""
        peer = self._caller(context)
        signed = self._coordinator.deployment.signed_descriptor
        return pb.GetFederationResponse(
            descriptor_bytes=signed.data, descriptor_signature=signed.signature, client=peer.name
        )

    async def AwaitPlan(  # noqa: N802
        self, request: pb.AwaitPlanRequest, context: Context
    ) -> pb.AwaitPlanResponse:
        """Waits for a round the caller can join, or one it has joined that goes on."""
        peer = self._caller(context)
        coordinator = self._coordinator

        def joinable() -> bool:
            return _joinable(coordinator.current, peer.name, request.after_round)

        await coordinator.wait_for(lambda: coordinator.end is not None or joinable(), _wait_s(request.wait_s))
        if joinable():
            return pb.AwaitPlanResponse(plan=coordinator.plan_message(coordinator.current.number))
        if coordinator.end is not None:
            end = coordinator.end
            return pb.AwaitPlanResponse(
                end=pb.FederationEnd(
                    rounds_closed=end.rounds_closed,
                    last_aggregate_round=end.last_aggregate_round,
                    reason=end.reason,
                )
            )
        return pb.AwaitPlanResponse()

    async def AwaitRound(  # noqa: N802
        self, request: pb.AwaitRoundRequest, context: Context
    ) -> pb.AwaitRoundResponse:
        """Waits until a round has come as far as asked."""
        peer = self._caller(context)
        number = request.round
        if request.state not in pb.RoundState.values():
            raise RoundError(Code.REQUEST_MALFORMED, f"round state {request.state} is unknown", round=number)

        def reached() -> bool:
            state = self._coordinator.round(number).state
            return state.ended or state >= request.state

        await self._coordinator.wait_for(reached, _wait_s(request.wait_s))
        round_ = self._coordinator.round(number)
        contributor = peer.name in round_.contributors
        return pb.AwaitRoundResponse(
            state=pb.RoundState.ValueType(round_.state),
            contributor=contributor,
            ballot_wanted=(self._coordinator.terms.ballots and round_.awaited(peer.name)),
            abort_code=round_.abort_code.value if round_.abort_code else "",
        )

    async def CreateUpload(  # noqa: N802
        self, request: pb.CreateUploadRequest, context: Context
    ) -> pb.CreateUploadResponse:
        """Announces an upload."""
        peer = self._caller(context)
        return await self._uploads.create(peer, request)

    async def SendChunks(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.SendChunksRequest],  # noqa: ARG002 - read from the context
        context: Context,
    ) -> pb.SendChunksResponse:
        """Appends chunks to an upload."""
        peer = self._caller(context)
        committed = await self._uploads.send(peer, self._arriving(peer, context))
        return pb.SendChunksResponse(committed_bytes=committed)

    async def _arriving(self, peer: Peer, context: Context) -> AsyncIterator[pb.SendChunksRequest]:
        while (chunk := await read_within(context, self._idle_s)) is not grpc.aio.EOF:
            self._require_enrolled(peer)
            yield chunk
            # A stream that waits for its next chunk must not keep the last one in memory.
            del chunk

    async def GetUpload(  # noqa: N802
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        """How far an upload has come."""
        peer = self._caller(context)
        return await self._uploads.status(peer, request.upload_id)

    async def FinishUpload(  # noqa: N802
        self, request: pb.FinishUploadRequest, context: Context
    ) -> pb.FinishUploadResponse:
        """Checks and accepts an upload."""
        peer = self._caller(context)
        return pb.FinishUploadResponse(update_id=await self._uploads.finish(peer, request.upload_id))

    async def Download(  # noqa: N802
        self, request: pb.DownloadRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponse]:
        """Streams an artifact."""
        peer = self._caller(context)
        path = self._downloads.find(peer.name, request.kind, request.round)
        # Closed here and now when the reader is gone: its file must not wait for the garbage collector.
        async with aclosing(self._downloads.stream(peer.name, path, request.offset)) as chunks:
            async for chunk in chunks:
                self._require_enrolled(peer)
                yield chunk
                del chunk

    async def SubmitBallot(  # noqa: N802
        self, request: pb.SubmitBallotRequest, context: Context
    ) -> pb.SubmitBallotResponse:
        """Takes a contributor's ballot."""
        peer = self._caller(context)
        round_ = self._contributed(request.round, peer)
        if round_.state < RoundState.SCREENED:
            raise RoundError(
                Code.STATE_INVALID,
                f"round {round_.number} is {round_.state.name}; it takes ballots in SCREENED and SCORED",
                round=round_.number,
            )
        verify(peer.signing_public_key, Domain.BALLOT, request.ballot, request.signature)
        ballot = Ballot.from_bytes(request.ballot)
        self._check_ballot(ballot, round_, peer)
        vote = Vote(
            client=peer.name,
            stage=ballot.stage,
            weights=tuple(ballot.answer.weights.tolist()),
            reasons=tuple(ballot.answer.reasons.tolist()),
            signature=request.signature,
        )
        await self._coordinator.apply(round_.number, BallotCast(vote=vote))
        return pb.SubmitBallotResponse()

    async def ConfirmRound(  # noqa: N802
        self, request: pb.ConfirmRoundRequest, context: Context
    ) -> pb.ConfirmRoundResponse:
        """Takes note that a contributor has opened the aggregate."""
        peer = self._caller(context)
        round_ = self._contributed(request.round, peer)
        digest = request.next_mask_sha256
        plan = self._coordinator.plan(round_.number)
        allowed = (0, DIGEST_BYTES) if plan.protection.significance is Significance.MAGNITUDE else (0,)
        if len(digest) not in allowed:
            raise RoundError(
                Code.REQUEST_MALFORMED,
                f"next_mask_sha256 has {len(digest)} bytes; {' or '.join(map(str, allowed))} are allowed",
                round=round_.number,
            )
        confirmation = Confirmation(client=peer.name, next_mask_sha256=digest)
        round_ = await self._coordinator.apply(round_.number, Confirmed(confirmation=confirmation))
        proposed = round_.confirmed.get(peer.name, b"")
        wanted = bool(proposed) and not round_.state.ended and proposed not in round_.masks
        return pb.ConfirmRoundResponse(mask_wanted=wanted)

    def _contributed(self, number: int, peer: Peer) -> Round:
        round_ = self._coordinator.round(number)
        if peer.name not in round_.contributors:
            raise RoundError(
                Code.NOT_A_CONTRIBUTOR, f"{peer.name!r} has no update in round {number}", round=number
            )
        return round_

    def _check_ballot(self, ballot: Ballot, round_: Round, peer: Peer) -> None:
        expected: tuple[tuple[str, object, object], ...] = (
            ("federation", ballot.federation_id, self._coordinator.deployment.descriptor.federation_id),
            ("round", ballot.round, round_.number),
            ("client", ballot.client, peer.name),
            (
                "statistics digest",
                ballot.statistics_sha256,
                round_.screening_sha256 if ballot.stage is Stage.SCREENING else round_.statistics_sha256,
            ),
        )
        for name, found, due in expected:
            if found != due:
                raise RoundError(
                    Code.BALLOT_INVALID,
                    f"the ballot's {name} is not round {round_.number}'s",
                    round=round_.number,
                    client=peer.name,
                )


def _joinable(round_: Round, client: str, after_round: int) -> bool:
    if round_.number <= after_round or round_.state.ended:
        return False
    return round_.state <= RoundState.COLLECTING or client in round_.contributors


def _wait_s(asked: float) -> float:
    """A wait between 0 and 30 s, whatever number arrived."""
    # Written so that NaN, which compares false with everything, is no wait at all.
    return min(asked, MAX_WAIT_S) if asked > 0.0 else 0.0
