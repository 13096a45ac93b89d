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
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from benchmarks.peers.environments import HOME, own_packages

PIN = "byzfl==0.0.11"
FOLDER = HOME / "byzfl"

Vectors = np.ndarray
Aggregator = Callable[[Vectors], Vectors]
Maker = Callable[[Any, int], Aggregator]
"""Package, f -> aggregator of float64 [n, d]."""


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


def _simple(name: str, **fixed: float) -> Maker:
    return lambda package, f: getattr(package, name)(**fixed)  # noqa: ARG005


def _with_f(name: str) -> Maker:
    return lambda package, f: getattr(package, name)(f=f)


def _after(before: Maker, then: Maker, package: Any, f: int) -> Aggregator:
    first, second = before(package, f), then(package, f)
    # byzfl's clipping changes its argument.
    return lambda vectors: second(first(vectors.copy()))


RULES: Mapping[str, Maker] = MappingProxyType(
    {
        "mean": _simple("Average"),
        "median": _simple("Median"),
        "trimmed-mean": _with_f("TrMean"),
        "geometric-median": _simple("GeometricMedian"),
        "krum": _with_f("Krum"),
        "multi-krum": _with_f("MultiKrum"),
        "centred-clipping": _simple("CenteredClipping", tau=1.0),
        "mda": _with_f("MDA"),
        "monna": _with_f("MoNNA"),
        "meamed": _with_f("Meamed"),
        "caf": _with_f("CAF"),
        "smea": _with_f("SMEA"),
        "nnm": partial(_after, _with_f("NNM"), _simple("Average")),
        "nnm+krum": partial(_after, _with_f("NNM"), _with_f("Krum")),
        "nnm+median": partial(_after, _with_f("NNM"), _simple("Median")),
        "nnm+trimmed-mean": partial(_after, _with_f("NNM"), _with_f("TrMean")),
        "nnm+geometric-median": partial(_after, _with_f("NNM"), _simple("GeometricMedian")),
        "arc": partial(_after, _with_f("ARC"), _simple("Average")),
        "clipping": partial(_after, _simple("Clipping", c=1.0), _simple("Average")),
    }
)
"""This project's names of rules -> byzfl's, with byzfl's defaults where there is a parameter beside f."""


def aggregator(rule: str, f: int) -> Aggregator:
    """byzfl's aggregator of this name for f attackers; it may keep state from one call to the next.

    Raises:
        KeyError: byzfl has none; the message names those it has.
    """
    if rule not in RULES:
        raise KeyError(f"byzfl has no {rule!r}; it has {', '.join(RULES)}")
    return RULES[rule](aggregators(), f)
