"""What a peer's script is asked (its command line) and what it answers (one JSON object)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from typing import TextIO

import numpy as np
import numpy.typing as npt

from benchmarks.peers.roles import Step

Tensors = list[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model's shapes, how many clients send an update to it, and how often each step is timed."""

    shapes: tuple[tuple[int, ...], ...]
    clients: int
    seed: int
    repeat: int

    @classmethod
    def from_command_line(cls, about: str | None) -> Task:
        """Read ``--shapes``, ``--clients``, ``--seed`` and ``--repeat``."""
        parser = argparse.ArgumentParser(
            description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--shapes", required=True, type=json.loads, help="JSON: [[64, 32], [64], ...]")
        parser.add_argument("--clients", type=int, default=4)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--repeat", type=int, default=1, help="report the median of so many runs")
        asked = parser.parse_args()
        if asked.clients < 1 or asked.repeat < 1:
            parser.error("--clients and --repeat must be at least 1")
        return cls(
            shapes=tuple(tuple(int(side) for side in shape) for shape in asked.shapes),
            clients=asked.clients,
            seed=asked.seed,
            repeat=asked.repeat,
        )

    @property
    def values(self) -> int:
        """Entries of one update."""
        return sum(prod(shape) for shape in self.shapes)

    def update(self, client: int) -> Tensors:
        """A client's update: float32 tensors of the task's shapes, N(0, 0.01^2)."""
        random = np.random.default_rng([self.seed, client])
        drawn = (random.standard_normal(shape, dtype=np.float32) for shape in self.shapes)
        return [np.asarray(tensor * np.float32(0.01)) for tensor in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a peer needed for one round; times are medians of wall-clock seconds.

    ``bytes_up`` and ``bytes_down`` are one client's update and the aggregate as the peer serialises them.
    ``seal_s`` and ``open_s`` are one client's, ``aggregate_s`` is the server's for all clients; each begins
    and ends with bytes in memory where bytes come or go. A peak is the largest resident set the role's
    process ever had, MiB, interpreter and libraries included. ``max_error`` is of the opened mean against the
    exact one.
    """

    peer: str
    values: int
    clients: int
    bytes_up: int
    bytes_down: int
    seal_s: float
    aggregate_s: float
    open_s: float
    client_peak_mib: float
    server_peak_mib: float
    max_error: float

    @classmethod
    def of(cls, peer: str, task: Task, sealed: Step, summed: Step, opened: Step) -> Figures:
        """The figures of a round whose three steps ran in processes of their own."""
        return cls(
            peer=peer,
            values=task.values,
            clients=task.clients,
            bytes_up=sealed.size,
            bytes_down=summed.size,
            seal_s=sealed.seconds,
            aggregate_s=summed.seconds,
            open_s=opened.seconds,
            client_peak_mib=max(sealed.peak_mib, opened.peak_mib),
            server_peak_mib=summed.peak_mib,
            max_error=opened.error,
        )

    def write(self, stream: TextIO, **more: float) -> None:
        """Write the JSON object, with what only this peer has to say."""
        print(json.dumps(asdict(self) | more), file=stream, flush=True)


@contextmanager
def stdout_for_figures() -> Iterator[TextIO]:
    """Standard output, kept for the JSON: what libraries (and child processes) print there goes to stderr."""
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(kept, "w") as stream:
        yield stream


def largest_error(opened: list[npt.NDArray[np.float64]], exact: list[npt.NDArray[np.float64]]) -> float:
    """The largest absolute difference over all entries; each opened tensor may come flattened."""
    pairs = zip(opened, exact, strict=True)
    return max(float(np.max(np.abs(np.ravel(one) - np.ravel(other)))) for one, other in pairs)
