"""The statistics of a round: which artifact holds what, and how the work is spread over worker processes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from secagg.errors import Code, ServerError
from secagg.rule import Stage, StatisticsRequest
from secagg.server import work
from secagg.server.events import Acceptance, Round
from secagg.statistics.form import SEED_BYTES, Front, Pair, Quantity

if TYPE_CHECKING:
    from secagg.server.coordinator import Coordinator

T = TypeVar("T")


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All results; the first failure only once every call has ended, so that none still writes."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


@dataclass(slots=True)
class Scratch:
    """Scratch files that are gone after the block unless they were published: a stage that is repeated for
    want of disk must not take more of it each time."""

    coordinator: Coordinator
    paths: list[Path] = field(default_factory=list)

    def new(self) -> Path:
        """Another one."""
        self.paths.append(self.coordinator.spool.scratch())
        return self.paths[-1]


@asynccontextmanager
async def scratch(coordinator: Coordinator) -> AsyncIterator[Scratch]:
    """A supply of scratch files for the block."""
    files = Scratch(coordinator)
    try:
        yield files
    finally:
        for path in files.paths:
            await coordinator.in_thread(coordinator.spool.drop, path)


def update_path(coordinator: Coordinator, round_: Round, update_id: bytes) -> Path:
    """Where an accepted update lies.

    Raises:
        ServerError: SPOOL_CORRUPT if it is not there.
    """
    path = coordinator.spool.update(round_.number, update_id)
    if not path.exists():
        raise ServerError(
            Code.SPOOL_CORRUPT, f"accepted update {path} is missing from the spool", round=round_.number
        )
    return path


async def release(coordinator: Coordinator, round_: Round, stage: Stage, request: StatisticsRequest) -> bytes:
    """Computes and publishes a stage's statistics artifact; its SHA-256.

    Every update, and every square of pairs, in whichever worker is free; then one puts the pieces together.
    """
    accepted = round_.judged(stage)
    job = await _job(coordinator, round_, stage, request, accepted)
    async with scratch(coordinator) as files:
        pieces: list[Path] = []
        if job.front.quantities.single:
            singles = [files.new() for _ in accepted]
            await all_of(
                coordinator.workers.run(work.release_single, job, out, row) for row, out in enumerate(singles)
            )
            pieces += singles
        for quantity in job.front.quantities:
            if quantity > Quantity.WITNESS:
                tiles = list(job.front.tiles(quantity))
                pieces += await _pairs(coordinator, round_, job, quantity, tiles, files)
        out = files.new()
        digest = await coordinator.workers.run(work.assemble, job, out, pieces)
        spool, number = coordinator.spool, round_.number
        target = spool.screening(number) if stage is Stage.SCREENING else spool.statistics(number)
        await coordinator.in_thread(spool.publish, out, target)
    return digest


async def _job(
    coordinator: Coordinator,
    round_: Round,
    stage: Stage,
    request: StatisticsRequest,
    accepted: Sequence[Acceptance],
) -> work.ReleaseJob:
    plan, job = coordinator.plan(round_.number), coordinator.job(round_.number)
    same_models = plan.earlier_round == plan.base_round
    quantities = Quantity.of(request, stage, same_models=same_models)
    sample = request.sample if quantities & (Quantity.PAIR | Quantity.ROOT) else 1.0
    root = coordinator.deployment.config.root_client if request.root else None
    front = Front(
        round=round_.number,
        stage=stage,
        update_ids=tuple(acceptance.update_id for acceptance in accepted),
        sample_counts=tuple(plan.counted(acceptance.sample_count) for acceptance in accepted),
        root=next((i for i, acceptance in enumerate(accepted) if acceptance.client == root), None),
        dropped=len(round_.accepted) - len(accepted),
        quantities=quantities,
        # From the operating system, and only now: no update can be made to fit what is drawn from it.
        seed=secrets.token_bytes(SEED_BYTES),
        drawn=await coordinator.workers.run(work.drawn, job, sample),
    )
    return work.ReleaseJob(
        round=job,
        front=front,
        paths=tuple(update_path(coordinator, round_, a.update_id) for a in accepted),
        references=_references(coordinator, round_, request),
        public_key=coordinator.deployment.public_key.to_bytes(),
    )


async def _pairs(
    coordinator: Coordinator,
    round_: Round,
    job: work.ReleaseJob,
    quantity: Quantity,
    tiles: Sequence[list[Pair]],
    files: Scratch,
) -> list[Path]:
    """The entries of each square of pairs, in order."""
    histories: tuple[Path, ...] = ()
    if quantity is Quantity.HISTORY:
        histories = await _extended_histories(coordinator, round_, files)
    # One square, as up to 16 updates have, is worked on by all workers together.
    parts = coordinator.workers.count if len(tiles) == 1 else 1

    # A square's partial results are files until they are put together: few squares are under way at once.
    under_way = asyncio.Semaphore(2 * coordinator.workers.count)

    async def tile(pairs: list[Pair]) -> Path:
        of_tile, out = work.TileJob(release=job, tile=tuple(pairs), histories=histories), files.new()
        async with under_way:
            sums = [[files.new() for _ in range(parts)] for _ in job.front.drawn]
            await all_of(
                coordinator.workers.run(work.multiply_tile, of_tile, path, place, part, parts)
                for place, paths in enumerate(sums)
                for part, path in enumerate(paths)
            )
            await coordinator.workers.run(work.release_tile, of_tile, out, sums)
            for path in chain.from_iterable(sums):
                await coordinator.in_thread(coordinator.spool.drop, path)
        return out

    return await all_of(tile(pairs) for pairs in tiles)


async def _extended_histories(coordinator: Coordinator, round_: Round, files: Scratch) -> tuple[Path, ...]:
    """Every client's sum of updates with this round's; they become the sums when the round has closed."""
    spool, job = coordinator.spool, coordinator.job(round_.number)

    async def extend(acceptance: Acceptance) -> Path:
        before = spool.history(acceptance.client)
        update = update_path(coordinator, round_, acceptance.update_id)
        out, target = files.new(), spool.upcoming_history(round_.number, acceptance.client)
        await coordinator.workers.run(
            work.extend_history, job, out, update, before if before.exists() else None
        )
        await coordinator.in_thread(spool.publish, out, target)
        return target

    return tuple(await all_of(extend(acceptance) for acceptance in round_.kept))


def _references(
    coordinator: Coordinator, round_: Round, request: StatisticsRequest
) -> tuple[work.ModelJob, ...]:
    """g and g' as the server has them, as far as they are asked for."""
    plan = coordinator.plan(round_.number)
    rounds = (plan.base_round, plan.earlier_round)[: request.references]
    return tuple(_model(coordinator, base, differences=not request.models) for base in rounds)


def _model(coordinator: Coordinator, base: int, *, differences: bool) -> work.ModelJob:
    initial = coordinator.deployment.initial_model_path
    if not base:
        return work.ModelJob(initial=initial)
    return work.ModelJob(
        initial=initial if differences else None,
        aggregate=coordinator.spool.aggregate(base),
        base=coordinator.job(base),
    )
