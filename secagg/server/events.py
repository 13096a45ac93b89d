"""What the round state machine is about: the round as the journal knows it, and what can happen to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from secagg.errors import Code
from secagg.plan import RoundState
from secagg.rule import Reason, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What of the federation's settings decides how a round goes on.

    Args:
        min_clients: fewest accepted updates a round goes on with, and fewest ballots where no majority is
            asked for; ≥ 1.
        ballots: whether the rule needs the clients' ballots.
        screens: whether the rule screens updates before their other statistics are released.
        majority: whether ballots are settled by what more than half of the contributors answer alike; then
            the rule says whether there are enough.
    """

    min_clients: int
    ballots: bool
    screens: bool = False
    majority: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One accepted update. ``update_id`` has 16 bytes, ``content_sha256`` 32; ``scales`` as in its header."""

    client: str
    update_id: bytes
    sample_count: int
    content_sha256: bytes
    scales: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One contributor's ballot on a stage: one weight and one ``Reason`` per update that the stage is about.

    ``signature`` is the client's over the canonical ballot; it is kept, and plays no part in equality.
    """

    client: str
    stage: Stage
    weights: tuple[float, ...]
    reasons: tuple[int, ...]
    signature: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """One contributor has opened the aggregate; ``next_mask_sha256`` is empty if it proposes no mask."""

    client: str
    next_mask_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Everything the journal knows about one round, apart from its plan.

    Args:
        accepted: in order of acceptance; final from SEALED on.
        screening_sha256: digest of the screening artifact from SCREENED on; empty if the rule does not
            screen.
        reasons: why each accepted update does not count (``Reason``; KEPT where it does), from CLEARED on as
            far as it is known.
        statistics_sha256: digest of the statistics artifact from SCORED on; empty if the rule needs none.
        weights: one integer per accepted update from DECIDED on.
        aggregate_sha256: digest of the aggregate artifact from AGGREGATED on.
        masks: digests of proposed masks whose bitmap is in the spool.
        abort_code: why, if ABORTED.
    """

    number: int
    state: RoundState = RoundState.ANNOUNCED
    accepted: tuple[Acceptance, ...] = ()
    screening_sha256: bytes = b""
    reasons: tuple[int, ...] = ()
    statistics_sha256: bytes = b""
    votes: tuple[Vote, ...] = ()
    weights: tuple[int, ...] = ()
    aggregate_sha256: bytes = b""
    confirmations: tuple[Confirmation, ...] = ()
    masks: tuple[bytes, ...] = ()
    abort_code: Code | None = None

    @property
    def contributors(self) -> frozenset[str]:
        """Names of the clients with an accepted update."""
        return frozenset(acceptance.client for acceptance in self.accepted)

    @property
    def stage(self) -> Stage | None:
        """What ballots are awaited on now."""
        stages = {RoundState.SCREENED: Stage.SCREENING, RoundState.SCORED: Stage.STATISTICS}
        return stages.get(self.state)

    @property
    def kept(self) -> tuple[Acceptance, ...]:
        """The accepted updates that were not screened out, in order of acceptance."""
        reasons = self.reasons or (Reason.KEPT,) * len(self.accepted)
        return tuple(a for a, r in zip(self.accepted, reasons, strict=True) if r == Reason.KEPT)

    def judged(self, stage: Stage) -> tuple[Acceptance, ...]:
        """The updates that a stage is about. All contributors are asked, whatever became of their own: who is
        left after the screening need not be an honest majority.
        """
        return self.accepted if stage is Stage.SCREENING else self.kept

    def ballots(self, stage: Stage) -> tuple[Vote, ...]:
        """The ballots on a stage, in order of arrival."""
        return tuple(vote for vote in self.votes if vote.stage is stage)

    def awaited(self, client: str) -> bool:
        """True if this client's ballot on the present stage is still to come."""
        stage = self.stage
        return (
            stage is not None
            and client in self.contributors
            and all(vote.client != client for vote in self.ballots(stage))
        )

    @property
    def all_voted(self) -> bool:
        """True if nobody's ballot on the present stage is awaited any more."""
        return self.stage is not None and not any(self.awaited(a.client) for a in self.accepted)

    @property
    def confirmed(self) -> dict[str, bytes]:
        """Client -> digest of the mask it proposes, of all that have confirmed."""
        return {c.client: c.next_mask_sha256 for c in self.confirmations}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadBegun:
    """A client has announced an upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadAccepted:
    """A whole payload has passed every check. ``enrolled``: everyone on the roster at this moment."""

    acceptance: Acceptance
    enrolled: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The deadline of stage ``state`` is over."""

    state: RoundState


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """The screening artifact is complete in the spool."""

    screening_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """It is settled who gets the other statistics released: a ``Reason`` per accepted update."""

    reasons: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The statistics artifact is complete in the spool; empty digest if the rule needs none."""

    statistics_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BallotCast:
    """A checked ballot has arrived."""

    vote: Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The rule has settled: per accepted update an integer ≥ 0, of positive sum, and a ``Reason``."""

    weights: tuple[int, ...]
    reasons: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregated:
    """The aggregate artifact is complete in the spool."""

    aggregate_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """A contributor has opened the aggregate."""

    confirmation: Confirmation


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskArrived:
    """The bitmap with this digest, proposed by ``client``, is complete in the spool."""

    client: str
    mask_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The server can't go on with the round: its statistics, weights or aggregate can't be had."""

    code: Code


Event = (
    UploadBegun
    | UploadAccepted
    | DeadlinePassed
    | Screened
    | Cleared
    | Scored
    | BallotCast
    | Decided
    | Aggregated
    | Confirmed
    | MaskArrived
    | Failed
)


def ranked_masks(round_: Round) -> list[bytes]:
    """Digests of the proposed masks, most proposed first, ties in order of arrival."""
    proposals = Counter(c.next_mask_sha256 for c in round_.confirmations if c.next_mask_sha256)
    return [digest for digest, _ in proposals.most_common()]


def chosen_mask(round_: Round, arrived: Collection[bytes]) -> bytes:
    """The digest that most contributors propose among those whose bitmap arrived; empty if none did."""
    return next((digest for digest in ranked_masks(round_) if digest in arrived), b"")
