"""What the launcher hands to one participant process: a JSON file and a file of its own samples."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secagg.array_file import read_arrays
from secagg.simulation.config import BatchSize, Epochs, LearningRate, ModelName, Momentum
from secagg.simulation.datasets.dataset import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Local gradient descent, as in ``RunConfig``; what is read from a file is checked by who reads it."""

    epochs: Epochs
    batch_size: BatchSize
    learning_rate: LearningRate
    momentum: Momentum


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What one malicious client trains on and how, so that the others can repeat it.

    Args:
        samples: file with its samples.
        stream: seeds of its random numbers, as in ``Task``.
    """

    samples: str
    stream: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coalition:
    """The malicious clients of a run, as one of them knows them.

    Args:
        attack: name of the attack that they mount.
        strength: of the attack; None for its default.
        start_round: the first round with an attack.
        clients: how many clients there are, honest ones included.
        members: all malicious clients.
        place: which of the members this one is.
        stream: seeds of what they draw together, extended by the round's number.
    """

    attack: str
    strength: float | None
    start_round: int
    clients: int
    members: tuple[Member, ...]
    place: int
    stream: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One participant's part in a run.

    Args:
        name: the client's name.
        identity: folder with its identity.
        server: ``HOST:PORT``.
        samples: file with the samples it trains on.
        sample_count: how many those are.
        test: file with the held-out samples, for the one participant that evaluates; None for others.
        model, shape, classes: what to train.
        schedule: how to train.
        stream: seeds of its random numbers, extended by the round's number.
        coalition: whom it attacks with; None for an honest participant.
        watches: name of the attack whose success the participant that evaluates looks for; empty for none.
        patience_s: how long it tries to reach a silent server.
        final_model: where to write the model the federation ends with; None not to.
        bases: folder for the models that rounds start from, where those are recorded; None not to.
        meter: whether it measures what its visible part gives away, before its first upload.
    """

    name: str
    identity: str
    server: str
    samples: str
    sample_count: int
    test: str | None
    model: ModelName
    shape: tuple[int, ...]
    classes: int
    schedule: Schedule
    stream: tuple[int, ...]
    coalition: Coalition | None
    watches: str
    patience_s: float
    final_model: str | None
    bases: str | None = None
    meter: bool = False

    def save(self, path: Path) -> None:
        """Write the task as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Task:
        """Read what ``save`` has written."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["schedule"] = Schedule(**fields["schedule"])
        fields["model"] = ModelName(fields["model"])
        for name in ("shape", "stream"):
            fields[name] = tuple(fields[name])
        if fields["coalition"] is not None:
            fields["coalition"] = _coalition(fields["coalition"])
        return cls(**fields)


def _coalition(fields: dict[str, Any]) -> Coalition:
    members = tuple(
        Member(samples=member["samples"], stream=tuple(member["stream"])) for member in fields["members"]
    )
    return Coalition(**{**fields, "members": members, "stream": tuple(fields["stream"])})


def generator_of(stream: tuple[int, ...], number: int) -> np.random.Generator:
    """A participant's random numbers in a round."""
    return np.random.default_rng([*stream, number])


def save_samples(path: Path, samples: Samples) -> None:
    """Write samples so that only this user can read them."""
    path.touch(mode=0o600)
    with path.open("wb") as file:
        np.savez(file, values=samples.values, labels=samples.labels)


def load_samples(path: Path) -> Samples:
    """Read what ``save_samples`` has written; raises as ``read_arrays``, and KeyError."""
    arrays = read_arrays(path)
    return Samples(values=arrays["values"], labels=arrays["labels"])
