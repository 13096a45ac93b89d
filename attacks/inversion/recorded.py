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
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.retrained import retrained
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.ckks.profiles import profile
from secagg.errors import Code, ConfigError
from secagg.plan import Protection
from secagg.server.recording import RecordedRound, RecordedUpdate
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.recording import About, Recording
from secagg.simulation.task import Schedule
from secagg.simulation.training import batches, can_be_sealed

ROUNDS_KEPT = 4
"""Of which what was read is kept in memory, at least."""
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sent:
    """One update as it was sent, or as it would have been.

    Args:
        shared: what it has in common with the round's others.
        base: θ_0, float32 values, float64 [d].
        moved: θ_T − θ_0 as received, float64 [d]; 0 where it is hidden.
        hidden: bool [d].
        training, batch: how it came about, and of which samples.
    """

    shared: RecordedRound
    base: NDArray[np.float64]
    moved: NDArray[np.float64]
    hidden: NDArray[np.bool_]
    training: Training
    batch: Batch

    @property
    def start(self) -> NDArray[np.float32]:
        """θ_0 as the client had it, float32 [d]."""
        return self.base.astype(np.float32)

    def exposure(self, victim: Victim) -> Exposure:
        """What the server sees of it."""
        training, seen = self.training, ~self.hidden
        mean_gradient = np.where(seen, -self.moved / (training.learning_rate * training.weight), 0.0)
        return Exposure(
            victim=victim,
            parameters=torch.from_numpy(self.base),
            training=training,
            batch_size=len(self.batch),
            visible=torch.from_numpy(mean_gradient),
            hidden=torch.from_numpy(self.hidden.copy()),
            noise=rounding_noise((self.base + self.moved)[seen], mean_gradient[seen], training),
        )

    def in_the_clear(self, ended: NDArray[np.float32]) -> _Sent:
        """The same with nothing hidden; what was is sent as by a client with that θ_T, float32 [d]."""
        would = (ended - self.start).astype(np.float64) if self.shared.divisor else ended - self.base
        moved = np.where(self.hidden, would, self.moved)
        return replace(self, moved=moved, hidden=np.zeros_like(self.hidden))

    def is_base(self, ended: NDArray[np.float32]) -> bool:
        """Whether this is θ_0 instead of that θ_T, float32 [d]; nothing visible has moved in it."""
        # NaN is unlike anything, so training that ends there has moved.
        if (ended != self.start)[~self.hidden].any():
            return True
        limit = profile(self.shared.profile).max_abs
        return bool(self.hidden.any()) and not can_be_sealed(ended, self.start, limit)


class RecordedRun:
    """A recorded run as what attackers get to see; updates are read when they are asked for.

    Args:
        run: the run's ``--out``.
        together: of how many rounds, this one and the client's last ones before it, an exposure has the
            updates; or of as many as there are. At least 1.

    Attributes:
        about: what is trained and how.
        batches: every participant's samples.
        victim: the network.
        honest: all that was recorded, by round and client, but for what malicious clients forged.

    Raises:
        ConfigError: DATA_MISSING if nothing was recorded; DATA_MALFORMED for samples that can't be the run's.
    """

    def __init__(self, run: Path, *, together: int = 1) -> None:
        self._together = together
        self._recording = Recording.open(run)
        self.about: About = self._recording.about
        self.batches = {name: batch_of(self._recording.samples(name)) for name in self._participants(run)}
        # Only now: real samples say that the network is of a size that can be built.
        self.victim = victim_of(self.about)
        self.honest = self._honest()
        # What the next update's exposure shares with this one's is not read again.
        kept = max(ROUNDS_KEPT, together)
        self._read = lru_cache(maxsize=kept)(self._round)
        self._ended = lru_cache(maxsize=kept)(self._trained_again)
        self._diverged = cache(self._sent_its_base)

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

    def update(self, place: Place) -> Recorded:
        """One update, as it was sent.

        Args:
            place: one of ``honest``.

        Raises:
            ConfigError: DATA_MISSING, DATA_MALFORMED.
        """
        *earlier, last = (self._sent(one) for one in (*self._before(place), place))
        shown = tuple(one.exposure(self.victim) for one in earlier)
        return Recorded(
            exposure=replace(last.exposure(self.victim), earlier=shown),
            batch=last.batch,
            client=place[1],
            round=place[0],
            protection=last.shared.protection,
        )

    def in_the_clear(self, place: Place) -> Exposure:
        """The exposure of one update as if nothing of it had been hidden, nor of those before it.

        Where something was seen it is what was sent. The rest is what the client's own training comes to when
        it is done again, as it would have been sent: a float32 model, or its difference in float32.

        Args:
            place: one of ``honest`` that has not ``diverged``.

        Raises:
            ConfigError: as ``update``.
        """
        *earlier, last = (self._cleared(one) for one in (*self._before(place), place))
        return replace(last, earlier=tuple(earlier))

    def diverged(self, place: Place) -> bool:
        """Whether the client sent the model it was given, as it does where its training diverges.

        Where something is visible the wire tells: nothing has moved there, and training on the client's
        samples moves something. Where nothing is, training tells, done again.

        Args:
            place: one of ``honest``.

        Raises:
            ConfigError: as ``update``.
        """
        return self._diverged(place)

    def _before(self, place: Place) -> list[Place]:
        """The client's earlier updates that its exposure has: the last ones that hold training."""
        number, client = place
        before = (
            one
            for one in reversed(self.honest)
            if one[1] == client and one[0] < number and not self.diverged(one)
        )
        return list(islice(before, self._together - 1))[::-1]

    def _cleared(self, place: Place) -> Exposure:
        sent = self._sent(place)
        if sent.hidden.any():
            sent = sent.in_the_clear(self._ended(place))
        return sent.exposure(self.victim)

    def _sent_its_base(self, place: Place) -> bool:
        sent = self._sent(place)
        return not sent.moved.any() and sent.is_base(self._ended(place))

    def _trained_again(self, place: Place) -> NDArray[np.float32]:
        number, client = place
        return retrained(
            self.about,
            self._recording.samples(client),
            self._sent(place).start,
            self._recording.generator(client, number),
        )

    def _sent(self, place: Place) -> _Sent:
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
        hidden, visible = shared.mask.hidden, update.visible.astype(np.float64)
        moved = np.zeros(len(base))
        # Exact in float64, whether the model was sent or its difference to the base.
        moved[~hidden] = visible if shared.divisor else visible - base[~hidden]
        generator = self._recording.generator(client, number)
        training = training_of(self.about.schedule, len(batch), generator)
        return _Sent(shared=shared, base=base, moved=moved, hidden=hidden, training=training, batch=batch)

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


def _check_asked(wanted: Collection[object] | None, kind: str, there: Collection[object]) -> None:
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        raise ConfigError(
            Code.DATA_MISSING,
            f"there is no {kind} {', '.join(map(str, unknown))}; recorded are {', '.join(map(str, there))}",
        )


def _asked(wanted: Collection[object] | None, kind: str) -> str:
    return f"any {kind}" if wanted is None else f"{kind} {', '.join(map(str, wanted))}"
