"""Where samples to be attacked come from, and what attackers may know of such samples in general."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.batch import Batch
from attacks.inversion.data.pool import Pool
from secagg.errors import Code, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A data set in two parts: samples that are attacked, and others that anybody may know.

    Batches are drawn from the test part. What attackers know in general (mean image, candidates) and what
    victims are trained on come from the train part, so that neither holds what is looked for.

    Args:
        name: of the data set.
        shape: of one sample.
        classes: number of classes.
        class_names: one per class, or none.
        train: what anybody may know.
        test: what is attacked.
        vocabulary: number of tokens of text, otherwise 0.
        padding: of text, the token that fills up short samples and doesn't count; None if there is none.
        rank: int64, one per sample in ``test``: batches take those of a smaller rank first; None: no order.
        decode: of text, words of int64 [tokens].
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...] = ()
    train: Pool
    test: Pool
    vocabulary: int = 0
    padding: int | None = None
    rank: NDArray[np.int64] | None = None
    decode: Callable[[torch.Tensor], str] | None = None

    def batches(
        self, count: int, batch_size: int, *, seed: int, distinct_labels: bool = False
    ) -> list[Batch]:
        """Samples to attack; no sample is in two batches, and the first batches don't depend on ``count``.

        Args:
            count: number of batches, at least 1.
            batch_size: samples per batch, at least 1.
            seed: of the choice.
            distinct_labels: True if no two samples of a batch may have the same label.

        Raises:
            ConfigError: CONFIG_INVALID if there are not that many samples, or that many classes.
        """
        if count < 1 or batch_size < 1:
            raise ConfigError(
                Code.CONFIG_INVALID, f"{count} batches of {batch_size} samples: both must be 1 or more"
            )
        if distinct_labels and batch_size > self.classes:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{batch_size} samples can't have distinct labels: {self.name} has {self.classes} classes",
            )
        if count * batch_size > len(self.test):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{count} batches of {batch_size} are {count * batch_size} samples; {self.name} has "
                f"{len(self.test)} to attack",
            )
        order = self._order(seed)
        chosen = []
        for _ in range(count):
            batch = _distinct(order, self.test.labels, batch_size) if distinct_labels else order[:batch_size]
            if len(batch) < batch_size:
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"{self.name} has too few classes left for {count} batches of {batch_size} samples with "
                    "distinct labels; ask for fewer",
                )
            chosen.append(batch)
            order = order[~np.isin(order, batch)]
        return [self.test.take(indices) for indices in chosen]

    def known(self, count: int | None = None, *, seed: int = 0) -> Batch:
        """Samples that anybody may know, to train a victim or an attacker on; default all.

        Raises:
            ConfigError: CONFIG_INVALID if there are not that many.
        """
        if count is None:
            return self.train.take(np.arange(len(self.train)))
        if not 1 <= count <= len(self.train):
            raise ConfigError(
                Code.CONFIG_INVALID, f"{self.name} has 1 … {len(self.train)} known samples, not {count}"
            )
        return self.train.take(np.random.default_rng(seed).permutation(len(self.train))[:count])

    def candidates(self, count: int, *, seed: int) -> torch.Tensor:
        """Inputs of other samples, among which an attacked one is to be identified; [count, *shape].

        Raises:
            ConfigError: CONFIG_INVALID if there are not that many.
        """
        return self.known(count, seed=seed).inputs

    @property
    def mean_image(self) -> torch.Tensor:
        """Mean of the train samples, float64 [*shape].

        Raises:
            ConfigError: CONFIG_INVALID for text.
        """
        if self.vocabulary:
            raise ConfigError(Code.CONFIG_INVALID, f"{self.name} is text: it has no mean image")
        return self.train.mean()

    def text(self, tokens: torch.Tensor) -> str:
        """Words of one sample's tokens, int64 [tokens], without padding and other marks.

        Raises:
            ConfigError: CONFIG_INVALID if the samples are no text.
        """
        if self.decode is None:
            raise ConfigError(Code.CONFIG_INVALID, f"{self.name} is no text")
        return self.decode(tokens)

    def _order(self, seed: int) -> NDArray[np.int64]:
        order = np.random.default_rng(seed).permutation(len(self.test))
        if self.rank is None:
            return order
        return order[np.argsort(self.rank[order], kind="stable")]


def _distinct(order: NDArray[np.int64], labels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The first indices in order whose labels differ, at most ``size`` of them."""
    _, first = np.unique(labels[order], return_index=True)
    return order[np.sort(first)[:size]]
