"""A run's own account of what could be read from it, under ``OUT/recording`` (``secagg run --record``).

    run.json             ``About``: what is trained and how, which attackers are taken to know
    server/              what the server received in the clear: ``secagg.server.recording``
    client/round-N.npz   the model that clients started round N from (``secagg.model_file``)
    truth/CLIENT.npz     a participant's samples, ``values`` and ``labels``

The parts stand for who has them. A curious server alone has ``server`` and, where nothing or not everything
is encrypted, a good deal of the models; with a single client on its side, or as a client of its own, it has
``client``, too: that is the attacker this recording is for. ``truth`` nobody has but who runs the test: it
only tells how near an attack came. ``run.json`` and the server's files carry a version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from secagg.config_complaint import briefly
from secagg.errors import Code, ConfigError, UpdateError
from secagg.model_file import load_model, save_model
from secagg.printable import printable
from secagg.regular_file import open_regular
from secagg.server.recording import (
    RecordedRound,
    RecordedUpdate,
    names_of,
    read_common,
    read_round,
    recorded_clients,
    recorded_rounds,
)
from secagg.simulation.config import ModelName, RunConfig
from secagg.simulation.datasets.dataset import MAX_CLASSES, Samples
from secagg.simulation.task import Schedule, generator_of, load_samples, save_samples
from secagg.update import Tensors

VERSION = 2
RECORDING = "recording"
ABOUT_FILE = "run.json"
MAX_NAME = 4096
"""Letters of a data set's name, which may be a path."""
MAX_SIDE = 100_000
"""Pixels, channels or features: more is no sample that this project can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an attacker is taken to know of a run beside what it sees.

    Args:
        dataset: its name; as a terminal may be given it once it was read from a file.
        model, shape, classes: what is trained.
        schedule: how every client trains.
        attacks_from: malicious client -> the first round whose update it forges.
        streams: participant -> seeds of its random numbers, from which the order of its samples follows
            (``secagg.simulation.task``). No server has these: an attacker who is granted the order reads at
            least as much as one who has to guess it.
    """

    dataset: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(printable)]
    model: ModelName
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_SIDE)], ...], Field(min_length=1, max_length=3)]
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    schedule: Schedule
    attacks_from: Mapping[str, Annotated[int, Field(ge=0)]]
    streams: Mapping[str, tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]]


