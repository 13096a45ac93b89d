"""A sweep: what was asked for, checked as a whole before anything is played, as a list of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Attacker
from attacks.inversion.attackers.imprint import ActiveAttacker
from attacks.inversion.bench.cell import FULL, MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.play import Stage, exposed_to
from attacks.inversion.bench.protected import Protected, protection_of, protections_of
from attacks.inversion.bench.scene import Scene, check_device
from attacks.inversion.data import TEXTS
from attacks.inversion.victims import TEXT_VICTIMS
from secagg.errors import Code, ConfigError, UpdateError
from secagg.update import Manifest

PRIOR_ONLY = "prior-only"
"""The attacker that looks at nothing: a reference line of every sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Cells in the order in which they are played.

    Args:
        config: what was asked for.
        setting: what all cells have in common.
        cells: update by update, so that a sweep which is cut short has seen everything of fewer samples.
        manifests: of the victims, by name.
        notes: lines for people: what was chosen, what is left out and why.
    """

    config: SweepConfig
    setting: Setting
    cells: tuple[Cell, ...]
    manifests: Mapping[str, Manifest]
    notes: tuple[str, ...]

    @classmethod
    def planned(cls, config: SweepConfig) -> Sweep:
        """Check everything, by trying it once, and list the cells.

        Raises:
            ConfigError: for whatever is unknown, missing or does not fit.
            UpdateError: MASK_MISMATCH, MASK_MALFORMED, MANIFEST_MISMATCH.
        """
        check_device(config.device)
        dataset, note = _dataset(config)
        setting = config.setting(dataset)
        notes = [note] if note else []
        kinds, manifests = [], {}
        for name in dict.fromkeys(config.victim):
            scene = Scene.load(setting, name, _folder(config), updates=config.samples)
            kind = _Kind(config, scene, name)
            if scene.pool.vocabulary:
                notes.append(
                    f"{name} reads text, which has no measure of information: no ratio can be advised"
                )
            notes += kind.notes
            kinds.append(kind)
            manifests[name] = scene.victim.manifest
        cells = tuple(
            cell for update in range(config.samples) for kind in kinds for cell in kind.cells(update)
        )
        if not any(kind.attackers for kind in kinds):
            raise ConfigError(Code.CONFIG_INVALID, f"nothing to play: {'; '.join(notes)}")
        return cls(config=config, setting=setting, cells=cells, manifests=manifests, notes=tuple(notes))

    @property
    def stage(self) -> Stage:
        """Plays the cells."""
        return Stage(
            data=_folder(self.config), updates=self.config.samples, candidates=self.config.candidates
        )

    @property
    def summary(self) -> str:
        """What is played, for people."""
        attacks = sum(cell.attacker != MEASURE for cell in self.cells)
        protections = {(cell.victim, cell.significance, cell.ratio, cell.perturb) for cell in self.cells}
        hidden = sum(significance != NONE for _, significance, _, _ in protections)
        return f"{attacks} attacks on {self.config.samples} updates under {hidden} protections"


class _Kind:
    """All cells of one victim."""

    def __init__(self, config: SweepConfig, scene: Scene, name: str) -> None:
        self._config, self._scene, self._name = config, scene, name
        self.notes: list[str] = []
        self._check()
        self._protections = self._all()
        self.attackers = list(self._suited(dict.fromkeys(config.attacker)))
        notes = len(self.notes)
        self._prior = next(iter(self._suited([PRIOR_ONLY])), None)
        del self.notes[notes:]
        self._left_out = self._impossible()

    def cells(self, update: int) -> Iterator[Cell]:
        """Of one update: references first."""
        for one in self._protections:
            # Where nothing is hidden, or everything, there is no mask to know.
            aware = (True,) if one.significance in (NONE, FULL) else self._config.knowledge.aware
            content = self._scene.content(one.significance, update, candidates=self._config.candidates)
            yield replace(self._cell(one, update, MEASURE), content=content)
            prior = [self._prior] if self._prior and one.significance == FULL else []
            for attacker in dict.fromkeys([*self.attackers, *prior]):
                if (attacker, one.significance) in self._left_out:
                    continue
                for knows in aware:
                    yield replace(self._cell(one, update, attacker), aware=knows, content=content)

    def _all(self) -> list[Protected]:
        config = self._config
        asked = protections_of(
            config.significance,
            config.ratio,
            config.perturb,
            self._scene.setting,
            self._scene.victim.manifest,
        )
        references = [Protected(significance=NONE, ratio=0.0), Protected(significance=FULL, ratio=1.0)]
        # What is hidden whole is not perturbed.
        others = [one for one in asked if one.significance != FULL]
        found = list(dict.fromkeys([*references, *others]))
        for one in found:
            protection_of(self._cell(one, 0, MEASURE), self._scene.victim.manifest)
        for perturb in dict.fromkeys(one.perturb for one in found if one.perturb):
            self._check_perturbation(perturb)
        return found

    def _check_perturbation(self, perturb: str) -> None:
        """Perturb an update that is visible whole."""
        cell = self._cell(Protected(significance=NONE, ratio=0.0, perturb=perturb), 0, MEASURE)
        try:
            sent = self._scene.exposure(cell).visible
            # Whatever the precision: attacks and measures square what they see.
            finite = bool(torch.isfinite(sent.to(torch.float32)).all())
        except UpdateError as error:
            if error.code is not Code.UPDATE_NOT_FINITE:
                raise
            finite = False
        if not finite:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"perturb is {perturb!r}; it leaves {self._name} an update with NaN, infinite values or some "
                "beyond float32: give smaller numbers",
            )

    def _check(self) -> None:
        """Train once, and differentiate what comes of it, as every attack does."""
        scene = self._scene
        scene.victim.check(scene.pool.attacked)
        scene.victim.check(scene.pool.known)
        try:
            scene.exposure(self._cell(Protected(significance=NONE, ratio=0.0), 0, MEASURE))
        except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                Code.CONFIG_INVALID, f"victim {self._name} can't be trained as it is attacked: {reason}"
            ) from None

    def _suited(self, names: Iterable[str]) -> Iterator[str]:
        tried = (Protected(significance=NONE, ratio=0.0), Protected(significance="random", ratio=0.5))
        for name in names:
            attacker = load_attacker(name)
            reasons = [
                self._failure(attacker, self._cell(one, 0, name))
                or attacker.unsuited(exposed_to(attacker, self._scene, self._cell(one, 0, name)))
                for one in tried
            ]
            if all(reasons):
                self.notes.append(f"{name} is left out on {self._name}: {reasons[0]}")
            else:
                yield name

    def _impossible(self) -> set[tuple[str, str]]:
        """Attackers, and protections that don't fit the models which they would have clients train.

        Tensors have other names there, and masks another size; only what names tensors or a file can fail.
        """
        found = set()
        each = {one.significance: one for one in self._protections if "=" in one.significance}
        for name in self.attackers:
            attacker = load_attacker(name)
            for significance, one in each.items():
                reason = self._failure(attacker, self._cell(one, 0, name))
                if reason:
                    found.add((name, significance))
                    self.notes.append(f"{name} is left out under {significance} on {self._name}: {reason}")
        return found

    def _failure(self, attacker: Attacker, cell: Cell) -> str:
        """Why clients can't train what an attacker makes of the victim; empty if they can."""
        if isinstance(attacker, ActiveAttacker):
            try:
                exposed_to(attacker, self._scene, cell)
            except (ConfigError, UpdateError) as error:
                return error.message
        return ""

    def _cell(self, one: Protected, update: int, attacker: str) -> Cell:
        return Cell(
            setting=self._scene.setting,
            victim=self._name,
            significance=one.significance,
            ratio=one.ratio,
            perturb=one.perturb,
            update=update,
            attacker=attacker,
        )


def _dataset(config: SweepConfig) -> tuple[str, str]:
    """The data set, and what to say where it was not asked for: text, if all victims read that.

    Raises:
        ConfigError: CONFIG_INVALID if a victim reads text and the data set is none.
    """
    readers = [name for name in config.victim if name.partition(":")[0] in TEXT_VICTIMS]
    if config.dataset is None and len(readers) == len(config.victim):
        return TEXTS[0], f"dataset: {TEXTS[0]}, as {', '.join(readers)} can read nothing but text"
    dataset, note = config.dataset_or_default()
    if readers and dataset not in TEXTS:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"victim {readers[0]} reads text, which {dataset} is not; give it a sweep of its own, with "
            f"--dataset {TEXTS[0]}",
        )
    return dataset, note


def _folder(config: SweepConfig) -> Path | None:
    return Path(config.data).expanduser() if config.data else None
