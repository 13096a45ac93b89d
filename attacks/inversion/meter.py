"""What a client's own plan gives away, measured by the client itself before it sends anything.

for upcoming in client.rounds():
    reading = meter.read(model=upcoming.model, layout=upcoming.layout, batch=a_few_of_its_own_samples)
    print(*reading.lines, sep="\\n")
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import log10

import numpy as np
import torch
from torch import nn

from attacks.inversion.attackers.attacker import Attacker, Budget, Status
from attacks.inversion.attackers.labels import infer_labels, labels_from_mask
from attacks.inversion.attackers.layers.linear import last_layer
from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import measure
from attacks.inversion.measures.prior import UNIFORM_VARIANCE
from attacks.inversion.metrics import compare
from attacks.inversion.recorded import rounding_noise
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.selection.layout import Layout
from secagg.update import Tensors

SHORT = Budget(effort=0.2)
"""Bounded by iterations alone: the same plan gives the same figures on every machine."""
PROBES, STEPS = 4, 64
"""Of the information measure, where it is estimated: fewer than usual, for whoever waits to begin."""
EXACT_DB = 60
"""PSNR from which on an image of 8 bits per pixel is known to the last bit: rounding alone makes 59 dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an update of a single sample would give away; of several samples, the one that leaks most.

    Args:
        visible: entries that travel in the clear.
        size: all entries.
        samples: how many were tried, each alone.
        shape: of a sample.
        psnr_bound_db: what whoever sees the visible entries and knows the mask can reach at most, by the
            information in them (``Measures.psnr_pred_db``).
        psnr_blind_db: what is reached without them: everybody can guess the mean.
        attacker: the attack that did best; empty for none.
        psnr_attack_db: what it reached; None without one.
        labels_read: of how many samples the label was read from what is visible and what is hidden.
        labels_from_mask: of how many from the places of hidden entries alone; None if nothing or everything
            is hidden. A mask that all clients have in common betrays one client's label by chance only.
    """

    visible: int
    size: int
    samples: int
    shape: tuple[int, ...]
    psnr_bound_db: float
    psnr_blind_db: float
    attacker: str = ""
    psnr_attack_db: float | None = None
    labels_read: int | None = None
    labels_from_mask: int | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """One or two lines for people."""
        share = f"visible {_percent(self.visible, self.size)} of {self.size:,} entries"
        if not self.visible:
            return (f"{share}: nothing to read but what ciphertexts give away",)
        thing = "image" if len(self.shape) == 3 else "sample"
        attack = f", {self.attacker} reached {_db(self.psnr_attack_db)}" if self.psnr_attack_db else ""
        first = (
            f"{share}: of one {thing} trained on alone at most about {_db(self.psnr_bound_db)} can be read "
            f"(information bound; {_db(self.psnr_blind_db)} is guessed){attack}"
        )
        told = [
            f"{name} {count} of {self.samples}"
            for name, count in (
                ("labels read from it:", self.labels_read),
                ("from the mask alone:", self.labels_from_mask),
            )
            if count is not None
        ]
        return (first, "; ".join(told)) if told else (first,)

    def flat(self) -> dict[str, object]:
        """The fields, for JSON."""
        return {**asdict(self), "shape": list(self.shape)}


def _percent(part: int, whole: int) -> str:
    """Never 0% of something nor 100% of less than all."""
    if part in (0, whole):
        return f"{100 * part // whole}%"
    return f"{min(max(100 * part / whole, 0.01), 99.99):.3g}%"


def _db(value: float) -> str:
    """Beyond what 8 bits per pixel can hold, more decibels say nothing more."""
    return f"{EXACT_DB} dB (all of it)" if value >= EXACT_DB else f"{value:.0f} dB"


class Meter:
    """Plays the curious server against its own client, on samples trained on one at a time.

    One sample alone is the most that an update can give away of it: in a larger batch the others are in
    the way, though an attacker may still single them out.

    Args:
        module: the client's network, in the mode it trains in; a copy is used.
        shape: of one sample, pixels in [0, 1].
        classes: number of outputs.
        training: how the client trains; one step per pass is taken.
        attackers: those that are suited are tried on the sample that holds most; the best one counts. None
            for the information bound alone.
        budget: of each attack.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        shape: tuple[int, ...],
        classes: int,
        training: Training,
        attackers: Sequence[Attacker] = (),
        budget: Budget = SHORT,
        seed: int = 0,
    ) -> None:
        self._victim = Victim(
            name="client", module=copy.deepcopy(module).double().cpu(), shape=shape, classes=classes
        )
        self._training = replace(training, steps=1)
        self._attackers, self._budget, self._seed = tuple(attackers), budget, seed

    def read(self, *, model: Tensors, layout: Layout, batch: Batch) -> Reading:
        """What one sample would give away under this layout.

        Args:
            model: what the round starts from (``Round.model``).
            layout: which entries travel in the clear (``Round.layout``).
            batch: some of the client's samples; each is looked at alone.

        Raises:
            UpdateError: MANIFEST_MISMATCH, UPDATE_SHAPE if the model is not the module's.
            ConfigError: CONFIG_INVALID if the samples are not of the module's kind.
        """
        batch = Batch(inputs=batch.inputs.to(self._victim.dtype), labels=batch.labels)
        self._victim.check(batch)
        flat = self._victim.manifest.flatten(model)
        hidden = torch.from_numpy(layout.hidden)
        visible = int((~hidden).sum())
        reading = Reading(
            visible=visible,
            size=layout.size,
            samples=len(batch),
            shape=self._victim.shape,
            psnr_bound_db=-10 * log10(UNIFORM_VARIANCE),
            psnr_blind_db=-10 * log10(UNIFORM_VARIANCE),
        )
        if not visible:
            return reading
        alone = [batch.take(torch.tensor([at])) for at in range(len(batch))]
        exposures = [self._exposure(torch.from_numpy(flat.astype(np.float64)), hidden, one) for one in alone]
        bounds = [
            measure(exposure, one, seed=self._seed, probes=PROBES, steps=STEPS).psnr_pred_db
            for exposure, one in zip(exposures, alone, strict=True)
        ]
        worst = max(range(len(batch)), key=bounds.__getitem__)
        attacker, reached = self._attack(exposures[worst], alone[worst])
        if last_layer(self._victim) is not None:
            right = [
                (int(infer_labels(exposure)), int(labels_from_mask(exposure)), int(one.labels))
                for exposure, one in zip(exposures, alone, strict=True)
            ]
            reading = replace(
                reading,
                labels_read=sum(read == true for read, _, true in right),
                labels_from_mask=sum(m == true for _, m, true in right) if hidden.any() else None,
            )
        return replace(reading, psnr_bound_db=bounds[worst], attacker=attacker, psnr_attack_db=reached)

    def _exposure(self, parameters: torch.Tensor, hidden: torch.Tensor, sample: Batch) -> Exposure:
        """What would travel in the clear of an update of this sample, as exact as float32 is."""
        update = self._training.update(self._victim, parameters, sample).detach()
        scale = self._training.learning_rate * self._training.weight
        # Rounded as on the wire: the model after training, in float32.
        ended = (parameters - scale * update).to(torch.float32).to(torch.float64)
        sent = torch.where(hidden, 0.0, (parameters - ended) / scale)
        return Exposure(
            victim=self._victim,
            parameters=parameters,
            training=self._training,
            batch_size=1,
            visible=sent,
            hidden=hidden,
            noise=rounding_noise(ended[~hidden].numpy(), sent[~hidden].numpy(), self._training),
        )

    def _attack(self, exposure: Exposure, sample: Batch) -> tuple[str, float | None]:
        """Name of the best attacker, and what it reached; of none if none is suited or all diverged."""
        best: tuple[str, float | None] = ("", None)
        for attacker in self._attackers:
            if attacker.unsuited(exposure):
                continue
            try:
                found = attacker.attack(exposure, seed=self._seed, budget=self._budget)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                continue  # how second-order attacks diverge
            if found.status is not Status.DONE:
                continue
            reached = compare(sample, found).worst_psnr_db
            if best[1] is None or reached > best[1]:
                best = (attacker.name, reached)
        return best
