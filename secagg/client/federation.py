"""What a client asks of the aggregator besides transfers: descriptor, plans, states, ballots."""

from __future__ import annotations

from dataclasses import dataclass

from secagg._proto import aggregator_pb2 as pb
from secagg.client.channel import Connection
from secagg.client.result import FederationEnd
from secagg.custody.descriptor import Descriptor, SignedDescriptor, check_plan, remember_descriptor
from secagg.custody.identity import ClientIdentity
from secagg.envelope import Ballot, Domain, sign
from secagg.errors import Code, CustodyError, RoundError
from secagg.plan import RoundPlan, RoundState

WAIT_S = 20.0
"""How long the server may hold a waiting call; short enough that a dead server is noticed soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStatus:
    """Where a round stands, as the server last said; fields as in ``secagg.v1.AwaitRoundResponse``."""

    state: RoundState
    contributor: bool
    ballot_wanted: bool
    abort_code: str


class Federation:
    """One client's view of its federation, over its connection.

    Args:
        identity: who asks; its folder keeps the newest descriptor seen.
        connection: to the aggregator.
    """

    def __init__(self, identity: ClientIdentity, connection: Connection) -> None:
        self.identity = identity
        self.connection = connection
        self._descriptor: Descriptor | None = None

    @property
    def descriptor(self) -> Descriptor:
        """The federation's descriptor, asked for once and held against the one remembered at enrolment.

        Raises:
            CustodyError: DESCRIPTOR_INVALID if the dealer didn't sign it or it is older than the remembered
                one; IDENTITY_INVALID if the server knows this certificate under another name.
        """
        if self._descriptor is None:
            self._descriptor = self.refresh()
        return self._descriptor

    def refresh(self) -> Descriptor:
        """Ask for the descriptor again; the dealer may have dealt anew. Raises as ``descriptor``."""
        answer = self.connection.call(self.connection.stub.GetFederation, pb.GetFederationRequest())
        if answer.client != self.identity.name:
            raise CustodyError(
                Code.IDENTITY_INVALID,
                f"the server takes {self.identity.name!r} for {answer.client[:64]!r}; "
                "is the identity folder whole?",
            )
        signed = SignedDescriptor(data=answer.descriptor_bytes, signature=answer.descriptor_signature)
        self._descriptor = remember_descriptor(self.identity, signed)
        return self._descriptor

    def check(self, plan: RoundPlan) -> None:
        """Hold a plan against the descriptor, once more with a fresh one if it doesn't fit.

        Raises:
            RoundError: PLAN_BELOW_POLICY, KEY_MISMATCH and the like; nothing was sent.
        """
        try:
            check_plan(self.descriptor, plan)
        except RoundError:
            check_plan(self.refresh(), plan)

    def await_plan(self, after_round: int) -> pb.RoundPlan | FederationEnd | None:
        """The next round to take part in, the federation's end, or None after ``WAIT_S``."""
        answer = self.connection.call(
            self.connection.stub.AwaitPlan,
            pb.AwaitPlanRequest(after_round=after_round, wait_s=WAIT_S),
            wait_s=WAIT_S,
        )
        outcome = answer.WhichOneof("outcome")
        if outcome == "plan":
            return answer.plan
        if outcome == "end":
            return FederationEnd(
                rounds_closed=answer.end.rounds_closed,
                last_aggregate_round=answer.end.last_aggregate_round,
                reason=answer.end.reason,
            )
        return None

    def status(self, round: int) -> RoundStatus:
        """Where a round stands now. Raises RoundError ROUND_UNKNOWN."""
        return self._ask(round, RoundState.ANNOUNCED, 0.0)

    def await_round(self, round: int, state: RoundState) -> RoundStatus:
        """Wait, however long it takes, until a round has reached a state or is CLOSED.

        Raises:
            RoundError: ROUND_ABORTED (ids: round, reason = the abort's code).
        """
        while True:
            status = self._ask(round, state, WAIT_S)
            if status.state is RoundState.ABORTED:
                raise RoundError(
                    Code.ROUND_ABORTED,
                    f"round {round} was aborted: {status.abort_code}; the next starts from the same model",
                    round=round,
                    reason=status.abort_code,
                )
            if status.state >= state:
                return status

    def submit(self, ballot: Ballot) -> None:
        """Sign a ballot and hand it in. Raises RoundError STATE_INVALID if the round went on without it."""
        data = ballot.to_bytes()
        self.connection.call(
            self.connection.stub.SubmitBallot,
            pb.SubmitBallotRequest(
                round=ballot.round, ballot=data, signature=sign(self.identity, Domain.BALLOT, data)
            ),
            ids={"round": ballot.round},
        )

    def confirm(self, round: int, next_mask_sha256: bytes) -> bool:
        """Say that the aggregate is open; True if the server wants the bitmap with that digest."""
        answer = self.connection.call(
            self.connection.stub.ConfirmRound,
            pb.ConfirmRoundRequest(round=round, next_mask_sha256=next_mask_sha256),
            ids={"round": round},
        )
        return answer.mask_wanted

    def _ask(self, round: int, state: RoundState, wait_s: float) -> RoundStatus:
        answer = self.connection.call(
            self.connection.stub.AwaitRound,
            pb.AwaitRoundRequest(round=round, state=pb.RoundState.ValueType(state), wait_s=wait_s),
            wait_s=wait_s,
            ids={"round": round},
        )
        try:
            reached = RoundState(answer.state)
        except ValueError:
            raise RoundError(
                Code.REQUEST_MALFORMED,
                f"the server answered state {answer.state} for round {round}; 1 to 10 are known",
                round=round,
            ) from None
        return RoundStatus(
            state=reached,
            contributor=answer.contributor,
            ballot_wanted=answer.ballot_wanted,
            abort_code=answer.abort_code[:64],
        )
