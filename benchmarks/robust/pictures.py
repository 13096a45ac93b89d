"""What came out, as pictures: accuracy by round, and accuracy per rule and attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.robust.cell import NO_ATTACK, Cell
from benchmarks.robust.plan import labels
from benchmarks.robust.store import Outcome
from benchmarks.robust.tables import Ended, Grid, grids

_DPI = 130
_STYLES = {"plain": "-", "cipher": "--", "byzfl": ":"}


def write_pictures(ended: Ended, out: Path) -> list[Path]:
    """All pictures; their paths."""
    named = labels(list(dict.fromkeys(cell.rule for cell, _ in ended)))
    shades = colormaps["tab20"]
    colours = {rule: shades(place % 20) for place, rule in enumerate(named)}
    written = [_curves(ended, key, named, colours, out) for key in _curve_keys(ended)]
    return written + [_heat_map(grid, out) for grid in grids(ended)]


def _curve_keys(ended: Ended) -> list[tuple[str, int, str]]:
    keys = dict.fromkeys((cell.setting.dataset, cell.setting.start_round, cell.attack) for cell, _ in ended)
    return list(keys)


def _curves(
    ended: Ended, key: tuple[str, int, str], named: dict[str, str], colours: dict[str, Any], out: Path
) -> Path:
    """One attack on one data set: a panel per share of malicious clients, a line per rule and domain."""
    dataset, start, attack = key
    here = [
        (cell, outcome)
        for cell, outcome in ended
        if (cell.setting.dataset, cell.setting.start_round, cell.attack) == key
    ]
    fractions = sorted({cell.fraction for cell, _ in here}) if attack != NO_ATTACK else [0.0]
    figure = Figure(figsize=(1.8 + 5.2 * len(fractions), 4.6), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(fractions), sharey=True, squeeze=False)[0]
    for panel, fraction in zip(panels, fractions, strict=True):
        shown = [item for item in here if attack == NO_ATTACK or item[0].fraction == fraction]
        _panel(panel, shown, named, colours)
        if start > 1 and attack != NO_ATTACK:
            panel.axvline(start - 0.5, color="0.4", linewidth=0.8, linestyle="--")
        panel.set_title("nobody attacks" if attack == NO_ATTACK else f"{fraction:.0%} malicious", loc="left")
        panel.set_xlabel("round")
    panels[0].set_ylabel("accuracy")
    handles = {
        line.get_label(): line for panel in panels for line in panel.get_lines() if line.get_label()[0] != "_"
    }
    figure.legend(handles=list(handles.values()), loc="outside right upper", frameon=False, fontsize=8)
    figure.suptitle(f"{Path(dataset).name}: {attack}", x=0.01, ha="left")
    path = out / f"curves-{_stem(Path(dataset).name)}-{_stem(attack)}-from-{start}.png"
    figure.savefig(path)
    return path


def _panel(
    panel: Any, shown: Sequence[tuple[Cell, Outcome]], named: dict[str, str], colours: dict[str, Any]
) -> None:
    for cell, outcome in shown:
        domain = "" if cell.domain == "plain" else f" ({cell.domain})"
        panel.plot(
            [point["round"] for point in outcome.curve],
            [point["accuracy"] for point in outcome.curve],
            _STYLES[cell.domain],
            color=colours[cell.rule],
            linewidth=1.4,
            label=named[cell.rule] + domain,
        )
    panel.set_ylim(0, 1)
    panel.grid(color="0.9")


def _heat_map(grid: Grid, out: Path) -> Path:
    """Accuracy per rule and attack, with the share of the malicious that were rejected."""
    size = (2.6 + 1.05 * len(grid.columns), 1.4 + 0.36 * len(grid.rows))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    values = [[float("nan") if item is None else item["accuracy"] for item in row] for row in grid.figures]
    axes.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    for y, row in enumerate(grid.figures):
        for x, item in enumerate(row):
            if item is not None:
                recall = "" if item["recall"] is None else f"\nrecall {item['recall']:.2f}"
                text = f"{100 * item['accuracy']:.0f}%{recall}"
                axes.text(x, y, text, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(grid.rows)), grid.rows, fontsize=8)
    axes.set_title(f"Accuracy: {grid.title}", loc="left", fontsize=10)
    path = out / f"table-{_stem(grid.stem)}.png"
    figure.savefig(path)
    return path


def _stem(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in text)
