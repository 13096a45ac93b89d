"""What a sweep found, as tables for a console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attacks.inversion.bench.advice import Advice
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.hidden import hidden_shares, really_hidden
from attacks.inversion.bench.names import HEADING, shortened
from attacks.inversion.bench.samples import counted, statuses
from attacks.inversion.bench.told import labels_counted
from attacks.inversion.bench.verdict import ABLE, Margins, Row, Status
from secagg.overhead.table import titled
from secagg.simulation.display import binary_size

_COMMON = (
    "→ the share that is really hidden, where it is another one than the ratio asked for. told: samples that "
    "are told from all candidates. labels: told by the attack (by the last layer, where attacks know labels) "
    "/ by which entries are hidden. open: samples that say nothing, since this attacker can't read them in "
    "the clear either, or diverged, or couldn't begin."
)
LEGEND = (
    f"median / worst sample. {_COMMON} predicted: for attackers who know the mask PSNR_pred, what the "
    "visible part holds; for others what I2F predicts."
)
TEXT_LEGEND = f"median / worst sample. tokens: at their places. words: in any order. {_COMMON}"


def print_tables(
    rows: Sequence[Row],
    advice: Sequence[Advice],
    costs: Sequence[Mapping[str, Any]],
    console: Console,
    *,
    complete: bool = True,
) -> None:
    """What attackers reached under every protection; what it costs; and the advice."""
    if not complete:
        console.print("\nof what has ended:", highlight=False)
    text = all(row["psnr_db"] is None for row in rows if row["ended"] == "done")
    for names, group in _groups(rows):
        console.print()
        console.print(_attacks(names, group, text=text))
    if rows:
        console.print(TEXT_LEGEND if text else LEGEND, highlight=False, soft_wrap=True, style="dim")
    for victim in dict.fromkeys(cost["victim"] for cost in costs):
        console.print()
        console.print(_costs(victim, [cost for cost in costs if cost["victim"] == victim]))
    print_advice(advice, console)


def print_advice(advice: Sequence[Advice], console: Console) -> None:
    """A line per victim, significance and perturbation."""
    if advice:
        console.print("\n[bold]Advice[/]")
    for one in advice:
        name = f"{one.victim}, {one.significance}" + (f" + {one.perturb}" if one.perturb else "")
        console.print(f"{name}: {one.text}", highlight=False, markup=False, soft_wrap=True)


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """A table's title and rows: references first, then one table per way to choose and perturb."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    anybody_knows = any(row["aware"] for row in rows)
    for row in rows:
        unmasked = row["significance"] in (NONE, FULL)
        if unmasked and anybody_knows and not row["aware"]:
            continue  # where nothing is hidden, or everything, there is no mask to know
        if unmasked and not row["perturb"]:
            found.setdefault((row["victim"], ", ", row["dataset"]), []).append(row)
            continue
        name = row["significance"] + (f" + {row['perturb']}" if row["perturb"] else "")
        found.setdefault((row["victim"], ": ", name), []).append(row)
    for (victim, between, name), group in found.items():
        title = shortened(victim, HEADING) + between + shortened(name, HEADING)
        known = [row["prior_psnr_db"] for row in group if row["prior_psnr_db"] is not None]
        yield title + (f" (without the update: {_spread(known, 1)} dB)" if known else ""), group


def _attacks(title: str, rows: Sequence[Row], *, text: bool) -> Table:
    table = titled(title)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("attacker", overflow="fold")
    table.add_column("knows\nmask")
    for name in (
        *(("tokens\n%", "words\n%") if text else ("PSNR\ndB", "SSIM")),
        "told",
        "labels",
        "open",
        *(() if text else ("predicted\ndB",)),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    kinds = dict.fromkeys((row["ratio"], row["attacker"], row["aware"]) for row in rows)
    for ratio, attacker, aware in sorted(kinds):
        mine = [
            row for row in rows if (row["ratio"], row["attacker"], row["aware"]) == (ratio, attacker, aware)
        ]
        masked = mine[0]["significance"] not in (NONE, FULL)
        knows = "" if not masked else "yes" if aware else "no"
        predicted = "psnr_pred_db" if aware or not masked else "psnr_naive_pred_db"
        really = really_hidden(ratio, hidden_shares(mine))
        asked = f"{ratio:g}\n→ {really}" if really else f"{ratio:g}"
        table.add_row(asked, Text(attacker), knows, *_figures(mine, predicted, text=text))
    return table


def _figures(rows: Sequence[Row], predicted: str, *, text: bool) -> list[str]:
    ended = statuses(rows)
    unsure = sum(one in (Status.INCONCLUSIVE, Status.DIVERGED, Status.UNSUITED) for one in ended)

    def spread(name: str, digits: int, scale: float = 1) -> str:
        return _spread([scale * row[name] for row in rows if row[name] is not None], digits)

    main = [spread("token_accuracy", 1, 100), spread("bag_accuracy", 1, 100)]
    return [
        *(main if text else [spread("psnr_db", 1), spread("ssim", 2)]),
        counted(rows, "identified"),
        labels_counted(rows),
        f"{unsure}/{len(ended)}" if unsure else "",
        *([] if text else [spread(predicted, 0)]),
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    """Median and worst, the largest.

    >>> _spread([1.0, 2.0, 9.0], 1)
    '2.0 / 9.0'
    """
    return f"{median(values):.{digits}f} / {max(values):.{digits}f}" if values else ""


def _costs(victim: str, costs: Sequence[Mapping[str, Any]]) -> Table:
    about = f"{costs[0]['values']:,} values, {costs[0]['clients']} clients"
    table = titled(f"{shortened(victim, HEADING)}: {about}")
    for name in ("ratio", "up", "down", "seal\nms", "server\nms", "open\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        table.add_row(
            f"{cost['ratio']:g}",
            binary_size(cost["bytes_up"]),
            binary_size(cost["bytes_down"]),
            *(f"{cost[name]:.1f}" for name in ("seal_ms", "aggregate_ms", "open_ms")),
        )
    return table


def margins_text(margins: Margins) -> str:
    """What counts as a leak, for people."""
    return (
        f"a sample leaked if an attack beats what is known without the update by more than "
        f"{margins.psnr_db:g} dB of PSNR, {margins.ssim:g} of SSIM or {margins.tokens:.0%} of tokens. That "
        f"an attack fails says something only of samples that it reads in the clear, by {ABLE.psnr_db:g} dB, "
        f"{ABLE.ssim:g} or {ABLE.tokens:.0%}, or tells from all candidates there. Labels and samples count "
        f"as told if luck tells as many with a probability below {margins.chance:.0%}"
    )
