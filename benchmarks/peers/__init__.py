"""Other systems' own code on the task ours is measured on, each in a virtual environment of its own.

A peer is a script here. It imports nothing of secagg, calls the peer's installed package, and prints one JSON
object (``benchmarks.peers.task.Figures``). ``run_peer`` starts it under the right interpreter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import ROOT, own_packages, python_of

# Peer -> its module, and the interpreter that has its package. TenSEAL is a dependency of this project.
PEERS: dict[str, tuple[str, Callable[[], Path]]] = {
    "nvflare": ("benchmarks.peers.nvflare_he", partial(python_of, "nvflare")),
    "flower": ("benchmarks.peers.flower_secagg", partial(python_of, "flower")),
    "tenseal": ("benchmarks.peers.tenseal_path", lambda: Path(sys.executable)),
}


class PeerFailedError(RuntimeError):
    """A peer's script ended without figures; the message ends with the last lines of its stderr."""


def run_peer(
    name: str, *, shapes: Sequence[Sequence[int]], clients: int, seed: int, repeat: int
) -> dict[str, Any]:
    """One peer's figures, measured in a child process; installs the peer first if need be.

    Args:
        name: Of ``PEERS``.
        shapes: Of the model's tensors; each client's update is float32, N(0, 0.01^2), from ``seed``.
        clients: How many updates the server aggregates.
        seed: Of the updates.
        repeat: Every time reported is the median over so many runs.

    Returns:
        The fields of ``benchmarks.peers.task.Figures``.

    Raises:
        PeerFailedError: The script failed.
    """
    module, interpreter = PEERS[name]
    command = [str(interpreter()), "-m", module, "--shapes", json.dumps([list(shape) for shape in shapes])]
    command += ["--clients", str(clients), "--seed", str(seed), "--repeat", str(repeat)]
    done = subprocess.run(command, cwd=ROOT, env=own_packages(), capture_output=True, text=True)
    if done.returncode:
        raise PeerFailedError(f"{name} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
