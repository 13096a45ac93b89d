"""A sweep is played: cells that are not stored yet, stored as they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from attacks.inversion.bench.cell import MEASURE, NONE
from attacks.inversion.bench.clock import Clock, duration
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.crew import Crew, Ended, Player, Processes
from attacks.inversion.bench.ray_crew import RayCrew
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.sweep import Sweep

LINES = 20
"""Where there is no terminal a line is printed after every twentieth of the cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How it went.

    Args:
        failures: a line per cell that failed.
        interrupted: True after Ctrl-C.
    """

    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """True if every cell is stored."""
        return not self.failures and not self.interrupted


def crew_of(config: SweepConfig, player: Player) -> Crew:
    """The processes, or the Ray cluster, that the sweep asks for.

    Raises:
        ConfigError: DEPENDENCY_MISSING without Ray.
    """
    if config.ray is None:
        return Processes(config.workers, player)
    gpus = 1.0 if config.device.startswith("cuda") else 0.0
    return RayCrew(config.ray, player, gpus=gpus, count=config.processes)


def play(sweep: Sweep, crew: Crew, *, out: Path, console: Console) -> Played:
    """Play what is not stored yet.

    Args:
        sweep: all cells.
        crew: who plays them.
        out: folder of the store.
        console: for the progress; a terminal gets a bar, anything else some lines.
    """
    played = Played()
    with Store(out) as store:
        there = store.keys()
        waiting = [cell for cell in sweep.cells if cell.key not in there]
        console.print(_beginning(sweep, len(waiting), out), highlight=False, soft_wrap=True)
        try:
            if waiting:
                with crew, _shown(console, len(sweep.cells), len(waiting)) as progress:
                    progress.clock = Clock(waiting, crew.count)
                    for event in crew.play(waiting):
                        _keep(event, store, played)
                        progress.ended(event)
        except KeyboardInterrupt:
            console.print("interrupted: what has ended is kept, the same command goes on from there")
            return Played(failures=played.failures, interrupted=True)
    return played


def _beginning(sweep: Sweep, waiting: int, out: Path) -> str:
    attacks = sum(cell.attacker != MEASURE for cell in sweep.cells)
    protections = {(cell.victim, cell.significance, cell.ratio, cell.perturb) for cell in sweep.cells}
    hidden = sum(significance != NONE for _, significance, _, _ in protections)
    text = f"{attacks} attacks on {sweep.config.samples} updates under {hidden} protections"
    there = len(sweep.cells) - waiting
    return text + (f"; {there} of {len(sweep.cells)} cells are already in {out}" if there else "")


def _keep(event: Ended, store: Store, played: Played) -> None:
    if event.outcome is None:
        played.failures.append(f"{event.cell.title}: {event.complaint}")
    else:
        store.add(event.cell, event.outcome)


class _Shown:
    """How far a sweep is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console, bar: Progress | None, total: int, done: int) -> None:
        self._console, self._bar, self._total, self._done = console, bar, total, done
        self._task = bar.add_task("", total=total, completed=done, left="…") if bar else None
        self.clock: Clock | None = None

    def ended(self, event: Ended) -> None:
        assert self.clock is not None
        self._done += 1
        self.clock.ended(event.cell, None if event.outcome is None else event.outcome.seconds)
        left = self.clock.left_s()
        if event.outcome is None:
            line = f"FAILED: {event.cell.title}: {event.complaint.splitlines()[0]}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        text = "" if left is None else f"{duration(left)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, left=text, description=event.cell.title)
        elif self._done * LINES // self._total != (self._done - 1) * LINES // self._total:
            self._console.print(f"[{self._done}/{self._total}] {text}", highlight=False, markup=False)


@contextmanager
def _shown(console: Console, total: int, waiting: int) -> Iterator[_Shown]:
    if not console.is_terminal:
        yield _Shown(console, None, total, total - waiting)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}  {task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Shown(console, bar, total, total - waiting)
