"""A campaign: cells that are not there yet are played, stored as they end, and reported with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from attacks.inversion.bench.crew import Ended, Processes
from benchmarks.robust.cell import NO_ATTACK, Cell
from benchmarks.robust.player import CurvePlayer
from benchmarks.robust.store import Outcome, Store
from benchmarks.robust.tables import accuracy_text, print_tables, write_markdown
from secagg.simulation.result import write_result

GUESS_S = {"plain": 1.0, "byzfl": 1.2, "cipher": 4.0}
"""Seconds of a round before one has been seen."""


@dataclass(slots=True)
class Clock:
    """How long what is left may take: rounds that are left, at what rounds of that domain have taken.

    Args:
        processes: how many play at a time.
    """

    processes: int
    left: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)

    def expect(self, cells: Sequence[Cell]) -> None:
        """Rounds that are to be played."""
        for cell in cells:
            self.left[cell.domain] = self.left.get(cell.domain, 0) + rounds_of(cell)

    def ended(self, cell: Cell, seconds: float | None) -> None:
        """A cell has ended, after so many seconds or in failure."""
        self.left[cell.domain] -= rounds_of(cell)
        if seconds is not None:
            self.seconds[cell.domain] = self.seconds.get(cell.domain, 0.0) + seconds
            self.rounds[cell.domain] = self.rounds.get(cell.domain, 0) + rounds_of(cell)

    def left_s(self) -> float:
        """Seconds that are left."""
        return sum(
            count * (self.seconds[name] / self.rounds[name] if self.rounds.get(name) else GUESS_S[name])
            for name, count in self.left.items()
        ) / max(1, self.processes)


def rounds_of(cell: Cell) -> int:
    """How many rounds playing a cell takes: those before the attack are played once, without attack."""
    warm = 0 if cell.attack != NO_ATTACK or cell.domain == "cipher" else cell.setting.start_round - 1
    return warm + cell.setting.rounds - cell.setting.start_round + 1


def play(
    cells: Sequence[Cell], *, out: Path, data: Path | None, processes: int, console: Console
) -> tuple[list[str], bool]:
    """Play what is not stored yet.

    Args:
        cells: all of the campaign, those without attack first.
        out: folder of the store.
        data: folder with the named data sets.
        processes: how many to use.
        console: for a line per cell.

    Returns:
        What went wrong, a line per cell that failed; and whether it was interrupted.
    """
    store = Store(out)
    there = store.keys()
    waiting = [cell for cell in cells if cell.key not in there]
    console.print(f"{len(cells)} cells, {len(cells) - len(waiting)} of them already in {out}")
    clock = Clock(processes)
    clock.expect(waiting)
    failures: list[str] = []
    try:
        with Processes(processes, CurvePlayer(out, data)) as crew, _bar(console) as bar:
            task = bar.add_task("", total=sum(map(rounds_of, waiting)), left=duration(clock.left_s()))

            def round_ended(cell: Cell) -> None:
                bar.update(task, advance=1, description=cell.title)

            for part in _phases(waiting):
                for event in crew.play(part, round_ended):
                    _ended(event, store, clock, failures)
                    place = f"[{len(store.keys())}/{len(cells)}]"
                    bar.update(task, left=duration(clock.left_s()))
                    bar.console.print(
                        _line(place, event, clock), highlight=False, markup=False, soft_wrap=True
                    )
    except KeyboardInterrupt:
        console.print("interrupted: what has ended is kept, the same command goes on from there")
        return failures, True
    finally:
        store.close()
    return failures, False


def report(
    cells: Sequence[Cell],
    *,
    out: Path,
    command: str,
    complete: bool,
    failures: Sequence[str],
    console: Console,
) -> None:
    """Tables and pictures of the cells that are stored, and of others like them from earlier campaigns.

    Like them are cells that differ in nothing but data set, start, length, rule, attack, share and domain.
    """
    store = Store(out)
    try:
        ended = store.outcomes(cells) + [
            (cell, outcome) for cell, outcome in store.others(cells) if _alike(cell, cells)
        ]
    finally:
        store.close()
    write_result(
        out,
        command=command,
        seed=cells[0].setting.seed if cells else 0,
        rows=[dict(outcome.row) for _, outcome in ended],
        more={
            "complete": complete,
            "failures": list(failures),
            "curves": [_curve(outcome) for _, outcome in ended],
        },
    )
    if not ended:
        return
    # Only here: playing cells needs no pictures, and matplotlib takes a second to load.
    from benchmarks.robust.pictures import write_pictures

    print_tables(ended, console)
    pictures = write_pictures(ended, out)
    table = write_markdown(ended, out)
    console.print(f"\nresult.json, {table.name} and {len(pictures)} pictures are in {out}")


def duration(seconds: float) -> str:
    """For people.

    >>> duration(125)
    '2 min 5 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _phases(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that others go on from, then the others, those that take longest first."""
    bases = [cell for cell in cells if cell.attack == NO_ATTACK and cell.domain != "cipher"]
    others = [cell for cell in cells if cell not in bases]
    return [bases, sorted(others, key=lambda cell: cell.domain != "cipher")]


def _ended(event: Ended[Cell, Outcome], store: Store, clock: Clock, failures: list[str]) -> None:
    if event.outcome is None:
        failures.append(f"{event.cell.title}: {event.complaint}")
        clock.ended(event.cell, None)
        return
    store.add(event.cell, event.outcome)
    clock.ended(event.cell, event.outcome.seconds)


def _line(place: str, event: Ended[Cell, Outcome], clock: Clock) -> str:
    left = f"{duration(clock.left_s())} left"
    if event.outcome is None:
        return f"{place} {event.cell.title}: FAILED: {event.complaint}; {left}"
    text = accuracy_text(dict(event.outcome.row))
    return f"{place} {event.cell.title}: {text}, {event.outcome.seconds:.0f} s; {left}"


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        TextColumn("{task.fields[left]} left  {task.description}"),
        console=console,
        transient=True,
    )


def _alike(cell: Cell, cells: Sequence[Cell]) -> bool:
    def core(item: Cell) -> object:
        return replace(item.setting, dataset="", start_round=1, rounds=1, model="")

    return any(core(cell) == core(asked) for asked in cells)


def _curve(outcome: Outcome) -> dict[str, object]:
    named = ("dataset", "rule", "attack", "fraction", "domain", "start_round")
    return {**{name: outcome.row[name] for name in named}, "points": list(outcome.curve)}
