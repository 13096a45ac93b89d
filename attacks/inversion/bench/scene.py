"""What cells of one victim share: the network, the samples, the exposure that attackers get to see."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import Cell, Setting
from attacks.inversion.bench.pool import Pool, load_pool
from attacks.inversion.bench.protected import FILE, load_mask, protection_of
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Prior
from attacks.inversion.training import Training
from attacks.inversion.victims import TEXT_VICTIMS, Victim, calibrated, load_victim
from attacks.inversion.victims.trained import trained

WIRE = "wire"
CALIBRATED_ON = 512
_Value = TypeVar("_Value")


@dataclass(kw_only=True, eq=False)
class Scene:
    """A victim and the samples of its clients, on one device.

    Args:
        setting: of the sweep.
        victim: the network.
        pool: samples, on the device and as precise as the victim, unless they are tokens.
    """

    setting: Setting
    victim: Victim
    pool: Pool
    _kept: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict, init=False, repr=False)

    @classmethod
    def load(cls, setting: Setting, victim: str, data: Path | None, *, updates: int) -> Scene:
        """The scene of a victim's name.

        Args:
            data: folder with the named data sets; None for $SECAGG_DATA.
            updates: how many are attacked.

        Raises:
            ConfigError: as ``load_pool`` and ``load_victim``.
        """
        pool = load_pool(setting, data, updates=updates, tokenizer=tokenizer_of(victim))
        return cls.of(setting, victim, pool)

    @classmethod
    def of(cls, setting: Setting, victim: str, pool: Pool) -> Scene:
        """The same with samples that are loaded already."""
        dtype = torch.float32 if setting.precision == "float32" else torch.float64
        network = load_victim(
            victim,
            shape=pool.shape,
            classes=pool.classes,
            seed=setting.seed,
            dtype=dtype,
            device=setting.device,
            vocabulary=pool.vocabulary if victim in TEXT_VICTIMS and pool.vocabulary else None,
        )
        if setting.pretrain:
            network = trained(network, pool.known, epochs=setting.pretrain, seed=setting.seed)
        elif not pool.vocabulary and network.module.training is False:
            # Batch norm in inference mode: statistics that a trained model would have.
            network = calibrated(network, pool.known.inputs[:CALIBRATED_ON])

        def moved(batch: Batch) -> Batch:
            inputs = batch.inputs.to(setting.device)
            inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
            return Batch(inputs=inputs, labels=batch.labels.to(setting.device))

        return cls(
            setting=setting,
            victim=network,
            pool=replace(
                pool,
                attacked=moved(pool.attacked),
                others=tuple(map(moved, pool.others)),
                known=moved(pool.known),
            ),
        )

    @property
    def training(self) -> Training:
        """How clients train."""
        setting = self.setting
        return Training(epochs=setting.epochs, steps=setting.steps, learning_rate=setting.learning_rate)

    def batch(self, cell: Cell) -> Batch:
        """The samples that the cell's attacker looks for."""
        return self.pool.batch(cell.update, self.setting.batch)

    def exposure(self, cell: Cell, victim: Victim | None = None) -> Exposure:
        """What the cell's attacker sees; a few are kept.

        Args:
            victim: in whose place another one is trained, by a server that tampers with it.

        Raises:
            ConfigError, UpdateError: as ``Protection.expose``.
        """
        aware = cell.aware
        if victim is not None:
            return self._expose(cell, victim).seen_by(aware=aware)
        names = (cell.significance, cell.ratio, cell.perturb, cell.update)
        return self.kept(("exposure", *names), 4, lambda: self._expose(cell, self.victim)).seen_by(
            aware=aware
        )

    def _expose(self, cell: Cell, victim: Victim) -> Exposure:
        setting = self.setting
        return protection_of(cell, victim.manifest).expose_rounds(
            victim,
            victim.parameters(),
            self.training,
            self.batch(cell),
            rounds=setting.rounds,
            others=self.pool.others,
            labels_known=setting.labels == "known",
            seed=cell.protection_seed,
            precision="float32" if setting.precision in (WIRE, "float32") else "float64",
        )

    @property
    def prior(self) -> Prior:
        """What is known of samples: the covariance of known ones."""
        known = self.pool.known.inputs
        return self.kept("prior", 1, lambda: Prior.empirical(known))

    def kept(self, name: Hashable, most: int, make: Callable[[], _Value]) -> _Value:
        """Made once; of those whose names begin alike the last few are kept."""
        kind = name[0] if isinstance(name, tuple) else name
        if name not in self._kept:
            alike = [key for key in self._kept if (key[0] if isinstance(key, tuple) else key) == kind]
            for old in alike[: max(0, len(alike) - most + 1)]:
                del self._kept[old]
            self._kept[name] = make()
        value: _Value = self._kept[name]
        return value

    def content(self, significance: str) -> str:
        """Digest of weights and samples, and of a mask's file: what changes results while names stay."""
        digest = hashlib.sha256()
        digest.update(self.victim.manifest.to_bytes())
        digest.update(self.kept("weights", 1, lambda: _digest(self.victim.parameters())))
        first = self.pool.attacked.take(torch.arange(self.setting.batch))
        digest.update(_digest(first.inputs) + _digest(first.labels) + _digest(self.pool.known.inputs[:100]))
        if significance.startswith(FILE):
            mask = load_mask(Path(significance.removeprefix(FILE)), self.victim.size)
            digest.update(mask.digest)
        return digest.hexdigest()[:16]


def tokenizer_of(victim: str) -> str:
    """The tokenizer of a victim that reads text; any, of one that doesn't."""
    kind = victim.partition(":")[0]
    return kind if kind in TEXT_VICTIMS else TEXT_VICTIMS[0]


def _digest(values: torch.Tensor) -> bytes:
    return hashlib.sha256(values.detach().cpu().numpy().tobytes()).digest()
