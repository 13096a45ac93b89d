"""Processes of this machine that play cells, whatever cells are, one at a time each."""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar, runtime_checkable

CellT = TypeVar("CellT")
CellT_contra = TypeVar("CellT_contra", contravariant=True)
OutcomeT = TypeVar("OutcomeT")
OutcomeT_co = TypeVar("OutcomeT_co", covariant=True)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Ended(Generic[CellT, OutcomeT]):
    """A cell has ended, with an outcome or with what went wrong."""

    cell: CellT
    outcome: OutcomeT | None
    complaint: str = ""


class Player(Protocol[CellT_contra, OutcomeT_co]):
    """Plays cells; it can be pickled."""

    def play(self, cell: CellT_contra) -> OutcomeT_co:
        """What a cell comes to."""
        ...


@runtime_checkable
class TellingPlayer(Protocol[CellT_contra, OutcomeT_co]):
    """Plays cells in steps, and tells of each; it can be pickled."""

    def play_telling(self, cell: CellT_contra, tell: Callable[[], None]) -> OutcomeT_co:
        """What a cell comes to; ``tell`` is called as each of its steps ends."""
        ...


class Crew(Protocol[CellT, OutcomeT]):
    """Whoever plays many cells at once, within a block; leaving it ends what is still being played."""

    def __enter__(self) -> Crew[CellT, OutcomeT]: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def count(self) -> int:
        """How many it plays at once."""
        ...

    def play(self, cells: Sequence[CellT]) -> Iterator[Ended[CellT, OutcomeT]]:
        """Play cells, the first ones first; they come as they end."""
        ...


class Processes(Generic[CellT, OutcomeT]):
    """A crew of processes with one thread each; one that dies costs the cell it plays, if any,
    and another is started.

    Args:
        count: how many, at least 1.
        player: sent to each of them.
    """

    def __init__(self, count: int, player: Player[CellT, OutcomeT] | TellingPlayer[CellT, OutcomeT]) -> None:
        self._context, self._count, self._player = get_context("spawn"), count, player
        self._busy: dict[Connection, CellT | None] = {}
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Processes[CellT, OutcomeT]:
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

    def play(
        self, cells: Sequence[CellT], told: Callable[[CellT], None] | None = None
    ) -> Iterator[Ended[CellT, OutcomeT]]:
        """Play cells, the first ones first; they come as they end.

        Args:
            cells: none of them None.
            told: called with a cell for each of its steps that a ``TellingPlayer`` tells of; all of these
                calls come before the cell does.
        """
        waiting = deque(cells)
        while waiting or any(cell is not None for cell in self._busy.values()):
            self._hand_out(waiting)
            for connection in wait([c for c, cell in self._busy.items() if cell is not None]):
                assert isinstance(connection, Connection)
                cell = self._busy[connection]
                assert cell is not None
                event = self._event(connection, cell)
                if isinstance(event, Ended):
                    yield event
                elif told is not None:
                    told(cell)

    def _hand_out(self, waiting: deque[CellT]) -> None:
        while waiting:
            idle = next((connection for connection, cell in self._busy.items() if cell is None), None)
            if idle is None and len(self._busy) == self._count:
                return
            connection = idle or self._start()
            try:
                connection.send(waiting[0])
            except OSError:  # its process died since its last cell: another one plays this
                self._bury(connection)
            else:
                self._busy[connection] = waiting.popleft()

    def _start(self) -> Connection:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._player), daemon=True)
        with one_thread():
            process.start()
        theirs.close()
        self._busy[ours], self._processes[ours] = None, process
        return ours

    def _bury(self, connection: Connection) -> int | None:
        """Forget a process that died; its exit code."""
        process = self._processes.pop(connection)
        del self._busy[connection]
        connection.close()
        process.join()
        return process.exitcode

    def _event(self, connection: Connection, cell: CellT) -> Ended[CellT, OutcomeT] | _Step:
        try:
            event: Ended[CellT, OutcomeT] | _Step = connection.recv()
        except (EOFError, OSError):  # the latter in the midst of what it was sending
            return Ended(cell, None, f"its process ended with code {self._bury(connection)}")
        if isinstance(event, Ended):
            self._busy[connection] = None
        return event


def played(play: Callable[[CellT], OutcomeT], cell: CellT) -> Ended[CellT, OutcomeT]:
    """Play one cell; what goes wrong is told, and ends nothing else."""
    try:
        return Ended(cell, play(cell))
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


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of the cell that a process is playing has ended."""


def _work(connection: Connection, player: Player[CellT, OutcomeT] | TellingPlayer[CellT, OutcomeT]) -> None:
    """Play what comes until the other end is gone. Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)

    def play(cell: CellT) -> OutcomeT:
        if isinstance(player, TellingPlayer):
            return player.play_telling(cell, lambda: connection.send(_Step()))
        return player.play(cell)

    while True:
        try:
            cell: CellT = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        event = played(play, cell)
        try:
            connection.send(event)
        except BrokenPipeError:
            return
