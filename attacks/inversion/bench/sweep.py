"""A sweep: what was asked for, checked as a whole before anything is played, as a list of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attacks.inversion.attackers import load_attacker
from attacks.inversion.bench.cell import FULL, MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.play import Stage, exposed_to
from attacks.inversion.bench.protected import Protected, protection_of, protections_of
from attacks.inversion.bench.scene import Scene
from secagg.errors import Code, ConfigError
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
        dataset, note = config.dataset_or_default()
        setting = config.setting(dataset)
        notes = [note] if note else []
        kinds, manifests = [], {}
        for name in dict.fromkeys(config.victim):
            scene = Scene.load(setting, name, _folder(config), updates=config.samples)
            kind = _Kind(config, scene, name)
            if scene.pool.vocabulary:
                notes.append(f"{name} reads text, which has no information measure: attackers alone decide")
            notes += kind.notes
            kinds.append(kind)
            manifests[name] = scene.victim.manifest
        cells = tuple(
            cell for update in range(config.samples) for kind in kinds for cell in kind.cells(update)
        )
        if all(cell.attacker == MEASURE for cell in cells):
            raise ConfigError(Code.CONFIG_INVALID, f"nothing to play: {'; '.join(notes)}")
        return cls(config=config, setting=setting, cells=cells, manifests=manifests, notes=tuple(notes))

    @property
    def stage(self) -> Stage:
        """Plays the cells."""
        return Stage(
            data=_folder(self.config), updates=self.config.samples, candidates=self.config.candidates
        )


class _Kind:
    """All cells of one victim."""

    def __init__(self, config: SweepConfig, scene: Scene, name: str) -> None:
        self._config, self._scene, self._name = config, scene, name
        self.notes: list[str] = []
        self._check()
        self._protections = self._all()
        self._content = {one.significance: scene.content(one.significance) for one in self._protections}
        self._attackers = list(self._suited(dict.fromkeys(config.attacker)))
        notes = len(self.notes)
        self._prior = next(iter(self._suited([PRIOR_ONLY])), None)
        del self.notes[notes:]

    def cells(self, update: int) -> Iterator[Cell]:
        """Of one update: references first."""
        for one in self._protections:
            # Where nothing is hidden, or everything, there is no mask to know.
            aware = (True,) if one.significance in (NONE, FULL) else self._config.knowledge.aware
            yield self._cell(one, update, MEASURE)
            prior = [self._prior] if self._prior and one.significance == FULL else []
            for attacker in dict.fromkeys([*self._attackers, *prior]):
                for knows in aware:
                    yield self._cell(one, update, attacker, aware=knows)

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
        return found

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
                attacker.unsuited(exposed_to(attacker, self._scene, self._cell(one, 0, name)))
                for one in tried
            ]
            if all(reasons):
                self.notes.append(f"{name} is left out on {self._name}: {reasons[0]}")
            else:
                yield name

    def _cell(self, one: Protected, update: int, attacker: str, *, aware: bool = True) -> Cell:
        content = getattr(self, "_content", {}).get(one.significance, "")
        return Cell(
            setting=self._scene.setting,
            victim=self._name,
            significance=one.significance,
            ratio=one.ratio,
            perturb=one.perturb,
            update=update,
            attacker=attacker,
            aware=aware,
            content=content,
        )


def _folder(config: SweepConfig) -> Path | None:
    return Path(config.data).expanduser() if config.data else None
