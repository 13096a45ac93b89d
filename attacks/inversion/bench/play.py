"""Playing a cell: an attack on one update, or the measures of one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction, Status
from attacks.inversion.attackers.imprint import ActiveAttacker
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import MEASURE, NONE, Cell, Setting
from attacks.inversion.bench.measured import FIELDS as MEASURED
from attacks.inversion.bench.measured import measured_rows
from attacks.inversion.bench.scene import Scene
from attacks.inversion.bench.store import MEAN, ORIGINAL, RECONSTRUCTION, Outcome, Picture
from attacks.inversion.exposure import Exposure
from attacks.inversion.metrics import Scores, compare
from secagg.errors import Code, UpdateError

FIGURES = ("psnr_db", "ssim", "mse", "token_accuracy", "bag_accuracy", "rouge_l")
"""Of ``Scores``, each a column."""
_NUMERICAL = (
    torch.linalg.LinAlgError,  # type: ignore[attr-defined]
    np.linalg.LinAlgError,
    FloatingPointError,
    OverflowError,
)
"""What nothing but numbers raises."""
_NOT_FINITE = re.compile(
    r"\b(nans?|infs?|infinity|infinite|non-?finite|not finite|invalid numeric entries|infeasible)\b",
    re.IGNORECASE,
)
"""What libraries say of NaN and infinity; there is no class of errors for that."""


@dataclass(kw_only=True, eq=False)
class Stage:
    """Plays cells of one sweep after another; what they share is loaded once.

    Args:
        data: folder with the named data sets; None for $SECAGG_DATA.
        updates: how many the sweep attacks.
        candidates: samples among which an attacked one is to be identified, itself included.
    """

    data: Path | None
    updates: int
    candidates: int
    _scenes: dict[tuple[Setting, str], Scene] = field(default_factory=dict, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scenes": {}}

    def play(self, cell: Cell) -> Outcome:
        """What a cell comes to.

        Raises:
            SecaggError: as whatever it is made of; the sweep has seen that before it began.
        """
        started = time.perf_counter()
        scene = self.scene(cell)
        if cell.attacker == MEASURE:
            rows = _measured(scene, cell)
            pictures = _known_pictures(scene, cell) if cell.significance == NONE else {}
            return Outcome(rows=rows, seconds=time.perf_counter() - started, pictures=pictures)
        return self._attacked(scene, cell)

    def scene(self, cell: Cell) -> Scene:
        """What the cell is played in; the last one is kept."""
        name = (cell.setting, cell.victim)
        if name not in self._scenes:
            # One at a time: networks and data sets are large.
            self._scenes = {name: Scene.load(cell.setting, cell.victim, self.data, updates=self.updates)}
        return self._scenes[name]

    def _attacked(self, scene: Scene, cell: Cell) -> Outcome:
        attacker, batch = load_attacker(cell.attacker), scene.batch(cell)
        candidates = scene.pool.candidates(self.candidates)
        shown: dict[str, Any] = {"candidates": 1 + len(candidates)}
        try:
            exposure = exposed_to(attacker, scene, cell)
        except UpdateError as error:
            rows = _empty_rows(cell, len(batch), "diverged", detail=_overflow(error), **shown)
            return Outcome(rows=rows, seconds=0.0)
        if exposure.victim is not scene.victim:
            # Measures are of the model that nobody tampered with.
            shown |= {"psnr_pred_db": None, "psnr_naive_pred_db": None, "leaked_dimensions": None}
        compared = partial(
            compare, candidates=candidates, text=bool(scene.pool.vocabulary), padding=scene.pool.padding
        )
        return attacked(attacker, exposure, batch, cell, compared=compared, **shown)


def attacked(
    attacker: Attacker,
    exposure: Exposure,
    batch: Batch,
    cell: Cell,
    *,
    compared: Callable[[Batch, Reconstruction], Scores] = compare,
    **shown: Any,
) -> Outcome:
    """What an attacker makes of an exposure: a row per sample, and what it reconstructed.

    Args:
        batch: the samples it looks for.
        cell: whose setting, seed and update it is.
        compared: scores a reconstruction.
        shown: more columns, the same for all samples.
    """
    size = len(batch)
    shown["hidden_share"] = float(exposure.hidden.double().mean())
    why = attacker.unsuited(exposure)
    if why:
        return Outcome(rows=_empty_rows(cell, size, "unsuited", detail=why, **shown), seconds=0.0)
    budget = Budget(effort=cell.setting.effort, restarts=cell.setting.restarts)
    started = time.perf_counter()
    found = _tried(attacker, exposure, cell.seed, budget)
    seconds = time.perf_counter() - started
    shown["seconds"] = round(seconds, 4)
    if isinstance(found, str) or found.status is not Status.DONE:
        diverged = isinstance(found, str) or found.status is Status.DIVERGED
        detail = found if isinstance(found, str) else found.detail
        ended = "diverged" if diverged else "unsuited"
        return Outcome(rows=_empty_rows(cell, size, ended, detail=detail, **shown), seconds=seconds)
    scores = compared(batch, found)
    rows = _rows(cell, found, scores, labels_known=exposure.labels is not None, **shown)
    pictures = {RECONSTRUCTION: packed(found.inputs[torch.from_numpy(scores.order)])}
    return Outcome(rows=rows, seconds=seconds, pictures=pictures)


def _tried(attacker: Attacker, exposure: Exposure, seed: int, budget: Budget) -> Reconstruction | str:
    """What the attacker finds; a line on what went wrong if it diverged on the way, or ends in no numbers.

    An attacker diverges that can't solve its equations, or hands NaN or infinity to what refuses them. Any
    other error is a fault of the program, and raised.
    """
    try:
        found = attacker.attack(exposure, seed=seed, budget=budget)
    except _NUMERICAL as error:
        return _first_line(error)
    except (ValueError, RuntimeError) as error:
        # Classes of their own say what they mean: no memory, no such operation.
        if type(error) not in (ValueError, RuntimeError) or _NOT_FINITE.search(str(error)) is None:
            raise
        return _first_line(error)
    if found.status is Status.DONE and not bool(torch.isfinite(found.inputs).all()):
        return "the reconstruction holds NaN or infinite values"
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def exposed_to(attacker: Attacker, scene: Scene, cell: Cell) -> Exposure:
    """What an attacker sees; of a server that tampers with the model first (``prepare``), what comes back.

    Raises:
        ConfigError, UpdateError: as ``Scene.exposure``; ConfigError for a victim that can't be tampered with.
    """
    if not isinstance(attacker, ActiveAttacker):
        return scene.exposure(cell)
    return scene.exposure(cell, attacker.prepare(scene.victim, known=scene.pool.known.inputs))


def packed(inputs: torch.Tensor) -> Picture:
    """Samples as they are stored: float16 of pixels in [0, 1], int32 of tokens."""
    values = inputs.detach().cpu()
    if not values.is_floating_point():
        return values.numpy().astype(np.int32)
    # What lies outside the range is no picture; float16 ends at 65,504.
    return values.clamp(-1e4, 1e4).numpy().astype(np.float16)


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return float(f"{value:.6g}") if isfinite(value) else None


def _measured(scene: Scene, cell: Cell) -> list[dict[str, Any]]:
    """``measured_rows``; with nothing in them where there is no update to measure."""
    try:
        return measured_rows(scene, cell)
    except UpdateError as error:
        _overflow(error)
        size = cell.setting.batch
        return [{**dict.fromkeys(MEASURED), "sample": cell.update * size + at} for at in range(size)]


def _overflow(error: UpdateError) -> str:
    """What to say of a client whose training overflowed, as that of a later update may; others are raised."""
    if error.code is not Code.UPDATE_NOT_FINITE:
        raise error
    return f"the client's own training diverged: {error.message}"


def _rows(
    cell: Cell, found: Reconstruction, scores: Scores, *, labels_known: bool, **shown: Any
) -> list[dict[str, Any]]:
    rows = _empty_rows(cell, len(scores), "done", detail=found.detail, **shown)
    for at, row in enumerate(rows):
        row |= {name: finite(getattr(scores, name)[at]) for name in FIGURES}
        row["identified"] = None if scores.identified is None else bool(scores.identified[at])
        # Of labels that are known there is nothing to find.
        row["label_correct"] = None if labels_known else bool(scores.label_correct[at])
        row |= {"attack_loss": finite(found.loss), "iterations": found.iterations}
    return rows


def _empty_rows(cell: Cell, size: int, ended: str, *, detail: str = "", **shown: Any) -> list[dict[str, Any]]:
    nothing = dict.fromkeys((*FIGURES, "identified", "label_correct", "attack_loss"))
    return [
        {
            "sample": cell.update * size + at,
            "ended": ended,
            **nothing,
            "iterations": 0,
            "seconds": 0.0,
            "seed": cell.seed,
            **shown,
            "detail": detail,
        }
        for at in range(size)
    ]


def _known_pictures(scene: Scene, cell: Cell) -> Mapping[str, Picture]:
    mean = scene.pool.mean
    pictures = {ORIGINAL: packed(scene.batch(cell).inputs)}
    return pictures if mean is None else {**pictures, MEAN: packed(mean[None])}