_ABOUT = TypeAdapter(About)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run's recording.

    Args:
        folder: ``OUT/recording``.
        about: what is trained and how.
    """

    folder: Path
    about: About

    @classmethod
    def begin(cls, run: Path, about: About) -> Self:
        """Make the folder of a run that is about to start; readable by its owner only."""
        recording = cls(folder=run / RECORDING, about=about)
        for path in (recording.folder, recording.server, recording.client, recording.truth):
            path.mkdir(mode=0o700)
        text = json.dumps({"version": VERSION, **asdict(about)}, indent=1)
        (recording.folder / ABOUT_FILE).write_text(text + "\n", encoding="utf-8")
        return recording

    @classmethod
    def open(cls, run: Path) -> Self:
        """The recording of a run, from the folder that was its ``--out``.

        Raises:
            ConfigError: DATA_MISSING if nothing was recorded; DATA_MALFORMED for another version or content.
        """
        folder = run / RECORDING
        path = folder / ABOUT_FILE
        if not path.exists() or not recorded_rounds(folder / "server"):
            raise ConfigError(Code.DATA_MISSING, f"{run} can't be attacked: {_why_not(run)}")
        try:
            with open_regular(path) as file:
                text = file.read()
            fields = json.loads(text)
            version = fields.pop("version")
            if version != VERSION:
                raise ValueError(f"it is of version {version}; this build reads {VERSION}")
            # In JSON lists stand for tuples and text for names; numbers stand for themselves alone.
            about = _ABOUT.validate_json(json.dumps(fields), strict=True)
        except ValidationError as error:
            raise ConfigError(Code.DATA_MALFORMED, f"{path} is no recording: {briefly(error)}") from None
        except OSError as error:
            raise ConfigError(
                Code.DATA_MALFORMED, f"{path} is no recording: {error.strerror or error}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(Code.DATA_MALFORMED, f"{path} is no recording: {error}") from None
        return cls(folder=folder, about=about)

    @property
    def server(self) -> Path:
        """What the server keeps."""
        return self.folder / "server"

    @property
    def client(self) -> Path:
        """What a client keeps."""
        return self.folder / "client"

    @property
    def truth(self) -> Path:
        """What nobody has."""
        return self.folder / "truth"

    @property
    def rounds(self) -> list[int]:
        """Numbers of the recorded rounds, ascending."""
        return recorded_rounds(self.server)

    def clients(self, number: int) -> list[str]:
        """Names of those whose update of a round was recorded, in order."""
        return recorded_clients(self.server, number)

    def round(self, number: int) -> tuple[RecordedRound, tuple[RecordedUpdate, ...]]:
        """What the server received in a round; raises as ``read_round``."""
        return read_round(self.server, number)

    def base(self, number: int) -> Tensors:
        """The model that a round started from.

        Raises:
            ConfigError: DATA_MISSING, DATA_MALFORMED, also for another network's; both name round and file.
        """
        path = base_path(self.client, number)
        if not path.exists():
            raise ConfigError(
                Code.DATA_MISSING,
                f"{path} is missing, the model that round {number} started from: put it back, or choose "
                "other rounds",
            )
        try:
            model = load_model(path)
            read_common(self.server, number).manifest.flatten(model)
        except UpdateError as error:
            raise ConfigError(
                Code.DATA_MALFORMED, f"round {number}: {path} is another network's: {error.message}"
            ) from None
        except ConfigError as error:
            raise ConfigError(error.code, f"round {number}: {error.message}") from None
        return model

    def keep_samples(self, name: str, samples: Samples) -> None:
        """Write a participant's samples."""
        save_samples(self.truth / f"{name}.npz", samples)

    @property
    def participants(self) -> list[str]:
        """Names of all whose samples are kept, in order.

        Raises:
            ConfigError: DATA_MISSING without those of somebody who took part; DATA_MALFORMED for a file that
                is named like no client's.
        """
        names = names_of(self.truth)
        missing = [f"{name}.npz" for name in sorted(self.about.streams) if name not in names]
        if missing:
            raise ConfigError(
                Code.DATA_MISSING,
                f"{self.truth} holds samples of {len(names)} participants; {', '.join(missing)} of others "
                "who took part can't be found: put back what was recorded, or record the run anew",
            )
        return names

    def samples(self, name: str) -> Samples:
        """What ``keep_samples`` has written.

        Raises:
            ConfigError: DATA_MISSING; DATA_MALFORMED, also for samples of another shape or class than the
                run's.
        """
        path = self.truth / f"{name}.npz"
        try:
            samples = load_samples(path)
            self._check(samples)
        except FileNotFoundError:
            raise ConfigError(
                Code.DATA_MISSING,
                f"{path} is missing, so nothing can be compared: put it back, or record the run anew",
            ) from None
        except KeyError as error:
            raise ConfigError(Code.DATA_MALFORMED, f"{path} holds no samples: it has no {error}") from None
        except ValueError as error:
            raise ConfigError(Code.DATA_MALFORMED, f"{path} holds no samples: {error}") from None
        return samples

    def generator(self, name: str, number: int) -> np.random.Generator:
        """What drew the order of a participant's samples in a round.

        Raises:
            ConfigError: DATA_MALFORMED if its seeds were not recorded.
        """
        stream = self.about.streams.get(name)
        if stream is None:
            raise ConfigError(
                Code.DATA_MALFORMED, f"{self.folder / ABOUT_FILE} has no stream of participant {name}"
            )
        return generator_of(stream, number)

    def _check(self, samples: Samples) -> None:
        """Raises ValueError for what can't be samples of this run."""
        values, labels = samples.values, samples.labels
        shape, classes = self.about.shape, self.about.classes
        if values.dtype not in (np.uint8, np.float32) or values.shape[1:] != shape or not len(values):
            raise ValueError(f"values are {values.dtype} {values.shape}, not uint8 or float32 (n, {shape})")
        if labels.dtype != np.int64 or labels.shape != values.shape[:1]:
            raise ValueError(f"labels are {labels.dtype} {labels.shape}, not int64 ({len(values)},)")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels go from {labels.min()} to {labels.max()}, not from 0 to {classes - 1}")
        if not np.isfinite(values).all():
            raise ValueError("values hold NaN or infinity")


def about(
    config: RunConfig,
    *,
    shape: tuple[int, ...],
    classes: int,
    schedule: Schedule,
    streams: Mapping[str, tuple[int, ...]],
) -> About:
    """What is recorded of a run with these settings."""
    start = config.attack.start_round if config.attack is not None else 0
    return About(
        dataset=config.dataset,
        model=config.model,
        shape=shape,
        classes=classes,
        schedule=schedule,
        attacks_from={config.names[i]: start for i in config.malicious},
        streams=streams,
    )


def _why_not(run: Path) -> str:
    """What is missing of a run's recording, and where to get it."""
    again = f"make it with secagg run --record --out {run}"
    if not run.is_dir():
        return f"there is no such folder; {again}"
    if (run / ABOUT_FILE).exists() and (run / "server").is_dir():
        return f"it is the recording itself; give the folder it lies in, {run.parent}"
    folder = run / RECORDING
    if not folder.is_dir():
        return f"it holds no recorded visible parts, as {folder} is missing; {again}"
    if not (folder / ABOUT_FILE).exists():
        return f"{folder / ABOUT_FILE} is missing; put it back, or record the run anew in another folder"
    return f"it holds no recorded visible parts, as no round in {folder / 'server'} has ended; {again}"


def base_path(client: Path, number: int) -> Path:
    """Where the model lies that a round started from."""
    return client / f"round-{number}.npz"


def keep_base(client: Path, number: int, model: Tensors) -> None:
    """Write the model a round starts from, unless another client has; all of them have the same."""
    path = base_path(client, number)
    if not path.exists():
        save_model(path, model)
