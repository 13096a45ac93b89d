"""Curves of similarity against the share of encrypted entries, as SVG text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's, which can be told apart whatever colours the reader sees."""
_WIDTH, _HEIGHT = 5.4, 3.7
_WIDTH_PX = 560
_TOP_DB = 60.0
"""A picture beyond it is the original to the eye; the axis ends there, the table has the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: a significance under one kind of attacker, or a prediction.

    Args:
        label: what the legend says.
        colour: index into ``COLOURS``, modulo their number.
        style: matplotlib's, e.g. ``-``.
        points: ratio and value, ascending; NaN values are gaps.
        band: per point the least and largest value over the samples, if there are several.
    """

    label: str
    colour: int
    style: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes.

    Args:
        title: above it.
        unit: what is upwards: ``PSNR, dB`` or ``SSIM``.
        lines: curves.
        levels: label and height of horizontal reference lines.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()


def curves_svg(panels: Sequence[Panel], ratios: Sequence[float]) -> str:
    """The panels side by side, two in a row, with one legend below; an ``<svg>`` element.

    Ratios are evenly spaced, whatever they are: what matters happens below 1% as well as above 90%.
    """
    # One panel leaves room for a legend half as wide.
    columns, legend = (2, 3) if len(panels) > 1 else (1, 1)
    rows = math.ceil(len(panels) / columns)
    entries = len({line.label for panel in panels for line in panel.lines}) + 2
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "svg.hashsalt": "secagg",
            # A dollar sign in a name begins no formula.
            "text.parse_math": False,
        }
    ):
        height = rows * _HEIGHT + 0.24 * math.ceil(entries / legend)
        figure = Figure(figsize=(columns * _WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        places = {ratio: place for place, ratio in enumerate(sorted(ratios))}
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel, places)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        handles = {
            str(line.get_label()): line
            for axes in grid.flat
            for line in axes.get_lines()
            if not str(line.get_label()).startswith("_")
        }
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=legend,
            frameon=False,
            fontsize=9,
        )
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    # Only the element itself, to stand inside a page, as wide as the page lets it.
    element = written.getvalue()
    element = element[element.index("<svg") :]
    size = f'class="curves" style="max-width: {columns * _WIDTH_PX}px"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', size, element, count=1)


def _draw(axes: Axes, panel: Panel, places: dict[float, int]) -> None:
    decibels = panel.unit.endswith("dB")
    for line in panel.lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        across = [places[ratio] for ratio, _ in line.points]
        heights = [min(value, _TOP_DB) if decibels else value for _, value in line.points]
        marker = "o" if line.style in ("-", "--") else None
        axes.plot(
            across,
            heights,
            line.style,
            color=colour,
            label=line.label,
            marker=marker,
            markersize=4,
            linewidth=1.6,
        )
        if line.band:
            low, high = (
                [min(pair[side], _TOP_DB) if decibels else pair[side] for pair in line.band]
                for side in (0, 1)
            )
            axes.fill_between(across, low, high, color=colour, alpha=0.12, linewidth=0)
    for (label, height), style in zip(panel.levels, ("-.", ":", "--"), strict=False):
        axes.axhline(height, color="0.35", linewidth=1.1, linestyle=style, label=label)
    axes.set_xticks(range(len(places)), [percent(ratio) for ratio in places], fontsize=9)
    axes.set_xlabel("encrypted entries")
    axes.set_ylabel(panel.unit)
    axes.set_title(panel.title, loc="left", fontsize=11)
    if decibels:
        axes.set_ylim(0, _TOP_DB + 2)
        ticks = range(0, int(_TOP_DB) + 1, 10)
        axes.set_yticks(ticks, [f"≥ {tick}" if tick == _TOP_DB else str(tick) for tick in ticks])
    else:
        axes.set_ylim(-0.05, 1.05)
    axes.grid(color="0.9", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def percent(ratio: float) -> str:
    """A share as people write it: 10%, 0.1%."""
    return f"{100 * ratio:.10g}%"
