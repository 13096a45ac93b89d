"""The round as a pure state machine: (round, event) -> (round, effects); no clock, no disk, no network.

    ANNOUNCED → COLLECTING → SEALED ─────────────────────→ SCORED → DECIDED → AGGREGATED → CLOSED
                     │          ├─→ SCREENED → CLEARED ──────┤         │
                     └──────────┴──────┴──────────┴──────────┴─────────┴──→ ABORTED

Whoever drives it writes the new round to the journal first, then acts on the effects. ``pending``
gives the effects of a round as it was read back after a restart.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from secagg.errors import Code, RoundError
from secagg.plan import RoundState
from secagg.rule import Reason
from secagg.server.events import (
    Aggregated,
    BallotCast,
    Cleared,
    Confirmed,
    DeadlinePassed,
    Decided,
    Event,
    Failed,
    MaskArrived,
    Round,
    Scored,
    Screened,
    Terms,
    UploadAccepted,
    UploadBegun,
    ranked_masks,
)

ABORTABLE = (
    RoundState.SEALED,
    RoundState.SCREENED,
    RoundState.CLEARED,
    RoundState.SCORED,
    RoundState.DECIDED,
)
"""States in which the server itself can fail to go on."""


class Effect(Enum):
    """What whoever drives the machine must do next."""

    AWAIT_UPLOADS = auto()
    SCREEN = auto()
    SCORE = auto()
    AWAIT_BALLOTS = auto()
    SETTLE = auto()
    AGGREGATE = auto()
    AWAIT_CONFIRMATIONS = auto()
    FINISH = auto()


def step(round_: Round, event: Event, terms: Terms) -> tuple[Round, tuple[Effect, ...]]:
    """The round after one event, and what to do next. An event that repeats what is known changes nothing.

    Raises:
        RoundError: ROUND_CLOSED, UPLOAD_DUPLICATE, BALLOT_INVALID, BALLOT_DUPLICATE, NOT_A_CONTRIBUTOR
            for what a client may get wrong; STATE_INVALID for an event the state does not know. The
            given round is unchanged, always.
    """
    after = _apply(round_, event, terms)
    if after.state is not round_.state:
        return after, pending(after, terms)
    decided_now = isinstance(event, DeadlinePassed) or (
        isinstance(event, BallotCast) and after is not round_ and after.all_voted
    )
    if after.stage is not None and decided_now:
        return after, (Effect.SETTLE,)
    if after.state is RoundState.COLLECTING and after.accepted and not round_.accepted:
        return after, pending(after, terms)
    return after, ()


def pending(round_: Round, terms: Terms) -> tuple[Effect, ...]:
    """What is to be done about a round in this state, as if it had just been entered."""
    match round_.state:
        case RoundState.ANNOUNCED:
            return ()
        case RoundState.COLLECTING:
            # An announcement costs nothing; only an accepted update may run the others' clock.
            return (Effect.AWAIT_UPLOADS,) if round_.accepted else ()
        case RoundState.SEALED:
            return (Effect.SCREEN if terms.screens else Effect.SCORE,)
        case RoundState.CLEARED:
            return (Effect.SCORE,)
        case RoundState.SCREENED | RoundState.SCORED:
            waiting = terms.ballots and not round_.all_voted
            return (Effect.AWAIT_BALLOTS if waiting else Effect.SETTLE,)
        case RoundState.DECIDED:
            return (Effect.AGGREGATE,)
        case RoundState.AGGREGATED:
            return (Effect.AWAIT_CONFIRMATIONS,)
        case _:
            return (Effect.FINISH,)


def _apply(round_: Round, event: Event, terms: Terms) -> Round:
    match event:
        case UploadBegun():
            return _begin(round_)
        case UploadAccepted():
            return _accept(round_, event, terms)
        case DeadlinePassed():
            return _expire(round_, event, terms)
        case Screened():
            _require(round_, event, RoundState.SEALED)
            if not terms.screens or not event.screening_sha256:
                raise _misfit(round_, event, "the rule does not screen, or the artifact has no digest")
            return replace(round_, state=RoundState.SCREENED, screening_sha256=event.screening_sha256)
        case Cleared():
            return _clear(round_, event, terms)
        case Scored():
            _require(round_, event, RoundState.CLEARED if terms.screens else RoundState.SEALED)
            if terms.ballots != bool(event.statistics_sha256):
                raise _misfit(round_, event, "statistics and the rule's need of them disagree")
            return replace(round_, state=RoundState.SCORED, statistics_sha256=event.statistics_sha256)
        case BallotCast():
            return _vote(round_, event, terms)
        case Decided():
            return _decide(round_, event, terms)
        case Aggregated():
            _require(round_, event, RoundState.DECIDED)
            return replace(round_, state=RoundState.AGGREGATED, aggregate_sha256=event.aggregate_sha256)
        case Confirmed():
            return _confirm(round_, event)
        case MaskArrived():
            return _take_mask(round_, event)
        case Failed():
            _require(round_, event, *ABORTABLE)
            return replace(round_, state=RoundState.ABORTED, abort_code=event.code)


def _begin(round_: Round) -> Round:
    _require_open(round_)
    return replace(round_, state=RoundState.COLLECTING)


def _accept(round_: Round, event: UploadAccepted, terms: Terms) -> Round:
    _require_open(round_)
    client = event.acceptance.client
    if event.acceptance in round_.accepted:
        return round_
    if client in round_.contributors:
        raise RoundError(
            Code.UPLOAD_DUPLICATE,
            f"round {round_.number} has an update of {client!r} already",
            round=round_.number,
            client=client,
        )
    _require(round_, event, RoundState.COLLECTING)
    accepted = replace(round_, accepted=(*round_.accepted, event.acceptance))
    everyone = event.enrolled <= accepted.contributors
    if everyone and len(accepted.accepted) >= terms.min_clients:
        return replace(accepted, state=RoundState.SEALED)
    return accepted


def _expire(round_: Round, event: DeadlinePassed, terms: Terms) -> Round:
    waits = (RoundState.COLLECTING, RoundState.SCREENED, RoundState.SCORED, RoundState.AGGREGATED)
    if event.state is not round_.state or event.state not in waits:
        raise _misfit(round_, event, f"the deadline belongs to {event.state.name}")
    if round_.state is RoundState.AGGREGATED:
        return replace(round_, state=RoundState.CLOSED)
    if round_.state is RoundState.COLLECTING:
        if len(round_.accepted) >= terms.min_clients:
            return replace(round_, state=RoundState.SEALED)
        return replace(round_, state=RoundState.ABORTED, abort_code=Code.NOT_ENOUGH_CLIENTS)
    if _too_few_ballots(round_, terms):
        return replace(round_, state=RoundState.ABORTED, abort_code=Code.NO_DECISION)
    return round_


def _too_few_ballots(round_: Round, terms: Terms) -> bool:
    """None at all; or, where the most frequent answer wins, fewer than ``min_clients``."""
    stage = round_.stage
    if stage is None or not terms.ballots:
        return False
    least = 1 if terms.majority else min(terms.min_clients, len(round_.accepted))
    return len(round_.ballots(stage)) < least


def _vote(round_: Round, event: BallotCast, terms: Terms) -> Round:
    vote = event.vote
    _require_contributor(round_, vote.client)
    for earlier in round_.ballots(vote.stage):
        if earlier.client == vote.client:
            if earlier == vote:
                return round_
            raise RoundError(
                Code.BALLOT_DUPLICATE,
                f"{vote.client!r} has handed in a different ballot for round {round_.number}",
                round=round_.number,
                client=vote.client,
            )
    if not terms.ballots:
        raise _misfit(round_, event, "the rule needs no ballots")
    if round_.stage is not vote.stage:
        raise _misfit(round_, event, f"no ballots on {vote.stage.name} are awaited")
    judged = round_.judged(vote.stage)
    sized = len(vote.weights) == len(vote.reasons) == len(judged)
    sound = all(0.0 <= w <= 1.0 for w in vote.weights) and sized
    if not sound or any(
        (w > 0) != (r == Reason.KEPT) for w, r in zip(vote.weights, vote.reasons, strict=True)
    ):
        raise RoundError(
            Code.BALLOT_INVALID,
            f"a ballot on round {round_.number} has {len(judged)} weights in [0, 1] and as many reasons, 0 "
            "where the weight is positive and nowhere else",
            round=round_.number,
            client=vote.client,
        )
    return replace(round_, votes=(*round_.votes, vote))


def _clear(round_: Round, event: Cleared, terms: Terms) -> Round:
    _require(round_, event, RoundState.SCREENED)
    if _too_few_ballots(round_, terms):
        raise _misfit(round_, event, "too few ballots are in")
    reasons = event.reasons
    if len(reasons) != len(round_.accepted) or Reason.KEPT not in reasons:
        raise _misfit(round_, event, "there must be one reason per update, and one of them kept")
    return replace(round_, state=RoundState.CLEARED, reasons=reasons)


def _decide(round_: Round, event: Decided, terms: Terms) -> Round:
    _require(round_, event, RoundState.SCORED)
    if _too_few_ballots(round_, terms):
        raise _misfit(round_, event, "too few ballots are in")
    weights, reasons = event.weights, event.reasons
    count = len(round_.accepted)
    if not len(weights) == len(reasons) == count or min(weights) < 0 or sum(weights) < 1:
        raise _misfit(round_, event, "weights must be one integer ≥ 0 per update with a positive sum")
    known = round_.reasons or (Reason.KEPT,) * count
    if any(r and (w or told != r) for w, told, r in zip(weights, reasons, known, strict=True)):
        raise _misfit(round_, event, "an update that was screened out has a weight, or another reason")
    return replace(round_, state=RoundState.DECIDED, weights=weights, reasons=reasons)


def _confirm(round_: Round, event: Confirmed) -> Round:
    confirmation = event.confirmation
    _require_contributor(round_, confirmation.client)
    if round_.state is RoundState.CLOSED or confirmation.client in round_.confirmed:
        return round_
    _require(round_, event, RoundState.AGGREGATED)
    return _closed_if_complete(replace(round_, confirmations=(*round_.confirmations, confirmation)))


def _take_mask(round_: Round, event: MaskArrived) -> Round:
    _require_contributor(round_, event.client)
    if event.mask_sha256 in round_.masks:
        return round_
    if round_.state.ended:
        raise _closed(round_)
    _require(round_, event, RoundState.AGGREGATED)
    if not event.mask_sha256 or round_.confirmed.get(event.client) != event.mask_sha256:
        raise RoundError(
            Code.MASK_MISMATCH,
            f"{event.client!r} has not proposed this mask when it confirmed round {round_.number}",
            round=round_.number,
            client=event.client,
        )
    return _closed_if_complete(replace(round_, masks=(*round_.masks, event.mask_sha256)))


def _closed_if_complete(round_: Round) -> Round:
    """CLOSED once everyone has confirmed and the mask that most of them propose is here."""
    if round_.contributors <= round_.confirmed.keys():
        ranked = ranked_masks(round_)
        if not ranked or ranked[0] in round_.masks:
            return replace(round_, state=RoundState.CLOSED)
    return round_


def _require(round_: Round, event: Event, *states: RoundState) -> None:
    if round_.state not in states:
        raise _misfit(round_, event, f"it needs {' or '.join(state.name for state in states)}")


def _require_open(round_: Round) -> None:
    if round_.state not in (RoundState.ANNOUNCED, RoundState.COLLECTING):
        raise _closed(round_)


def _require_contributor(round_: Round, client: str) -> None:
    if client not in round_.contributors:
        raise RoundError(
            Code.NOT_A_CONTRIBUTOR,
            f"{client!r} has no accepted update in round {round_.number}",
            round=round_.number,
            client=client,
        )


def _closed(round_: Round) -> RoundError:
    return RoundError(
        Code.ROUND_CLOSED,
        f"round {round_.number} takes no more uploads; it is {round_.state.name}",
        round=round_.number,
    )


def _misfit(round_: Round, event: Event, why: str) -> RoundError:
    return RoundError(
        Code.STATE_INVALID,
        f"{type(event).__name__} does not fit round {round_.number} in {round_.state.name}: {why}",
        round=round_.number,
    )
