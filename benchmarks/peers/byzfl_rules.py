"""byzfl 0.0.11's own aggregators, as published, run on this project's torch and numpy.

byzfl's package as a whole imports torchvision and seaborn, which aggregators need none of. So the wheel is
unpacked without its dependencies into ``.venv-peers/byzfl``, and its subpackage ``aggregators`` is imported
alone, under a package object that has byzfl's path and none of its top level.
"""

from __future__ import annotations

import fcntl
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from benchmarks.peers.environments import HOME, own_packages

PIN = "byzfl==0.0.11"
FOLDER = HOME / "byzfl"

Vectors = np.ndarray
Aggregator = Callable[[Vectors], Vectors]
"""Of float64 [n, d]."""


def install() -> None:
    """Unpack the wheel if it isn't there; the file ``pins`` is written last, as in ``environments``.

    Raises:
        subprocess.CalledProcessError: pip failed; its output is on stderr.
    """
    HOME.mkdir(exist_ok=True)
    finished = FOLDER / "pins"
    with (HOME / "byzfl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if finished.exists() and finished.read_text() == PIN:
            return
        shutil.rmtree(FOLDER, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(FOLDER),
            PIN,
        ]
        subprocess.run(command, check=True, stdout=sys.stderr, cwd=HOME, env=own_packages())
        finished.write_text(PIN)


def aggregators() -> Any:
    """byzfl's module ``aggregators``, installed first if need be."""
    if "byzfl" not in sys.modules:
        install()
        package = ModuleType("byzfl")
        package.__path__ = [str(FOLDER / "byzfl")]
        sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of byzfl's classes.

    Args:
        kind: its name.
        takes_f: True if it is told how many are malicious.
        parameters: this project's names of its other parameters -> byzfl's.
    """

    kind: str
    takes_f: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)

    def made(self, given: Mapping[str, float], f: int) -> Any:
        """The object, with what is given for it and byzfl's defaults for the rest."""
        own = {theirs: given[name] for name, theirs in self.parameters.items() if name in given}
        # Counts must be whole numbers there.
        whole = {name: int(value) if name in ("T", "L") else value for name, value in own.items()}
        return getattr(aggregators(), self.kind)(**whole, **({"f": f} if self.takes_f else {}))


RULES: Mapping[str, Part] = MappingProxyType(
    {
        "mean": Part(kind="Average", takes_f=False),
        "median": Part(kind="Median", takes_f=False),
        "trimmed-mean": Part(kind="TrMean"),
        "meamed": Part(kind="Meamed"),
        "krum": Part(kind="Krum"),
        "multi-krum": Part(kind="MultiKrum"),
        "geometric-median": Part(
            kind="GeometricMedian", takes_f=False, parameters={"nu": "nu", "steps": "T"}
        ),
        "centered-clipping": Part(
            kind="CenteredClipping", takes_f=False, parameters={"tau": "tau", "iterations": "L"}
        ),
        "mda": Part(kind="MDA"),
        "monna": Part(kind="MoNNA"),
        "caf": Part(kind="CAF"),
        "smea": Part(kind="SMEA"),
    }
)
"""This project's names of rules -> byzfl's."""
MIXING: Mapping[str, Part] = MappingProxyType(
    {
        "nnm": Part(kind="NNM"),
        "arc": Part(kind="ARC"),
        "norm-clipping": Part(kind="Clipping", takes_f=False, parameters={"c": "c"}),
    }
)
"""What may precede a rule, as in ``nnm+krum``; by itself it precedes the mean."""


def names(rule: str) -> list[str]:
    """The parts of a rule's name, the aggregator last.

    >>> names("nnm:f=3"), names("nnm+krum:f=3"), names("krum")
    (['nnm', 'mean'], ['nnm', 'krum'], ['krum'])
    """
    parts = rule.partition(":")[0].split("+")
    return [*parts, "mean"] if parts[-1] in MIXING else parts


def known(rule: str) -> bool:
    """True if byzfl has such a rule."""
    *before, last = names(rule)
    return last in RULES and all(part in MIXING for part in before)


def aggregator(rule: str, f: int) -> Aggregator:
    """byzfl's aggregator for f attackers; it may keep state from one call to the next.

    Args:
        rule: ``NAME``, ``NAME:PARAMETER=NUMBER,…``, or ``MIXING+NAME…``; parameters that byzfl does not have
            are left out.
        f: how many may be malicious.

    Raises:
        KeyError: byzfl has none such.
    """
    pairs = (item.partition("=") for item in rule.partition(":")[2].split(",") if item)
    given = {name.strip(): float(value) for name, _, value in pairs}
    *before, last = names(rule)
    mixing, final = [MIXING[part].made(given, f) for part in before], RULES[last].made(given, f)

    def aggregate(vectors: Vectors) -> Vectors:
        # A copy: byzfl's clipping changes its argument.
        mixed = vectors.copy()
        for step in mixing:
            mixed = step(mixed)
        return np.asarray(final(mixed))

    return aggregate
