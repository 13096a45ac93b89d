"""Rounds of differences as clients live them: everybody ends with the same bits, whenever it joined."""

from __future__ import annotations

import numpy as np
import pytest
from live_federation import in_threads

from defenses import load_rule
from secagg import Client, Code, RoundError
from secagg.aggregate import Additions, WeightedUpdates, mean_error_bound
from secagg.ckks import profile
from secagg.selection import Layout, derive_mask

RNG = np.random.default_rng(23)
MODEL = {"w": RNG.normal(0, 0.1, (10, 40)).astype(np.float32), "b": np.zeros(10, np.float32)}
RULE = "geometric-median"
ROUNDS = 3
MODES = {
    "plain": {"protect": "plain"},
    "full": {"protect": "full"},
    "layers": {"protect": "selective", "significance": "layers", "layers": ("w",)},
    "random": {"protect": "selective", "significance": "random", "ratio": 0.3},
    "magnitude": {"protect": "selective", "significance": "magnitude", "ratio": 0.2},
}
NAMES = ("alice", "bob", "carol")


def client(fed, name, **options):
    return Client.load(
        fed.identity(name), server=fed.address, rules=load_rule, patience_s=60.0, workers=1, **options
    )


def moved(model, seed):
    """A model near the given one."""
    rng = np.random.default_rng(seed)
    return {n: (t + rng.normal(0, 0.02, t.shape)).astype(np.float32) for n, t in model.items()}


class Part:
    """One client's part: plans, the models it started from, sent and opened, by round."""

    def __init__(self, fed, name, seed):
        self.plans, self.base, self.sent, self.opened = {}, {}, {}, {}
        with client(fed, name) as one:
            for upcoming in one.rounds():
                number = upcoming.number
                self.plans[number], self.base[number] = upcoming.plan, upcoming.model
                self.sent[number] = moved(upcoming.model, 100 * seed + number)
                self.opened[number] = upcoming.contribute(self.sent[number], sample_count=10).model
            self.final = one.final_model()


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in left) and left.keys() == right.keys()


def hold(fed, names=NAMES):
    made = in_threads(*(lambda n=n, s=s: Part(fed, n, s) for s, n in enumerate(names, start=1)))
    return dict(zip(names, made, strict=True))


def check_sums(parts, decided, numbers):
    """Each round's model is the one before it plus the weighted differences, within the bound of the profile.

    Where aggregates add up on ciphertexts, the noise of all rounds so far is in both models.
    """
    first = parts[NAMES[0]]
    for place, number in enumerate(numbers):
        plan, weights = first.plans[number], decided[number]
        base = plan.manifest.flatten(first.base[number]).astype(np.float64)
        exact = base + sum(
            w / plan.divisor * (plan.manifest.flatten(parts[n].sent[number]).astype(np.float64) - base)
            for n, w in weights.items()
            if w
        )
        mask = derive_mask(plan.protection, plan.manifest, bytes(16), number)
        made_of = WeightedUpdates(
            round=number,
            paths=tuple(weights),
            weights=tuple(weights.values()),
            layout=Layout(plan.manifest, mask, plan.statistics_blocks),
            profile=profile(plan.profile),
            additions=Additions(divisor=plan.divisor, since=plan.since),
        )
        rounds = 2 * place + 1
        bound = rounds * mean_error_bound(made_of)
        opened = plan.manifest.flatten(first.opened[number])
        # Differences, visible sums and models are rounded to float32.
        assert np.abs(opened - exact).max() <= bound + (rounds + 3) * 2.0**-24


@pytest.mark.parametrize("mode", MODES)
def test_newcomers_have_the_bits_of_those_who_were_there(federation, mode):
    """Three rounds; then somebody who took part in none opens the last model, from the aggregates alone."""
    fed = federation(
        MODEL, [*NAMES, "dora"], rounds=ROUNDS, min_clients=3, rule=RULE, collect_timeout_s=2.0, **MODES[mode]
    )
    server = fed.serve()

    def watch():
        with client(fed, "dora") as dora:
            for _ in dora.rounds():
                pass
            return dora.final_model()

    *made, late = in_threads(*(lambda n=n, s=s: Part(fed, n, s) for s, n in enumerate(NAMES, start=1)), watch)
    parts = dict(zip(NAMES, made, strict=True))
    decided = {number: server.wait_for("decided", round=number)["weights"] for number in (1, 2, 3)}
    for part in parts.values():
        assert part.plans[1].divisor > 0
        for number in (1, 2, 3):
            assert same(part.opened[number], parts["alice"].opened[number])
        assert same(part.base[2], part.opened[1]) and same(part.base[3], part.opened[2])
        assert same(part.final, part.opened[3])
    assert same(late, parts["alice"].opened[3])
    lasting = parts["alice"].plans[3].protection.lasting
    assert [parts["alice"].plans[n].since for n in (1, 2, 3)] == ([0, 0, 0] if lasting else [0, 1, 2])
    check_sums(parts, decided, (1, 2, 3))


@pytest.mark.parametrize("mode", ["full", "random"])
def test_a_newcomer_joins_after_a_restart_and_an_aborted_round(federation, mode):
    """Alice alone has a round aborted; the server is killed; dora joins, and starts from the others' bits."""
    fed = federation(
        MODEL, [*NAMES, "dora"], rounds=ROUNDS, min_clients=3, rule=RULE, collect_timeout_s=2.0, **MODES[mode]
    )
    server = fed.serve()
    opened = {}

    def first_round(name, seed):
        with client(fed, name) as one:
            upcoming = next(one.rounds())
            opened[name] = upcoming.contribute(moved(upcoming.model, seed), sample_count=10).model

    in_threads(*(lambda n=n, s=s: first_round(n, s) for s, n in enumerate(NAMES)))
    assert all(same(opened[name], opened["alice"]) for name in NAMES)
    with client(fed, "alice") as alice:
        upcoming = next(alice.rounds())
        assert upcoming.number == 2
        with pytest.raises(RoundError) as caught:
            upcoming.contribute(moved(upcoming.model, 9), sample_count=10)
        assert caught.value.code is Code.ROUND_ABORTED
    server.kill()
    fed.serve()
    parts = hold(fed, (*NAMES, "dora"))
    for part in parts.values():
        assert min(part.plans) == 3
        assert part.plans[3].base_round == 1
        assert same(part.base[3], opened["alice"])
        for number in (3, 4):
            assert same(part.opened[number], parts["alice"].opened[number])
        assert same(part.final, parts["alice"].opened[4])
    assert parts["dora"].plans[4].since == (0 if mode == "full" else 3)
