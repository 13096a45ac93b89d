"""How much of a text was found: token by token, as a bag, and in overlapping runs (ROUGE)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from secagg.errors import Code, ConfigError


def _check(reconstruction: torch.Tensor, original: torch.Tensor) -> None:
    whole = reconstruction.dtype == original.dtype == torch.int64
    if not whole or reconstruction.shape != original.shape or original.ndim != 2 or not original.numel():
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"tokens {reconstruction.dtype} {tuple(reconstruction.shape)} can't be compared with "
            f"{original.dtype} {tuple(original.shape)}; both need to be int64 [B, tokens]",
        )


def tokens_of(sequence: torch.Tensor, padding: int | None = None) -> list[int]:
    """A sequence's tokens, in their order, without padding."""
    return [int(token) for token in sequence if int(token) != padding]


def token_accuracy(
    reconstruction: torch.Tensor, original: torch.Tensor, *, padding: int | None = None
) -> torch.Tensor:
    """Share of positions with the right token, float64 [B].

    Args:
        reconstruction, original: token ids, int64 [B, tokens], paired in their order.
        padding: the token that fills up short sentences; its positions in the original don't count, for
            they would flatter the attacker. None if there is none.

    Raises:
        ConfigError: CONFIG_INVALID if they aren't int64 of the same shape.
    """
    _check(reconstruction, original)
    counted = torch.ones_like(original, dtype=torch.bool) if padding is None else original != padding
    hits = ((reconstruction == original) & counted).sum(dim=1).to(torch.float64)
    return hits / counted.sum(dim=1).clamp(min=1)


def bag_accuracy(
    reconstruction: torch.Tensor, original: torch.Tensor, *, padding: int | None = None
) -> torch.Tensor:
    """Share of the original's tokens that were found, in whatever order, each as often as it occurs.

    |bag(x̂) ∩ bag(x)| / |bag(x)|, float64 [B].

    Args:
        reconstruction, original, padding: as in ``token_accuracy``.

    Raises:
        ConfigError: as ``token_accuracy``.
    """
    _check(reconstruction, original)
    shares = []
    for guess, sample in zip(reconstruction, original, strict=True):
        bag = Counter(tokens_of(sample, padding))
        shares.append((bag & Counter(tokens_of(guess, padding))).total() / max(1, bag.total()))
    return torch.tensor(shares, dtype=torch.float64)


def _f1(hits: int, found: int, wanted: int) -> float:
    """2PR/(P + R) with P = hits/found and R = hits/wanted; 1 if nothing was wanted or found."""
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def rouge_n(found: Sequence[int], wanted: Sequence[int], n: int) -> float:
    """ROUGE-N (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004), its F1.

    Overlap of n-grams, each counted at most as often as in either: F1 = 2·|∩|/(|found| + |wanted|).
    If neither has an n-gram, 1.

    >>> rouge_n([1, 2, 3, 4], [1, 2, 4, 3], 1), round(rouge_n([1, 2, 3, 4], [1, 2, 4, 3], 2), 3)
    (1.0, 0.333)
    """
    first, second = (
        Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for tokens in (found, wanted)
    )
    return _f1((first & second).total(), first.total(), second.total())


def rouge_l(found: Sequence[int], wanted: Sequence[int]) -> float:
    """ROUGE-L (Lin 2004), its F1 (β = 1): 2·LCS/(|found| + |wanted|), LCS the longest common subsequence.

    >>> rouge_l([1, 2, 3, 4], [1, 3, 4, 2])
    0.75
    """
    lengths = [0] * (len(wanted) + 1)
    for token in found:
        # One row of the usual table: from the last, each entry's upper, left and diagonal neighbours.
        diagonal = 0
        for j, other in enumerate(wanted, start=1):
            upper = lengths[j]
            lengths[j] = diagonal + 1 if token == other else max(upper, lengths[j - 1])
            diagonal = upper
    return _f1(lengths[-1], len(found), len(wanted))


def rouge(
    reconstruction: torch.Tensor, original: torch.Tensor, *, padding: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L of every sample, over token ids; float64 [B] each.

    Args:
        reconstruction, original, padding: as in ``token_accuracy``.

    Raises:
        ConfigError: as ``token_accuracy``.
    """
    _check(reconstruction, original)
    rows = []
    for guess, sample in zip(reconstruction, original, strict=True):
        found, wanted = tokens_of(guess, padding), tokens_of(sample, padding)
        rows.append((rouge_n(found, wanted, 1), rouge_n(found, wanted, 2), rouge_l(found, wanted)))
    first, second, third = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    return first, second, third


def text_similarity(
    reconstruction: torch.Tensor, original: torch.Tensor, *, padding: int | None = None
) -> torch.Tensor:
    """(token accuracy + bag accuracy)/2, by which texts are matched: order counts, but not alone."""
    position = token_accuracy(reconstruction, original, padding=padding).cpu()
    return (position + bag_accuracy(reconstruction, original, padding=padding)) / 2
