"""What a run needs before its processes start: a federation's folder, a model, everyone's samples."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from defenses import load_rule
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import FederationFolder, init_federation
from secagg.errors import Code, ConfigError
from secagg.model_file import save_model
from secagg.simulation.config import RunConfig
from secagg.simulation.datasets import Dataset, load_dataset
from secagg.simulation.partition import partition
from secagg.simulation.recording import RECORDING, Recording, about
from secagg.simulation.result import RESULT_FILE
from secagg.simulation.task import Coalition, Member, Schedule, Task, save_samples

FEDERATION, PARTICIPANTS, LOGS = "federation", "participants", "logs"
MODEL_FILE = "model.npz"
TEST_FILE = "test.npz"
ROOT_SAMPLES = 100
"""What the root participant trains on, drawn from everybody's: as many as FLTrust's authors give it."""
_OWN = (FEDERATION, PARTICIPANTS, LOGS, RECORDING, RESULT_FILE, MODEL_FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Everything that lies ready under the output folder.

    Args:
        out: the output folder.
        dataset: what is trained on; its name, shape and classes matter from here on.
        sample_counts: training samples of each participant.
        profile: the CKKS profile that was dealt.
        recording: where what arrives is recorded; None if it is not.
    """

    out: Path
    dataset: Dataset
    sample_counts: tuple[int, ...]
    profile: str
    recording: Recording | None = None

    @property
    def server(self) -> Path:
        """The server's folder."""
        return self.out / FEDERATION / "server"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.out / LOGS

    def task_path(self, name: str) -> Path:
        """A participant's task file."""
        return self.out / PARTICIPANTS / f"{name}.json"

    def samples_path(self, name: str) -> Path:
        """A participant's samples."""
        return self.out / PARTICIPANTS / f"{name}.npz"

    def identity(self, name: str) -> Path:
        """A client's identity folder."""
        return self.out / FEDERATION / "clients" / name

    def discard_samples(self) -> None:
        """Remove the copies of the training data that were made for the participants."""
        for path in (self.out / PARTICIPANTS).glob("*.npz"):
            path.unlink()


def prepare(config: RunConfig) -> Preparation:
    """Load the data, deal it out, and make the federation: authority, identities, keys, initial model.

    Raises:
        ConfigError: DEPENDENCY_MISSING without torch; DATA_MISSING, DATA_MALFORMED; CONFIG_INVALID if
            model, partition and data don't fit together, or the output folder holds other files.
    """
    require_torch()
    dataset = load_dataset(config.dataset, Path(config.data) if config.data else None)
    train = dataset.train
    if config.samples is not None and config.samples < len(train):
        chosen = np.random.default_rng([config.seed, 3]).choice(len(train), config.samples, replace=False)
        train = train.take(np.sort(chosen))
    parts = partition(train.labels, config.clients, config.partition, config.seed)
    out = _fresh_folder(Path(config.out))
    counts = tuple(len(part) for part in parts)
    if config.root is not None:
        counts = (*counts, min(ROOT_SAMPLES, len(train)))
    profile = _make_federation(config, dataset, out / FEDERATION, max(counts))
    recording = _recording(config, dataset, out) if config.record else None
    ready = Preparation(out=out, dataset=dataset, sample_counts=counts, profile=profile, recording=recording)
    if config.root is not None:
        chosen = np.random.default_rng([config.seed, 5]).choice(len(train), counts[-1], replace=False)
        parts = [*parts, np.sort(chosen)]
    for name, part in zip(config.everyone, parts, strict=True):
        save_samples(ready.samples_path(name), train.take(part))
        if recording is not None:
            recording.keep_samples(name, train.take(part))
    save_samples(out / PARTICIPANTS / TEST_FILE, dataset.test)
    return ready


def write_tasks(config: RunConfig, ready: Preparation, address: str) -> None:
    """One task file per participant, now that the server's address is known."""
    attack = config.attack
    evaluator = next(i for i in range(config.clients) if i not in config.malicious)
    for index, name in enumerate(config.everyone):
        evaluates = index == evaluator
        Task(
            name=name,
            identity=str(ready.identity(name)),
            server=address,
            samples=str(ready.samples_path(name)),
            sample_count=ready.sample_counts[index],
            test=str(ready.out / PARTICIPANTS / TEST_FILE) if evaluates else None,
            model=config.model,
            shape=ready.dataset.shape,
            classes=ready.dataset.classes,
            schedule=_schedule(config),
            stream=_stream(config, index),
            coalition=_coalition(config, ready, index),
            watches=attack.attack if attack is not None and evaluates else "",
            patience_s=config.round_timeout_s,
            final_model=str(ready.out / MODEL_FILE) if evaluates else None,
            bases=str(ready.recording.client) if ready.recording is not None else None,
            meter=config.meter and evaluates,
        ).save(ready.task_path(name))


def _recording(config: RunConfig, dataset: Dataset, out: Path) -> Recording:
    return Recording.begin(
        out,
        about(
            config,
            shape=dataset.shape,
            classes=dataset.classes,
            schedule=_schedule(config),
            streams={name: _stream(config, index) for index, name in enumerate(config.everyone)},
        ),
    )


def _schedule(config: RunConfig) -> Schedule:
    return Schedule(
        epochs=config.local_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        momentum=config.momentum,
    )


def _coalition(config: RunConfig, ready: Preparation, index: int) -> Coalition | None:
    """Whom a client attacks with; None if it is honest."""
    if config.attack is None or index not in config.malicious:
        return None
    return Coalition(
        attack=config.attack.attack,
        strength=config.attack.strength,
        start_round=config.attack.start_round,
        clients=config.clients,
        members=tuple(
            Member(samples=str(ready.samples_path(config.names[i])), stream=_stream(config, i))
            for i in config.malicious
        ),
        place=config.malicious.index(index),
        stream=(config.seed, 4),
    )


def _stream(config: RunConfig, index: int) -> tuple[int, ...]:
    return (config.seed, 2, index)


def require_torch() -> None:
    """Raises ConfigError DEPENDENCY_MISSING, naming the extra to install, if torch is not there."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            Code.DEPENDENCY_MISSING,
            "training needs PyTorch, which is not installed: pip install 'secagg[run]'",
        )


def _make_federation(config: RunConfig, dataset: Dataset, folder: Path, max_sample_count: int) -> str:
    """The name of the CKKS profile that was dealt."""
    # torch takes seconds to import, and nothing before this needs it.
    from secagg.adapters.pytorch import tensors_from
    from secagg.simulation.models import build_model

    initial = tensors_from(build_model(config.model, dataset.shape, dataset.classes, config.seed))
    init_federation(folder, config.federation.model_copy(update={"max_sample_count": max_sample_count}))
    save_model(FederationFolder.open(folder).root / config.federation.initial_model, initial)
    for name in config.everyone:
        enroll_local(folder, name)
    return deal(folder, rules=load_rule).profile


def _fresh_folder(out: Path) -> Path:
    """The output folder, emptied of what an earlier run left there, and of nothing else."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"out = {out} can't be used: {error.strerror}") from None
    foreign = sorted(path.name for path in out.iterdir() if path.name not in _OWN)
    if foreign:
        raise ConfigError(
            Code.CONFIG_INVALID, f"out = {out} holds {foreign[0]!r}, which no run made; name an empty folder"
        )
    for name in _OWN:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in (PARTICIPANTS, LOGS):
        (out / name).mkdir(mode=0o700)
    return out.resolve()
