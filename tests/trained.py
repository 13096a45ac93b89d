"""Real updates: a small federation of ten clients that trains on scikit-learn's digits, without attack."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.rule import Floats, Statistics, statistics_of
from secagg.simulation.config import ModelName
from secagg.simulation.datasets import load_dataset
from secagg.simulation.models import build_model
from secagg.simulation.partition import partition
from secagg.simulation.task import Schedule
from secagg.simulation.training import train
from secagg.update import Manifest

CLIENTS, ROUNDS = 10, 5
SCHEDULE = Schedule(epochs=5, batch_size=32, learning_rate=0.05, momentum=0.9)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedRound:
    """One round's start, the one before, what everybody trained, and how many samples each has."""

    base: Floats
    before: Floats
    updates: Floats
    counts: list[int]
    manifest: Manifest

    def statistics(self, updates: Floats, blocks) -> Statistics:
        """Those of these updates in place of what was trained, over a request's blocks."""
        order = [np.r_[tuple(self.manifest.slice_of(name) for name in names)] for names in blocks]
        ends = np.cumsum([len(entries) for entries in order])
        place = np.concatenate(order)
        return statistics_of(
            updates[:, place],
            base=self.base[place],
            before=self.before[place],
            sample_counts=self.counts,
            blocks=[slice(int(end) - len(e), int(end)) for end, e in zip(ends, order, strict=True)],
        )


@cache
def trained(how: str, seed: int = 0) -> tuple[TrainedRound, ...]:
    """``ROUNDS`` rounds of federated averaging.

    Args:
        how: ``iid``, ``dirichlet:β``, or ``sizes``: the same mix of labels, from 1 to 10 parts of the
            samples.
    """
    # Small matrices: more threads only wait for each other, and for whatever else the machine does.
    torch.set_num_threads(1)
    dataset = load_dataset("digits")
    generator = np.random.default_rng(seed)
    if how == "sizes":
        shares = np.geomspace(1, 10, CLIENTS)
        cuts = (np.cumsum(shares) / shares.sum() * len(dataset.train)).astype(int)[:-1]
        parts = np.split(generator.permutation(len(dataset.train)), cuts)
    else:
        parts = partition(dataset.train.labels, CLIENTS, how, seed)
    module = build_model(ModelName.MLP, dataset.shape, dataset.classes, seed)
    manifest = Manifest.of(tensors_from(module))
    base = before = manifest.flatten(tensors_from(module)).copy()
    counts = [len(part) for part in parts]
    rounds = []
    for number in range(ROUNDS):
        updates = []
        for client, part in enumerate(parts):
            load_tensors(module, manifest.unflatten(base))
            train(module, dataset.train.take(part), SCHEDULE, np.random.default_rng([seed, number, client]))
            updates.append(manifest.flatten(tensors_from(module)) - base)
        wide = [v.astype(np.float64) for v in (base, before, np.array(updates))]
        rounds.append(
            TrainedRound(base=wide[0], before=wide[1], updates=wide[2], counts=counts, manifest=manifest)
        )
        base, before = (base + np.average(updates, axis=0, weights=counts)).astype(np.float32), base
    return tuple(rounds)
