"""Rules that screen first, over real sockets: who is dropped, who may answer, and what a minority can do."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from even_rule import rules
from numpy.typing import NDArray
from raw_client import RawClient, refusal
from served import Live, Serve, expire, make_federation, serving

from secagg._proto import aggregator_pb2 as pb
from secagg.aggregate import Additions, WeightedUpdates, mean_error_bound
from secagg.ckks import profile
from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.rule import Answer, Reason, Stage
from secagg.statistics.form import Front, Reader

EVEN = "even:f=1,norm_bound=3"
Vectors = dict[str, NDArray[np.float32]]


def models(live: Live, plan: RoundPlan, **factors: float) -> Vectors:
    """Each client's model after training: the base and an update, the latter times a factor."""
    base = live.clients[0].bases[plan.base_round]
    return {
        client.name: (
            base
            + factors.get(client.name, 1.0)
            * np.random.default_rng(100 * plan.round + place).normal(0, 0.02, base.size)
        ).astype(np.float32)
        for place, client in enumerate(live.clients)
    }


async def hand_in(live: Live, plan: RoundPlan, flats: Vectors) -> None:
    """One after the other, so that updates stand in the clients' order."""
    for client in live.clients:
        await client.upload(client.seal(plan, flats[client.name]))


async def judge_all(live: Live, plan: RoundPlan, rule: str = EVEN) -> None:
    """Every client answers what it is asked."""
    await asyncio.gather(*(client.judge(plan, rules(rule)) for client in live.clients))


async def close(live: Live, plan: RoundPlan) -> NDArray[np.float32]:
    """Everybody opens, and who took part confirms; the model, the same for all to the last bit."""
    await live.clients[0].reach(plan.round, RoundState.AGGREGATED)
    opened = [await client.open(plan) for client in live.clients]
    assert all(np.array_equal(flat, opened[0]) for flat in opened)
    for client in live.clients:
        if client.name in live.server.coordinator.round(plan.round).contributors:
            await client.confirm(plan.round)
    await live.clients[0].reach(plan.round, RoundState.CLOSED)
    return opened[0]


def sum_bound(plan: RoundPlan, client: RawClient, weights: list[int]) -> float:
    """What a sum of these weights over the plan's divisor is within."""
    made_of = WeightedUpdates(
        round=plan.round,
        paths=tuple(Path(str(i)) for i in range(len(weights))),
        weights=tuple(weights),
        layout=client.layout(plan),
        profile=profile(plan.profile),
        additions=Additions(divisor=plan.divisor, since=plan.since),
    )
    return mean_error_bound(made_of)


def told(live: Live, event: str, number: int) -> dict[str, Any]:
    """The server's event about a round."""
    return next(item for item in live.events.named(event) if item["round"] == number)


@pytest.mark.parametrize("protect", ["full", "plain"])
async def test_an_update_that_is_screened_out_is_in_nothing_that_follows(serve: Serve, protect: str) -> None:
    """Ten times the others' norm: its row is in no later artifact, its values in no sum. Its client is asked
    about the others.
    """
    async with serve(clients=4, rule=EVEN, protect=protect, min_clients=3) as live:
        plan = await live.clients[0].plan()
        assert plan.divisor > 0 and plan.since == 0
        flats = models(live, plan, c1=10.0)
        await hand_in(live, plan, flats)
        for client in live.clients:
            assert (await client.reach(1, RoundState.SCREENED)).ballot_wanted
            await client.vote(plan, rules(EVEN), Stage.SCREENING)
        for client in live.clients:
            answer = await client.reach(1, RoundState.SCORED)
            assert answer.contributor and answer.ballot_wanted
        ids = {a.client: a.update_id for a in live.server.coordinator.round(1).accepted}
        data = await live.clients[0].download(pb.ARTIFACT_KIND_STATISTICS, 1)
        front = Front.read(Reader(data))
        assert front.update_ids == tuple(ids[name] for name in ("c0", "c2", "c3"))
        assert front.dropped == 1
        assert ids["c1"] not in data
        await judge_all(live, plan)
        opened = await close(live, plan)
        decided = told(live, "decided", 1)
        assert decided["weights"]["c1"] == 0
        assert live.server.coordinator.round(1).reasons == (
            Reason.KEPT,
            Reason.NORM,
            Reason.KEPT,
            Reason.KEPT,
        )
        base = live.clients[0].bases[0].astype(np.float64)
        weights = [decided["weights"][name] for name in ("c0", "c2", "c3")]
        exact = base + sum(
            w / plan.divisor * (flats[n].astype(np.float64) - base)
            for n, w in zip(("c0", "c2", "c3"), weights, strict=True)
        )
        assert np.abs(opened - exact).max() <= sum_bound(plan, live.clients[0], weights) + 2.0**-23


