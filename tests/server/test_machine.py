"""The round's state machine: whatever happens in whatever order, its promises hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from round_events import (
    CLIENTS,
    DIGESTS,
    S,
    acceptance,
    clients,
    decided,
    events,
    fitting,
    straight,
    terms,
    vote,
)

from secagg.errors import Code, RoundError
from secagg.rule import Reason, Stage
from secagg.server.events import (
    Acceptance,
    Aggregated,
    Cleared,
    Confirmation,
    Confirmed,
    DeadlinePassed,
    MaskArrived,
    Round,
    Scored,
    Screened,
    Terms,
    UploadAccepted,
    UploadBegun,
    chosen_mask,
)
from secagg.server.machine import Effect, pending, step
from secagg.server.progress import Announce, End, what_follows

LEGAL = {
    (S.ANNOUNCED, S.COLLECTING),
    (S.COLLECTING, S.SEALED),
    (S.COLLECTING, S.ABORTED),
    (S.SEALED, S.SCORED),
    (S.SEALED, S.SCREENED),
    (S.SEALED, S.ABORTED),
    (S.SCREENED, S.CLEARED),
    (S.SCREENED, S.ABORTED),
    (S.CLEARED, S.SCORED),
    (S.CLEARED, S.ABORTED),
    (S.SCORED, S.DECIDED),
    (S.SCORED, S.ABORTED),
    (S.DECIDED, S.AGGREGATED),
    (S.DECIDED, S.ABORTED),
    (S.AGGREGATED, S.CLOSED),
}


def check_step(before: Round, after: Round, effects: tuple[Effect, ...], terms: Terms) -> None:
    """What one step may do, whatever the event was."""
    if after.state is not before.state:
        assert (before.state, after.state) in LEGAL
        assert effects == pending(after, terms)
    # Whatever was taken in stays, in its order; the set of updates is final once sealed.
    assert after.accepted[: len(before.accepted)] == before.accepted
    assert after.votes[: len(before.votes)] == before.votes
    assert after.confirmations[: len(before.confirmations)] == before.confirmations
    if before.state >= S.SEALED:
        assert after.accepted == before.accepted
    # Decided, scored and aggregated once.
    if before.weights:
        assert after.weights == before.weights
    if before.state >= S.SCORED:
        assert after.statistics_sha256 == before.statistics_sha256
    if before.state >= S.SCREENED:
        assert after.screening_sha256 == before.screening_sha256
    # What was screened out never comes back, and who is asked about a stage stays the same while it lasts.
    for earlier, later in zip(before.reasons, after.reasons, strict=bool(before.reasons)):
        assert later == earlier or earlier == Reason.KEPT
    if before.state is after.state and before.stage is not None:
        assert before.judged(before.stage) == after.judged(before.stage)
    if before.aggregate_sha256:
        assert after.aggregate_sha256 == before.aggregate_sha256
    if before.state.ended:
        assert after == before


Asked = dict[Stage, tuple[Acceptance, ...]]
"""Which updates each stage was about when it was entered."""


def check_round(round_: Round, terms: Terms, asked: Asked) -> None:
    """What holds of every round that can come about."""
    assert len(round_.contributors) == len(round_.accepted)
    for stage in Stage:
        ballots, judged = round_.ballots(stage), asked.get(stage, ())
        voters = [ballot.client for ballot in ballots]
        assert len(set(voters)) == len(voters)
        assert set(voters) <= round_.contributors and (not voters or judged)
        assert {acceptance.client for acceptance in judged} <= round_.contributors
        assert all(len(ballot.weights) == len(ballot.reasons) == len(judged) for ballot in ballots)
    assert bool(round_.screening_sha256) == (Stage.SCREENING in asked)
    assert (Stage.SCREENING in asked) <= terms.screens
    if Stage.SCREENING in asked and Stage.STATISTICS in asked:
        assert asked[Stage.STATISTICS]
        assert set(asked[Stage.STATISTICS]) <= set(asked[Stage.SCREENING])
    assert round_.confirmed.keys() <= round_.contributors
    if S.SEALED <= round_.state <= S.CLOSED:
        assert len(round_.accepted) >= terms.min_clients
    if S.DECIDED <= round_.state <= S.CLOSED:
        assert len(round_.weights) == len(round_.accepted)
        assert sum(round_.weights) >= 1
        assert len(round_.reasons) == len(round_.accepted)
        for acceptance, weight in zip(round_.accepted, round_.weights, strict=True):
            assert acceptance in asked[Stage.STATISTICS] or not weight
        for stage, judged in asked.items():
            if terms.ballots:
                assert len(round_.ballots(stage)) >= min(terms.min_clients, len(judged))
        assert (Stage.SCREENING in asked) == terms.screens
    assert (round_.state is S.ABORTED) == (round_.abort_code is not None)
    assert bool(round_.aggregate_sha256) == (round_.state in (S.AGGREGATED, S.CLOSED))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), terms=terms)
def test_no_sequence_of_events_breaks_a_promise(data: st.DataObject, terms: Terms) -> None:
    """Only the transitions of the contract happen, nothing accepted is lost, one aggregate at most."""
    round_, asked = Round(number=1), Asked()
    script = straight(data, terms)
    for place in range(len(script) + data.draw(st.integers(1, 20))):
        wild = st.one_of(events, st.sampled_from(fitting(round_, terms)))
        event = script[place] if place < len(script) else data.draw(wild)
        try:
            after, effects = step(round_, event, terms)
        except RoundError as error:
            assert error.code in {
                Code.ROUND_CLOSED,
                Code.UPLOAD_DUPLICATE,
                Code.BALLOT_INVALID,
                Code.BALLOT_DUPLICATE,
                Code.NOT_A_CONTRIBUTOR,
                Code.MASK_MISMATCH,
                Code.STATE_INVALID,
            }
            continue
        check_step(round_, after, effects, terms)
        if after.state is not round_.state and after.stage is not None:
            assert after.stage not in asked
            asked[after.stage] = after.judged(after.stage)
        check_round(after, terms, asked)
        # Said twice is said once, or refused; but never counted twice.
        try:
            again, _ = step(after, event, terms)
        except RoundError:
            pass
        else:
            assert again == after or isinstance(event, DeadlinePassed)
        round_ = after


@settings(deadline=None)
@given(data=st.data(), terms=terms)
def test_a_round_always_has_a_way_to_its_end(data: st.DataObject, terms: Terms) -> None:
    """Deadlines and the server's own results alone bring every round with an update in it to an end."""
    round_, _ = step(Round(number=1), UploadBegun(), terms)
    for client in data.draw(st.lists(clients, unique=True, min_size=1)):
        if round_.state is S.COLLECTING:
            event = UploadAccepted(acceptance=acceptance(client), enrolled=frozenset(CLIENTS))
            round_, _ = step(round_, event, terms)
    for _ in range(12):
        if round_.state.ended:
            break
        (effect,) = pending(round_, terms)
        if effect is Effect.SETTLE and round_.state is S.SCREENED:
            kept = Cleared(reasons=(Reason.KEPT,) * len(round_.accepted))
            round_, _ = step(round_, kept, terms)
            continue
        event = {
            Effect.SCREEN: Screened(screening_sha256=DIGESTS[1]),
            Effect.AWAIT_UPLOADS: DeadlinePassed(state=S.COLLECTING),
            Effect.SCORE: Scored(statistics_sha256=DIGESTS[1] if terms.ballots else b""),
            Effect.AWAIT_BALLOTS: DeadlinePassed(state=round_.state),
            Effect.SETTLE: decided(*(1,) * len(round_.accepted)),
            Effect.AGGREGATE: Aggregated(aggregate_sha256=DIGESTS[0]),
            Effect.AWAIT_CONFIRMATIONS: DeadlinePassed(state=S.AGGREGATED),
        }[effect]
        round_, _ = step(round_, event, terms)
    assert round_.state.ended


