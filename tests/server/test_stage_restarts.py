"""A server that stops between the stages of a round goes on with it, or ends it: never twice with other
numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from even_rule import rules
from raw_client import Sealed, refusal
from served import Live, expire, flat_of, make_federation, serving

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.rule import Stage

EVEN = "even:f=0"
RULE = rules(EVEN)
KINDS = {Stage.SCREENING: pb.ARTIFACT_KIND_SCREENING, Stage.STATISTICS: pb.ARTIFACT_KIND_STATISTICS}
STATES = {Stage.SCREENING: RoundState.SCREENED, Stage.STATISTICS: RoundState.SCORED}


async def begin(live: Live, after: int = 0) -> tuple[RoundPlan, list[Sealed]]:
    """All updates of a round are in."""
    plan = await live.clients[0].plan(after)
    base = live.clients[0].bases[plan.base_round]
    sealed = [
        client.seal(plan, base + 0.1 * flat_of(plan, 10 * plan.round + place))
        for place, client in enumerate(live.clients)
    ]
    for client, item in zip(live.clients, sealed, strict=True):
        await client.upload(item)
    return plan, sealed


async def judge_all(live: Live, plan: RoundPlan) -> None:
    """Everybody answers what it is asked."""
    await asyncio.gather(*(client.judge(plan, RULE) for client in live.clients))


async def bring(live: Live, plan: RoundPlan, stage: Stage) -> None:
    """To where ballots on a stage are awaited."""
    await live.clients[0].reach(plan.round, RoundState.SCREENED)
    if stage is Stage.STATISTICS:
        for client in live.clients:
            await client.vote(plan, RULE, Stage.SCREENING)
        await live.clients[0].reach(plan.round, RoundState.SCORED)


@pytest.mark.parametrize("stage", list(Stage))
async def test_statistics_are_the_same_after_a_restart(tmp_path: Path, stage: Stage) -> None:
    """In the middle of either stage's ballots: same bytes, a ballot that was in counts, the round closes."""
    folder = make_federation(tmp_path / "f", 3, rule=EVEN, protect="full")
    async with serving(folder) as live:
        plan, _ = await begin(live)
        await bring(live, plan, stage)
        before = {kind: await live.clients[0].download(kind, 1) for s, kind in KINDS.items() if s <= stage}
        answer = await live.clients[0].vote(plan, RULE, stage)
    async with serving(folder) as live:
        assert live.server.coordinator.round(1).state is STATES[stage]
        after = {kind: await live.clients[1].download(kind, 1) for kind in before}
        assert after == before
        status = await live.clients[0].reach(1, STATES[stage])
        assert not status.ballot_wanted
        assert (await live.clients[0].vote(plan, RULE, stage)).same(answer)
        await judge_all(live, plan)
        await live.clients[0].reach(1, RoundState.AGGREGATED)
        assert len(live.server.coordinator.round(1).votes) == 6
        assert np.isfinite(await live.clients[0].open(plan)).all()
    assert not list((folder / "server/spool/scratch").iterdir())


Fault = Callable[[Path], object]
FAULTS: dict[str, Fault] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("stage", list(Stage))
async def test_statistics_that_are_lost_end_the_round(tmp_path: Path, stage: Stage, fault: Fault) -> None:
    """Others for the same updates must not be released: SPOOL_CORRUPT, and the next round starts anew."""
    folder = make_federation(tmp_path / "f", 2, rule=EVEN, protect="full", rounds=2)
    async with serving(folder) as live:
        plan, _ = await begin(live)
        await bring(live, plan, stage)
    fault(folder / "server/spool" / ("screening" if stage is Stage.SCREENING else "statistics") / "1")
    async with serving(folder) as live:
        answer = await live.clients[0].reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.SPOOL_CORRUPT
        assert (await live.clients[0].plan(after=1)).base_round == 0
        for kind in KINDS.values():
            assert (await refusal(live.clients[0].download(kind, 1))).code is Code.ARTIFACT_UNKNOWN


async def no_ballots(live: Live) -> None:
    await expire(live, 1, RoundState.SCREENED)


async def disagreement(live: Live) -> None:
    data = await live.clients[0].download(pb.ARTIFACT_KIND_SCREENING, 1)
    for client, weights in zip(live.clients, np.eye(3), strict=True):
        await client.submit(1, weights, hashlib.sha256(data).digest(), stage=Stage.SCREENING)