def lie(size: int, stage: Stage) -> Answer:
    """That everybody but the first is to be dropped."""
    reason = Reason.NORM if stage is Stage.SCREENING else Reason.DUPLICATE
    weights = np.zeros(size)
    weights[0] = 1.0
    return Answer.of(weights, np.full(size, reason, dtype=np.uint8))


async def hold(live: Live, plan: RoundPlan, flats: Vectors, liars: set[str]) -> None:
    """A round in which some clients sign the same lie in both stages, and before everybody else."""
    await hand_in(live, plan, flats)
    for state, stage, kind in (
        (RoundState.SCREENED, Stage.SCREENING, pb.ARTIFACT_KIND_SCREENING),
        (RoundState.SCORED, Stage.STATISTICS, pb.ARTIFACT_KIND_STATISTICS),
    ):
        for client in sorted(live.clients, key=lambda one: one.name not in liars):
            answer = await client.reach(1, state)
            if answer.state != state or not answer.ballot_wanted:
                continue
            if client.name in liars:
                data = await client.download(kind, 1)
                size = len(Front.read(Reader(data)).update_ids)
                await client.submit(1, lie(size, stage), hashlib.sha256(data).digest(), stage=stage)
            else:
                await client.vote(plan, rules(EVEN), stage)


@pytest.mark.parametrize(("clients", "lying"), [(3, 1), (4, 1), (5, 2)])
async def test_a_lying_minority_changes_nothing(tmp_path: Path, clients: int, lying: int) -> None:
    """f < n/2 that all sign the same lie, first: the same weights and reasons as without them."""
    decisions = []
    for liars in (set(), {f"c{place}" for place in range(lying)}):
        folder = make_federation(tmp_path / f"f{len(liars)}", clients, rule=EVEN, protect="full")
        async with serving(folder) as live:
            plan = await live.clients[0].plan()
            await hold(live, plan, models(live, plan), liars)
            await close(live, plan)
            decisions.append(
                (live.server.coordinator.round(1).weights, live.server.coordinator.round(1).reasons)
            )
    assert decisions[0] == decisions[1]
    assert all(decisions[0][0])


@pytest.mark.parametrize(("clients", "lying"), [(2, 1), (4, 2)])
async def test_half_of_the_clients_can_stop_a_round_but_not_decide_it(
    serve: Serve, clients: int, lying: int
) -> None:
    """No answer has more than half: NO_DECISION, and no sum."""
    async with serve(clients=clients, rule=EVEN, protect="full") as live:
        plan = await live.clients[0].plan()
        await hold(live, plan, models(live, plan), {f"c{place}" for place in range(lying)})
        answer = await live.clients[0].reach(1, RoundState.AGGREGATED)
        assert (answer.state, answer.abort_code) == (RoundState.ABORTED, Code.NO_DECISION)
        assert not live.server.coordinator.round(1).aggregate_sha256
        assert told(live, "undecided", 1)["code"] == Code.NO_DECISION


@pytest.mark.parametrize("stage", list(Stage))
async def test_too_few_ballots_on_either_stage_are_no_decision(serve: Serve, stage: Stage) -> None:
    """One of three by the deadline, two were promised: aborted."""
    async with serve(clients=3, rule=EVEN, protect="full", min_clients=2) as live:
        plan = await live.clients[0].plan()
        await hand_in(live, plan, models(live, plan))
        await live.clients[0].reach(1, RoundState.SCREENED)
        if stage is Stage.STATISTICS:
            for client in live.clients:
                await client.vote(plan, rules(EVEN), Stage.SCREENING)
            await live.clients[0].reach(1, RoundState.SCORED)
        await live.clients[0].vote(plan, rules(EVEN), stage)
        await expire(live, 1, RoundState.SCREENED if stage is Stage.SCREENING else RoundState.SCORED)
        answer = await live.clients[0].reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.NO_DECISION


