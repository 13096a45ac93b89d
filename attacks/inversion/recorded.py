"""What a real run put on the wire in the clear, as exposures (``secagg run --record``).

The attacker is a curious server with one client on its side, which knows the model that a round starts from
and how everyone trains. It is also granted which samples a client had together in a batch, which is drawn
anew for every epoch: a real one has to guess that where there are several batches and epochs, and reads no
more than this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError
from secagg.plan import Protection
from secagg.server.recording import RecordedRound, RecordedUpdate
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.recording import About, Recording
from secagg.simulation.task import Schedule
from secagg.simulation.training import batches

ROUNDS_KEPT = 4
"""Of which what was read is kept in memory."""
Place = tuple[int, str]
"""Round and client."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """One client's update in one round.

    Args:
        exposure: what an attacker that knows of the mask has.
        batch: the samples it looks for; for measuring only.
        client: its name.
        round: 1, 2, 3, …
        protection: as the round's plan has it.
    """

    exposure: Exposure
    batch: Batch
    client: str
    round: int
    protection: Protection

    @property
    def significance(self) -> str:
        """How the mask was chosen; ``plain`` and ``full`` need no choice."""
        chosen = self.protection.significance
        return chosen.value if chosen is not None else self.protection.mode.value

    @property
    def ratio(self) -> float:
        """Encrypted entries / all, as they travelled."""
        return float(self.exposure.hidden.double().mean())


class RecordedRun:
    """A recorded run as what attackers get to see; updates are read when they are asked for.

    Args:
        run: the run's ``--out``.

    Attributes:
        about: what is trained and how.
        batches: every participant's samples.
        victim: the network.
        honest: all that was recorded, by round and client, but for what malicious clients forged.

    Raises:
        ConfigError: DATA_MISSING if nothing was recorded; DATA_MALFORMED for samples that can't be the run's.
    """

    def __init__(self, run: Path) -> None:
        self._recording = Recording.open(run)
        self.about: About = self._recording.about
        self.batches = {name: batch_of(self._recording.samples(name)) for name in self._participants(run)}
        # Only now: real samples say that the network is of a size that can be built.
        self.victim = victim_of(self.about)
        self.honest = self._honest()
        self._read = lru_cache(maxsize=ROUNDS_KEPT)(self._round)

    def _participants(self, run: Path) -> list[str]:
        names = self._recording.participants
        if len(names) < 2:
            raise ConfigError(
                Code.DATA_MISSING,
                f"{run} has samples of {len(names)} participants; an attacker has a second one's to compare",
            )
        return names

    @cached_property
    def samples_digest(self) -> bytes:
        """SHA-256 over every participant's samples."""
        digest = hashlib.sha256()
        for name, batch in self.batches.items():
            digest.update(f"{name} {tuple(batch.inputs.shape)} ".encode())
            digest.update(batch.inputs.numpy().tobytes())
            digest.update(batch.labels.numpy().tobytes())
        return digest.digest()

    def _honest(self) -> list[Place]:
        return [
            (number, client)
            for number in self._recording.rounds
            for client in self._recording.clients(number)
            if number < self.about.attacks_from.get(client, number + 1)
        ]

    def chosen(
        self, *, clients: Collection[str] | None = None, rounds: Collection[int] | None = None
    ) -> list[Place]:
        """Those of ``honest`` that are asked for.

        Args:
            clients: whose; None for all.
            rounds: of which; None for all.

        Raises:
            ConfigError: DATA_MISSING if something that is asked for was not recorded, or all of it is forged.
        """
        _check_asked(clients, "client", self._recording.participants)
        _check_asked(rounds, "round", self._recording.rounds)
        found = [
            (number, client)
            for number, client in self.honest
            if (clients is None or client in clients) and (rounds is None or number in rounds)
        ]
        if not found:
            raise ConfigError(
                Code.DATA_MISSING,
                f"there is no honest update of {_asked(clients, 'client')} in {_asked(rounds, 'round')}",
            )
        return found

    def update(self, place: Place, *, together: int = 1) -> Recorded:
        """One update.

        Args:
            place: one of ``honest``.
            together: the exposure also has the client's updates of so many rounds less one, the last ones
                before this; or as many as there are.

        Raises:
            ConfigError: DATA_MISSING, DATA_MALFORMED.
        """
        number, client = place
        before = [earlier for earlier, name in self.honest if name == client and earlier < number]
        shown = [self._alone((earlier, client)) for earlier in before[max(0, len(before) + 1 - together) :]]
        last = self._alone(place)
        return replace(last, exposure=replace(last.exposure, earlier=tuple(one.exposure for one in shown)))

    def _alone(self, place: Place) -> Recorded:
        number, client = place
        shared, base, updates = self._read(number)
        if client not in updates:
            raise ConfigError(Code.DATA_MISSING, f"round {number} has no update of client {client}")
        update, batch = updates[client], self.batches.get(client)
        if batch is None or update.sample_count != len(batch):
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"round {number}: {client} says that it has {update.sample_count} samples; "
                f"{0 if batch is None else len(batch)} were recorded",
            )
        training = training_of(self.about.schedule, len(batch), self._recording.generator(client, number))
        return Recorded(
            exposure=_exposure(self.victim, shared, update, base, training),
            batch=batch,
            client=client,
            round=number,
            protection=shared.protection,
        )

    def _round(self, number: int) -> tuple[RecordedRound, NDArray[np.float64], dict[str, RecordedUpdate]]:
        shared, updates = self._recording.round(number)
        if shared.manifest != self.victim.manifest:
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"round {number} was recorded of another network than {self.about.model.value}",
            )
        base = shared.manifest.flatten(self._recording.base(number)).astype(np.float64)
        return shared, base, {update.client: update for update in updates}


