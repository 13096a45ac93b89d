"""Playing a cell: an attack on one update, or the measures of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attacks.inversion.attackers import load_attacker
from attacks.inversion.attackers.attacker import Attacker, Budget, Reconstruction, Status
from attacks.inversion.attackers.imprint import ActiveAttacker
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
        shown: dict[str, Any] = {"seed": cell.seed, "candidates": 1 + len(candidates)}
        try:
            exposure = exposed_to(attacker, scene, cell)
        except UpdateError as error:
            rows = _empty_rows(cell, len(batch), "diverged", detail=_overflow(error), **shown)
            return Outcome(rows=rows, seconds=0.0)
        budget = Budget(effort=cell.setting.effort, restarts=cell.setting.restarts)
        shown["hidden_share"] = float(exposure.hidden.double().mean())
        if exposure.victim is not scene.victim:
            # Measures are of the model that nobody tampered with.
            shown |= {"psnr_pred_db": None, "psnr_naive_pred_db": None, "leaked_dimensions": None}
        why = attacker.unsuited(exposure)
        if why:
            return Outcome(rows=_empty_rows(cell, len(batch), "unsuited", detail=why, **shown), seconds=0.0)
        started = time.perf_counter()
        found = _tried(attacker, exposure, cell.seed, budget)
        seconds = time.perf_counter() - started
        shown["seconds"] = round(seconds, 4)
        if isinstance(found, str) or found.status is not Status.DONE:
            diverged = isinstance(found, str) or found.status is Status.DIVERGED
            detail = found if isinstance(found, str) else found.detail
            ended = "diverged" if diverged else "unsuited"
            rows = _empty_rows(cell, len(batch), ended, detail=detail, **shown)
            return Outcome(rows=rows, seconds=seconds)
        scores = compare(
            batch,
            found,
            candidates=candidates,
            text=bool(scene.pool.vocabulary),
            padding=scene.pool.padding,
        )
        rows = _rows(cell, found, scores, labels_known=exposure.labels is not None, **shown)
        pictures = {RECONSTRUCTION: packed(found.inputs[torch.from_numpy(scores.order)])}
        return Outcome(rows=rows, seconds=seconds, pictures=pictures)


def _tried(attacker: Attacker, exposure: Exposure, seed: int, budget: Budget) -> Reconstruction | str:
    """What the attacker finds; what went wrong where it can't solve its equations, or ends in no numbers."""
    try:
        found = attacker.attack(exposure, seed=seed, budget=budget)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        return str(error).splitlines()[0]
    if found.status is Status.DONE and not bool(torch.isfinite(found.inputs).all()):
        return "the reconstruction holds NaN or infinite values"
    return found


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
            **shown,
            "detail": detail,
        }
        for at in range(size)
    ]


def _known_pictures(scene: Scene, cell: Cell) -> Mapping[str, Picture]:
    mean = scene.pool.mean
    pictures = {ORIGINAL: packed(scene.batch(cell).inputs)}
    return pictures if mean is None else {**pictures, MEAN: packed(mean[None])}
