"""The curves of a sweep: one panel per attacker, a colour per way to choose entries."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from attacks.inversion.bench.cell import FULL
from attacks.inversion.bench.hidden import hidden_shares, really_hidden
from attacks.inversion.bench.names import COLUMN, HEADING, shortened
from attacks.inversion.bench.verdict import Row
from attacks.inversion.report.curves import Line, Panel, curves_svg, percent
from attacks.inversion.report.grouping import by_knowledge, choices, knowledge, middle, names, ratios, values
from attacks.inversion.report.page import DrawnFigure

PREDICTED = "information bound"
_KINDS = {
    "psnr_db": (
        "PSNR, dB",
        "Similarity to the original in decibels: 20 dB shows what it is, above 30 dB little is missing.",
    ),
    "ssim": ("SSIM", "Structural similarity: 1 is the original, 0 has nothing of its shapes."),
    "token_accuracy": ("token accuracy", "Share of tokens that were read, at their places."),
}


def figures(rows: Sequence[Row]) -> list[DrawnFigure]:
    """Per victim a figure of each similarity that its rows have."""
    drawn = []
    for victim in names(rows, "victim"):
        here = [row for row in rows if row["victim"] == victim]
        played = ratios(here)
        if len(played) < 2:
            continue
        for field, (unit, note) in _KINDS.items():
            if not values(here, field):
                continue
            drawable = (_panel(here, attacker, field, unit, played) for attacker in names(here, "attacker"))
            # Who looks at nothing has no curve; what it makes is a line in the others' panels.
            panels = [panel for panel in drawable if panel.lines]
            if not panels:
                continue
            name = shortened(victim, HEADING)
            drawn.append(
                DrawnFigure(
                    title=f"{name}: {unit.partition(',')[0]} by share of encrypted entries",
                    note=f"{note} Lines are medians over the samples, shades reach from the least to the "
                    f"largest of the attacker who knows the mask.{_asked(here, played)}",
                    svg=curves_svg(panels, played),
                )
            )
    return drawn


def _asked(rows: Sequence[Row], played: Sequence[float]) -> str:
    """Says where another share is hidden than the one on the axis."""
    told = []
    for choice in choices(rows):
        mine = [row for row in rows if choice.holds(row)]
        found = [
            (ratio, really_hidden(ratio, hidden_shares(row for row in mine if row["ratio"] == ratio)))
            for ratio in played
        ]
        each = [f"{percent(ratio)} hides {really}" for ratio, really in found if really]
        if each:
            told.append(f"{choice.label} at {', '.join(each)}")
    return f" Ratios are as asked; really hidden is another share: {'; '.join(told)}." if told else ""


def _panel(rows: Sequence[Row], attacker: str, field: str, unit: str, played: Sequence[float]) -> Panel:
    here = [row for row in rows if row["attacker"] == attacker]
    lines: list[Line] = []
    for place, choice in enumerate(choices(rows)):
        mine = [row for row in here if choice.holds(row)]
        name = shortened(choice.label, COLUMN)
        for aware, seen in by_knowledge(mine):
            points, band = _curve(seen, field, played)
            if points:
                label = name if aware is None else f"{name}, {knowledge(aware=aware)}"
                style, shade = ("--", ()) if aware is False else ("-", band)
                lines.append(Line(label=label, colour=place, style=style, points=points, band=shade))
        if field == "psnr_db":
            points, _ = _curve(mine, "psnr_pred_db", played)
            if points:
                lines.append(Line(label=f"{name}, {PREDICTED}", colour=place, style=":", points=points))
    hidden = [row for row in rows if row["significance"] == FULL]
    usual = "usual words" if field == "token_accuracy" else "mean image"
    levels = [(usual, middle(rows, f"mean_{field}")), ("everything hidden", middle(hidden, field))]
    shown = [(label, height) for label, height in levels if isfinite(height)]
    return Panel(title=shortened(attacker, COLUMN), unit=unit, lines=lines, levels=shown)


def _curve(
    rows: Sequence[Row], field: str, played: Sequence[float]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Medians by ratio, and least and largest beside them."""
    points, band = [], []
    for ratio in played:
        found = values((row for row in rows if row["ratio"] == ratio), field)
        if found:
            points.append((ratio, middle((row for row in rows if row["ratio"] == ratio), field)))
            band.append((min(found), max(found)))
    return points, band
