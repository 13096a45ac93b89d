"""Cells are played that are not stored yet, and stored as they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.clock import Clock, duration
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.crew import Crew, Ended, Player, Processes
from attacks.inversion.bench.ray_crew import RayCrew
from attacks.inversion.bench.store import Outcome, Store

LINES = 20
"""Where there is no terminal a line is printed after every twentieth of the cells."""
INTERRUPTED = "interrupted: what has ended is kept, the same command goes on from there"
NOTHING_ENDED = "interrupted before anything had ended: there is nothing to report"
"""What is said after Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How it went.

    Args:
        failures: a line per cell that failed.
        interrupted: True after Ctrl-C.
        kept: whether any of the cells is stored.
    """

    failures: list[str] = field(default_factory=list)
    interrupted: bool = False
    kept: bool = True

    @property
    def complete(self) -> bool:
        """True if every cell is stored."""
        return not self.failures and not self.interrupted


class Campaign(Protocol):
    """Cells to play: a sweep's, or those of a recorded run."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they are played."""
        ...

    @property
    def summary(self) -> str:
        """What they are, for people."""
        ...


def crew_of(config: SweepConfig, player: Player[Cell, Outcome]) -> Crew[Cell, Outcome]:
    """The processes, or the Ray cluster, that the sweep asks for.

    Raises:
        ConfigError: DEPENDENCY_MISSING without Ray.
    """
    if config.ray is None:
        return Processes(config.workers, player)
    gpus = 1.0 if config.device.startswith("cuda") else 0.0
    return RayCrew(config.ray, player, gpus=gpus, count=config.processes)


def play(campaign: Campaign, crew: Crew[Cell, Outcome], *, out: Path, console: Console) -> Played:
    """Play what is not stored yet.

    Args:
        campaign: all cells.
        crew: who plays them.
        out: folder of the store.
        console: for the progress; a terminal gets a bar, anything else some lines.

    Raises:
        ConfigError: DATA_MALFORMED if what is stored is damaged; nothing is played then.
    """
    played = Played()
    with Store(out) as store:
        store.check()
        there = store.keys()
        waiting = [cell for cell in campaign.cells if cell.key not in there]
        console.print(_beginning(campaign, len(waiting), out), highlight=False, markup=False, soft_wrap=True)
        try:
            if waiting:
                with crew, _shown(console, len(campaign.cells), len(waiting)) as progress:
                    progress.clock = Clock(waiting, crew.count)
                    for event in crew.play(waiting):
                        _keep(event, store, played)
                        progress.ended(event)
        except KeyboardInterrupt:
            kept = not store.keys().isdisjoint(cell.key for cell in campaign.cells)
            console.print(INTERRUPTED if kept else NOTHING_ENDED, highlight=False, soft_wrap=True)
            return Played(failures=played.failures, interrupted=True, kept=kept)
    return played


def _beginning(campaign: Campaign, waiting: int, out: Path) -> str:
    count = len(campaign.cells)
    there = count - waiting
    return campaign.summary + (f"; {there} of {count} cells are already in {out}" if there else "")


def _keep(event: Ended[Cell, Outcome], store: Store, played: Played) -> None:
    if event.outcome is None:
        played.failures.append(f"{event.cell.title}: {event.complaint}")
    else:
        store.add(event.cell, event.outcome)


class _Shown:
    """How far it is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console, bar: Progress | None, total: int, done: int) -> None:
        self._console, self._bar, self._total, self._done = console, bar, total, done
        self._task = bar.add_task("", total=total, completed=done, left="…") if bar else None
        self.clock: Clock | None = None

    def ended(self, event: Ended[Cell, Outcome]) -> None:
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
