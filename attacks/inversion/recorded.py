"""What a real run put on the wire in the clear, as exposures (``secagg run --record``).

The attacker is a curious server with one client on its side, which knows the model that a round starts from
and how everyone trains. It is also granted which samples a client had together in a batch, which is drawn
anew for every epoch: a real one has to guess that where there are several batches and epochs, and reads no
more than this one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """One client's update in one round.

    Args:
        exposure: what an attacker that knows of the mask has.
        batch: the samples it looks for; for measuring only.
        client: its name.
        round: 1, 2, 3, …
        protection: as the round's plan has it.
        dataset: the samples' name.
    """

    exposure: Exposure
    batch: Batch
    client: str
    round: int
    protection: Protection
    dataset: str

    @property
    def significance(self) -> str:
        """How the mask was chosen; ``plain`` and ``full`` need no choice."""
        chosen = self.protection.significance
        return chosen.value if chosen is not None else self.protection.mode.value

    @property
    def ratio(self) -> float:
        """Encrypted entries / all, as they travelled."""
        return float(self.exposure.hidden.double().mean())


def exposures_of(
    run: Path,
    *,
    clients: Collection[str] | None = None,
    rounds: Collection[int] | None = None,
    stacked: bool = False,
) -> list[Recorded]:
    """What was recorded of a run, by round and client; forged updates of malicious clients are left out.

    Args:
        run: the run's ``--out``.
        clients: whose; None for all.
        rounds: of which; None for all.
        stacked: each exposure also has the same client's earlier ones of those asked for.

    Raises:
        ConfigError: DATA_MISSING if nothing was recorded, or something of what is asked for was not;
            DATA_MALFORMED.
    """
    recording = Recording.open(run)
    _check_asked(clients, "client", recording.participants)
    _check_asked(rounds, "round", recording.rounds)
    found: list[Recorded] = []
    earlier: dict[str, tuple[Exposure, ...]] = {}
    for name in recording.participants:
        recording.samples(name)
    # Only now: real samples say that the network is of a size that can be built.
    victim = victim_of(recording.about)
    for number in recording.rounds:
        if rounds is not None and number not in rounds:
            continue
        shared, updates = recording.round(number)
        base = _base(recording, shared, victim)
        for update in updates:
            if clients is not None and update.client not in clients:
                continue
            if number >= recording.about.attacks_from.get(update.client, number + 1):
                continue
            before = earlier.get(update.client, ())
            recorded = _recorded(recording, shared, update, base, victim, before if stacked else ())
            earlier[update.client] = (*before, recorded.exposure)
            found.append(recorded)
    if not found:
        raise ConfigError(
            Code.DATA_MISSING,
            f"{run} has no honest update of {_asked(clients, 'client')} in {_asked(rounds, 'round')}; "
            f"recorded are rounds {', '.join(map(str, recording.rounds))}",
        )
    return found


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


def _base(recording: Recording, shared: RecordedRound, victim: Victim) -> NDArray[np.float64]:
    if shared.manifest != victim.manifest:
        raise ConfigError(
            Code.DATA_MALFORMED,
            f"round {shared.round} was recorded of another network than {recording.about.model.value}",
        )
    return shared.manifest.flatten(recording.base(shared.round)).astype(np.float64)


def _recorded(
    recording: Recording,
    shared: RecordedRound,
    update: RecordedUpdate,
    base: NDArray[np.float64],
    victim: Victim,
    earlier: tuple[Exposure, ...],
) -> Recorded:
    batch = batch_of(recording.samples(update.client))
    if update.sample_count != len(batch):
        raise ConfigError(
            Code.DATA_MALFORMED,
            f"round {shared.round}: {update.client} says that it has {update.sample_count} samples; "
            f"{len(batch)} were recorded",
        )
    training = training_of(
        recording.about.schedule, len(batch), recording.generator(update.client, shared.round)
    )
    hidden = shared.mask.hidden
    start, sent = base[~hidden], update.visible.astype(np.float64)
    # Exact in float64, whether the model was sent or its difference to the base.
    moved = sent if shared.divisor else sent - start
    mean_gradient = -moved / (training.learning_rate * training.weight)
    visible = np.zeros(shared.manifest.size)
    visible[~hidden] = mean_gradient
    exposure = Exposure(
        victim=victim,
        parameters=torch.from_numpy(base),
        training=training,
        batch_size=update.sample_count,
        visible=torch.from_numpy(visible),
        hidden=torch.from_numpy(hidden.copy()),
        noise=rounding_noise(start + moved, mean_gradient, training),
        earlier=earlier,
    )
    return Recorded(
        exposure=exposure,
        batch=batch,
        client=update.client,
        round=shared.round,
        protection=shared.protection,
        dataset=recording.about.dataset,
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
