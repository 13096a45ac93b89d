"""Bytes against seconds, one point per model and scheme, as a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secagg.errors import Code, ConfigError
from secagg.overhead.schemes import SELECTIVE
from secagg.overhead.table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colour = str | tuple[float, float, float, float]
Flat = Mapping[str, object]

PLOT_FILE = "overhead.png"
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "h", "p", "d")
_INCHES, _DPI = (10.5, 6.0), 130


def write_plot(rows: Sequence[Flat], out: Path) -> Path:
    """Write ``overhead.png``: a colour per model, a marker per scheme; selective ones on a line, other
    systems hollow.

    Across: bytes per client and round, up and down together. Upwards: seconds per client and round, sealing,
    opening and a client's share of the server's work. Both axes are logarithmic.

    Args:
        rows: as in ``result.json``; at least one.
        out: folder.

    Raises:
        ConfigError: DEPENDENCY_MISSING without matplotlib.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise ConfigError(
            Code.DEPENDENCY_MISSING, "matplotlib is not installed; for the plot: pip install 'secagg[plot]'"
        ) from None
    # Draws to a file, whether or not there is a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    kinds = list(dict.fromkeys(_kind(row) for row in rows))
    shades = matplotlib.colormaps["plasma"]
    colours = {model: shades(0.8 * place / max(1, len(models) - 1)) for place, model in enumerate(models)}
    markers = {kind: _MARKERS[place % len(_MARKERS)] for place, kind in enumerate(kinds)}
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for model in models:
        _draw([row for row in rows if row["model"] == model], axes, markers, colours[model])
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter(EngFormatter("B"))
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.set_xlabel("bytes up and down")
    axes.set_ylabel("seconds to seal, open, and 1/clients of the server's")
    axes.set_title("What a round costs per client", loc="left")
    axes.grid(which="major", color="0.85")
    axes.grid(which="minor", color="0.94")
    axes.set_axisbelow(True)
    named = {f"{row['model']} ({row['values']:,})": colours[str(row["model"])] for row in rows}
    _explain(axes, markers, {_kind(row) for row in rows if row["peer"]}, named)
    path = out / PLOT_FILE
    figure.savefig(path)
    return path


def point(row: Flat) -> tuple[float, float]:
    """Bytes and seconds per client and round."""
    share = number(row, "aggregate_s") / number(row, "clients")
    return (
        number(row, "bytes_up") + number(row, "bytes_down"),
        number(row, "seal_s") + number(row, "open_s") + share,
    )


def _draw(rows: Sequence[Flat], axes: Axes, markers: Mapping[str, str], colour: Colour) -> None:
    """One model's points."""
    line = sorted((_ratio(row), *point(row)) for row in rows if _kind(row) == SELECTIVE)
    if line:
        axes.plot([x for _, x, _ in line], [y for _, _, y in line], color=colour, linewidth=1, zorder=2)
    for row in rows:
        x, y = point(row)
        axes.scatter(
            [x],
            [y],
            s=40 if _kind(row) == SELECTIVE else 85,
            marker=markers[_kind(row)],
            # Other systems are hollow.
            facecolors="white" if row["peer"] else [colour],
            edgecolors=[colour] if row["peer"] else "black",
            linewidths=1.8 if row["peer"] else 0.7,
            alpha=0.9,
            zorder=3,
        )
    # The shares between lie on the line, often too close for words.
    for ratio, x, y in (line[0], line[-1]) if len(line) > 1 else line:
        axes.annotate(
            f"{ratio:.0%}", (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8
        )


def _explain(
    axes: Axes, markers: Mapping[str, str], others: Collection[str], colours: Mapping[str, Colour]
) -> None:
    """Two legends beside the picture: schemes and other systems, and models."""
    from matplotlib.lines import Line2D

    def sample(label: str, marker: str, colour: Colour) -> Line2D:
        return Line2D(
            [], [], linestyle="none", marker=marker, color=colour, markeredgecolor="black", label=label
        )

    figure = axes.figure
    schemes = [sample(kind, marker, "white" if kind in others else "0.6") for kind, marker in markers.items()]
    models = [sample(model, "o", colour) for model, colour in colours.items()]
    figure.legend(handles=schemes, title="scheme", loc="outside right upper", frameon=False, alignment="left")
    figure.legend(
        handles=models, title="model (values)", loc="outside right lower", frameon=False, alignment="left"
    )


def _kind(row: Flat) -> str:
    """What shares a marker: another system, a scheme, or all shares of selective encryption."""
    name = str(row["peer"] or row["scheme"])
    return SELECTIVE if name.startswith(f"{SELECTIVE}:") else name


def _ratio(row: Flat) -> float:
    return float(str(row["scheme"]).split(":")[1])
