"""What a sweep found so far: ``result.json``, the page, the tables and the advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from attacks.inversion.bench.advice import Advice, advise
from attacks.inversion.bench.campaign import Played
from attacks.inversion.bench.page import unfinished_text, write_sweep_page
from attacks.inversion.bench.rows import ordered, rows_of
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.bench.tables import margins_text, print_tables
from attacks.inversion.bench.verdict import Margins, judged
from secagg.simulation.result import write_result


def report(
    sweep: Sweep,
    played: Played,
    *,
    out: Path,
    command: str,
    costs: Sequence[Mapping[str, Any]],
    console: Console,
    margins: Margins | None = None,
) -> list[Advice]:
    """Write ``result.json`` and ``leak.html`` from what is stored, print it, and return the advice.

    Of a sweep that was cut short the advice is about what ended; a sample that was not attacked under a
    protection makes it inconclusive.

    Args:
        costs: rows of ``costs_of``.
        margins: what counts as a leak.
    """
    margins = margins or Margins()
    with Store(out) as store:
        ended = store.outcomes(sweep.cells)
        rows = judged(rows_of(ended, sweep.config.knowledge), margins)
        advice = advise(rows, margins)
        page = write_sweep_page(
            sweep,
            store,
            unfinished=unfinished_text(played, ended=len(ended), cells=len(sweep.cells)),
            rows=rows,
            advice=advice,
            margins=margins,
            costs=costs,
            out=out,
            command=command,
        )
    write_result(
        out,
        command=command,
        seed=sweep.setting.seed,
        rows=[ordered(row) for row in rows],
        more={
            "complete": played.complete,
            "setting": asdict(sweep.setting),
            "margins": asdict(margins),
            "advice": [one.flat() for one in advice],
            "costs": [dict(cost) for cost in costs],
            "notes": list(sweep.notes),
            "failures": list(played.failures),
        },
    )
    if rows:
        print_tables(rows, advice, costs, console, complete=played.complete)
        console.print(f"\n{margins_text(margins)}", highlight=False, soft_wrap=True, style="dim")
    console.print(f"wrote {out / 'result.json'} and {page}", highlight=False, markup=False, soft_wrap=True)
    return advice
