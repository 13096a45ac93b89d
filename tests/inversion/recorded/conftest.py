"""Real runs that were recorded, each played once."""

from pathlib import Path

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