def through(*steps: Any, terms: Terms, round_: Round | None = None) -> Round:
    round_ = round_ or Round(number=1)
    for event in steps:
        round_, _ = step(round_, event, terms)
    return round_


TWO = Terms(min_clients=2, ballots=True)
ENROLLED = frozenset({"a", "b"})


def sealed(terms: Terms = TWO) -> Round:
    return through(
        UploadBegun(),
        *(UploadAccepted(acceptance=acceptance(c), enrolled=ENROLLED) for c in "ab"),
        terms=terms,
    )


def test_a_round_is_sealed_by_the_last_enrolled_client() -> None:
    """Nobody waits for a deadline when nobody is missing."""
    assert sealed().state is S.SEALED


def test_the_first_accepted_update_starts_the_deadline() -> None:
    """Not an announcement, which costs nothing, and not a later update; after a restart likewise."""
    begun, effects = step(Round(number=1), UploadBegun(), TWO)
    assert begun.state is S.COLLECTING
    assert effects == pending(begun, TWO) == ()
    first = UploadAccepted(acceptance=acceptance("a"), enrolled=frozenset(CLIENTS))
    one, effects = step(begun, first, TWO)
    assert effects == pending(one, TWO) == (Effect.AWAIT_UPLOADS,)
    assert step(one, UploadBegun(), TWO)[1] == ()
    _, effects = step(one, UploadAccepted(acceptance=acceptance("b"), enrolled=frozenset(CLIENTS)), TWO)
    assert effects == ()


