"""What the server does in each stage of a round; every stage can be repeated after a crash."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from secagg.errors import Code, RoundError, ServerError
from secagg.plan import RoundState
from secagg.rule import StatisticsRequest
from secagg.server import work
from secagg.server.events import Aggregated, Decided, Failed, Round, Scored
from secagg.server.spool import digest_of
from secagg.weights import agreeing, countable_weights

if TYPE_CHECKING:
    from secagg.server.coordinator import Coordinator

_log = logging.getLogger(__name__)

T = TypeVar("T")


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results; the first failure only once every call has ended, so that none still writes."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


class Stages:
    """The work behind SCORE, SETTLE, AGGREGATE and FINISH."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def score(self, round_: Round) -> None:
        """SEALED → SCORED: releases the statistics the rule asks for.

        Statistics that a crash left behind unannounced are computed anew: nobody has seen them.
        """
        started = time.monotonic()
        digest = b""
        if self._coordinator.deployment.request is not None:
            digest = await self._release(round_, self._coordinator.deployment.request)
        await self._coordinator.apply(round_.number, Scored(statistics_sha256=digest))
        self._coordinator.observer.emit(
            "scored", round=round_.number, score_s=round(time.monotonic() - started, 3)
        )

    async def _release(self, round_: Round, request: StatisticsRequest) -> bytes:
        """Every update in whichever worker is free; then one puts the pieces together."""
        coordinator, spool = self._coordinator, self._coordinator.spool
        job, reference = coordinator.job(round_.number), self._reference(round_)
        public_key = coordinator.deployment.public_key.to_bytes()
        pieces = [spool.scratch() for _ in round_.accepted]
        paths = [self._update(round_, acceptance.update_id) for acceptance in round_.accepted]
        out = spool.scratch()
        async with self._scratch(out, *pieces):
            await all_of(
                coordinator.workers.run(work.release, job, piece, path, request, reference, public_key)
                for piece, path in zip(pieces, paths, strict=True)
            )
            update_ids = [acceptance.update_id for acceptance in round_.accepted]
            digest = await coordinator.workers.run(work.assemble, job, out, update_ids, pieces, request)
            await coordinator.in_thread(spool.publish, out, spool.statistics(round_.number))
        return digest

    async def settle(self, round_: Round) -> None:
        """SCORED → DECIDED: the rule turns the ballots that are in into weights; or ABORTED if it can't."""
        coordinator = self._coordinator
        async with coordinator.exclusive:
            now = coordinator.round(round_.number)
            if now.state is not RoundState.SCORED:
                return
            plan = coordinator.plan(now.number)
            counts = np.array([plan.counted(a.sample_count) for a in now.accepted], dtype=np.int64)
            ballots = [np.array(vote.weights, dtype=np.float64) for vote in now.votes]
            try:
                weights = coordinator.deployment.rule.settle(ballots, counts)
                if weights.shape != counts.shape:
                    raise RoundError(Code.NO_DECISION, f"the rule gave weights of shape {weights.shape}")
                kept = weights * agreeing([a.scales for a in now.accepted])
                applied = counts if plan.count_unit else None
                integers = countable_weights(kept, coordinator.deployment.profile.weight_total, applied)
            except RoundError as error:
                _log.warning("round %d has no decision: %s", now.number, error.message)
                await coordinator.commit(now.number, Failed(code=error.code))
                return
            await coordinator.commit(now.number, Decided(weights=tuple(integers.tolist())))

    async def aggregate(self, round_: Round) -> None:
        """DECIDED → AGGREGATED: sums the updates with the journal's weights; the same bytes every time."""
        started, coordinator, spool = time.monotonic(), self._coordinator, self._coordinator.spool
        chosen = [(a, w) for a, w in zip(round_.accepted, round_.weights, strict=True) if w]
        job = work.SumJob(
            round=coordinator.job(round_.number),
            paths=tuple(self._update(round_, acceptance.update_id) for acceptance, _ in chosen),
            weights=tuple(weight for _, weight in chosen),
            scales=chosen[0][0].scales,
        )
        out, parts = spool.scratch(), coordinator.workers.count
        async with self._scratch(out):
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

    async def finish(self, round_: Round) -> None:
        """CLOSED or ABORTED: cleans up and announces what follows."""
        await self._coordinator.follow(round_)

    @asynccontextmanager
    async def _scratch(self, *paths: Path) -> AsyncIterator[None]:
        """Scratch files that are gone after the block unless they were published: a stage that is repeated
        for want of disk must not take more of it each time."""
        try:
            yield
        finally:
            for path in paths:
                await self._coordinator.in_thread(self._coordinator.spool.drop, path)

    def _update(self, round_: Round, update_id: bytes) -> Path:
        path = self._coordinator.spool.update(round_.number, update_id)
        if not path.exists():
            raise ServerError(
                Code.SPOOL_CORRUPT, f"accepted update {path} is missing from the spool", round=round_.number
            )
        return path

    def _reference(self, round_: Round) -> work.ReferenceJob:
        coordinator = self._coordinator
        base = coordinator.plan(round_.number).base_round
        if not base:
            return work.ReferenceJob(path=coordinator.deployment.initial_model_path, base=None)
        return work.ReferenceJob(path=coordinator.spool.aggregate(base), base=coordinator.job(base))
