"""Rows of ``result.json`` from cells that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attacks.inversion.bench.cell import MEASURE, NONE, Cell
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.measured import FIELDS
from attacks.inversion.bench.store import Outcome

FRONT = (
    "victim",
    "significance",
    "ratio",
    "attacker",
    "aware",
    "sample",
    "psnr_db",
    "ssim",
    "label_correct",
    "psnr_pred_db",
    "status",
)
"""Columns that come first."""


def rows_of(ended: Sequence[tuple[Cell, Outcome]], knowledge: Knowledge) -> list[dict[str, Any]]:
    """One row per attack and sample, with the measures of what was attacked.

    At ratio 0 without perturbation attackers who know the mask and those who don't are the same: what was
    played once is there for both.

    Args:
        ended: cells and what they came to.
        knowledge: which kinds of attackers the sweep has.
    """
    measures = {
        (*_exposed(cell), row["sample"]): row
        for cell, outcome in ended
        if cell.attacker == MEASURE
        for row in outcome.rows
    }
    found = []
    for cell, outcome in ended:
        if cell.attacker == MEASURE:
            continue
        kinds = knowledge.aware if cell.significance == NONE else (cell.aware,)
        for aware in kinds:
            for row in outcome.rows:
                measured = measures.get((*_exposed(cell), row["sample"]), {})
                found.append(_row(cell, row, measured, aware=aware))
    return found


def ordered(row: dict[str, Any]) -> dict[str, Any]:
    """The same with ``FRONT`` first."""
    return {**{name: row[name] for name in FRONT}, **row}


def _row(cell: Cell, row: Any, measured: Any, *, aware: bool) -> dict[str, Any]:
    setting = cell.setting
    return {
        "victim": cell.victim,
        "dataset": setting.dataset,
        "significance": cell.significance,
        "ratio": cell.ratio,
        "perturb": cell.perturb,
        "attacker": cell.attacker,
        "aware": aware,
        "update": cell.update,
        **dict.fromkeys(FIELDS),
        **measured,
        **row,
    }


def _exposed(cell: Cell) -> tuple[object, ...]:
    return cell.victim, cell.significance, cell.ratio, cell.perturb
