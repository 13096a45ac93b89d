"""The two stages of a round under a rule that screens: who is asked what, and what follows from too few
answers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from round_events import DIGESTS, S, acceptance, decided, vote

from secagg.errors import Code, RoundError
from secagg.rule import Reason, Stage
from secagg.server.events import (
    BallotCast,
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
    for name in NAMES:
        round_, effects = step(round_, vote(name, Stage.STATISTICS, 1.0, 0.0, 1.0), TERMS)
    assert effects == (Effect.SETTLE,) == pending(round_, TERMS)
    reasons = (Reason.KEPT, Reason.NORM, Reason.DUPLICATE, Reason.KEPT)
    round_ = through(Decided(weights=(1, 0, 0, 1), reasons=reasons), round_=round_)
    assert (round_.state, round_.weights) == (S.DECIDED, (1, 0, 0, 1))


def test_the_last_ballot_of_each_stage_settles_it() -> None:
    """And not one before; who was screened out is asked, too: who is left need not be an honest majority."""
    round_ = through(SCREENED, *screening("a", "b", "c"))
    assert step(round_, *screening("d"), TERMS)[1] == (Effect.SETTLE,)
    round_ = through(*screening("d"), WITHOUT_B, SCORED, round_=round_)
    assert [c for c in NAMES if round_.awaited(c)] == list(NAMES)
    for name in "abc":
        round_, effects = step(round_, vote(name, Stage.STATISTICS, 1.0, 1.0, 1.0), TERMS)
        assert effects == ()
    assert step(round_, vote("d", Stage.STATISTICS, 1.0, 1.0, 1.0), TERMS)[1] == (Effect.SETTLE,)


def test_who_was_screened_out_is_asked_about_the_others() -> None:
    """Three answers, not four; and whoever has handed in nothing is not asked at all."""
    round_ = through(SCREENED, *screening(*NAMES), WITHOUT_B, SCORED)
    assert refused(round_, vote("b", Stage.STATISTICS, *(1.0,) * 4)) is Code.BALLOT_INVALID
    assert refused(round_, vote("e", Stage.STATISTICS, *(1.0,) * 3)) is Code.NOT_A_CONTRIBUTOR
    after, _ = step(round_, vote("b", Stage.STATISTICS, *(1.0,) * 3), TERMS)
    assert not after.awaited("b") and after.awaited("a")


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


def test_where_a_majority_settles_one_ballot_by_the_deadline_is_for_the_rule_to_judge() -> None:
    """The rule asks for more than half of all contributors; without any ballot there is nothing to ask it."""
    terms = Terms(min_clients=3, ballots=True, screens=True, majority=True)
    round_ = through(SCREENED)
    late, _ = step(round_, DeadlinePassed(state=S.SCREENED), terms)
    assert late.abort_code is Code.NO_DECISION
    one = through(*screening("a"), round_=round_)
    assert step(one, DeadlinePassed(state=S.SCREENED), terms)[1] == (Effect.SETTLE,)
    late, _ = step(one, DeadlinePassed(state=S.SCREENED), Terms(min_clients=3, ballots=True, screens=True))
    assert late.abort_code is Code.NO_DECISION


def test_an_answer_whose_reasons_contradict_its_weights_is_refused() -> None:
    """KEPT where the weight is positive, and nowhere else: BALLOT_INVALID."""
    screened = through(SCREENED)
    good = screening("a")[0].vote
    for reasons in ((Reason.KEPT,) * 4, (Reason.NORM,) * 4):
        wrong = BallotCast(vote=replace(good, reasons=tuple(int(r) for r in reasons)))
        assert refused(screened, wrong) is Code.BALLOT_INVALID


def test_what_does_not_follow_from_the_stage_is_refused() -> None:
    """A server's own mistakes: STATE_INVALID, and the round is what it was."""
    sealed, screened = through(), through(SCREENED)
    voted = through(*screening(*NAMES), round_=screened)
    cleared = through(WITHOUT_B, round_=voted)
    scored = through(SCORED, *(vote(n, Stage.STATISTICS, 1.0, 1.0, 1.0) for n in NAMES), round_=cleared)
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
