"""A planned sweep from its first cell to its advice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from attacks.inversion.bench.campaign import INTERRUPTED, Played, crew_of, play
from attacks.inversion.bench.costs import check_clients, costs_of
from attacks.inversion.bench.report import report
from attacks.inversion.bench.store import PRIVATE, Store
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.report.page import PAGE_FILE
from secagg.errors import Code, ConfigError
from secagg.overhead.sweep import out_folder
from secagg.simulation.result import RESULT_FILE

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
        ConfigError: as ``private_folder``; DATA_MALFORMED for another's store or a damaged one.
    """
    clients = sweep.config.clients
    if clients:
        check_clients(clients)
    crew = crew_of(sweep.config, sweep.stage)
    for note in sweep.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    private_folder(out)
    played = play(sweep, crew, out=out, console=console)
    if not played.kept:
        return EXIT_INTERRUPTED
    costs: list[dict[str, Any]] = []
    interrupted = played.interrupted
    if clients and not interrupted:
        try:
            costs = _costs(sweep, out, console)
        except KeyboardInterrupt:
            console.print(INTERRUPTED, highlight=False, soft_wrap=True)
            interrupted = True
    played = Played(failures=played.failures, interrupted=interrupted)
    report(sweep, played, out=out, command=command, costs=costs, console=console)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if played.failures else 0


def private_folder(out: Path) -> None:
    """Make a folder for results, for its owner alone: it will hold samples.

    An existing one keeps its permissions.

    Raises:
        ConfigError: CONFIG_INVALID if it can't be written to; as ``check_results``.
    """
    check_results(out)
    # What is wrong with it is said by ``out_folder``.
    with suppress(OSError, ValueError):
        out.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    out_folder(out)


def check_results(out: Path) -> None:
    """See that nothing stands where ``result.json`` and ``leak.html`` will be written, hours later.

    Raises:
        ConfigError: CONFIG_INVALID for a folder under such a name.
    """
    for name in (RESULT_FILE, PAGE_FILE):
        # Each is written beside its place first.
        for path in (out / name, out / f".{name}.new"):
            if path.is_dir():
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"{path} is a folder, and a file is to be written: give another --out",
                )


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
                note=lambda text: status.update(Text(f"encryption costs: {text}")),
            )
        )
