"""The samples of a sweep: who is attacked, who else takes part, and what everybody knows of such samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import Setting, seed_of
from attacks.inversion.data import load_source
from secagg.errors import Code, ConfigError

MOST_KNOWN = 2000
"""Samples from which the mean image and the prior are taken."""
OTHER_CLIENTS = 4
"""Whose samples common scores, and the model between rounds, come from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Samples of one data set, in an order that is drawn.

    Args:
        name: of the data set.
        attacked: of all updates, one after the other.
        others: of other clients; disjoint from those.
        known: what an attacker may have seen of such data; disjoint from both.
        classes: number of classes.
        vocabulary: number of tokens if samples are text, otherwise 0.
        padding: of text, the token that doesn't count.
    """

    name: str
    attacked: Batch
    others: tuple[Batch, ...]
    known: Batch
    classes: int
    vocabulary: int = 0
    padding: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.attacked.inputs.shape[1:])

    def batch(self, update: int, size: int) -> Batch:
        """The samples of one update."""
        return self.attacked.take(torch.arange(update * size, (update + 1) * size))

    def candidates(self, count: int) -> torch.Tensor:
        """Samples among which an attacked one is to be found, besides itself; [count − 1, *shape]."""
        return self.known.inputs[: count - 1]

    @property
    def mean(self) -> torch.Tensor | None:
        """The mean of known samples, [*shape]; None of text."""
        return None if self.vocabulary else self.known.inputs.mean(dim=0)

    @property
    def usual(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The best guesses at a text by whoever knows such texts only, int64 [tokens] each; None of images.

        The first has at every position the commonest token there, as the mean image has of pixels; the second
        is a bag: the places of "token v, for the k-th time" that most texts have.
        """
        if not self.vocabulary:
            return None
        texts, length = self.known.inputs.cpu(), self.shape[0]
        places = torch.tensor([_commonest(texts[:, at], self.padding) for at in range(length)])
        counts: Counter[tuple[int, int]] = Counter()
        for text in texts.tolist():
            for token, times in Counter(token for token in text if token != self.padding).items():
                counts.update((token, time) for time in range(times))
        bag = [token for (token, _), _ in counts.most_common(length)]
        return places, torch.tensor(bag + places.tolist())[:length]


def load_pool(setting: Setting, data: Path | None, *, updates: int, tokenizer: str = "bert") -> Pool:
    """The pool of a sweep's data set.

    Which samples an update has, and what is known, does not depend on how many are asked for.

    Args:
        setting: names the data set and says how many samples an update has; its seed decides the order.
        data: folder with the named data sets; None for $SECAGG_DATA.
        updates: how many are attacked.
        tokenizer: of text, the victim's.

    Raises:
        ConfigError: as ``load_source``; CONFIG_INVALID if there are too few samples, or known ones that don't
            differ, so that nobody could tell one from another.
    """
    source = load_source(setting.dataset, data, tokenizer=tokenizer, tokens=setting.tokens)
    seed = seed_of(setting.seed, "samples", source.name)
    batches = source.batches(updates, setting.batch, seed=seed)
    others = min(OTHER_CLIENTS * setting.batch, len(source.train) // 2)
    known = source.known(min(MOST_KNOWN + others, len(source.train)), seed=seed)
    rest = torch.arange(len(known))
    background = known.take(rest[others:])
    if not source.vocabulary and bool((background.inputs == background.inputs[:1]).all()):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"data set {source.name}: of its samples {len(background)} may be known to attackers, and no two "
            "of them differ; give one with samples that do",
        )
    return Pool(
        name=source.name,
        attacked=Batch(
            inputs=torch.cat([batch.inputs for batch in batches]),
            labels=torch.cat([batch.labels for batch in batches]),
        ),
        others=tuple(
            known.take(rest[start : start + setting.batch]) for start in range(0, others, setting.batch)
        ),
        known=background,
        classes=source.classes,
        vocabulary=source.vocabulary,
        padding=source.padding,
    )


def _commonest(tokens: torch.Tensor, padding: int | None) -> int:
    """The most frequent token, padding aside; of none at all padding itself."""
    counted = tokens if padding is None else tokens[tokens != padding]
    return int(counted.bincount().argmax()) if len(counted) else int(tokens[0])
