"""What cells of one victim share: the network, the samples, the exposure that attackers get to see."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import BENCH_VERSION, Cell, Setting
from attacks.inversion.bench.pool import Pool, load_pool
from attacks.inversion.bench.protected import FILE, load_mask, protection_of
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Prior
from attacks.inversion.training import Training
from attacks.inversion.victims import TEXT_VICTIMS, Victim, calibrated, load_victim
from attacks.inversion.victims.trained import trained
from secagg.errors import Code, ConfigError

WIRE = "wire"
CALIBRATED_ON = 512
PROBED = 2
"""Known samples on which the network is evaluated, to tell it from another one with the same weights."""
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

    def content(self, significance: str, update: int, *, candidates: int) -> str:
        """Digest of what changes results while names stay.

        That is, the network's weights and what it computes, the samples of this update, of other clients and
        those that are known, a mask's file, and the bench itself. Other updates' samples are left out, so
        that a larger sweep goes on from a smaller one.

        Args:
            significance, update: the cell's.
            candidates: samples among which the attacked one is told.
        """
        digest = hashlib.sha256(f"{BENCH_VERSION} {candidates} ".encode())
        digest.update(self.kept("content", 1, self._common_content))
        digest.update(_digest(*_tensors(self.pool.batch(update, self.setting.batch))))
        if significance.startswith(FILE):
            path = Path(significance.removeprefix(FILE))
            digest.update(self.kept(("mask", path), 8, lambda: load_mask(path, self.victim.size).digest))
        return digest.hexdigest()[:16]

    def _common_content(self) -> bytes:
        victim, known = self.victim, self.pool.known
        parameters, probe = victim.parameters(), known.take(torch.arange(min(PROBED, len(known))))
        with torch.no_grad():
            outputs = victim.outputs(parameters, probe.inputs)
        gradient = victim.named(victim.gradient(parameters, probe.inputs, probe.labels).detach())
        norms = torch.stack([part.norm() for part in gradient.values()])
        digits = 3 if self.setting.precision == "float32" else 6
        function = _coarse(outputs, digits) + _coarse(norms, digits)
        samples = [tensor for batch in (*self.pool.others, known) for tensor in _tensors(batch)]
        return victim.manifest.to_bytes() + _digest(parameters, *samples) + function


def check_device(device: str) -> None:
    """See that a device is there.

    Args:
        device: cpu, cuda or cuda:INDEX.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"device is {device!r}; PyTorch finds no CUDA device here: leave --device out",
        )
    if int(index or 0) >= count:
        raise ConfigError(
            Code.CONFIG_INVALID, f"device is {device!r}; the CUDA devices here are cuda:0 … cuda:{count - 1}"
        )


def tokenizer_of(victim: str) -> str:
    """The tokenizer of a victim that reads text; any, of one that doesn't."""
    kind = victim.partition(":")[0]
    return kind if kind in TEXT_VICTIMS else TEXT_VICTIMS[0]


def _tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.inputs, batch.labels


def _digest(*tensors: torch.Tensor) -> bytes:
    digest = hashlib.sha256()
    for values in tensors:
        digest.update(f"{values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def _coarse(values: torch.Tensor, digits: int) -> bytes:
    """Values to so many digits of the largest: another number of threads sums in another order."""
    values = values.detach().to(device="cpu", dtype=torch.float64).nan_to_num(0.0, 0.0, 0.0)
    most = float(values.abs().max())
    unit = 10.0 ** (math.floor(math.log10(most)) - digits) if most > 0 else 1.0
    return f"{unit:g} ".encode() + (values / unit).round().to(torch.int64).numpy().tobytes()
