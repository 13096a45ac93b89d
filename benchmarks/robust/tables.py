"""What came out, as tables: on the console, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.robust.cell import NO_ATTACK, Cell
from benchmarks.robust.plan import labels
from benchmarks.robust.store import Outcome
from secagg.overhead.table import titled

TABLE_FILE = "robustness.md"
LEGEND = (
    "Accuracy in per cent; in parentheses the share of the malicious that were rejected, in brackets how "
    "often a backdoor works; `3!`: the rule refused 3 rounds, which leave the model as it was."
)
_COLUMNS = 8
"""Attacks beside each other on a console."""
Ended = Sequence[tuple[Cell, Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One figure per rule and attack, of one data set, share and start.

    Args:
        title: what it is of.
        stem: for file names.
        rows: rules' labels, with the domain where it is not the plain one.
        columns: attacks.
        figures: per row and column a row of ``result.json``; None where there is none.
    """

    title: str
    stem: str
    rows: list[str]
    columns: list[str]
    figures: list[list[dict[str, Any] | None]]


def grids(ended: Ended) -> Iterator[Grid]:
    """The tables, in the order of the cells."""
    attacked = [cell for cell, _ in ended if cell.attack != NO_ATTACK] or [cell for cell, _ in ended]
    named = labels(list(dict.fromkeys(cell.rule for cell, _ in ended)))
    for dataset, fraction, start in dict.fromkeys(
        (cell.setting.dataset, cell.fraction, cell.setting.start_round) for cell in attacked
    ):
        here = [
            (cell, outcome)
            for cell, outcome in ended
            if (cell.setting.dataset, cell.setting.start_round) == (dataset, start)
            and (cell.fraction == fraction or cell.attack == NO_ATTACK)
        ]
        figures = {
            (_row_name(named[cell.rule], cell.domain), cell.attack): dict(outcome.row)
            for cell, outcome in here
        }
        rows = list(
            dict.fromkeys(
                _row_name(named[cell.rule], cell.domain)
                for cell, _ in sorted(here, key=lambda item: list(named).index(item[0].rule))
                if cell.fraction == fraction and (cell.attack != NO_ATTACK or len(attacked) == len(ended))
            )
        )
        columns = list(dict.fromkeys(cell.attack for cell, _ in here))
        name = Path(dataset).name
        yield Grid(
            title=f"{name}, {fraction:.0%} malicious from round {start}",
            stem=f"{name}-{fraction:g}-from-{start}",
            rows=rows,
            columns=columns,
            figures=[[figures.get((row, column)) for column in columns] for row in rows],
        )


def print_tables(ended: Ended, console: Console) -> None:
    """Accuracy, and recall of rejections where a rule gives weights."""
    for grid in grids(ended):
        for at in range(0, len(grid.columns), _COLUMNS):
            part = slice(at, at + _COLUMNS)
            table = titled(f"Accuracy (recall of rejections), {grid.title}")
            table.add_column("rule", no_wrap=True)
            for column in grid.columns[part]:
                table.add_column(column, justify="right", no_wrap=True)
            for name, figures in zip(grid.rows, grid.figures, strict=True):
                table.add_row(name, *(accuracy_text(figure) for figure in figures[part]))
            console.print()
            console.print(table)


def write_markdown(ended: Ended, out: Path) -> Path:
    """``robustness.md``: per grid accuracy, precision, server seconds, and weights' distance."""
    lines: list[str] = []
    for grid in grids(ended):
        lines += [f"### {grid.title}", "", LEGEND, "", *_markdown(grid, accuracy_text), ""]
        lines += [
            "Precision of rejections where somebody attacks; without attack the share of honest clients kept."
        ]
        lines += ["", *_markdown(grid, precision_text), ""]
        lines += [
            "Server seconds per round (statistics and sum), median.",
            "",
            *_markdown(grid, seconds_text),
            "",
        ]
        if any(figure and figure["weight_gap"] is not None for row in grid.figures for figure in row):
            lines += ["Largest difference between coefficients from ciphertexts and in the clear.", ""]
            lines += [*_markdown(grid, gap_text), ""]
    path = out / TABLE_FILE
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _markdown(grid: Grid, text: Any) -> list[str]:
    lines = [f"| rule | {' | '.join(grid.columns)} |", f"|---|{'---:|' * len(grid.columns)}"]
    for name, figures in zip(grid.rows, grid.figures, strict=True):
        lines.append(f"| {name} | {' | '.join(text(figure) for figure in figures)} |")
    return lines


def accuracy_text(figure: dict[str, Any] | None) -> str:
    """Accuracy in per cent; recall, or a backdoor's success, beside it; how often the rule refused a round.

    >>> accuracy_text({"accuracy": 0.712, "recall": 1.0, "attack_success": None, "refused_rounds": 0})
    '71.2 (1.00)'
    """
    if figure is None:
        return ""
    text = f"{100 * figure['accuracy']:.1f}"
    if figure["recall"] is not None:
        text += f" ({figure['recall']:.2f})"
    if figure["attack_success"] is not None:
        text += f" [{100 * figure['attack_success']:.0f}]"
    return text + (f" {figure['refused_rounds']}!" if figure["refused_rounds"] else "")


def precision_text(figure: dict[str, Any] | None) -> str:
    """Precision, or the share of the honest kept."""
    if figure is None:
        return ""
    shown = figure["precision"] if figure["fraction"] else figure["honest_kept"]
    return "" if shown is None else f"{shown:.2f}"


def seconds_text(figure: dict[str, Any] | None) -> str:
    """Server seconds."""
    return "" if figure is None else f"{figure['server_s']:.3f}"


def gap_text(figure: dict[str, Any] | None) -> str:
    """Distance of weights."""
    return "" if figure is None or figure["weight_gap"] is None else f"{figure['weight_gap']:.1e}"


def _row_name(rule: str, domain: str) -> str:
    return rule if domain == "plain" else f"{rule} ({domain})"
