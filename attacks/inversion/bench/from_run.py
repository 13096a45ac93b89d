"""A real run is attacked: what its server received in the clear, by attackers who know the mask or don't."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction, Status
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import FULL, NONE, Cell, Setting, seed_of
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.labels import label_figures
from attacks.inversion.bench.measured import FIELDS
from attacks.inversion.bench.play import FIGURES, finite, packed
from attacks.inversion.bench.rows import ordered
from attacks.inversion.bench.store import ORIGINAL, RECONSTRUCTION, Picture
from attacks.inversion.bench.verdict import Margins, judged
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import measure
from attacks.inversion.metrics import Scores, compare
from attacks.inversion.recorded import Recorded, batch_of, exposures_of
from secagg.simulation.recording import Recording

ATTACKERS = ("analytic", "rank-completion", "gauss-newton")
"""Those that are tried by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is attacked, and how.

    Args:
        attackers: as in ``load_attacker``.
        knowledge: whether they know the mask.
        clients, rounds: whose updates of which rounds; None for all.
        labels_known: True if attackers are given the samples' labels; a real server infers them.
        budget: of each attack.
        seed: of everything that is drawn.
        margins: what counts as a leak.
    """

    attackers: Sequence[str] = ATTACKERS
    knowledge: Knowledge = Knowledge.BOTH
    clients: Collection[str] | None = None
    rounds: Collection[int] | None = None
    labels_known: bool = False
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    margins: Margins = field(default_factory=Margins)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """What attacks on a run came to.

    Args:
        rows: as of a sweep, one per attack and sample, with ``client`` and ``round`` beside.
        pictures: of every sample of every attack that ended in one, originals and reconstructions by kind. A
            cell here is of one sample, whose number is its update's.
        blank_rounds: those in which nothing of any attacked update was visible.
        ended, attacks: how many ended, of how many.
    """

    rows: Sequence[dict[str, Any]]
    pictures: Sequence[tuple[Cell, Callable[[str], Picture | None]]]
    blank_rounds: Sequence[int]
    ended: int
    attacks: int

    @property
    def complete(self) -> bool:
        """False if it was interrupted."""
        return self.ended == self.attacks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """One exposure of a recorded update: as it was sent, or as a reference."""

    recorded: Recorded
    exposure: Exposure
    significance: str
    ratio: float
    update: int
    first: int
    """Number of its first sample; no two updates share one."""
    known: Batch
    """All other clients' samples, whose mean and labels a client on the server's side is granted."""


def play(
    run: Path, trial: Trial | None = None, *, told: Callable[[int, int, str], None] | None = None
) -> Played:
    """Attack what was recorded; Ctrl-C ends it with what has ended so far.

    Each update is attacked as it was recorded. Two references of the same samples come before it, as in a
    sweep: the update as if all of it had travelled in the clear, and as if none had. They tell an attacker
    that was stopped by the protection from one that would have failed anyway. Of an update that was hidden
    whole there is nothing but these references, under no other name: no mask is judged by it. Such updates
    come last.

    Args:
        run: a run's ``--out``; it was recorded.
        trial: what is attacked and how.
        told: called with attacks ended, all attacks, and what the next one is.

    Raises:
        ConfigError: as ``exposures_of`` and ``load_attacker``.
    """
    trial = trial or Trial()
    attackers = [load_attacker(name) for name in trial.attackers]
    recorded = sorted(
        exposures_of(run, clients=trial.clients, rounds=trial.rounds),
        key=lambda one: bool(one.exposure.hidden.all()),
    )
    recording = Recording.open(run)
    samples = {name: batch_of(recording.samples(name)) for name in recording.participants}
    seen = [each for at in range(len(recorded)) for each in _exposures(recorded, at, samples, trial)]
    total = sum(len(_kinds(one, trial)) for one in seen) * len(attackers)
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[Cell, Callable[[str], Picture | None]]] = []
    done = 0
    with suppress(KeyboardInterrupt):
        for one in seen:
            measured = _measured(one, trial.seed)
            for attacker in attackers:
                for aware in _kinds(one, trial):
                    if told is not None:
                        told(done, total, _title(one, attacker, aware=aware))
                    found, drawn = _attacked(one, attacker, trial, aware=aware)
                    rows += [{**known, **row} for known, row in zip(measured, found, strict=True)]
                    pictures += drawn
                    done += 1
    shown = {one.round for one in recorded if not one.exposure.hidden.all()}
    return Played(
        rows=[ordered(row) for row in judged(rows, trial.margins)],
        pictures=pictures,
        blank_rounds=sorted({one.round for one in recorded} - shown),
        ended=done,
        attacks=total,
    )


def _exposures(
    everyone: Sequence[Recorded], at: int, samples: Mapping[str, Batch], trial: Trial
) -> Iterator[_Seen]:
    recorded = everyone[at]
    exposure, batch = recorded.exposure, recorded.batch
    if trial.labels_known:
        exposure = replace(exposure, labels=batch.labels)
    others = [own for name, own in samples.items() if name != recorded.client]
    known = Batch(
        inputs=torch.cat([own.inputs for own in others]), labels=torch.cat([own.labels for own in others])
    )
    first = sum(len(one.batch) for one in everyone[:at])
    kept = _Seen(
        recorded=recorded,
        exposure=exposure,
        significance=NONE,
        ratio=0.0,
        update=at,
        first=first,
        known=known,
    )
    if not exposure.hidden.any():
        yield kept
    else:
        clear = exposure.training.update(exposure.victim, exposure.parameters, batch).detach()
        nothing = torch.zeros_like(exposure.hidden)
        # As on the wire: where something was seen it is what was sent, rounded as it was.
        sent = torch.where(exposure.hidden, clear, exposure.visible)
        yield replace(kept, exposure=replace(exposure, visible=sent, hidden=nothing))
    blank = replace(
        exposure, visible=torch.zeros_like(exposure.visible), hidden=~torch.zeros_like(exposure.hidden)
    )
    yield replace(kept, exposure=blank, significance=FULL, ratio=1.0)
    if not exposure.hidden.all() and exposure.hidden.any():
        yield replace(
            kept, exposure=exposure, significance=recorded.significance, ratio=float(f"{recorded.ratio:.4g}")
        )


def _kinds(one: _Seen, trial: Trial) -> tuple[bool, ...]:
    """Where nothing or everything is hidden there is no mask to know."""
    return (True,) if one.significance in (NONE, FULL) else trial.knowledge.aware


def _title(one: _Seen, attacker: Attacker, *, aware: bool) -> str:
    hidden = one.significance if one.significance in (NONE, FULL) else f"{one.significance} {one.ratio:g}"
    knows = "" if one.significance in (NONE, FULL) else " (aware)" if aware else " (naive)"
    return f"round {one.recorded.round}, {one.recorded.client}, {hidden}: {attacker.name}{knows}"


def _attacked(
    one: _Seen, attacker: Attacker, trial: Trial, *, aware: bool
) -> tuple[list[dict[str, Any]], list[tuple[Cell, Callable[[str], Picture | None]]]]:
    """Rows and pictures, one per sample each; no pictures unless the attack ended in some."""
    exposure, batch = one.exposure.seen_by(aware=aware), one.recorded.batch
    why, found, started = attacker.unsuited(exposure), None, perf_counter()
    ended = "unsuited" if why else "diverged"
    if not why:
        names = [one.recorded.client, one.recorded.round, one.significance, attacker.name, aware]
        try:
            found = attacker.attack(exposure, seed=seed_of(trial.seed, "attack", *names), budget=trial.budget)
            ended, why = str(found.status), found.detail
            if found.status is Status.DONE and not bool(torch.isfinite(found.inputs).all()):
                ended, why = "diverged", "the reconstruction holds NaN or infinite values"
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            # A system that can't be solved is how second-order attacks diverge.
            why = str(error).splitlines()[0]
    common = {
        "victim": exposure.victim.name,
        "dataset": one.recorded.dataset,
        "significance": one.significance,
        "ratio": one.ratio,
        "perturb": "",
        "attacker": attacker.name,
        "aware": aware,
        "update": one.update,
        "client": one.recorded.client,
        "round": one.recorded.round,
        "ended": ended,
        "iterations": found.iterations if found is not None else 0,
        "attack_loss": finite(found.loss) if found is not None else None,
        "seconds": round(perf_counter() - started, 4),
        "detail": why,
    }
    scores = compare(batch, found) if found is not None and ended == Status.DONE else None
    figures = [_figures(scores, at, exposure) for at in range(len(batch))]
    rows = [
        {**common, "sample": one.first + at, "identified": None, **figures[at]} for at in range(len(batch))
    ]
    if found is None or scores is None:
        return rows, []
    made = found.inputs[torch.from_numpy(scores.order)]
    return rows, [(_cell(one, at, common), _pictures(batch, made, at)) for at in range(len(batch))]


def _figures(scores: Scores | None, at: int, exposure: Exposure) -> dict[str, Any]:
    if scores is None:
        return dict.fromkeys((*FIGURES, "label_correct"))
    # Of labels that are known there is nothing to find.
    label = bool(scores.label_correct[at]) if exposure.labels is None else None
    return {**{name: finite(getattr(scores, name)[at]) for name in FIGURES}, "label_correct": label}


def _cell(one: _Seen, at: int, common: Mapping[str, Any]) -> Cell:
    """Where a page shows this sample's pictures; clients needn't have equally many, so each has its own."""
    return Cell(
        setting=Setting(dataset=one.recorded.dataset),
        victim=common["victim"],
        significance=one.significance,
        ratio=one.ratio,
        update=one.first + at,
        attacker=common["attacker"],
        aware=common["aware"],
    )


def _pictures(batch: Batch, made: torch.Tensor, at: int) -> Callable[[str], Picture | None]:
    part = slice(at, at + 1)
    return {ORIGINAL: packed(batch.inputs[part]), RECONSTRUCTION: packed(made[part])}.get


def _measured(one: _Seen, seed: int) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample."""
    batch = one.recorded.batch
    found = measure(one.exposure, batch, seed=seed)
    labels = label_figures(one.exposure, batch, one.known.labels)
    guess = one.known.inputs.mean(dim=0).expand_as(batch.inputs)
    mean = compare(batch, Reconstruction(inputs=guess, labels=torch.zeros_like(batch.labels)))
    return [
        {
            **dict.fromkeys(FIELDS),
            **labels[at],
            "psnr_pred_db": finite(found.sample_psnr_pred_db[at]),
            "psnr_naive_pred_db": finite(found.psnr_naive_pred_db),
            "leaked_dimensions": finite(found.leaked_dimensions / len(batch)),
            "input_numbers": found.input_numbers // len(batch),
            "i2f": finite(found.i2f),
            "counting_ratio": finite(found.counting_ratio),
            "hidden_share": float(one.exposure.hidden.double().mean()),
            "mean_psnr_db": finite(mean.psnr_db[at]),
            "mean_ssim": finite(mean.ssim[at]),
        }
        for at in range(len(batch))
    ]
