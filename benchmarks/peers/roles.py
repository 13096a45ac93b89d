"""Each role of a round in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one role's step took: median seconds, the role's peak MiB, bytes it serialised, error it found."""

    seconds: float
    peak_mib: float
    size: int = 0
    error: float = 0.0


def in_own_process(role: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function of a script's top level returns, called in a new interpreter that then ends.

    Raises:
        concurrent.futures.process.BrokenProcessPool: The process was killed, for example for memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(role, *args, **kwargs).result()


def peak_mib() -> float:
    """The largest resident set this process ever had, MiB.

    It is VmHWM, not ``ru_maxrss``: the latter survives ``exec``, so that a child starts with its parent's.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024
