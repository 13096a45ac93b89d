"""A planned sweep from its first cell to its advice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from attacks.inversion.bench.campaign import INTERRUPTED, Played, crew_of, play
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.costs import check_clients, costs_of
from attacks.inversion.bench.crew import Crew
from attacks.inversion.bench.report import report
from attacks.inversion.bench.rows import check_stored
from attacks.inversion.bench.store import PRIVATE, PRIVATE_FILE, Outcome, Store
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.report.page import PAGE_FILE
from secagg.errors import Code, ConfigError
from secagg.overhead.sweep import out_folder
from secagg.regular_file import open_regular
from secagg.simulation.recording import ABOUT_FILE, RECORDING
from secagg.simulation.result import RESULT_FILE

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
_OWN = ({"advice", "setting"}, {"advice", "run"})
"""What a sweep's ``result.json`` has beside its rows, and a recorded run's; no other command's has either."""


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
    if sweep.config.clients:
        check_clients(sweep.config.clients)
    crew = crew_of(sweep.config, sweep.stage)
    for note in sweep.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    private_folder(out)
    with private_files():
        return _run(sweep, crew, out=out, command=command, console=console)


def _run(sweep: Sweep, crew: Crew[Cell, Outcome], *, out: Path, command: str, console: Console) -> int:
    with Store(out) as store:
        check_stored(store, sweep.cells)
    played = play(sweep, crew, out=out, console=console)
    if not played.kept:
        return EXIT_INTERRUPTED
    costs: list[dict[str, Any]] = []
    clients = sweep.config.clients
    interrupted = played.interrupted
    if clients and not interrupted:
        try:
            costs = _costs(sweep, out, console)
        except KeyboardInterrupt:
            console.print(INTERRUPTED, highlight=False, soft_wrap=True)
            interrupted = True
    played = Played(failures=played.failures, interrupted=interrupted)
    with naming(out):
        report(sweep, played, out=out, command=command, costs=costs, console=console)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if played.failures else 0


def private_folder(out: Path) -> None:
    """Make a folder for results, for its owner alone: it will hold samples.

    An existing one keeps its permissions; earlier results in it are narrowed.

    Raises:
        ConfigError: CONFIG_INVALID if it can't be written to; as ``check_results``.
    """
    check_results(out)
    # What is wrong with it is said by ``out_folder``.
    with suppress(OSError, ValueError):
        out.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    out_folder(out)
    for path in _places(out):
        # One of somebody else's is replaced by one of ours.
        with suppress(OSError):
            path.chmod(PRIVATE_FILE)


@contextmanager
def private_files() -> Iterator[None]:
    """Files that are made within are for their owner alone, whatever folder they are in."""
    before = os.umask(0o777 - PRIVATE)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def naming(out: Path) -> Iterator[None]:
    """An OSError from within names a file, or this folder: the system says of a full disk only that it is."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(out)) from None


def check_results(out: Path) -> None:
    """See that nothing is in the place of ``result.json`` and ``leak.html``, which are written hours later.

    Raises:
        ConfigError: CONFIG_INVALID for a folder under such a name, for another command's ``result.json``, and
            for the folder of a recorded run, or one in its recording.
    """
    try:
        # Also where it leads there over a folder that is yet to be made.
        here = Path(os.path.realpath(out))
    except ValueError:
        return  # ``out_folder`` says what is wrong with it
    for path in _places(out):
        if path.is_dir():
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{path} is a folder, and a file is to be written: give another --out",
            )
    for folder in (here / RECORDING, here, *here.parents):
        if folder.name == RECORDING and (folder / ABOUT_FILE).exists():
            run = folder.parent
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{out} is of the recorded run {run}: give another --out, such as {run / 'leak'}",
            )
    if (here / RESULT_FILE).exists():
        _check_own(here / RESULT_FILE)


def _places(out: Path) -> list[Path]:
    """Of what is written; each is written beside its place first."""
    return [out / place for name in (RESULT_FILE, PAGE_FILE) for place in (name, f".{name}.new")]


def _check_own(path: Path) -> None:
    """Raises ConfigError for a ``result.json`` that ``secagg leak`` has not written."""
    try:
        with open_regular(path) as file:
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        content = {}
    if not any(own <= content.keys() for own in _OWN):
        said = str(content.get("command", ""))
        whose = f" ({said:.60})" if said else ""
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path} is no result of secagg leak{whose} and would be written over: give another --out",
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
