"""What the server does in each stage of a round; every stage can be repeated after a crash."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import Code, RoundError
from secagg.rule import Answer, CoordinateRule, Reason, Stage
from secagg.server import work
from secagg.server.events import Aggregated, Cleared, Decided, Failed, Round, Scored, Screened, Vote
from secagg.server.scoring import all_of, release, scratch, update_path
from secagg.server.spool import digest_of
from secagg.weights import agreeing, coefficient_weights, countable_weights

if TYPE_CHECKING:
    from secagg.server.coordinator import Coordinator

_log = logging.getLogger(__name__)


class Stages:
    """The work behind SCREEN, SCORE, SETTLE, AGGREGATE and FINISH."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def screen(self, round_: Round) -> None:
        """SEALED → SCREENED: releases what updates are screened by."""
        digest = await self._release(round_, Stage.SCREENING)
        await self._coordinator.apply(round_.number, Screened(screening_sha256=digest))

    async def score(self, round_: Round) -> None:
        """SEALED or CLEARED → SCORED: releases the statistics the rule asks for."""
        digest = await self._release(round_, Stage.STATISTICS)
        await self._coordinator.apply(round_.number, Scored(statistics_sha256=digest))

    async def _release(self, round_: Round, stage: Stage) -> bytes:
        """Statistics that a crash left behind unannounced are computed anew: nobody has seen them."""
        started, coordinator = time.monotonic(), self._coordinator
        request, digest = coordinator.deployment.request, b""
        root = coordinator.deployment.config.root_client
        if root is not None and root not in round_.contributors:
            raise RoundError(
                Code.ROOT_MISSING, f"the root client {root!r} has no update in round {round_.number}"
            )
        if request is not None:
            digest = await release(coordinator, round_, stage, request)
        spent = round(time.monotonic() - started, 3)
        coordinator.observer.emit("scored", round=round_.number, stage=stage.name.lower(), score_s=spent)
        return digest

    async def settle(self, round_: Round) -> None:
        """SCREENED → CLEARED or SCORED → DECIDED, as the rule settles the ballots that are in; or ABORTED."""
        coordinator = self._coordinator
        async with coordinator.exclusive:
            now = coordinator.round(round_.number)
            if now.state is not round_.state or now.stage is None:
                return
            try:
                event = self._cleared(now) if now.stage is Stage.SCREENING else self._decided(now)
            except RoundError as error:
                _log.warning("round %d has no decision: %s", now.number, error.message)
                coordinator.observer.emit(
                    "undecided", round=now.number, code=error.code.value, message=error.message
                )
                await coordinator.commit(now.number, Failed(code=error.code))
                return
            await coordinator.commit(now.number, event)

    def _settled(self, now: Round, stage: Stage) -> Answer:
        plan, judged = self._coordinator.plan(now.number), now.judged(stage)
        counts = np.array([plan.counted(a.sample_count) for a in judged], dtype=np.int64)
        answers = [_answer(vote) for vote in now.ballots(stage)]
        answer = self._coordinator.deployment.rule.settle(answers, len(now.accepted), counts)
        if answer.weights.shape != counts.shape or answer.reasons.shape != counts.shape:
            raise RoundError(Code.NO_DECISION, f"the rule gave weights of shape {answer.weights.shape}")
        return answer

    def _cleared(self, now: Round) -> Cleared:
        answer = self._settled(now, Stage.SCREENING)
        reasons = answer.reasons.tolist()
        root = self._coordinator.deployment.config.root_client
        for place, acceptance in enumerate(now.accepted):
            # What others are compared with is not screened by them.
            if acceptance.client == root:
                reasons[place] = Reason.KEPT
        return Cleared(reasons=tuple(reasons))

    def _decided(self, now: Round) -> Decided:
        plan, profile = self._coordinator.plan(now.number), self._coordinator.deployment.profile
        answer, judged = self._settled(now, Stage.STATISTICS), now.kept
        reasons = answer.reasons.copy()
        if plan.divisor:
            integers = coefficient_weights(answer.weights, plan.divisor, profile.weight_total)
        else:
            agree = agreeing([a.scales for a in judged])
            reasons[(reasons == Reason.KEPT) & ~agree] = Reason.SCALES
            counts = np.array([plan.counted(a.sample_count) for a in judged], dtype=np.int64)
            applied = counts if plan.count_unit else None
            integers = countable_weights(answer.weights * agree, profile.weight_total, applied)
        known = now.reasons or (Reason.KEPT,) * len(now.accepted)
        places = [place for place, reason in enumerate(known) if reason == Reason.KEPT]
        weights, told = [0] * len(known), list(known)
        for place, weight, reason in zip(places, integers.tolist(), reasons.tolist(), strict=True):
            weights[place], told[place] = weight, reason if not weight else Reason.KEPT
            if not weight and reason == Reason.KEPT:
                told[place] = Reason.RULE  # too little for an integer to show
        return Decided(weights=tuple(weights), reasons=tuple(int(reason) for reason in told))

    async def aggregate(self, round_: Round) -> None:
        """DECIDED → AGGREGATED: sums the updates with the journal's weights; the same bytes every time."""
        started, coordinator, spool = time.monotonic(), self._coordinator, self._coordinator.spool
        job, rule = self._sum_job(round_), coordinator.deployment.rule
        async with scratch(coordinator) as files:
            out, parts = files.new(), coordinator.workers.count
            if isinstance(rule, CoordinateRule):
                await coordinator.workers.run(work.combine, job, out, rule)
            else:
                await coordinator.workers.run(work.begin_aggregate, job, out)
                await all_of(
                    coordinator.workers.run(work.sum_part, job, out, part, parts) for part in range(parts)
                )
            await coordinator.in_thread(spool.publish, out, spool.aggregate(round_.number))
        digest = await coordinator.in_thread(digest_of, spool.aggregate(round_.number))
        await coordinator.apply(round_.number, Aggregated(aggregate_sha256=digest))
        coordinator.observer.emit(
            "aggregated", round=round_.number, aggregate_s=round(time.monotonic() - started, 3)
        )

    def _sum_job(self, round_: Round) -> work.SumJob:
        coordinator, plan = self._coordinator, self._coordinator.plan(round_.number)
        chosen = [(a, w) for a, w in zip(round_.accepted, round_.weights, strict=True) if w]
        base, before = plan.base_round, None
        # Where every round hides the same entries, sums add up on ciphertexts from the first round on.
        adds_up = bool(plan.divisor) and plan.protection.lasting
        if adds_up and base:
            before = (coordinator.spool.aggregate(base), coordinator.job(base))
        return work.SumJob(
            round=coordinator.job(round_.number),
            paths=tuple(update_path(coordinator, round_, a.update_id) for a, _ in chosen),
            weights=tuple(weight for _, weight in chosen),
            scales=chosen[0][0].scales,
            since=plan.since,
            before=before,
        )

    async def finish(self, round_: Round) -> None:
        """CLOSED or ABORTED: cleans up and announces what follows."""
        await self._coordinator.follow(round_)


def _answer(vote: Vote) -> Answer:
    return Answer(
        weights=np.array(vote.weights, dtype=np.float64), reasons=np.array(vote.reasons, dtype=np.uint8)
    )
