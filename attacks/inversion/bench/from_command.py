"""A recorded run from its first attack to its advice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from time import monotonic

from rich.console import Console

from attacks.inversion.bench.advice import advise
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.clock import duration
from attacks.inversion.bench.command import EXIT_INTERRUPTED
from attacks.inversion.bench.from_run import Played, Trial, play
from attacks.inversion.bench.page import write_run_page
from attacks.inversion.bench.store import PRIVATE
from attacks.inversion.bench.tables import margins_text, print_tables
from attacks.inversion.bench.verdict import Status
from secagg.overhead.sweep import out_folder
from secagg.simulation.result import write_result


def attack_run(run: Path, trial: Trial, *, out: Path, command: str, console: Console) -> int:
    """Attack what a run recorded, write ``result.json`` and ``leak.html``, print tables and advice.

    Nothing is written before the last attack has ended, or Ctrl-C; nothing at all if no attack has ended.

    Args:
        run: a run's ``--out``; it was recorded.
        trial: what is attacked and how.
        out: folder for the result, made if it is missing, then readable by its owner alone: the page shows
            samples.
        command: as called.
        console: for people; a line before each attack.

    Returns:
        Exit status: 0, or 130 after Ctrl-C; what ended is written.

    Raises:
        ConfigError: as ``play``; CONFIG_INVALID if the folder can't be written to.
    """
    started = monotonic()

    def told(done: int, total: int, title: str) -> None:
        left = f" {duration((monotonic() - started) / done * (total - done))} left," if done else ""
        console.print(f"[{done}/{total}]{left} {title}", highlight=False, markup=False, soft_wrap=True)

    played = play(run, trial, told=told)
    if not played.rows:
        console.print("interrupted before an attack had ended: nothing is written", highlight=False)
        return EXIT_INTERRUPTED
    rows, advice = played.rows, advise(played.rows, trial.margins)
    # An existing folder keeps its permissions; what is wrong with it is said by ``out_folder``.
    with suppress(OSError, ValueError):
        out.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    out_folder(out)
    write_result(
        out,
        command=command,
        seed=trial.seed,
        rows=rows,
        more={
            "complete": played.complete,
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
        pictures=played.pictures,
        facts=_facts(played, trial),
        out=out,
        command=command,
    )
    print_tables(rows, advice, (), console)
    if not advice:
        console.print(f"\n{_unmasked(played)}", highlight=False, soft_wrap=True)
    console.print(f"\n{margins_text(trial.margins)}", highlight=False, soft_wrap=True, style="dim")
    console.print(f"wrote {out / 'result.json'} and {page}", highlight=False, markup=False, soft_wrap=True)
    return 0 if played.complete else EXIT_INTERRUPTED


def _facts(played: Played, trial: Trial) -> list[str]:
    rows = played.rows
    clients = dict.fromkeys(str(row["client"]) for row in rows)
    rounds = sorted({int(row["round"]) for row in rows})
    samples = len({row["sample"] for row in rows})
    more = []
    if played.blank_rounds:
        numbers = ", ".join(map(str, played.blank_rounds))
        more.append(f"nothing was visible in round {numbers}: no mask is judged by its updates")
    if not played.complete:
        more.append(f"interrupted: {played.ended} of {played.attacks} attacks ended")
    if all(row["significance"] in (NONE, FULL) for row in rows):
        more.append(_unmasked(played))
    return [
        f"{samples} samples in updates of {', '.join(clients)}; rounds {', '.join(map(str, rounds))}",
        f"labels are {'known to' if trial.labels_known else 'inferred by'} attackers, who know the base "
        "model: a curious server with one client on its side",
        *more,
    ]


def _unmasked(played: Played) -> str:
    """The answer where no mask was there to judge: everything had been encrypted, or nothing."""
    clear = [row for row in played.rows if row["significance"] == NONE]
    samples = {row["sample"] for row in clear}
    read = {row["sample"] for row in clear if row["status"] == Status.LEAKED}
    if played.blank_rounds:
        return (
            "everything was encrypted: nothing was there to read; rows of ratio 0 say what would have been "
            f"read in the clear, {len(read)} of {len(samples)} samples"
        )
    return f"none: use full; nothing was encrypted, and {len(read)} of {len(samples)} samples were read"
