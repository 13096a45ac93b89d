"""Processes of this machine that play cells, one at a time each."""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.store import Outcome

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Ended:
    """A cell has ended, with an outcome or with what went wrong."""

    cell: Cell
    outcome: Outcome | None
    complaint: str = ""


class Player(Protocol):
    """Plays cells; it can be pickled."""

    def play(self, cell: Cell) -> Outcome:
        """What a cell comes to."""
        ...


class Crew(Protocol):
    """Whoever plays many cells at once, within a block; leaving it ends what is still being played."""

    def __enter__(self) -> Crew: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def count(self) -> int:
        """How many it plays at once."""
        ...

    def play(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Play cells, the first ones first; they come as they end."""
        ...


class Processes:
    """A crew of processes with one thread each; one that dies costs its cell, and another is started.

    Args:
        count: how many, at least 1.
        player: sent to each of them.
    """

    def __init__(self, count: int, player: Player) -> None:
        self._context, self._count, self._player = get_context("spawn"), count, player
        self._busy: dict[Connection, Cell | None] = {}
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join()
        for connection in self._processes:
            connection.close()
        self._processes, self._busy = {}, {}

    @property
    def count(self) -> int:
        """How many it plays at once."""
        return self._count

    def play(self, cells: Sequence[Cell]) -> Iterator[Ended]:
        """Play cells, the first ones first; they come as they end."""
        waiting = deque(cells)
        while waiting or any(self._busy.values()):
            self._hand_out(waiting)
            for connection in wait([c for c, cell in self._busy.items() if cell is not None]):
                assert isinstance(connection, Connection)
                yield self._ended(connection)

    def _hand_out(self, waiting: deque[Cell]) -> None:
        while len(self._busy) < min(self._count, len(self._busy) + len(waiting)):
            self._start()
        for connection, cell in self._busy.items():
            if cell is None and waiting:
                self._busy[connection] = waiting.popleft()
                connection.send(self._busy[connection])

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._player), daemon=True)
        with one_thread():
            process.start()
        theirs.close()
        self._busy[ours], self._processes[ours] = None, process

    def _ended(self, connection: Connection) -> Ended:
        cell = self._busy[connection]
        assert cell is not None
        try:
            event: Ended = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes.pop(connection)
            process.join()
            del self._busy[connection]
            connection.close()
            return Ended(cell, None, f"its process ended with code {process.exitcode}")
        self._busy[connection] = None
        return event


def played(player: Player, cell: Cell) -> Ended:
    """Play one cell; what goes wrong is told, and ends nothing else."""
    try:
        return Ended(cell, player.play(cell))
    except (Exception, SystemExit) as error:  # a user's network that exits ends no sweep
        trace = traceback.format_exc(limit=-3)
        return Ended(cell, None, f"{type(error).__name__}: {error}\n{trace}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Children started here compute in one thread each: they share the cores as processes."""
    kept = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection, player: Player) -> None:
    """Play what comes until the other end is gone. Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            cell: Cell = connection.recv()
        except EOFError:
            return
        event = played(player, cell)
        try:
            connection.send(event)
        except BrokenPipeError:
            return
