"""Rounds under a quantising profile: weights, scales and error feedback, through clients and a server."""

import numpy as np
import pytest
from live_federation import in_threads
from mean_bound import mean_bound

from defenses import load_rule
from secagg import Client
from secagg.plan import RoundState
from secagg.scales import Scales
from secagg.update import Manifest

RNG = np.random.default_rng(17)
MODEL = {
    "w": RNG.normal(0, 0.1, (40, 50)).astype(np.float32),
    "b": RNG.normal(0, 0.01, 30).astype(np.float32),
}
ROUNDS = 6


def take_part(fed, name, sent, samples, rounds=ROUNDS):
    """All rounds of one client that always sends the same model: plans and opened means."""
    plans, opened = [], []
    with Client.load(
        fed.identity(name), server=fed.address, rules=load_rule, patience_s=60, workers=1
    ) as client:
        for upcoming in client.rounds(limit=rounds):
            plans.append(upcoming.plan)
            opened.append(upcoming.contribute(sent, sample_count=samples).model)
    return plans, opened


@pytest.mark.parametrize("profile", ["compact", "compact-10"])
def test_rounding_errors_telescope_over_rounds(federation, profile):
    """Σ over rounds of (opened - exact) stays below one round's bound: what one round's rounding takes, the
    next gives back. Each round's mean is the exactly weighted one within its own bound."""
    fed = federation(MODEL, ["alice", "bob"], rounds=ROUNDS, min_clients=2, profile=profile)
    fed.serve()
    alice = {n: (t + 0.3 * np.abs(MODEL[n]).max()).astype(np.float32) for n, t in MODEL.items()}
    bob = {n: (t * 0.7).astype(np.float32) for n, t in MODEL.items()}
    (plans, opened), (_, others) = in_threads(
        lambda: take_part(fed, "alice", alice, 300), lambda: take_part(fed, "bob", bob, 100)
    )
    assert [plan.count_unit for plan in plans] == [0] + [300] * (ROUNDS - 1)
    exact = {n: 0.75 * alice[n].astype(np.float64) + 0.25 * bob[n] for n in MODEL}
    drift = {n: np.zeros(t.shape) for n, t in MODEL.items()}
    for index, model in enumerate(opened):
        base = opened[index - 1] if index else MODEL
        bound = mean_bound(profile, base, [300, 100])
        for name, tensor in model.items():
            assert np.abs(tensor - exact[name]).max() <= bound + 2.0**-24
            np.testing.assert_array_equal(tensor, others[index][name])
            drift[name] += tensor - exact[name]
    for name, total in drift.items():
        # What is left over at the end, of either client, is below a step of the last scales; the first
        # round's weights are small integers that hit 3 : 1 exactly.
        assert np.abs(total).max() <= bound + ROUNDS * 2.0**-24, name
        # Without feedback six independent errors would add up: the sum is no larger than a single one.
    single = np.abs(opened[0]["w"] - exact["w"]).mean()
    assert np.abs(drift["w"]).mean() < 1.6 * single


def test_own_weights_follow_the_counts_of_the_round_before(federation):
    """The largest count stands for 1; one that grows beyond it counts as it for a round, and sets the
    next.
    """
    fed = federation(MODEL, ["alice", "bob"], rounds=3, min_clients=2, max_sample_count=1000)
    server = fed.serve()
    counts = iter([200, 5000, 5000])

    def growing(fed):
        with Client.load(
            fed.identity("alice"), server=fed.address, rules=load_rule, patience_s=60, workers=1
        ) as client:
            return [
                (upcoming.plan.count_unit, upcoming.contribute(MODEL, sample_count=next(counts)).state)
                for upcoming in client.rounds()
            ]

    units, _ = in_threads(lambda: growing(fed), lambda: take_part(fed, "bob", MODEL, 50, rounds=3))
    assert [unit for unit, _ in units] == [0, 200, 1000]
    assert all(state in (RoundState.AGGREGATED, RoundState.CLOSED) for _, state in units)
    decided = [server.wait_for("decided", round=number)["weights"] for number in (1, 2, 3)]
    assert decided == [{"alice": 144, "bob": 36}, {"alice": 200, "bob": 50}, {"alice": 1000, "bob": 50}]


def test_scales_are_those_of_the_base_model_on_every_client(federation):
    """Derived by each from what it opened, and the same, or the round could not have closed with both."""
    fed = federation(MODEL, ["alice", "bob"], rounds=2, min_clients=2)
    server = fed.serve()
    grown = {n: (t * 3).astype(np.float32) for n, t in MODEL.items()}
    (_, opened), _ = in_threads(
        lambda: take_part(fed, "alice", grown, 10), lambda: take_part(fed, "bob", grown, 10)
    )
    manifest = Manifest.of(MODEL)
    first, second = (Scales.around(manifest.flatten(m), manifest) for m in (MODEL, opened[0]))
    assert first != second
    for number in (1, 2):
        assert all(server.wait_for("decided", round=number)["weights"].values())
