"""The round's state machine: whatever happens in whatever order, its promises hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import Code, RoundError
from secagg.plan import RoundState
from secagg.server.events import (
    Acceptance,
    Aggregated,
    BallotCast,
    Confirmation,
    Confirmed,
    DeadlinePassed,
    Decided,
    Event,
    Failed,
    MaskArrived,
    Round,
    Scored,
    Terms,
    UploadAccepted,
    UploadBegun,
    Vote,
    chosen_mask,
)
from secagg.server.machine import Effect, pending, step
from secagg.server.progress import Announce, End, what_follows

CLIENTS = ("a", "b", "c", "d")
DIGESTS = (bytes(32), b"\1" * 32)
S = RoundState

LEGAL = {
    (S.ANNOUNCED, S.COLLECTING),
    (S.COLLECTING, S.SEALED),
    (S.COLLECTING, S.ABORTED),
    (S.SEALED, S.SCORED),
    (S.SEALED, S.ABORTED),
    (S.SCORED, S.DECIDED),
    (S.SCORED, S.ABORTED),
    (S.DECIDED, S.AGGREGATED),
    (S.DECIDED, S.ABORTED),
    (S.AGGREGATED, S.CLOSED),
}


def acceptance(client: str, version: int = 0) -> Acceptance:
    return Acceptance(
        client=client,
        update_id=f"{client}{version}".encode().ljust(16),
        sample_count=10,
        content_sha256=bytes([version]) * 32,
    )


clients = st.sampled_from(CLIENTS)
digests = st.sampled_from(DIGESTS)
states = st.sampled_from(list(S))
weights = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan")]), max_size=4).map(tuple)
events: st.SearchStrategy[Event] = st.one_of(
    st.just(UploadBegun()),
    st.builds(
        UploadAccepted,
        acceptance=st.builds(acceptance, clients, st.integers(0, 1)),
        enrolled=st.frozensets(clients, min_size=1),
    ),
    st.builds(DeadlinePassed, state=states),
    st.builds(Scored, statistics_sha256=st.sampled_from([b"", *DIGESTS])),
    st.builds(BallotCast, vote=st.builds(Vote, client=clients, weights=weights)),
    st.builds(Decided, weights=st.lists(st.integers(-1, 3), max_size=4).map(tuple)),
    st.builds(Aggregated, aggregate_sha256=digests),
    st.builds(
        Confirmed,
        confirmation=st.builds(
            Confirmation, client=clients, next_mask_sha256=st.sampled_from([b"", *DIGESTS])
        ),
    ),
    st.builds(MaskArrived, client=clients, mask_sha256=digests),
    st.builds(Failed, code=st.sampled_from([Code.WORKER_LOST, Code.INTERNAL])),
)
terms = st.builds(Terms, min_clients=st.integers(1, 3), ballots=st.booleans())


def fitting(round_: Round, terms: Terms) -> list[Event]:
    """Events that drive a round forward, so that random walks get further than its first state."""
    n = len(round_.accepted)
    names = [a.client for a in round_.accepted]
    everyone = frozenset(CLIENTS)
    match round_.state:
        case S.ANNOUNCED:
            return [UploadBegun()]
        case S.COLLECTING:
            return [
                *(UploadAccepted(acceptance=acceptance(c), enrolled=everyone) for c in CLIENTS),
                DeadlinePassed(state=S.COLLECTING),
            ]
        case S.SEALED:
            return [Scored(statistics_sha256=DIGESTS[1] if terms.ballots else b"")]
        case S.SCORED:
            votes = [BallotCast(vote=Vote(client=c, weights=(1.0,) * n)) for c in names]
            return [*votes, Decided(weights=(1,) * n), DeadlinePassed(state=S.SCORED)]
        case S.DECIDED:
            return [Aggregated(aggregate_sha256=d) for d in DIGESTS]
        case S.AGGREGATED:
            confirmations = [
                Confirmed(confirmation=Confirmation(client=c, next_mask_sha256=d))
                for c in names
                for d in (b"", *DIGESTS)
            ]
            masks = [MaskArrived(client=c, mask_sha256=d) for c in names for d in DIGESTS]
            return [*confirmations, *masks, DeadlinePassed(state=S.AGGREGATED)]
        case _:
            return [UploadBegun()]


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
    if before.aggregate_sha256:
        assert after.aggregate_sha256 == before.aggregate_sha256
    if before.state.ended:
        assert after == before


def check_round(round_: Round, terms: Terms) -> None:
    """What holds of every round that can come about."""
    assert len(round_.contributors) == len(round_.accepted)
    assert round_.voters <= round_.contributors
    assert round_.confirmed.keys() <= round_.contributors
    if S.SEALED <= round_.state <= S.CLOSED:
        assert len(round_.accepted) >= terms.min_clients
    if S.DECIDED <= round_.state <= S.CLOSED:
        assert len(round_.weights) == len(round_.accepted)
        assert sum(round_.weights) >= 1
        if terms.ballots:
            assert len(round_.votes) >= terms.min_clients
    assert (round_.state is S.ABORTED) == (round_.abort_code is not None)
    assert bool(round_.aggregate_sha256) == (round_.state in (S.AGGREGATED, S.CLOSED))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), terms=terms)
def test_no_sequence_of_events_breaks_a_promise(data: st.DataObject, terms: Terms) -> None:
    """Only the transitions of the contract happen, nothing accepted is lost, one aggregate at most."""
    round_ = Round(number=1)
    for _ in range(data.draw(st.integers(1, 30))):
        event = data.draw(st.one_of(events, st.sampled_from(fitting(round_, terms))))
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
        check_round(after, terms)
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
    for _ in range(8):
        if round_.state.ended:
            break
        (effect,) = pending(round_, terms)
        event = {
            Effect.AWAIT_UPLOADS: DeadlinePassed(state=S.COLLECTING),
            Effect.SCORE: Scored(statistics_sha256=DIGESTS[1] if terms.ballots else b""),
            Effect.AWAIT_BALLOTS: DeadlinePassed(state=S.SCORED),
            Effect.SETTLE: Decided(weights=(1,) * len(round_.accepted)),
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
    first = BallotCast(vote=Vote(client="a", weights=(1.0, 0.0)))
    once = through(first, terms=TWO, round_=round_)
    assert step(once, first, TWO) == (once, ())
    with pytest.raises(RoundError) as caught:
        step(once, BallotCast(vote=Vote(client="a", weights=(1.0, 1.0))), TWO)
    assert caught.value.code is Code.BALLOT_DUPLICATE


def test_the_last_ballot_settles() -> None:
    """SETTLE follows once every contributor's ballot is in, and not before."""
    round_ = through(Scored(statistics_sha256=DIGESTS[1]), terms=TWO, round_=sealed())
    round_, effects = step(round_, BallotCast(vote=Vote(client="a", weights=(1.0, 1.0))), TWO)
    assert effects == ()
    round_, effects = step(round_, BallotCast(vote=Vote(client="b", weights=(1.0, 1.0))), TWO)
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
        Decided(weights=(1, 1)),
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