def test_too_few_enrolled_clients_do_not_seal() -> None:
    """min_clients holds even if everyone enrolled has come."""
    event = UploadAccepted(acceptance=acceptance("a"), enrolled=frozenset({"a"}))
    assert through(UploadBegun(), event, terms=TWO).state is S.COLLECTING


def test_a_second_ballot_must_be_the_first() -> None:
    """The same ballot again changes nothing, another one is refused."""
    round_ = through(Scored(statistics_sha256=DIGESTS[1]), terms=TWO, round_=sealed())
    first = vote("a", Stage.STATISTICS, 1.0, 0.0)
    once = through(first, terms=TWO, round_=round_)
    assert step(once, first, TWO) == (once, ())
    with pytest.raises(RoundError) as caught:
        step(once, vote("a", Stage.STATISTICS, 1.0, 1.0), TWO)
    assert caught.value.code is Code.BALLOT_DUPLICATE


def test_the_last_ballot_settles() -> None:
    """SETTLE follows once every contributor's ballot is in, and not before."""
    round_ = through(Scored(statistics_sha256=DIGESTS[1]), terms=TWO, round_=sealed())
    round_, effects = step(round_, vote("a", Stage.STATISTICS, 1.0, 1.0), TWO)
    assert effects == ()
    round_, effects = step(round_, vote("b", Stage.STATISTICS, 1.0, 1.0), TWO)
    assert effects == (Effect.SETTLE,)
    assert pending(round_, TWO) == (Effect.SETTLE,)


def test_a_deadline_of_an_earlier_stage_is_refused() -> None:
    """A timer that fires late does not end the next stage."""
    with pytest.raises(RoundError) as caught:
        step(sealed(), DeadlinePassed(state=S.COLLECTING), TWO)
    assert caught.value.code is Code.STATE_INVALID


def test_a_round_waits_for_the_mask_that_most_propose() -> None:
    """Everyone has confirmed, but the bitmap is missing: closed when it arrives, and it is chosen."""
    terms = Terms(min_clients=2, ballots=False)
    round_ = through(
        Scored(statistics_sha256=b""),
        decided(1, 1),
        Aggregated(aggregate_sha256=DIGESTS[0]),
        *(Confirmed(confirmation=Confirmation(client=c, next_mask_sha256=DIGESTS[1])) for c in "ab"),
        terms=terms,
        round_=sealed(terms),
    )
    assert round_.state is S.AGGREGATED
    closed = through(MaskArrived(client="b", mask_sha256=DIGESTS[1]), terms=terms, round_=round_)
    assert closed.state is S.CLOSED
    assert chosen_mask(closed, closed.masks) == DIGESTS[1]
    late = through(DeadlinePassed(state=S.AGGREGATED), terms=terms, round_=round_)
    assert late.state is S.CLOSED
    assert chosen_mask(late, late.masks) == b""


def ended(number: int, state: S) -> Round:
    return Round(number=number, state=state, abort_code=Code.NO_DECISION if state is S.ABORTED else None)


def test_the_federation_ends_after_its_rounds_or_as_many_aborts_as_it_is_set_to() -> None:
    """Aborted rounds keep the base and do not count; as many in a row as set are the end, with 0 none is."""
    assert what_follows([], rounds=2, max_aborted=3) == Announce(number=1, base_round=0)
    history = [ended(1, S.CLOSED), ended(2, S.ABORTED), ended(3, S.ABORTED)]
    assert what_follows(history, rounds=2, max_aborted=3) == Announce(number=4, base_round=1)
    done = [*history, ended(4, S.CLOSED)]
    assert what_follows(done, rounds=2, max_aborted=3) == End(
        rounds_closed=2, last_aggregate_round=4, reason=""
    )
    aborted = [*history, ended(4, S.ABORTED)]
    assert what_follows(aborted, rounds=2, max_aborted=0) == Announce(number=5, base_round=1)
    assert what_follows(aborted, rounds=2, max_aborted=4) == Announce(number=5, base_round=1)
    outcome = what_follows(aborted, rounds=2, max_aborted=3)
    assert isinstance(outcome, End)
    assert outcome.last_aggregate_round == 1
    assert "NO_DECISION" in outcome.reason
