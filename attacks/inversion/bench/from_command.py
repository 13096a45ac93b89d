"""A recorded run from its first attack to its advice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from attacks.inversion.bench.advice import advise
from attacks.inversion.bench.campaign import Played, play
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    naming,
    private_files,
    private_folder,
)
from attacks.inversion.bench.crew import Processes
from attacks.inversion.bench.from_run import RunTrial, Trial
from attacks.inversion.bench.page import unfinished_text, write_run_page
from attacks.inversion.bench.rows import OF_A_RUN, check_stored, ordered, rows_of
from attacks.inversion.bench.samples import samples_in
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.tables import margins_text, print_tables
from attacks.inversion.bench.verdict import Status, judged
from attacks.inversion.report.page import Answer
from secagg.simulation.result import write_result


def attack_run(run: Path, trial: Trial, *, out: Path, command: str, console: Console) -> int:
    """Attack what a run recorded, write ``result.json`` and ``leak.html``, print tables and advice.

    Every cell is stored as it ends; the same command goes on from there, and one that asks for more clients
    or rounds too.

    Args:
        run: a run's ``--out``; it was recorded.
        trial: what is attacked and how.
        out: folder for the result, made if it is missing, then readable by its owner alone: the page shows
            samples.
        command: as called.
        console: for people; a bar or some lines.

    Returns:
        Exit status: 0, 1 if cells failed, 130 after Ctrl-C; what ended is written.

    Raises:
        ConfigError: as ``RunTrial.planned``; as ``private_folder``.
    """
    planned = RunTrial.planned(run, trial)
    for clause in planned.left_out:
        console.print(f"not attacked: {clause}", highlight=False, markup=False, soft_wrap=True)
    private_folder(out)
    with private_files():
        with Store(out) as store:
            check_stored(store, planned.cells, OF_A_RUN)
        played = play(planned, Processes(trial.processes, planned.stage), out=out, console=console)
        if not played.kept:
            return EXIT_INTERRUPTED
        with naming(out):
            _report(run, planned, played, out=out, command=command, console=console)
    if played.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if played.failures else 0


def _report(
    run: Path, planned: RunTrial, played: Played, *, out: Path, command: str, console: Console
) -> None:
    trial = planned.trial
    with Store(out) as store:
        ended = store.outcomes(planned.cells)
        rows = [ordered(row) for row in judged(rows_of(ended, trial.knowledge), trial.margins)]
        if not rows:
            console.print("no attack has ended: there is nothing to report", highlight=False, soft_wrap=True)
            return
        advice = advise(rows, trial.margins)
        answer = None if advice else _unmasked(planned, rows)
        page = write_run_page(
            run,
            unfinished=unfinished_text(played, ended=len(ended), cells=len(planned.cells)),
            hypothetical=_all_encrypted(planned),
            rows=rows,
            advice=advice,
            margins=trial.margins,
            pictures=planned.pictures(store),
            facts=_facts(planned, rows),
            answer=answer,
            out=out,
            command=command,
        )
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
            "left_out": list(planned.left_out),
            "failures": list(played.failures),
        },
    )
    print_tables(rows, advice, (), console, complete=played.complete)
    if answer:
        console.print(f"\n{answer.text}", highlight=False, soft_wrap=True)
    console.print(f"\n{margins_text(trial.margins)}", highlight=False, soft_wrap=True, style="dim")
    console.print(f"wrote {out / 'result.json'} and {page}", highlight=False, markup=False, soft_wrap=True)


def _facts(planned: RunTrial, rows: Sequence[dict[str, Any]]) -> list[str]:
    trial = planned.trial
    clients = dict.fromkeys(str(row["client"]) for row in rows)
    rounds = sorted({int(row["round"]) for row in rows})
    samples = samples_in(rows)
    seen = f"; attackers see {trial.together} rounds together" if trial.together > 1 else ""
    more = []
    if planned.blank_rounds:
        numbers = ", ".join(map(str, planned.blank_rounds))
        more.append(f"nothing was visible in round {numbers}: no mask is judged by its updates")
    return [
        f"{samples} samples in updates of {', '.join(clients)}; rounds {', '.join(map(str, rounds))}{seen}",
        f"labels are {'known to' if trial.labels_known else 'inferred by'} attackers, who know the base "
        "model and which samples were together in a batch: a curious server with one client on its side",
        *(f"not attacked: {clause}" for clause in planned.left_out),
        *more,
    ]


def _all_encrypted(planned: RunTrial) -> bool:
    """True if of every update something was hidden, or all of it."""
    masked = {cell.update for cell in planned.cells if cell.significance not in (NONE, FULL)}
    honest = planned.stage.recording.honest
    clear = {cell.update for cell in planned.cells} - masked
    return all(honest[update][0] in planned.blank_rounds for update in clear)


def _unmasked(planned: RunTrial, rows: Sequence[dict[str, Any]]) -> Answer:
    """The answer where no mask was judged: nothing was encrypted, or everything, or no attack got there."""
    if any(cell.significance not in (NONE, FULL) for cell in planned.cells):
        return Answer(kind="inconclusive", text="no answer yet: no attack on a masked update has ended")
    clear = [row for row in rows if row["significance"] == NONE]
    leaked = [row for row in clear if row["status"] == Status.LEAKED]
    read = f"{samples_in(leaked)} of {samples_in(clear)} samples"
    if planned.blank_rounds:
        text = (
            "everything was encrypted: nothing was there to read; rows of ratio 0 say what would have been "
            f"read in the clear, {read}"
        )
        return Answer(kind="whole", text=text)
    return Answer(kind="none", text=f"none: use full; nothing was encrypted, and {read} were read")
