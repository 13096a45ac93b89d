"""Measures of a recorded run's updates, for whoever knows everybody's samples but the attacked client's."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.bench.measured import exposure_rows, mean_figures
from attacks.inversion.bench.pool import MOST_KNOWN
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Prior, shared_jacobian
from attacks.inversion.recorded import Place, Recorded, RecordedRun


class RunMeasures:
    """The measures of one recorded run; what several masks of an update share is worked out once.

    Args:
        recording: the run.
    """

    def __init__(self, recording: RecordedRun) -> None:
        self._recording = recording
        self._known = lru_cache(maxsize=1)(self._known_beside)
        self._jacobian = lru_cache(maxsize=1)(self._jacobian_of)

    def rows(self, recorded: Recorded, exposure: Exposure, *, seed: int) -> list[dict[str, Any]]:
        """``measured.FIELDS`` of every sample.

        Args:
            recorded: the update.
            exposure: it as it was sent, or as a reference: more or less of it hidden.
            seed: of probes, where measures are estimated.

        Raises:
            ConfigError: as ``RecordedRun.update``.
        """
        batch, place = recorded.batch, (recorded.round, recorded.client)
        known, prior = self._known(recorded.client)
        rows = exposure_rows(
            exposure,
            batch,
            prior=prior,
            labels=known.labels,
            seed=seed,
            shared=lambda: self._jacobian(place),
        )
        guesses = mean_figures(batch, known.inputs)
        return [{**row, **guessed} for row, guessed in zip(rows, guesses, strict=True)]

    def _known_beside(self, client: str) -> tuple[Batch, Prior]:
        others = [own for name, own in self._recording.batches.items() if name != client]
        every = Batch(
            inputs=torch.cat([own.inputs for own in others]), labels=torch.cat([own.labels for own in others])
        )
        # Of every participant some.
        chosen = torch.linspace(0, len(every) - 1, min(len(every), MOST_KNOWN)).round().long()
        known = every.take(chosen)
        return known, prior_of(known.inputs)

    def _jacobian_of(self, place: Place) -> torch.Tensor | None:
        recorded = self._recording.update(place)
        return shared_jacobian(recorded.exposure, recorded.batch)


def prior_of(known: torch.Tensor) -> Prior:
    """What is known of a sample's numbers by whoever has some others.

    Args:
        known: those, [N, *shape]; how numbers vary follows from two or more that differ, otherwise no more is
            known than that they lie in [0, 1].
    """
    if bool((known == known[:1]).all()):
        return Prior()
    return Prior.empirical(known)
