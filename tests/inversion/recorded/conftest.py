"""Real runs that were recorded, each played once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from secagg.simulation.config import RunConfig
from secagg.simulation.display import PlainLines
from secagg.simulation.launcher import run


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks train fastest on one thread, and tests share the machine."""
    torch.set_num_threads(1)


def recorded_run(out: Path, **settings) -> Path:
    config = RunConfig(**{"record": True, "out": str(out), "model": "mlp", "batch_size": 8, **settings})
    run(config, PlainLines(Console(quiet=True)))
    return out


@pytest.fixture(scope="session")
def rewritten():
    """Writes a .npz with other fields; ``about`` is JSON."""

    def rewrite(path: Path, **change) -> None:
        with np.load(path) as archive:
            arrays = dict(archive)
        if "about" in change:
            about = {**json.loads(arrays["about"].tobytes()), **change.pop("about")}
            arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(path, **{**arrays, **change})

    return rewrite


@pytest.fixture(scope="session")
def selective_run(tmp_path_factory) -> Path:
    """Two passes over two samples each, with momentum; client 3 or another lies in round 2."""
    return recorded_run(
        tmp_path_factory.mktemp("selective"), clients=3, rounds=2, samples=6, local_epochs=2,
        protect="selective", significance="random", ratio=0.1, poison="sign-flip:0.34@2",
    )  # fmt: skip


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory) -> Path:
    """One gradient of one sample each, in the clear; differences travel under this rule."""
    return recorded_run(
        tmp_path_factory.mktemp("plain"), clients=3, rounds=1, samples=3, local_epochs=1, protect="plain",
        rule="norm-clipping",
    )  # fmt: skip


@pytest.fixture(scope="session")
def half_hidden_run(tmp_path_factory) -> Path:
    """``plain_run``, but half of each update is hidden."""
    return recorded_run(
        tmp_path_factory.mktemp("half-hidden"), clients=3, rounds=1, samples=3, local_epochs=1,
        protect="selective", significance="random", ratio=0.5, rule="norm-clipping",
    )  # fmt: skip


@pytest.fixture(scope="session")
def magnitude_run(tmp_path_factory) -> Path:
    """Round 1 is hidden whole, as there is no aggregate to choose by; round 2 is not."""
    return recorded_run(
        tmp_path_factory.mktemp("magnitude"), clients=2, rounds=2, samples=3, local_epochs=1,
        protect="selective", significance="magnitude", ratio=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def full_run(tmp_path_factory) -> Path:
    return recorded_run(
        tmp_path_factory.mktemp("full"), clients=2, rounds=1, samples=2, local_epochs=1, protect="full"
    )


@pytest.fixture(scope="session")
def batched_run(tmp_path_factory) -> Path:
    """Two passes over five samples each, in three batches that are drawn anew in every pass."""
    return recorded_run(
        tmp_path_factory.mktemp("batched"), clients=2, rounds=2, samples=10, batch_size=2, local_epochs=2,
        protect="selective", significance="random", ratio=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def clear_batched_run(tmp_path_factory) -> Path:
    """``batched_run``, but all of it travels in the clear."""
    return recorded_run(
        tmp_path_factory.mktemp("clear-batched"), clients=2, rounds=1, samples=10, batch_size=2,
        local_epochs=2, protect="plain",
    )  # fmt: skip


@pytest.fixture(scope="session")
def many_rounds_run(tmp_path_factory) -> Path:
    """One gradient of one sample each; every round hides another nine tenths of a linear model's entries.

    Masks are drawn anew in every run. A pixel is in ten entries: about a third of the 64 is in no visible one
    of a round; that any is in none of twelve rounds has a probability of 64·0.9^120 = 2·10^-4.
    """
    return recorded_run(
        tmp_path_factory.mktemp("many-rounds"), clients=2, rounds=12, samples=2, local_epochs=1,
        model="linear", protect="selective", significance="random", ratio=0.9,
    )  # fmt: skip


@pytest.fixture(scope="session")
def rows_run(tmp_path_factory) -> Path:
    """Two clients with 20 feature rows each; nothing is visible. Features vary by 1, around 5."""
    folder = tmp_path_factory.mktemp("rows")
    generator = np.random.default_rng(0)
    labels = np.arange(50) % 2
    np.savez(folder / "rows.npz", x=generator.normal(5, 1, (50, 6)), y=labels)
    return recorded_run(
        folder / "run", dataset=str(folder / "rows.npz"), clients=2, rounds=1, samples=40, batch_size=20,
        local_epochs=1, protect="full",
    )  # fmt: skip


RUNAWAY = {"clients": 3, "rounds": 1, "samples": 9, "batch_size": 1, "learning_rate": 100, "momentum": 0.99}
"""Weights of 10⁵ after some passes; at 2²⁰ and beyond nothing can be sealed."""


@pytest.fixture(scope="session")
def diverged_run(tmp_path_factory) -> Path:
    """A tenth is hidden; client 1 ends beyond what can be sealed, the others don't."""
    return recorded_run(
        tmp_path_factory.mktemp("diverged"), **RUNAWAY, local_epochs=18, protect="selective",
        significance="random", ratio=0.1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def hidden_diverged_run(tmp_path_factory) -> Path:
    """The same, but nothing is visible."""
    return recorded_run(tmp_path_factory.mktemp("hidden"), **RUNAWAY, local_epochs=18, protect="full")
