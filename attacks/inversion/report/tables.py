"""The page's tables: what leaked at each ratio, and what each ratio costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import isfinite, nan

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.hidden import hidden_shares, really_hidden
from attacks.inversion.bench.names import COLUMN, shortened
from attacks.inversion.bench.samples import counted, statuses
from attacks.inversion.bench.told import labels_counted
from attacks.inversion.bench.verdict import Row, Status
from attacks.inversion.report.curves import percent
from attacks.inversion.report.grouping import (
    IN_THE_CLEAR,
    Choice,
    by_knowledge,
    choices,
    middle,
    names,
    ratios,
    values,
)
from attacks.inversion.report.page import Table, TableCell

_MARKS = {Status.LEAKED: "bad", Status.INCONCLUSIVE: "unsure", Status.DIVERGED: "unsure"}
_WOULD_HAVE = "would have leaked"

_KNOWS = {True: "yes", False: "no", None: "–"}


def leak_table(rows: Sequence[Row], *, hypothetical: bool = False) -> Table:
    """A line per victim, way to choose entries, ratio, attacker and knowledge; once where there's no mask.

    Args:
        rows, hypothetical: as in ``Findings``.
    """
    several = len({row.get("round") for row in rows}) > 1
    return Table(
        title="What leaked",
        note="Medians over the samples, and the worst one (the largest: it leaked most). Known: the median "
        "of what can be had without the update. Predicted: the information measure. Words: in any order. "
        "Labels: told by the attack, or by the last layer where attacks are given them / by which entries "
        "are hidden. "
        "Told: samples that are the nearest to their reconstruction among all candidates. "
        "Inconclusive: the attacker does not read this sample in the clear either, so that its failure says "
        "nothing." + (_ROUNDS if several else ""),
        heads=[
            *("victim", "chosen by", "encrypted", "attacker", "knows mask"),
            *(head for field, heads in _SIMILARITIES.items() if values(rows, field) for head in heads),
            *("labels", "told", "status"),
        ],
        rows=list(_lines(rows, hypothetical=hypothetical)),
        names=5,
    )


_ROUNDS = (
    " A sample is in several rounds: medians are over all of them, counts are of different samples. One is "
    "told or leaked if it is in any round; it resisted if it did in all."
)


def _lines(rows: Sequence[Row], *, hypothetical: bool) -> Iterator[list[TableCell]]:
    for victim in names(rows, "victim"):
        here = [row for row in rows if row["victim"] == victim]
        shown = choices(here)
        if shown == [Choice(NONE, "")]:
            # Without a mask the reader compares the two ends; elsewhere the figures' lines are enough.
            shown.append(Choice(FULL, ""))
        shares = dict.fromkeys((*ratios(here), 1.0))
        for choice, ratio, attacker in product(shown, shares, names(here, "attacker")):
            kind, never_sent = (ratio, attacker), hypothetical and ratio == 0
            label = IN_THE_CLEAR if never_sent else choice.label
            mine = [row for row in here if choice.holds(row) and (row["ratio"], row["attacker"]) == kind]
            for aware, seen in by_knowledge(mine):
                yield [
                    *map(_name, (victim, label)),
                    _text(_asked(ratio, seen)),
                    _name(attacker),
                    _text(_KNOWS[aware]),
                    *_figures(seen, rows, never_sent=never_sent),
                ]


_SIMILARITIES = {
    "psnr_db": ("median dB", "worst dB", "known dB", "predicted dB", "SSIM"),
    "token_accuracy": ("tokens %", "worst %", "known %", "words %"),
}
"""Columns of images, and of text; a table has those that its rows have figures for."""


def _figures(rows: Sequence[Row], everyone: Sequence[Row], *, never_sent: bool) -> list[TableCell]:
    ended = statuses(rows)
    words = {one: str(one) for one in Status} | ({Status.LEAKED: _WOULD_HAVE} if never_sent else {})
    # A count stays beside its word where the cell is narrow.
    told = ", ".join(f"{ended.count(one)}\u00a0{words[one]}" for one in Status if one in ended)
    alarming = [one for one in _MARKS if one in ended and words[one] != _WOULD_HAVE]
    mark = next((_MARKS[one] for one in alarming), "")
    found = []
    if values(everyone, "psnr_db"):
        found += [
            _number(middle(rows, "psnr_db"), "{:.1f}"),
            _number(max(values(rows, "psnr_db"), default=nan), "{:.1f}", mark),
            _number(middle(rows, "prior_psnr_db"), "{:.1f}"),
            _number(middle(rows, "psnr_pred_db"), "{:.1f}"),
            _number(middle(rows, "ssim"), "{:.2f}"),
        ]
    if values(everyone, "token_accuracy"):
        found += [
            _number(100 * middle(rows, "token_accuracy"), "{:.0f}"),
            _number(100 * max(values(rows, "token_accuracy"), default=nan), "{:.0f}", mark),
            _number(100 * middle(rows, "prior_token_accuracy"), "{:.0f}"),
            _number(100 * middle(rows, "bag_accuracy"), "{:.0f}"),
        ]
    return [
        *found,
        _text(labels_counted(rows) or "–"),
        _text(counted(rows, "identified") or "–"),
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
                _name(str(cost["victim"])),
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


def _asked(ratio: float, rows: Sequence[Row]) -> str:
    really = really_hidden(ratio, hidden_shares(rows))
    return f"{percent(ratio)} ({really} hidden)" if really else percent(ratio)


def _name(text: str) -> TableCell:
    return TableCell(text=shortened(text, COLUMN))


def _text(text: str) -> TableCell:
    return TableCell(text=text)


def _number(value: float, form: str, mark: str = "") -> TableCell:
    return TableCell(text=form.format(value) if isfinite(value) else "–", mark=mark)
