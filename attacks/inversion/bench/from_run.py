"""A real run as cells: what its server received in the clear, for attackers who know the mask or don't."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Budget
from attacks.inversion.bench.cell import BENCH_VERSION, FULL, MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.play import attacked, packed
from attacks.inversion.bench.run_measures import RunMeasures
from attacks.inversion.bench.store import ORIGINAL, Outcome, Picture, Store
from attacks.inversion.bench.verdict import Margins
from attacks.inversion.exposure import Exposure
from attacks.inversion.recorded import Place, Recorded, RecordedRun
from secagg.errors import Code, ConfigError

ATTACKERS = ("analytic", "rank-completion", "gauss-newton")
"""Those that are tried by default."""
NAMED = 3
"""Updates that a complaint names, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is attacked of a recorded run, and how.

    Args:
        attackers: as in ``load_attacker``.
        knowledge: whether they know the mask.
        clients, rounds: whose updates of which rounds; None for all.
        together: how many of a client's updates, one after the other, an attacker sees at once.
        labels_known: True if attackers are given the samples' labels; a real server infers them.
        budget: of each attack.
        seed: of everything that is drawn.
        processes: that play attacks.
        margins: what counts as a leak.
    """

    attackers: Sequence[str] = ATTACKERS
    knowledge: Knowledge = Knowledge.BOTH
    clients: Collection[str] | None = None
    rounds: Collection[int] | None = None
    together: int = 1
    labels_known: bool = False
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    processes: int = 1
    margins: Margins = field(default_factory=Margins)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrial:
    """A trial that was checked, as cells in the order in which they are played.

    Each update is attacked as it was recorded. Two references of the same samples come before it, as in a
    sweep: the update as if all of it had travelled in the clear, and as if none had. They tell an attacker
    that was stopped by the protection from one that would have failed anyway. Of an update that was hidden
    whole there is nothing but these references, under no other name: no mask is judged by it. Such updates
    come last.

    Args:
        trial: what was asked for.
        stage: plays the cells.
        cells: a cell's ``update`` counts all honest updates of the recording, whichever are asked for, so
            that a trial of more goes on from one of fewer.
        blank_rounds: those in which nothing of any attacked update was visible.
        left_out: a clause for each update that was asked for and is not attacked, and why.
    """

    trial: Trial
    stage: RunStage
    cells: tuple[Cell, ...]
    blank_rounds: tuple[int, ...]
    left_out: tuple[str, ...]

    @classmethod
    def planned(cls, run: Path, trial: Trial) -> RunTrial:
        """Check everything and list the cells.

        Args:
            run: a run's ``--out``; it was recorded.

        Raises:
            ConfigError: as ``RecordedRun`` and ``load_attacker``; DATA_MISSING if nothing of what is asked
                for holds training.
        """
        attackers = [load_attacker(name).name for name in dict.fromkeys(trial.attackers)]
        stage = RunStage(run=run, together=trial.together)
        recording = stage.recording
        asked = recording.chosen(clients=trial.clients, rounds=trial.rounds)
        left_out = [place for place in asked if recording.diverged(place)]
        trained = [place for place in asked if place not in left_out]
        if not trained:
            raise ConfigError(Code.DATA_MISSING, _nothing_trained(left_out))
        blank, groups = set(), []
        setting = _setting(recording, trial)
        for place in trained:
            recorded = recording.update(place)
            if recorded.exposure.hidden.all():
                blank.add(place)
            groups.append(tuple(_cells(setting, recording, recorded, attackers, trial.knowledge)))
        ordered = sorted(zip(trained, groups, strict=True), key=lambda one: one[0] in blank)
        seen = {number for number, _ in set(trained) - blank}
        return cls(
            trial=trial,
            stage=stage,
            cells=tuple(cell for _, group in ordered for cell in group),
            blank_rounds=tuple(sorted({number for number, _ in blank} - seen)),
            left_out=tuple(
                f"{client} in round {number} sent the model it was given: its training diverged"
                for number, client in left_out
            ),
        )

    @property
    def summary(self) -> str:
        """What is attacked, for people."""
        attacks = sum(cell.attacker != MEASURE for cell in self.cells)
        return f"{attacks} attacks on {len({cell.update for cell in self.cells})} recorded updates"

    def pictures(self, store: Store) -> list[tuple[Cell, Callable[[str], Picture | None]]]:
        """Of every sample its own, by kind: clients needn't have equally many.

        Args:
            store: where the cells are. A cell here is of one sample, whose number is its update's.
        """
        firsts = self.stage.firsts
        return [
            (replace(cell, update=firsts[cell.update] + at), partial(_picture, store, cell, at))
            for cell in self.cells
            for at in range(firsts[cell.update + 1] - firsts[cell.update])
        ]


@dataclass(kw_only=True, eq=False)
class RunStage:
    """Plays cells of one recorded run after another; what they share is read once.

    Args:
        run: the run's ``--out``.
        together: as in ``Trial``.
    """

    run: Path
    together: int

    def __getstate__(self) -> dict[str, Any]:
        return {"run": self.run, "together": self.together}

    @cached_property
    def recording(self) -> RecordedRun:
        """The run; read on first use, in every process."""
        return RecordedRun(self.run, together=self.together)

    @cached_property
    def _measures(self) -> RunMeasures:
        return RunMeasures(self.recording)

    @property
    def firsts(self) -> tuple[int, ...]:
        """The number of each update's first sample, and one past the last; no two updates share a number."""
        sizes = [len(self.recording.batches[client]) for _, client in self.recording.honest]
        return tuple(accumulate(sizes, initial=0))

    def play(self, cell: Cell) -> Outcome:
        """What a cell comes to, one row per sample.

        Raises:
            ConfigError: as ``RecordedRun``.
        """
        recording = self.recording
        place = recording.honest[cell.update]
        recorded = recording.update(place)
        if _content(recording, recorded) != cell.content:
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"{self.run}: the recording of round {recorded.round}, {recorded.client}, is another one "
                "than when the attack began; begin again",
            )
        exposure = _seen(recording, recorded, cell)
        if cell.attacker == MEASURE:
            outcome = self._measured(recorded, exposure, cell)
        else:
            outcome = attacked(load_attacker(cell.attacker), exposure, recorded.batch, cell)
        first = self.firsts[cell.update]
        own = {"client": recorded.client, "round": recorded.round}
        rows = [{**row, "sample": first + at, **own} for at, row in enumerate(outcome.rows)]
        return replace(outcome, rows=rows)

    def _measured(self, recorded: Recorded, exposure: Exposure, cell: Cell) -> Outcome:
        """The measures of every sample; the samples themselves beside the first of them."""
        started = time.perf_counter()
        rows = self._measures.rows(recorded, exposure, seed=cell.seed)
        pictures = {ORIGINAL: packed(recorded.batch.inputs)} if cell.significance == NONE else {}
        return Outcome(rows=rows, seconds=time.perf_counter() - started, pictures=pictures)


