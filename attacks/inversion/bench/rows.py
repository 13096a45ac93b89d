"""Rows of ``result.json`` from cells that have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from attacks.inversion.attackers.attacker import Status as Ended
from attacks.inversion.bench.cell import MEASURE, NONE, Cell
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.measured import FIELDS
from attacks.inversion.bench.store import Outcome, Store

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
PLAYED = ("ended", "psnr_db", "ssim", "token_accuracy", "bag_accuracy", "identified", "label_correct", "seed")
"""Columns of whatever was attacked, beside ``sample``."""
OF_A_RUN = ("client", "round")
"""Those that rows of a recorded run have beside."""
_FIGURES = frozenset((*PLAYED, *FIELDS)) - {"ended"}


def rows_of(ended: Sequence[tuple[Cell, Outcome]], knowledge: Knowledge) -> list[dict[str, Any]]:
    """One row per attack and sample, with the measures of what was attacked.

    At ratio 0 without perturbation attackers who know the mask and those who don't are the same: what was
    played once is there for both. Rows of a recorded run have ``client_sample`` beside ``client``: 0, 1, …,
    which of the client's samples it is, the same in every round.

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
            for at, row in enumerate(outcome.rows):
                measured = measures.get((*_exposed(cell), row["sample"]), {})
                own = {"client_sample": at} if "client" in row else {}
                found.append({**_row(cell, row, measured, aware=aware), **own})
    return found


def check_stored(store: Store, cells: Sequence[Cell], more: Sequence[str] = ()) -> None:
    """See that what is stored of these cells can be told in rows, before more of them are played.

    Args:
        more: columns that every row must have beside those of its kind.

    Raises:
        ConfigError: DATA_MALFORMED for a row without a column, or with something else in it than figures.
    """
    for cell, outcome in store.outcomes(cells):
        played = () if cell.attacker == MEASURE else PLAYED
        for row in outcome.rows:
            with store.whole(f"cell {cell.key}"):
                _check_row(row, ("sample", *played, *more))


def _check_row(row: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Raises ValueError, OverflowError."""
    missing = [name for name in columns if name not in row]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    for name, value in row.items():
        number = isinstance(value, int | float)
        if (name in _FIGURES and not number and value is not None) or (number and not isfinite(value)):
            raise ValueError(f"{name} is {value!r:.40}")
    if not isinstance(row["sample"], int):
        raise ValueError(f"sample is {row['sample']!r}")
    if row.get("ended", Ended.DONE) not in tuple(Ended):
        raise ValueError(f"ended is {row['ended']!r:.40}")


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
