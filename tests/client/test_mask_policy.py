"""The server cannot choose which entries of a selective round travel in the clear."""

from __future__ import annotations

import numpy as np
import pytest
from live_federation import LiveFederation, in_threads

from defenses import load_rule
from secagg import Client
from secagg.client.opening import Opening
from secagg.errors import Code, RoundError
from secagg.plan import RoundPlan
from secagg.selection import Mask, propose_mask, required_mask

MODEL = {"a": np.zeros((20, 30), np.float32), "b": np.zeros(40, np.float32)}
RATIO = 0.1


def trained(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(0, 0.1, value.shape).astype(np.float32) for name, value in MODEL.items()}


def test_required_entries_are_those_every_client_would_hide():
    """They are among the proposed ones, and a last bit more or less in an aggregate does not change that."""
    draw = np.random.default_rng(3)
    before, after = (draw.normal(0, 0.1, 5000).astype(np.float32) for _ in range(2))
    required, proposed = required_mask(before, after, RATIO), propose_mask(before, after, RATIO)
    assert not (required.hidden & ~proposed.hidden).any()
    assert required.hidden_count >= 0.98 * proposed.hidden_count
    for direction in (-np.inf, np.inf):
        elsewhere = propose_mask(before, np.nextafter(after, np.float32(direction)), RATIO)
        assert not (required.hidden & ~elsewhere.hidden).any()


def test_mask_that_exposes_what_changed_most_is_refused(tmp_path):
    """After a round by magnitude, a mask of the right size but the server's own choice stops the client."""
    federation = LiveFederation(
        tmp_path, MODEL, ["alice", "bob"], protect="selective", significance="magnitude", ratio=RATIO,
        rounds=2, min_clients=2,
    )  # fmt: skip
    federation.serve()

    def join(name: str, seed: int) -> None:
        identity = federation.identity(name)
        with Client.load(identity, server=federation.address, rules=load_rule, patience_s=30) as client:
            rounds = client.rounds()
            next(rounds).contribute(trained(seed), sample_count=10)
            second = next(rounds)
            assert second.plan.mask_sha256, "the second round has no agreed mask"
            check_refusal(client, second.plan, client._opening, second._layout.mask)
            second.contribute(trained(seed + 10), sample_count=10)

    def check_refusal(client: Client, plan: RoundPlan, opening: Opening, honest: Mask) -> None:
        opening._check_agreed(plan, honest)
        chosen = np.zeros(honest.size, dtype=np.bool_)
        chosen[np.flatnonzero(~honest.hidden)[: honest.hidden_count]] = True
        with pytest.raises(RoundError, match="exposes") as caught:
            opening._check_agreed(plan, Mask(chosen))
        assert caught.value.code is Code.PLAN_BELOW_POLICY

    try:
        in_threads(lambda: join("alice", 1), lambda: join("bob", 2))
    finally:
        federation.close()
