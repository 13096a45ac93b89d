"""A planned sweep from its first cell to its advice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from attacks.inversion.bench.campaign import Played, crew_of, play
from attacks.inversion.bench.costs import check_clients, costs_of
from attacks.inversion.bench.report import report
from attacks.inversion.bench.store import PRIVATE, Store
from attacks.inversion.bench.sweep import Sweep
from secagg.overhead.sweep import out_folder

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def run_sweep(sweep: Sweep, *, out: Path, command: str, console: Console) -> int:
    """Play, measure costs, report.

    Args:
        sweep: checked already; nothing is written before.
        out: folder, made if it is missing, then readable by its owner alone: it will hold samples.
        command: as called.
        console: for people.

    Returns:
        Exit status: 0, 1 if cells failed, 130 after Ctrl-C; what ended is kept.

    Raises:
        ConfigError: CONFIG_INVALID if the folder can't be written to, DATA_MALFORMED for another's store.
    """
    clients = sweep.config.clients
    if clients:
        check_clients(clients)
    crew = crew_of(sweep.config, sweep.stage)
    for note in sweep.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    # An existing folder keeps its permissions; what is wrong with it is said by ``out_folder``.
    with suppress(OSError):
        out.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    out_folder(out)
    played = play(sweep, crew, out=out, console=console)
    costs: list[dict[str, Any]] = []
    interrupted = played.interrupted
    if clients and not interrupted:
        try:
            costs = _costs(sweep, out, console)
        except KeyboardInterrupt:
            interrupted = True
    played = Played(failures=played.failures, interrupted=interrupted)
    report(sweep, played, out=out, command=command, costs=costs, console=console)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if played.failures else 0


def _costs(sweep: Sweep, out: Path, console: Console) -> list[dict[str, Any]]:
    with Store(out) as store, console.status("encryption costs") as status:
        return list(
            costs_of(
                store.outcomes(sweep.cells),
                sweep.manifests,
                store,
                out=out,
                clients=sweep.config.clients,
                seed=sweep.setting.seed % 2**32,
                note=lambda text: status.update(f"encryption costs: {text}"),
            )
        )