def _nothing_trained(places: Sequence[Place]) -> str:
    names = [f"{client} in round {number}" for number, client in places]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"there is no training to attack: {', '.join(names[:NAMED])}{more} sent the model that the round "
        "started from, as training diverged; attack another run, or choose others of this one"
    )


def _setting(recording: RecordedRun, trial: Trial) -> Setting:
    schedule = recording.about.schedule
    return Setting(
        dataset=recording.about.dataset,
        rounds=trial.together,
        epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        labels="known" if trial.labels_known else "inferred",
        effort=trial.budget.effort,
        restarts=trial.budget.restarts,
        seed=trial.seed,
    )


def _cells(
    setting: Setting,
    recording: RecordedRun,
    recorded: Recorded,
    attackers: Sequence[str],
    knowledge: Knowledge,
) -> Iterator[Cell]:
    hidden, content = recorded.exposure.hidden, _content(recording, recorded)
    kinds = [(NONE, 0.0), (FULL, 1.0)]
    if hidden.any() and not hidden.all():
        kinds.append((recorded.significance, float(f"{recorded.ratio:.4g}")))
    for significance, ratio in kinds:
        measured = Cell(
            setting=setting,
            victim=recording.victim.name,
            significance=significance,
            ratio=ratio,
            update=recording.honest.index((recorded.round, recorded.client)),
            attacker=MEASURE,
            content=content,
        )
        yield measured
        # Where nothing or everything is hidden there is no mask to know.
        aware = (True,) if significance in (NONE, FULL) else knowledge.aware
        for attacker in attackers:
            for knows in aware:
                yield replace(measured, attacker=attacker, aware=knows)


def _content(recording: RecordedRun, recorded: Recorded) -> str:
    """Digest of what is attacked, of what is known of others' samples, and of what numbers samples."""
    digest = hashlib.sha256(f"{BENCH_VERSION} {recorded.round} {recorded.client} ".encode())
    digest.update(repr(recording.honest).encode() + recording.samples_digest)
    for one in recorded.exposure.rounds:
        digest.update(repr((one.training, one.noise)).encode())
        for tensor in (one.parameters, one.visible, one.hidden):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _seen(recording: RecordedRun, recorded: Recorded, cell: Cell) -> Exposure:
    """A recorded update as it was sent, or as a reference, by an attacker who knows the mask or doesn't."""
    shown = recorded.exposure
    if cell.significance == NONE:
        shown = recording.in_the_clear((recorded.round, recorded.client))
    elif cell.significance == FULL:
        shown = replace(_hidden_whole(shown), earlier=tuple(map(_hidden_whole, shown.earlier)))
    known = recorded.batch.labels if cell.setting.labels == "known" else None
    earlier = tuple(replace(one, labels=known) for one in shown.earlier)
    return replace(shown, labels=known, earlier=earlier).seen_by(aware=cell.aware)


def _hidden_whole(exposure: Exposure) -> Exposure:
    nothing, everything = torch.zeros_like(exposure.visible), torch.ones_like(exposure.hidden)
    return replace(exposure, visible=nothing, hidden=everything)


def _picture(store: Store, cell: Cell, at: int, kind: str) -> Picture | None:
    found = store.picture(cell, kind)
    part: NDArray[np.floating] | NDArray[np.integer] | None = None if found is None else found[at : at + 1]
    return part
