"""Whole rounds over real sockets, certificates and ciphertexts."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from mean_bound import mean_bound
from numpy.typing import NDArray
from raw_client import refusal
from served import Live, Serve

from defenses import load_rule
from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.scales import Scales

MODES: dict[str, dict[str, Any]] = {
    "plain": {"protect": "plain"},
    "full": {"protect": "full"},
    "random": {"protect": "selective", "significance": "random", "ratio": 0.3},
    "layers": {"protect": "selective", "significance": "layers", "layers": ("last.weight",)},
    "magnitude": {"protect": "selective", "significance": "magnitude", "ratio": 0.2},
}


def updates(plan: RoundPlan, count: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(plan.round)
    return [rng.normal(0, 0.1, plan.manifest.size).astype(np.float32) for _ in range(count)]


async def hold_round(live: Live, after: int, rule: str) -> tuple[RoundPlan, list[NDArray[np.float32]]]:
    """One round in which every client does its part; what each of them opened."""
    plans = await asyncio.gather(*(client.plan(after) for client in live.clients))
    plan = plans[0]
    assert all(p == plan for p in plans)
    sealed = [
        client.seal(plan, flat)
        for client, flat in zip(live.clients, updates(plan, len(live.clients)), strict=True)
    ]
    await asyncio.gather(*(c.upload(s) for c, s in zip(live.clients, sealed, strict=True)))
    if live.server.coordinator.terms.ballots:
        for client in live.clients:
            answer = await client.reach(plan.round, RoundState.SCORED)
            assert answer.ballot_wanted
        await asyncio.gather(*(client.vote(plan, load_rule(rule)) for client in live.clients))
    await live.clients[0].reach(plan.round, RoundState.AGGREGATED)
    opened = [await client.open(plan) for client in live.clients]
    for client in live.clients:
        await client.confirm(plan.round)
    await live.clients[0].reach(plan.round, RoundState.CLOSED)
    return plan, opened


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", ["mean", "ddfed"])
async def test_every_mode_and_rule_closes_its_rounds(mode: str, rule: str, serve: Serve) -> None:
    """Two rounds, the second from the first's aggregate; what all clients open is the weighted mean."""
    async with serve(clients=3, rule=rule, rounds=2, **MODES[mode]) as live:
        for after in (0, 1):
            plan, opened = await hold_round(live, after, rule)
            assert plan.base_round == after
            weights = np.array(list(live.events.named("decided")[-1]["weights"].values()))
            names = list(live.events.named("decided")[-1]["weights"])
            flats = dict(zip((c.name for c in live.clients), updates(plan, 3), strict=True))
            exact = (
                sum(w * flats[n].astype(np.float64) for n, w in zip(names, weights, strict=True))
                / weights.sum()
            )
            base = plan.manifest.unflatten(live.clients[0].bases[plan.base_round])
            bound = mean_bound(plan.profile, base, weights)
            for flat in opened:
                # float32 holds the opened values: half a unit in the last place of values below 1.
                assert np.abs(flat - exact).max() <= bound + 2.0**-24
        end = await live.clients[0].stub.AwaitPlan(pb.AwaitPlanRequest(after_round=2, wait_s=20))
        assert end.end.rounds_closed == 2
        assert end.end.last_aggregate_round == 2
        assert not end.end.reason
        assert await live.clients[0].download(pb.ARTIFACT_KIND_AGGREGATE, 2)


async def test_an_update_in_other_scales_is_left_out(serve: Serve) -> None:
    """Its integers mean something else: the mean is that of the others, and the round goes on."""
    async with serve(clients=3, rule="mean", protect="full") as live:
        plan = await live.clients[0].plan()
        flats = updates(plan, 3)
        liar = live.clients[1]
        grown = liar.scales(plan)
        assert grown is not None
        honest = [client.seal(plan, flat) for client, flat in zip(live.clients, flats, strict=True)]
        other = Scales(exponents=tuple(exponent + 1 for exponent in grown.exponents))
        honest[1] = liar.sign(plan, honest[1].payload, scales=other.to_bytes())
        await asyncio.gather(*(c.upload(s) for c, s in zip(live.clients, honest, strict=True)))
        await live.clients[0].reach(1, RoundState.AGGREGATED)
        weights = live.events.named("decided")[-1]["weights"]
        assert weights["c1"] == 0 and weights["c0"] == weights["c2"] > 0
        opened = await live.clients[0].open(plan)
        exact = (flats[0].astype(np.float64) + flats[2]) / 2
        bound = mean_bound(plan.profile, live.clients[0].model, [1, 1])
        assert np.abs(opened - exact).max() <= bound + 2.0**-24


@pytest.mark.parametrize("scales", [b"", bytes(3), b"\x7f" * 4], ids=["none", "too few", "impossible"])
async def test_scales_that_do_not_fit_the_plan_are_refused(serve: Serve, scales: bytes) -> None:
    """Before a byte of the payload is taken; the same client can then hand in a good update."""
    async with serve(clients=2, rule="mean", protect="full") as live:
        plan = await live.clients[0].plan()
        bad = live.clients[0].seal(plan, updates(plan, 1)[0], scales=scales)
        assert (await refusal(live.clients[0].create(bad))).code is Code.ENVELOPE_MALFORMED
        await live.clients[0].upload(live.clients[0].seal(plan, updates(plan, 1)[0]))
