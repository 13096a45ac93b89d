"""A real run is attacked: what its server received in the clear, by attackers who know the mask or don't."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction, Status
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import FULL, NONE, seed_of
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.measured import FIELDS
from attacks.inversion.bench.play import FIGURES, finite
from attacks.inversion.bench.rows import ordered
from attacks.inversion.bench.verdict import Margins, judged
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import measure
from attacks.inversion.metrics import compare
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
class _Seen:
    """One exposure of a recorded update: as it was sent, or as a reference."""

    recorded: Recorded
    exposure: Exposure
    significance: str
    ratio: float
    update: int
    first: int
    """Number of its first sample; no two updates share one."""
    mean: torch.Tensor
    """Of all other clients' samples: what a client on the server's side can guess."""


def play(
    run: Path, trial: Trial | None = None, *, told: Callable[[int, int, str], None] | None = None
) -> list[dict[str, Any]]:
    """Rows as of a sweep, one per attack and sample, with ``client`` and ``round`` beside.

    Each update is attacked as it was recorded. Two references of the same samples come with it, as in a
    sweep: the update as if all of it had travelled in the clear, and as if none had. They tell an attacker
    that was stopped by the protection from one that would have failed anyway.

    Args:
        run: a run's ``--out``; it was recorded.
        trial: what is attacked and how.
        told: called with attacks ended, all attacks, and what the next one is.

    Raises:
        ConfigError: as ``exposures_of`` and ``load_attacker``.
    """
    trial = trial or Trial()
    attackers = [load_attacker(name) for name in trial.attackers]
    recorded = exposures_of(run, clients=trial.clients, rounds=trial.rounds)
    recording = Recording.open(run)
    samples = {name: batch_of(recording.samples(name)).inputs for name in recording.participants}
    seen = [each for at in range(len(recorded)) for each in _exposures(recorded, at, samples, trial)]
    total = sum(len(_kinds(one, trial)) for one in seen) * len(attackers)
    rows: list[dict[str, Any]] = []
    done = 0
    for one in seen:
        measured = _measured(one, trial.seed)
        for attacker in attackers:
            for aware in _kinds(one, trial):
                if told is not None:
                    told(done, total, _title(one, attacker, aware=aware))
                found = _attacked(one, attacker, trial, aware=aware)
                rows += [{**known, **row} for known, row in zip(measured, found, strict=True)]
                done += 1
    return [ordered(row) for row in judged(rows, trial.margins)]


def _exposures(
    everyone: Sequence[Recorded], at: int, samples: Mapping[str, torch.Tensor], trial: Trial
) -> Iterator[_Seen]:
    recorded = everyone[at]
    exposure, batch = recorded.exposure, recorded.batch
    if trial.labels_known:
        exposure = replace(exposure, labels=batch.labels)
    others = [inputs for name, inputs in samples.items() if name != recorded.client]
    mean = torch.cat(others).mean(dim=0)
    first = sum(len(one.batch) for one in everyone[:at])
    kept = _Seen(
        recorded=recorded, exposure=exposure, significance=NONE, ratio=0.0, update=at, first=first, mean=mean
    )
    if not exposure.hidden.any():
        yield kept
    else:
        clear = exposure.training.update(exposure.victim, exposure.parameters, batch).detach()
        nothing = torch.zeros_like(exposure.hidden)
        # As on the wire: where something was seen it is what was sent, rounded as it was.
        sent = torch.where(exposure.hidden, clear, exposure.visible)
        yield replace(kept, exposure=replace(exposure, visible=sent, hidden=nothing))
    if not exposure.hidden.all() and exposure.hidden.any():
        yield replace(
            kept, exposure=exposure, significance=recorded.significance, ratio=float(f"{recorded.ratio:.4g}")
        )
    blank = replace(
        exposure, visible=torch.zeros_like(exposure.visible), hidden=~torch.zeros_like(exposure.hidden)
    )
    yield replace(kept, exposure=blank, significance=FULL, ratio=1.0)


def _kinds(one: _Seen, trial: Trial) -> tuple[bool, ...]:
    """Where nothing or everything is hidden there is no mask to know."""
    return (True,) if one.significance in (NONE, FULL) else trial.knowledge.aware


def _title(one: _Seen, attacker: Attacker, *, aware: bool) -> str:
    hidden = one.significance if one.significance in (NONE, FULL) else f"{one.significance} {one.ratio:g}"
    knows = "" if one.significance in (NONE, FULL) else " (aware)" if aware else " (naive)"
    return f"round {one.recorded.round}, {one.recorded.client}, {hidden}: {attacker.name}{knows}"


def _attacked(one: _Seen, attacker: Attacker, trial: Trial, *, aware: bool) -> list[dict[str, Any]]:
    exposure, batch = one.exposure.seen_by(aware=aware), one.recorded.batch
    why, found, started = attacker.unsuited(exposure), None, perf_counter()
    ended = "unsuited" if why else "diverged"
    if not why:
        names = [one.recorded.client, one.recorded.round, one.significance, attacker.name, aware]
        try:
            found = attacker.attack(exposure, seed=seed_of(trial.seed, "attack", *names), budget=trial.budget)
            ended, why = str(found.status), found.detail
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
    figures = _figures(batch, found) if found is not None and found.status is Status.DONE else None
    nothing = dict.fromkeys((*FIGURES, "label_correct"))
    return [
        {**common, "sample": sample, "identified": None, **(figures[at] if figures else nothing)}
        for at, sample in enumerate(range(one.first, one.first + len(batch)))
    ]


def _figures(batch: Batch, found: Reconstruction) -> list[dict[str, Any]]:
    scores = compare(batch, found)
    return [
        {
            **{name: finite(getattr(scores, name)[at]) for name in FIGURES},
            "label_correct": bool(scores.label_correct[at]),
        }
        for at in range(len(batch))
    ]


def _measured(one: _Seen, seed: int) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample."""
    batch = one.recorded.batch
    found = measure(one.exposure, batch, seed=seed)
    guess = one.mean.expand_as(batch.inputs)
    mean = compare(batch, Reconstruction(inputs=guess, labels=torch.zeros_like(batch.labels)))
    return [
        {
            **dict.fromkeys(FIELDS),
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
