"""A recorded run from its first attack to its advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from attacks.inversion.bench.advice import advise
from attacks.inversion.bench.clock import duration
from attacks.inversion.bench.from_run import Trial, play
from attacks.inversion.bench.page import write_run_page
from attacks.inversion.bench.tables import margins_text, print_tables
from secagg.overhead.sweep import out_folder
from secagg.simulation.result import write_result


def attack_run(run: Path, trial: Trial, *, out: Path, command: str, console: Console) -> int:
    """Attack what a run recorded, write ``result.json`` and ``leak.html``, print tables and advice.

    Nothing is written before the last attack has ended, and nothing at all if the run can't be attacked.

    Args:
        run: a run's ``--out``; it was recorded.
        trial: what is attacked and how.
        out: folder for the result, made if it is missing.
        command: as called.
        console: for people; a line before each attack.

    Returns:
        Exit status: 0.

    Raises:
        ConfigError: as ``play``; CONFIG_INVALID if the folder can't be written to.
    """
    started = monotonic()

    def told(done: int, total: int, title: str) -> None:
        left = f" {duration((monotonic() - started) / done * (total - done))} left," if done else ""
        console.print(f"[{done}/{total}]{left} {title}", highlight=False, markup=False, soft_wrap=True)

    rows = play(run, trial, told=told)
    advice = advise(rows, trial.margins)
    out_folder(out)
    write_result(
        out,
        command=command,
        seed=trial.seed,
        rows=rows,
        more={
            "run": str(run),
            "labels": "known" if trial.labels_known else "inferred",
            "advice": [one.flat() for one in advice],
        },
    )
    page = write_run_page(
        run,
        rows=rows,
        advice=advice,
        margins=trial.margins,
        facts=_facts(rows, trial),
        out=out,
        command=command,
    )
    print_tables(rows, advice, (), console)
    console.print(f"\n{margins_text(trial.margins)}", highlight=False, soft_wrap=True, style="dim")
    console.print(f"wrote {out / 'result.json'} and {page}", highlight=False, soft_wrap=True)
    return 0


def _facts(rows: Sequence[Mapping[str, Any]], trial: Trial) -> list[str]:
    clients = dict.fromkeys(str(row["client"]) for row in rows)
    rounds = sorted({int(row["round"]) for row in rows})
    samples = len({row["sample"] for row in rows})
    return [
        f"{samples} samples in updates of {', '.join(clients)}; rounds {', '.join(map(str, rounds))}",
        f"labels are {'known to' if trial.labels_known else 'inferred by'} attackers, who know the base "
        "model: a curious server with one client on its side",
    ]
