"""Every rule makes of opened statistics what it makes of the updates themselves, on updates that training
gave.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from released_statistics import Release, layout_of, spooled, summed
from trained import TrainedRound, trained

from defenses import RULES, load_rule
from defenses.gram_rule import judge
from secagg.aggregate import Additions
from secagg.rule import CoordinateRule, Rule, Statistics, statistics_of
from secagg.statistics.release import Reference

PARAMETERS = {
    "krum": "krum:f=3,k_min=1",
    "multi-krum": "multi-krum:f=3",
    "mda": "mda:f=3",
    "bulyan-selection": "bulyan-selection:f=1",
}
ON_STATISTICS = [
    PARAMETERS.get(name, name)
    for name in RULES
    if name != "mean" and not isinstance(load_rule(PARAMETERS.get(name, name)), CoordinateRule)
] + ["nnm+krum:f=3", "nnm+geometric-median:f=3", "multi-krum:f=3,layers=1"]
TOLERANCE = 1e-3


def in_the_clear(rule: Rule, round_: TrainedRound, histories: np.ndarray) -> Statistics:
    """What an aggregator would compute that sees everything."""
    request = rule.request(round_.manifest)
    assert request is not None
    blocks = request.blocks or (tuple(spec.name for spec in round_.manifest.tensors),)
    found = round_.statistics(round_.updates, blocks)
    if request.history:
        whole = statistics_of(round_.updates, history=histories)
        found = replace(found, history=whole.history)
    return replace(found, root=0 if request.root else None)


def on_ciphertexts(
    rule: Rule, round_: TrainedRound, earlier: list[TrainedRound], mode: str, folder: Path
) -> Statistics:
    """The same released and opened, in one artifact."""
    request = rule.request(round_.manifest)
    assert request is not None
    request = replace(request, screened=False)
    layout = layout_of(mode, request.blocks, manifest=round_.manifest)
    base, before = (v.astype(np.float32) for v in (round_.base, round_.before))
    sent = (round_.updates + round_.base * request.models).astype(np.float32)
    updates = [spooled(folder, layout, flat) for flat in sent]
    histories = []
    for client, last in enumerate(updates if request.history else []):
        so_far = None
        for step in [*(spooled(folder, layout, r.updates[client].astype(np.float32)) for r in earlier), last]:
            so_far = summed(folder, [step], [1], additions=Additions(divisor=1, since=0, before=so_far))
        assert so_far is not None
        histories.append(so_far)
    release = Release(
        updates=updates,
        request=request,
        references=[Reference(plain=base), Reference(plain=before)][: request.references],
        known=[base, before][: request.references],
        histories=histories,
        root=0 if request.root else None,
        changes={"sample_counts": tuple(round_.counts)},
    )
    return release.opened(folder)


@pytest.mark.parametrize("mode", ["plain", "full", "selective"])
@pytest.mark.parametrize("name", ON_STATISTICS)
def test_weights_from_ciphertexts_are_those_from_the_updates(name: str, mode: str, tmp_path: Path) -> None:
    """Within 1e-3 in every round of a federation that trains; what is visible and what is hidden, added."""
    rule, rounds = load_rule(name), trained("iid")
    if mode == "selective" and name == "ddfed":
        pytest.skip("its block is hidden whole: the same as full")
    for number in (0, 4) if mode == "full" else (4,):
        folder = tmp_path / str(number)
        folder.mkdir()
        round_, earlier = rounds[number], list(rounds[:number])
        histories = np.sum([r.updates for r in rounds[: number + 1]], axis=0)
        plain = _weights(rule, in_the_clear(rule, round_, histories))
        opened = _weights(rule, on_ciphertexts(rule, round_, earlier, mode, folder))
        assert np.abs(opened - plain).max() <= TOLERANCE, (number, opened, plain)
        assert plain.any()


def _weights(rule: Rule, statistics: Statistics) -> np.ndarray:
    request_screens = hasattr(rule, "norm_bound")
    return judge(rule, statistics).weights if request_screens else rule.decide(statistics).weights
