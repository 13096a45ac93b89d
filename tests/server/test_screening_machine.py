"""The two stages of a round under a rule that screens: who is asked what, and what follows from too few
answers.
"""

from __future__ import annotations

from typing import Any

import pytest
from round_events import DIGESTS, S, acceptance, decided, vote

from secagg.errors import Code, RoundError
from secagg.rule import Reason, Stage
from secagg.server.events import (
    Cleared,
    DeadlinePassed,
    Decided,
    Failed,
    Round,
    Scored,
    Screened,
    Terms,
    UploadAccepted,
    UploadBegun,
)
from secagg.server.machine import ABORTABLE, Effect, pending, step

TERMS = Terms(min_clients=2, ballots=True, screens=True)
NAMES = "abcd"
SCREENED = Screened(screening_sha256=DIGESTS[1])
SCORED = Scored(statistics_sha256=DIGESTS[0] + b"\2")
WITHOUT_B = Cleared(reasons=(Reason.KEPT, Reason.NORM, Reason.KEPT, Reason.KEPT))


def through(*events: Any, round_: Round | None = None) -> Round:
    """A round after these events, of four clients' updates unless it is given."""
    if round_ is None:
        uploads = [UploadAccepted(acceptance=acceptance(c), enrolled=frozenset(NAMES)) for c in NAMES]
        round_ = through(UploadBegun(), *uploads, round_=Round(number=1))
    for event in events:
        round_, _ = step(round_, event, TERMS)
    return round_


def screening(*names: str) -> list[Any]:
    """Ballots that find b's norm too large."""
    return [vote(name, Stage.SCREENING, 1.0, 0.0, 1.0, 1.0) for name in names]


def refused(round_: Round, event: Any) -> Code:
    """The code of a refusal."""
    with pytest.raises(RoundError) as caught:
        step(round_, event, TERMS)
    return caught.value.code


def test_a_screened_round_goes_through_both_stages() -> None:
    """What to do follows in each state, right away and after a restart."""
    round_ = through()
    assert (round_.state, pending(round_, TERMS)) == (S.SEALED, (Effect.SCREEN,))
    round_ = through(SCREENED, round_=round_)
    assert (round_.state, pending(round_, TERMS)) == (S.SCREENED, (Effect.AWAIT_BALLOTS,))
    round_ = through(*screening(*NAMES), round_=round_)
    assert (round_.state, pending(round_, TERMS)) == (S.SCREENED, (Effect.SETTLE,))
    round_ = through(WITHOUT_B, round_=round_)
    assert (round_.state, pending(round_, TERMS)) == (S.CLEARED, (Effect.SCORE,))
    round_ = through(SCORED, round_=round_)
    assert (round_.state, pending(round_, TERMS)) == (S.SCORED, (Effect.AWAIT_BALLOTS,))
    for name in "acd":
        round_, effects = step(round_, vote(name, Stage.STATISTICS, 1.0, 0.0, 1.0), TERMS)
    assert effects == (Effect.SETTLE,) == pending(round_, TERMS)
    reasons = (Reason.KEPT, Reason.NORM, Reason.DUPLICATE, Reason.KEPT)
    round_ = through(Decided(weights=(1, 0, 0, 1), reasons=reasons), round_=round_)
    assert (round_.state, round_.weights) == (S.DECIDED, (1, 0, 0, 1))


def test_the_last_ballot_of_each_stage_settles_it() -> None:
    """And not one before; nobody waits for who was screened out."""
    round_ = through(SCREENED, *screening("a", "b", "c"))
    assert step(round_, *screening("d"), TERMS)[1] == (Effect.SETTLE,)
    round_ = through(*screening("d"), WITHOUT_B, SCORED, round_=round_)
    assert [c for c in NAMES if round_.awaited(c)] == ["a", "c", "d"]
    for name in "ac":
        round_, effects = step(round_, vote(name, Stage.STATISTICS, 1.0, 1.0, 1.0), TERMS)
        assert effects == ()
    assert step(round_, vote("d", Stage.STATISTICS, 1.0, 1.0, 1.0), TERMS)[1] == (Effect.SETTLE,)


def test_who_was_screened_out_has_no_say_in_the_second_stage() -> None:
    """NOT_A_CONTRIBUTOR, whatever the ballot; its first ballot may be repeated."""
    round_ = through(SCREENED, *screening(*NAMES), WITHOUT_B, SCORED)
    for given in ((1.0, 1.0, 1.0), (1.0,) * 4):
        assert refused(round_, vote("b", Stage.STATISTICS, *given)) is Code.NOT_A_CONTRIBUTOR
    assert step(round_, *screening("b"), TERMS) == (round_, ())


def test_a_ballot_for_the_wrong_stage_is_refused() -> None:
    """Before, while and after the other stage is asked about: STATE_INVALID."""
    early, late = vote("a", Stage.STATISTICS, 1.0, 1.0, 1.0, 1.0), screening("a")[0]
    for events, ballot in (
        ((), late),
        ((), early),
        ((SCREENED,), early),
        ((SCREENED, *screening("c", "d"), WITHOUT_B), late),
        ((SCREENED, *screening("c", "d"), WITHOUT_B), early),
        ((SCREENED, *screening("c", "d"), WITHOUT_B, SCORED), late),
    ):
        assert refused(through(*events), ballot) is Code.STATE_INVALID