def victim_of(about: About) -> Victim:
    """A run's network, in float64: attacks lose nothing to rounding of their own."""
    module = build_model(about.model, about.shape, about.classes, seed=0).double().train()
    return Victim(name=about.model.value, module=module, shape=about.shape, classes=about.classes)


def training_of(
    schedule: Schedule, sample_count: int, generator: np.random.Generator | None = None
) -> Training:
    """How a participant trains on so many samples.

    Args:
        generator: draws which samples are together in a batch (``secagg.simulation.task.generator_of``); not
            needed if one batch holds them all, as their order does not matter then.
    """
    parts: tuple[tuple[int, ...], ...] = ()
    if sample_count > schedule.batch_size:
        assert generator is not None
        parts = tuple(tuple(part.tolist()) for part in batches(sample_count, schedule, generator))
    return Training(
        epochs=schedule.epochs,
        steps=max(1, len(parts) // schedule.epochs),
        learning_rate=schedule.learning_rate,
        momentum=schedule.momentum,
        parts=parts,
    )


def batch_of(samples: Samples) -> Batch:
    """Samples as a network in float64 sees them."""
    return Batch(
        inputs=torch.from_numpy(samples.scaled().astype(np.float64)), labels=torch.from_numpy(samples.labels)
    )


def rounding_noise(
    ended: NDArray[np.float64], mean_gradient: NDArray[np.float64], training: Training
) -> float:
    """Standard deviation of what float32 arithmetic adds to a visible mean gradient.

    Each of T steps rounds the model to a multiple of its spacing s, which adds s/√12 (uniform within ± s/2),
    and a gradient itself is good to 2⁻²⁴ of its size: σ² = T·mean(s²)/12/(learning_rate·weight)² +
    2⁻⁴⁸·mean(g²).

    Args:
        ended: θ_T at visible entries, float32 values.
        mean_gradient: (θ_0 − θ_T)/(learning_rate·weight) there.
    """
    if not ended.size:
        return 0.0
    spacing = np.spacing(np.abs(ended).astype(np.float32)).astype(np.float64)
    steps, scale = training.epochs * training.steps, training.learning_rate * training.weight
    variance = steps * np.mean(spacing**2) / 12 / scale**2 + 2.0**-48 * np.mean(mean_gradient**2)
    return float(np.sqrt(variance))


def _exposure(
    victim: Victim,
    shared: RecordedRound,
    update: RecordedUpdate,
    base: NDArray[np.float64],
    training: Training,
) -> Exposure:
    hidden = shared.mask.hidden
    start, sent = base[~hidden], update.visible.astype(np.float64)
    # Exact in float64, whether the model was sent or its difference to the base.
    moved = sent if shared.divisor else sent - start
    mean_gradient = -moved / (training.learning_rate * training.weight)
    visible = np.zeros(shared.manifest.size)
    visible[~hidden] = mean_gradient
    return Exposure(
        victim=victim,
        parameters=torch.from_numpy(base),
        training=training,
        batch_size=update.sample_count,
        visible=torch.from_numpy(visible),
        hidden=torch.from_numpy(hidden.copy()),
        noise=rounding_noise(start + moved, mean_gradient, training),
    )


def _check_asked(wanted: Collection[object] | None, kind: str, there: Collection[object]) -> None:
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        raise ConfigError(
            Code.DATA_MISSING,
            f"there is no {kind} {', '.join(map(str, unknown))}; recorded are {', '.join(map(str, there))}",
        )


def _asked(wanted: Collection[object] | None, kind: str) -> str:
    return f"any {kind}" if wanted is None else f"{kind} {', '.join(map(str, wanted))}"
