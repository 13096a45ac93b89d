"""The page's tables: what leaked at each ratio, and what each ratio costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from attacks.inversion.bench.verdict import Row, Status
from attacks.inversion.report.curves import percent
from attacks.inversion.report.grouping import choices, middle, names, ratios, values
from attacks.inversion.report.page import Table, TableCell

_MARKS = {Status.LEAKED: "bad", Status.INCONCLUSIVE: "unsure", Status.DIVERGED: "unsure"}


def leak_table(rows: Sequence[Row]) -> Table:
    """A line per victim, way to choose entries, ratio, attacker and knowledge."""
    lines = []
    for victim in names(rows, "victim"):
        here = [row for row in rows if row["victim"] == victim]
        for choice in choices(here):
            for ratio in ratios(here):
                for attacker in names(here, "attacker"):
                    for aware in (True, False):
                        mine = [
                            row
                            for row in here
                            if choice.holds(row)
                            and row["ratio"] == ratio
                            and row["attacker"] == attacker
                            and bool(row["aware"]) == aware
                        ]
                        if mine:
                            lines.append(
                                [
                                    *map(_text, (victim, choice.label, percent(ratio), attacker)),
                                    _text("yes" if aware else "no"),
                                    *_figures(mine),
                                ]
                            )
    return Table(
        title="What leaked",
        note="PSNR and SSIM: median over the samples, and the worst one (the largest: it leaked most). "
        "Known: the median PSNR of what can be had without the update. Predicted: the information measure. "
        "Told: the share of samples that are the nearest to their reconstruction among all candidates. "
        "Inconclusive: the attacker does not read this sample in the clear either, so that its failure says "
        "nothing.",
        heads=[
            *("victim", "chosen by", "encrypted", "attacker", "knows mask"),
            *(
                "median dB",
                "worst dB",
                "known dB",
                "predicted dB",
                "SSIM",
                "labels",
                "told",
                "status",
            ),
        ],
        rows=lines,
        names=5,
    )


def _figures(rows: Sequence[Row]) -> list[TableCell]:
    statuses = [Status(row["status"]) for row in rows]
    told = " ".join(f"{statuses.count(one)} {one}" for one in Status if one in statuses)
    mark = next((_MARKS[one] for one in _MARKS if one in statuses), "")
    psnr = values(rows, "psnr_db")
    return [
        _number(middle(rows, "psnr_db"), "{:.1f}"),
        _number(max(psnr, default=float("nan")), "{:.1f}", mark),
        _number(middle(rows, "prior_psnr_db"), "{:.1f}"),
        _number(middle(rows, "psnr_pred_db"), "{:.1f}"),
        _number(middle(rows, "ssim"), "{:.2f}"),
        _share(rows, "label_correct"),
        _share(rows, "identified"),
        TableCell(text=told, mark=mark),
    ]


def cost_table(costs: Sequence[Mapping[str, object]]) -> Table:
    """A line per victim and ratio, as ``costs_of`` measured them."""
    return Table(
        title="What it costs",
        note="One update through the CKKS engine on this machine: bytes a client sends and receives per "
        "round, milliseconds to seal it, to sum all clients' and to open the sum; medians of several runs.",
        heads=[
            *("victim", "encrypted", "scheme", "values", "bytes up", "bytes down", "seal ms", "sum ms"),
            "open ms",
        ],
        rows=[
            [
                _text(str(cost["victim"])),
                _text(percent(float(str(cost["ratio"])))),
                _text(str(cost["scheme"])),
                *(_text(f"{int(str(cost[name])):,}") for name in ("values", "bytes_up", "bytes_down")),
                *(
                    _number(float(str(cost[f"{name}_ms"])), "{:.1f}")
                    for name in ("seal", "aggregate", "open")
                ),
            ]
            for cost in costs
        ],
        names=3,
    )


def _text(text: str) -> TableCell:
    return TableCell(text=text)


def _number(value: float, form: str, mark: str = "") -> TableCell:
    return TableCell(text=form.format(value) if isfinite(value) else "–", mark=mark)


def _share(rows: Sequence[Row], field: str) -> TableCell:
    found = values(rows, field)
    return TableCell(text=f"{100 * sum(found) / len(found):.0f}%" if found else "–")