def test_a_ballot_has_as_many_answers_as_its_stage_has_updates() -> None:
    """Four, then three: BALLOT_INVALID."""
    screened = through(SCREENED)
    assert refused(screened, vote("a", Stage.SCREENING, 1.0, 1.0, 1.0)) is Code.BALLOT_INVALID
    scored = through(*screening(*NAMES), WITHOUT_B, SCORED, round_=screened)
    for given in ((1.0,) * 4, (1.0,) * 2, (1.0, 1.5, 0.0), (1.0, float("nan"), 0.0)):
        assert refused(scored, vote("a", Stage.STATISTICS, *given)) is Code.BALLOT_INVALID


def test_too_few_ballots_by_the_deadline_abort_either_stage() -> None:
    """min_clients of them are needed; NO_DECISION."""
    for events, state in (
        ((SCREENED, *screening("a")), S.SCREENED),
        (
            (SCREENED, *screening(*NAMES), WITHOUT_B, SCORED, vote("a", Stage.STATISTICS, 1.0, 1.0, 1.0)),
            S.SCORED,
        ),
    ):
        late, effects = step(through(*events), DeadlinePassed(state=state), TERMS)
        assert (late.state, late.abort_code, effects) == (S.ABORTED, Code.NO_DECISION, (Effect.FINISH,))


def test_enough_ballots_by_the_deadline_settle_either_stage() -> None:
    """Two of four, two of three."""
    two = [vote(name, Stage.STATISTICS, 1.0, 1.0, 1.0) for name in "ac"]
    for events, state in (
        ((SCREENED, *screening("a", "b")), S.SCREENED),
        ((SCREENED, *screening(*NAMES), WITHOUT_B, SCORED, *two), S.SCORED),
    ):
        late, effects = step(through(*events), DeadlinePassed(state=state), TERMS)
        assert (late.state, effects) == (state, (Effect.SETTLE,))


def test_fewer_than_min_clients_left_need_all_of_their_ballots() -> None:
    """Three are screened out: the one that is left decides, and without it nothing does."""
    only_a = Cleared(reasons=(Reason.KEPT, Reason.NORM, Reason.NORM, Reason.NORM))
    round_ = through(SCREENED, *screening(*NAMES), only_a, SCORED)
    late, _ = step(round_, DeadlinePassed(state=S.SCORED), TERMS)
    assert late.abort_code is Code.NO_DECISION
    end = Decided(weights=(1, 0, 0, 0), reasons=only_a.reasons)
    settled = through(vote("a", Stage.STATISTICS, 1.0), end, round_=round_)
    assert settled.state is S.DECIDED


def test_what_does_not_follow_from_the_stage_is_refused() -> None:
    """A server's own mistakes: STATE_INVALID, and the round is what it was."""
    sealed, screened = through(), through(SCREENED)
    voted = through(*screening(*NAMES), round_=screened)
    cleared = through(WITHOUT_B, round_=voted)
    scored = through(SCORED, *(vote(n, Stage.STATISTICS, 1.0, 1.0, 1.0) for n in "acd"), round_=cleared)
    kept = (Reason.KEPT,) * 4
    for round_, event in (
        (sealed, SCORED),
        (sealed, Screened(screening_sha256=b"")),
        (sealed, Cleared(reasons=kept)),
        (screened, SCREENED),
        (screened, Cleared(reasons=kept)),
        (screened, SCORED),
        (voted, Cleared(reasons=kept[1:])),
        (voted, Cleared(reasons=(Reason.NORM,) * 4)),
        (voted, decided(1, 1, 1, 1)),
        (cleared, SCREENED),
        (cleared, WITHOUT_B),
        (cleared, Scored(statistics_sha256=b"")),
        (scored, decided(1, 1, 1, 1)),
        (scored, decided(0, 1, 0, 0)),
        (scored, Decided(weights=(1, 0, 1, 1), reasons=kept)),
        (scored, Decided(weights=(1, 0, 1, 1), reasons=(Reason.KEPT, Reason.RULE, Reason.KEPT, Reason.KEPT))),
        (scored, decided(1, 0, 1)),
        (scored, decided(0, 0, 0, 0)),
    ):
        assert refused(round_, event) is Code.STATE_INVALID, (round_.state, event)


def test_rules_without_screening_have_no_such_stage() -> None:
    """SEALED goes to SCORED, as ever."""
    plain, enrolled = Terms(min_clients=2, ballots=True), frozenset("ab")
    round_ = Round(number=1)
    for event in (
        UploadBegun(),
        *(UploadAccepted(acceptance=acceptance(c), enrolled=enrolled) for c in "ab"),
    ):
        round_, _ = step(round_, event, plain)
    assert pending(round_, plain) == (Effect.SCORE,)
    with pytest.raises(RoundError):
        step(round_, SCREENED, plain)
    assert step(round_, SCORED, plain)[0].state is S.SCORED


def test_every_state_in_which_the_server_works_or_waits_for_ballots_can_fail() -> None:
    """The abort keeps what was taken in."""
    rounds = [
        through(),
        through(SCREENED),
        through(SCREENED, *screening(*NAMES), WITHOUT_B),
        through(SCREENED, *screening(*NAMES), WITHOUT_B, SCORED),
    ]
    assert [round_.state for round_ in rounds] == list(ABORTABLE[:4])
    for round_ in rounds:
        failed, _ = step(round_, Failed(code=Code.SPOOL_CORRUPT), TERMS)
        assert failed.state is S.ABORTED
        assert (failed.accepted, failed.votes, failed.reasons) == (
            round_.accepted,
            round_.votes,
            round_.reasons,
        )
