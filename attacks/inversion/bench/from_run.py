"""A real run as cells: what its server received in the clear, for attackers who know the mask or don't."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import BENCH_VERSION, FULL, MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.labels import label_figures
from attacks.inversion.bench.measured import FIELDS
from attacks.inversion.bench.play import attacked, finite, packed
from attacks.inversion.bench.store import ORIGINAL, Outcome, Picture, Store
from attacks.inversion.bench.verdict import Margins
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import measure
from attacks.inversion.metrics import compare
from attacks.inversion.recorded import Recorded, RecordedRun
from secagg.errors import Code, ConfigError

ATTACKERS = ("analytic", "rank-completion", "gauss-newton")
"""Those that are tried by default."""


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
    """

    trial: Trial
    stage: RunStage
    cells: tuple[Cell, ...]
    blank_rounds: tuple[int, ...]

    @classmethod
    def planned(cls, run: Path, trial: Trial) -> RunTrial:
        """Check everything and list the cells.

        Args:
            run: a run's ``--out``; it was recorded.

        Raises:
            ConfigError: as ``RecordedRun`` and ``load_attacker``.
        """
        attackers = [load_attacker(name).name for name in dict.fromkeys(trial.attackers)]
        recording = RecordedRun(run)
        asked, blank = recording.chosen(clients=trial.clients, rounds=trial.rounds), set()
        groups = []
        setting = _setting(recording, trial)
        for place in asked:
            recorded = recording.update(place, together=trial.together)
            if recorded.exposure.hidden.all():
                blank.add(place)
            groups.append(tuple(_cells(setting, recording, recorded, attackers, trial.knowledge)))
        ordered = sorted(zip(asked, groups, strict=True), key=lambda one: one[0] in blank)
        return cls(
            trial=trial,
            stage=RunStage(run=run, together=trial.together),
            cells=tuple(cell for _, group in ordered for cell in group),
            blank_rounds=tuple(sorted({number for number, _ in blank} - {n for n, _ in set(asked) - blank})),
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
    _recording: RecordedRun | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recording": None}

    @property
    def recording(self) -> RecordedRun:
        """The run; read on first use."""
        if self._recording is None:
            self._recording = RecordedRun(self.run)
        return self._recording

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
        recorded = recording.update(recording.honest[cell.update], together=self.together)
        if _content(recording, recorded) != cell.content:
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"{self.run}: the recording of round {recorded.round}, {recorded.client}, is another one "
                "than when the attack began; begin again",
            )
        exposure = _seen(recorded, cell)
        if cell.attacker == MEASURE:
            outcome = _measured(recording, recorded, exposure, cell)
        else:
            outcome = attacked(load_attacker(cell.attacker), exposure, recorded.batch, cell)
        first = self.firsts[cell.update]
        own = {"client": recorded.client, "round": recorded.round}
        rows = [{**row, "sample": first + at, **own} for at, row in enumerate(outcome.rows)]
        return replace(outcome, rows=rows)


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


def _seen(recorded: Recorded, cell: Cell) -> Exposure:
    """A recorded update as it was sent, or as a reference, by an attacker who knows the mask or doesn't."""
    known = recorded.batch.labels if cell.setting.labels == "known" else None
    *earlier, last = (
        replace(_shown(one, recorded.batch, cell.significance), labels=known, earlier=())
        for one in recorded.exposure.rounds
    )
    return replace(last, earlier=tuple(earlier)).seen_by(aware=cell.aware)


def _shown(exposure: Exposure, batch: Batch, significance: str) -> Exposure:
    nothing, everything = torch.zeros_like(exposure.hidden), torch.ones_like(exposure.hidden)
    if significance == FULL:
        return replace(exposure, visible=torch.zeros_like(exposure.visible), hidden=everything)
    if significance != NONE or not exposure.hidden.any():
        return exposure
    clear = exposure.training.update(exposure.victim, exposure.parameters, batch).detach()
    # As on the wire: where something was seen it is what was sent, rounded as it was.
    sent = torch.where(exposure.hidden, clear, exposure.visible)
    return replace(exposure, visible=sent, hidden=nothing)


def _measured(recording: RecordedRun, recorded: Recorded, exposure: Exposure, cell: Cell) -> Outcome:
    """``FIELDS`` of every sample; the samples themselves beside the first of them."""
    batch, started = recorded.batch, time.perf_counter()
    found = measure(exposure, batch, seed=cell.seed)
    # What a client on the server's side knows: everybody else's samples, as far as their mean and labels go.
    others = [own for name, own in recording.batches.items() if name != recorded.client]
    labels = label_figures(exposure, batch, torch.cat([own.labels for own in others]))
    guess = torch.cat([own.inputs for own in others]).mean(dim=0).expand_as(batch.inputs)
    mean = compare(batch, Reconstruction(inputs=guess, labels=torch.zeros_like(batch.labels)))
    rows = [
        {
            **dict.fromkeys(FIELDS),
            **labels[at],
            "psnr_pred_db": finite(found.sample_psnr_pred_db[at]),
            "psnr_naive_pred_db": finite(found.psnr_naive_pred_db),
            "leaked_dimensions": finite(found.leaked_dimensions / len(batch)),
            "input_numbers": found.input_numbers // len(batch),
            "i2f": finite(found.i2f),
            "counting_ratio": finite(found.counting_ratio),
            "hidden_share": float(exposure.hidden.double().mean()),
            "mean_psnr_db": finite(mean.psnr_db[at]),
            "mean_ssim": finite(mean.ssim[at]),
        }
        for at in range(len(batch))
    ]
    pictures = {ORIGINAL: packed(batch.inputs)} if cell.significance == NONE else {}
    return Outcome(rows=rows, seconds=time.perf_counter() - started, pictures=pictures)


def _picture(store: Store, cell: Cell, at: int, kind: str) -> Picture | None:
    found = store.picture(cell, kind)
    part: NDArray[np.floating] | NDArray[np.integer] | None = None if found is None else found[at : at + 1]
    return part
