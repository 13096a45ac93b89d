"""Playing cells in processes: whatever ends one is told, and so is each step of one."""

import os
import signal
import struct
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from attacks.inversion.bench.crew import Processes, played


@dataclass
class Failing:
    """Plays nothing."""

    error: BaseException

    def play(self, _):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(7)])
def test_what_ends_a_cell_is_told_first(error):
    """Also a network that exits: nothing is lost but its own cell."""
    ended = played(Failing(error).play, "cell")
    assert ended.cell == "cell" and ended.outcome is None
    assert ended.complaint.splitlines()[0] == f"{type(error).__name__}: {error}"


def test_ctrl_c_is_nobodys_outcome():
    """Whoever stops a sweep stops it."""
    with pytest.raises(KeyboardInterrupt):
        played(Failing(KeyboardInterrupt()).play, "cell")


DIES = 2


@dataclass
class Counting:
    """Tells of as many steps as the cell says; in one of ``DIES`` the process dies then."""

    def play_telling(self, cell, tell):
        for _ in range(cell):
            tell()
        if cell == DIES:
            os._exit(7)
        return os.getpid()


def test_steps_are_told_with_their_cell_before_it_ends():
    """Also those of a process that dies; it costs that cell, and another process goes on."""
    cells, told = [3, DIES, 1, 4], []
    ended, found = [], {}
    with Processes(2, Counting()) as crew:
        for event in crew.play(cells, lambda cell: told.append((cell, cell in found))):
            ended.append(event.cell)
            found[event.cell] = event
        again = [event.outcome for event in crew.play([0])]
    assert sorted(ended) == sorted(cells)
    assert sorted(told) == sorted((cell, False) for cell in cells for _ in range(cell))
    assert found[DIES].outcome is None and found[DIES].complaint == "its process ended with code 7"
    others = {event.outcome for event in found.values() if event.cell != DIES}
    assert None not in others and set(again) <= others and os.getpid() not in others


@dataclass
class Looking:
    """Finds out what kind of process it is in."""

    def play(self, _):
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return ignored, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_a_process_leaves_ctrl_c_alone_has_one_thread_and_ends_with_the_block():
    """No end of a pipe stays open either, and this process keeps the threads it had."""
    before, threads, children = sockets(), os.environ.get("OMP_NUM_THREADS"), active_children()
    with Processes(1, Looking()) as crew:
        assert [event.outcome for event in crew.play(["cell"])] == [(True, 1, "1")]
        assert len(active_children()) == len(children) + 1
    assert (sockets(), active_children()) == (before, children)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def sockets():
    """Those that this process holds; pipes to its children are made of them."""
    return {path for path in Path("/proc/self/fd").iterdir() if path.is_socket()}


@dataclass
class Telling:
    """Tells which process it is in."""

    def play(self, _):
        return os.getpid()


def killed(pid: int) -> None:
    """Returns when the process is gone: nothing of it stays to read what it is sent."""
    (process,) = (child for child in active_children() if child.pid == pid)
    os.kill(pid, signal.SIGKILL)
    process.join()


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_is_killed_between_cells_costs_no_cell(count):
    """As the kernel does where memory ends: another one plays what it would have been handed."""
    children = active_children()
    with Processes(count, Telling()) as crew:
        first = [event.outcome for event in crew.play(range(2 * count))]
        killed(first[0])
        later = list(crew.play(range(2 * count)))
        assert sorted(event.cell for event in later) == list(range(2 * count))
        assert {event.outcome for event in later}.isdisjoint({None, first[0]})
        assert len(active_children()) == len(children) + count
    assert active_children() == children


@dataclass
class Cut:
    """Dies in the midst of its first cell's outcome: ten bytes of a hundred that it announced."""

    def play(self, cell):
        if cell == 0:
            (pipe,) = sockets()
            os.write(int(pipe.name), struct.pack("!i", 100) + bytes(10))
            os._exit(9)
        return cell


def test_a_process_that_dies_while_it_sends_costs_its_cell_only():
    with Processes(1, Cut()) as crew:
        lost, kept = crew.play([0, 1])
    assert lost.outcome is None and lost.complaint == "its process ended with code 9"
    assert kept.outcome == 1
