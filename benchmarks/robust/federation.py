"""A federation in one process: its data, who is chosen each round, honest training, and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.robust.cell import Setting
from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.errors import Code, ConfigError
from secagg.simulation.config import ModelName
from secagg.simulation.datasets import Dataset, Samples, load_dataset
from secagg.simulation.models import build_model
from secagg.simulation.partition import partition
from secagg.simulation.task import Schedule
from secagg.simulation.training import evaluate, train
from secagg.update import Manifest

Flat = NDArray[np.float32]
Falsify = Callable[[Samples, np.random.Generator], Samples]

LIMIT = 256.0
"""No value of an update is larger: what profile robust seals, and what a clipped attacker goes to."""
ROOT_SAMPLES = 100
"""Samples that the server of a rule with a root update has of its own; nobody else trains on them."""
# Streams of random numbers, so that no two things share one.
_ROLES, _CHOICE, _TRAINING, _SUBSET, _TEST, _ROOT = range(1, 7)


class Federation:
    """What neither rule nor attack changes: the same settings give the same federation.

    Args:
        setting: what it is.
        data: folder with the named data sets; None: $SECAGG_DATA.

    Raises:
        ConfigError: as ``load_dataset``, ``partition`` and ``build_model``.
    """

    def __init__(self, setting: Setting, data: Path | None = None) -> None:
        self.setting = setting
        self.dataset: Dataset = load_dataset(setting.dataset, data)
        train_part, seed = self.dataset.train, setting.seed
        generator = np.random.default_rng([seed, _ROOT])
        root = np.sort(
            generator.choice(len(train_part), min(ROOT_SAMPLES, len(train_part) // 10), replace=False)
        )
        rest = np.setdiff1d(np.arange(len(train_part)), root)
        self._root = train_part.take(root)
        self._train = train_part.take(rest)
        self._parts = partition(self._train.labels, setting.clients, setting.partition, seed)
        self.test = self._some(self.dataset.test, setting.test_samples, np.random.default_rng([seed, _TEST]))
        self._module = build_model(ModelName(setting.model), self.dataset.shape, self.dataset.classes, seed)
        # The layout that convolutions on a processor are fastest in; values are the same.
        self._module = self._module.to(memory_format=torch.channels_last)
        tensors = tensors_from(self._module)
        self.manifest = Manifest.of(tensors)
        self.initial: Flat = self.manifest.flatten(tensors)
        self._schedule = Schedule(
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            momentum=setting.momentum,
        )
        self._roles = np.random.default_rng([seed, _ROLES]).permutation(setting.clients)

    def members(self, round: int, malicious: int) -> NDArray[np.int64]:
        """Who takes part in a round, the malicious last: they see what the others have sent.

        Which clients are malicious is nested: those of a smaller share also are of a larger one. Without any,
        the choice does not depend on anything but the seed and the round.

        Args:
            round: from 1.
            malicious: how many of the round's clients are, so that the share holds in every round.
        """
        setting = self.setting
        generator = np.random.default_rng([setting.seed, _CHOICE, round])
        bad = max(malicious, round_share(malicious, setting.per_round, setting.clients)) if malicious else 0
        if setting.clients - bad < setting.per_round - malicious:
            raise ConfigError(Code.CONFIG_INVALID, f"{setting.clients} clients are too few to choose from")
        good = generator.choice(self._roles[bad:], setting.per_round - malicious, replace=False)
        return np.concatenate([good, generator.choice(self._roles[:bad], malicious, replace=False)])

    def update(self, base: Flat, client: int, round: int, falsify: Falsify | None = None) -> tuple[Flat, int]:
        """What a client's training changes, float32 [d], and on how many samples.

        A client whose training diverges sends zeros: it has nothing better to offer.

        Args:
            base: g, the model the round started from.
            client, round: whose and when; the same give the same samples in the same order.
            falsify: what an attacker does to its samples.
        """
        seed = [self.setting.seed, round, client]
        samples = self._train.take(self._parts[client])
        samples = self._some(samples, self.setting.samples, np.random.default_rng([*seed, _SUBSET]))
        generator = np.random.default_rng([*seed, _TRAINING])
        if falsify is not None:
            samples = falsify(samples, generator)
        return self._trained(base, samples, generator), len(samples)

    def root_update(self, base: Flat, round: int) -> Flat:
        """What training on the server's own samples changes."""
        return self._trained(base, self._root, np.random.default_rng([self.setting.seed, round, _ROOT]))

    def accuracy(self, model: Flat, test: Samples | None = None) -> tuple[float, float | None]:
        """Accuracy and mean loss of a model on the test samples; no loss if it is not finite."""
        self._load(model)
        share, loss = evaluate(self._module, self.test if test is None else test)
        return share, loss if np.isfinite(loss) else None

    def _trained(self, base: Flat, samples: Samples, generator: np.random.Generator) -> Flat:
        self._load(base)
        train(self._module, samples, self._schedule, generator)
        with np.errstate(over="ignore", invalid="ignore"):
            # Not by the manifest, which refuses what is not finite.
            change = np.concatenate([tensor.ravel() for tensor in tensors_from(self._module).values()]) - base
        return change if within(change) else np.zeros_like(base)

    def _load(self, model: Flat) -> None:
        load_tensors(self._module, self.manifest.unflatten(model))

    @staticmethod
    def _some(samples: Samples, count: int, generator: np.random.Generator) -> Samples:
        if not 0 < count < len(samples):
            return samples
        return samples.take(np.sort(generator.choice(len(samples), count, replace=False)))


def round_share(part: int, whole: int, of: int) -> int:
    """The same share of another number."""
    return round(part / whole * of)


def within(update: Flat) -> bool:
    """True if all values are finite and can be sealed."""
    return bool(np.isfinite(update).all() and np.abs(update).max(initial=0.0) <= LIMIT)


def sendable(updates: Flat) -> Flat:
    """What attackers send, at the edge of what can be sealed where they want more."""
    return np.clip(np.nan_to_num(updates, posinf=LIMIT, neginf=-LIMIT), -LIMIT, LIMIT).astype(np.float32)
