"""One or several rounds of a federation, as an eavesdropper sees one of its clients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.scores import Evidence
from attacks.inversion.protections.sending import Precision, perturbed, received, rounded
from attacks.inversion.protections.significance import Scores
from attacks.inversion.training import Training
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

if TYPE_CHECKING:
    from attacks.inversion.protections.protection import Protection


def generator_of(seed: int, round: int, purpose: str) -> torch.Generator:
    """A stream of its own for every seed, round and purpose."""
    digest = hashlib.sha256(f"{purpose} {seed} {round}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def expose_rounds(
    protection: Protection,
    victim: Victim,
    parameters: torch.Tensor,
    training: Training,
    batch: Batch,
    *,
    rounds: int,
    others: Sequence[Batch],
    labels_known: bool,
    seed: int,
    precision: Precision,
) -> Exposure:
    """As ``Protection.expose_rounds``."""
    common = protection.scores is Scores.COMMON
    if rounds < 1:
        raise ConfigError(Code.CONFIG_INVALID, f"{rounds} rounds; there must be at least 1")
    if common and not others:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"protection {protection} takes scores from other clients' samples: give some, or scores = own",
        )
    for samples in (batch, *others):
        victim.check(samples)
    joined, exposed, earlier = _joined(others), parameters, list[Exposure]()
    for round in range(1, rounds + 1):
        own = rounded(training.update(victim, parameters, batch).detach(), precision)
        theirs = (
            [rounded(training.update(victim, parameters, other).detach(), precision) for other in others]
            if common or round < rounds
            else []
        )
        evidence = Evidence(
            victim=victim,
            parameters=parameters,
            training=training,
            batch=joined if common and joined else batch,
            update=_mean(theirs, others) if common else own,
            exposed=exposed,
            seed=seed,
        )
        layout = protection.layout(victim.manifest, protection.masked(evidence, seed=seed, round=round))
        sent = [
            perturbed(update, layout, protection.perturbations, generator_of(seed, round, f"client {client}"))
            for client, update in enumerate([own, *theirs])
        ]
        flat, noise = sent[0]
        hidden = torch.from_numpy(layout.hidden).to(victim.device)
        exposure = Exposure(
            victim=victim,
            parameters=parameters,
            training=training,
            batch_size=len(batch),
            visible=received(flat, layout, precision),
            hidden=hidden,
            labels=batch.labels if labels_known else None,
            noise=noise,
            earlier=tuple(earlier) if round == rounds else (),
        )
        if round == rounds:
            break
        earlier.append(exposure)
        # What the federation adds up is what clients send: perturbed where it is visible.
        mean = _mean([update for update, _ in sent], [batch, *others])
        parameters = parameters - training.learning_rate * training.weight * mean
        # Of the next model, too, only these entries are seen in the clear; of others, what was seen last.
        exposed = torch.where(hidden, exposed, parameters)
    return exposure


def _mean(updates: Sequence[torch.Tensor], batches: Sequence[Batch]) -> torch.Tensor:
    """Weighted by numbers of samples, as federations weigh."""
    total = sum(len(batch) for batch in batches)
    mean = torch.zeros_like(updates[0])
    for update, batch in zip(updates, batches, strict=True):
        mean += len(batch) / total * update
    return mean


def _joined(batches: Sequence[Batch]) -> Batch | None:
    if not batches:
        return None
    return Batch(
        inputs=torch.cat([batch.inputs for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
    )