@pytest.mark.parametrize("ending", [no_ballots, disagreement])
async def test_updates_of_an_aborted_round_are_in_no_other_sum(
    tmp_path: Path, ending: Callable[[Live], Awaitable[None]]
) -> None:
    """They are deleted with all statistics. Numbers were released of them, so the same bytes never come
    again, not even from their own client: it seals its model anew. What is in a sum is in no second one.
    """
    folder = make_federation(tmp_path / "f", 3, rule=EVEN, protect="full", rounds=3)
    spool = folder / "server/spool"
    async with serving(folder) as live:
        _, sealed = await begin(live)
        await live.clients[0].reach(1, RoundState.SCREENED)
        await ending(live)
        answer = await live.clients[0].reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.NO_DECISION
        second = await live.clients[0].plan(after=1)
        assert second.round == 2 and second.base_round == 0
        for name in ("updates", "screening", "statistics", "aggregates", "scratch"):
            assert not list((spool / name).iterdir()), name
        for client, old in zip(live.clients, sealed, strict=True):
            # The answer to what was announced and accepted once; it is not taken for another round by that.
            assert (await client.create(old)).accepted
        thief = live.clients[1]
        stolen = await refusal(thief.upload(thief.sign(second, sealed[0].payload)))
        assert stolen.code is Code.UPLOAD_REPLAYED
        assert live.server.coordinator.round(2).accepted == ()
        for client, old in zip(live.clients, sealed, strict=True):
            error = await refusal(client.upload(client.sign(second, old.payload)))
            assert error.code is Code.UPLOAD_REPLAYED
        base = live.clients[0].bases[0]
        sealed = [
            client.seal(second, base + 0.1 * flat_of(second, place))
            for place, client in enumerate(live.clients)
        ]
        for client, new in zip(live.clients, sealed, strict=True):
            await client.upload(new)
        await judge_all(live, second)
        await live.clients[0].reach(2, RoundState.AGGREGATED)
        for client in live.clients:
            assert np.isfinite(await client.open(second)).all()
            await client.confirm(2)
        third = await live.clients[0].plan(after=2)
        for client, old in zip(live.clients, sealed, strict=True):
            error = await refusal(client.upload(client.sign(third, old.payload)))
            assert error.code is Code.UPLOAD_REPLAYED


async def test_differences_add_up_over_a_restart_and_an_aborted_round(tmp_path: Path) -> None:
    """Round 1 closes, 2 is aborted, the server stops, 3 closes: its aggregate adds to that of the first."""
    folder = make_federation(tmp_path / "f", 3, rule=EVEN, protect="full", rounds=2)

    async def hold(live: Live, after: int) -> tuple[RoundPlan, np.ndarray]:
        plan, _ = await begin(live, after)
        await judge_all(live, plan)
        await live.clients[0].reach(plan.round, RoundState.AGGREGATED)
        opened = [await client.open(plan) for client in live.clients]
        assert all(np.array_equal(flat, opened[0]) for flat in opened)
        for client in live.clients:
            await client.confirm(plan.round)
        await live.clients[0].reach(plan.round, RoundState.CLOSED)
        return plan, opened[0]

    async with serving(folder) as live:
        _, first = await hold(live, 0)
        await begin(live, 1)
        await live.clients[0].reach(2, RoundState.SCREENED)
        await expire(live, 2, RoundState.SCREENED)
        assert (await live.clients[0].reach(2, RoundState.ABORTED)).abort_code == Code.NO_DECISION
    async with serving(folder) as live:
        plan = await live.clients[0].plan(after=2)
        assert (plan.round, plan.base_round, plan.since) == (3, 1, 0)
        first_plan = live.server.coordinator.plan(1)
        for client in live.clients:
            # Who lost everything it had open has the same bits from the aggregate.
            assert np.array_equal(await client.open(first_plan), first)
        _, third = await hold(live, 2)
        weights = live.server.coordinator.round(3).weights
        exact = first.astype(np.float64) + sum(
            w / plan.divisor * 0.1 * flat_of(plan, 30 + place).astype(np.float64)
            for place, w in enumerate(weights)
        )
        # Two rounds' noise, each below 22/scale, and roundings to float32.
        assert np.abs(third - exact).max() <= 2 * 22 / 2**16 + 2.0**-22
        # What is not needed any more goes when the round's end has been seen to.
        coordinator = live.server.coordinator
        await coordinator.wait_for(lambda: coordinator.end is not None, 30)
        assert [path.name for path in (folder / "server/spool/aggregates").iterdir()] == ["3"]
