"""Processes that play cells, one cell at a time each, and tell of every round."""

from __future__ import annotations

import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from attacks.inversion.bench.crew import one_thread
from benchmarks.robust.cell import Cell, Setting
from benchmarks.robust.store import Outcome


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A round of a cell has ended."""

    cell: Cell
    round: int


@dataclass(frozen=True, slots=True)
class CellEnded:
    """A cell has ended, with an outcome or with what went wrong."""

    cell: Cell
    outcome: Outcome | None
    complaint: str = ""


Event = RoundEnded | CellEnded


class Workers:
    """A few processes; leaving the context ends them at once, whatever they are doing.

    Args:
        count: how many.
        folder: where states before attacks are kept.
        data: folder with the named data sets.
    """

    def __init__(self, count: int, folder: Path, data: Path | None) -> None:
        self._context, self._folder, self._data = get_context("spawn"), folder, data
        self._count = count
        self._busy: dict[Connection, Cell | None] = {}
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join()

    @property
    def processes(self) -> list[BaseProcess]:
        """Those that are alive or have just died."""
        return list(self._processes.values())

    def play(self, cells: Sequence[Cell]) -> Iterator[Event]:
        """Play cells, the first ones first; a process that dies costs its cell, and another is started."""
        waiting = deque(cells)
        while waiting or any(self._busy.values()):
            self._hand_out(waiting)
            for connection in wait([c for c, cell in self._busy.items() if cell is not None]):
                assert isinstance(connection, Connection)
                yield self._event(connection)

    def _hand_out(self, waiting: deque[Cell]) -> None:
        while waiting and len(self._busy) < min(self._count, len(self._busy) + len(waiting)):
            self._start()
        for connection, cell in self._busy.items():
            if cell is None and waiting:
                self._busy[connection] = waiting.popleft()
                connection.send(self._busy[connection])

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._folder, self._data), daemon=True)
        with one_thread():
            process.start()
        theirs.close()
        self._busy[ours], self._processes[ours] = None, process

    def _event(self, connection: Connection) -> Event:
        cell = self._busy[connection]
        assert cell is not None
        try:
            event: Event = connection.recv()
        except EOFError:
            process = self._processes.pop(connection)
            process.join()
            del self._busy[connection]
            return CellEnded(cell, None, f"its process ended with code {process.exitcode}")
        if isinstance(event, CellEnded):
            self._busy[connection] = None
        return event


def _work(connection: Connection, folder: Path, data: Path | None) -> None:
    """Play what comes until the other end is gone. Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    from benchmarks.robust.curve import Play
    from benchmarks.robust.federation import Federation

    torch.set_num_threads(1)
    federations: dict[Setting, Federation] = {}
    while True:
        try:
            cell: Cell = connection.recv()
        except EOFError:
            return
        try:
            if cell.setting not in federations:
                federations = {cell.setting: Federation(cell.setting, data)}
            play = Play(cell, federations[cell.setting])
            outcome = play.run(folder, lambda round, cell=cell: connection.send(RoundEnded(cell, round)))
            connection.send(CellEnded(cell, outcome))
        except Exception as error:
            trace = traceback.format_exc(limit=-3)
            connection.send(CellEnded(cell, None, f"{type(error).__name__}: {error}\n{trace}"))