async def test_a_majority_by_the_deadline_is_enough_for_either_stage(serve: Serve) -> None:
    """Two of three answer, and the third is not waited for beyond the deadline."""
    async with serve(clients=3, rule=EVEN, protect="full", min_clients=2) as live:
        plan = await live.clients[0].plan()
        await hand_in(live, plan, models(live, plan))
        for state, stage in ((RoundState.SCREENED, Stage.SCREENING), (RoundState.SCORED, Stage.STATISTICS)):
            await live.clients[0].reach(1, state)
            for client in live.clients[:2]:
                await client.vote(plan, rules(EVEN), stage)
            await expire(live, 1, state)
        await close(live, plan)
        assert all(live.server.coordinator.round(1).weights)


async def test_a_ballot_on_the_wrong_stage_is_refused(serve: Serve) -> None:
    """On statistics while screening, on screening afterwards; with either digest. The round goes on."""
    async with serve(clients=3, rule=EVEN, protect="full") as live:
        client = live.clients[0]
        plan = await client.plan()
        await hand_in(live, plan, models(live, plan))
        await client.reach(1, RoundState.SCREENED)
        first = hashlib.sha256(await client.download(pb.ARTIFACT_KIND_SCREENING, 1)).digest()
        assert (await refusal(client.submit(1, np.ones(3), first))).code is Code.BALLOT_INVALID
        for other in live.clients[1:]:
            await other.vote(plan, rules(EVEN), Stage.SCREENING)
        await expire(live, 1, RoundState.SCREENED)
        await client.reach(1, RoundState.SCORED)
        second = hashlib.sha256(await client.download(pb.ARTIFACT_KIND_STATISTICS, 1)).digest()
        for digest, stage, code in (
            (first, Stage.SCREENING, Code.STATE_INVALID),
            (second, Stage.SCREENING, Code.BALLOT_INVALID),
            (first, Stage.STATISTICS, Code.BALLOT_INVALID),
        ):
            error = await refusal(client.submit(1, np.ones(3), digest, stage=stage))
            assert error.code is code, (stage, error)
        await judge_all(live, plan)
        await close(live, plan)


async def test_a_ballot_may_be_repeated_when_all_is_decided(serve: Serve) -> None:
    """Its answer may have been lost on the way: the same ballot is taken note of, another one is refused."""
    async with serve(clients=4, rule="even:f=0", protect="full") as live:
        plan = await live.clients[0].plan()
        flats = models(live, plan)
        flats["c2"] = flats["c1"]
        await hand_in(live, plan, flats)
        rule, client = rules("even:f=0"), live.clients[0]
        await asyncio.gather(*(one.judge(plan, rule) for one in live.clients))
        await client.reach(1, RoundState.AGGREGATED)
        assert live.server.coordinator.round(1).reasons[2] == Reason.DUPLICATE
        for stage in Stage:
            await client.vote(plan, rule, stage)
        digest = hashlib.sha256(await client.download(pb.ARTIFACT_KIND_STATISTICS, 1)).digest()
        assert (await refusal(client.submit(1, np.ones(4), digest))).code is Code.BALLOT_DUPLICATE
        await close(live, plan)


async def test_who_handed_in_nothing_has_no_say(serve: Serve) -> None:
    """Nor is anybody waiting for it."""
    async with serve(clients=4, rule=EVEN, protect="full", min_clients=3) as live:
        plan = await live.clients[0].plan()
        flats = models(live, plan)
        for client in live.clients[:3]:
            await client.upload(client.seal(plan, flats[client.name]))
        await expire(live, 1, RoundState.COLLECTING)
        outsider = live.clients[3]
        for state, stage, kind in (
            (RoundState.SCREENED, Stage.SCREENING, pb.ARTIFACT_KIND_SCREENING),
            (RoundState.SCORED, Stage.STATISTICS, pb.ARTIFACT_KIND_STATISTICS),
        ):
            status = await outsider.reach(1, state)
            assert not status.contributor and not status.ballot_wanted
            digest = hashlib.sha256(await live.clients[0].download(kind, 1)).digest()
            error = await refusal(outsider.submit(1, np.ones(3), digest, stage=stage))
            assert error.code is Code.NOT_A_CONTRIBUTOR
            for client in live.clients[:3]:
                await client.vote(plan, rules(EVEN), stage)
        await close(live, plan)
