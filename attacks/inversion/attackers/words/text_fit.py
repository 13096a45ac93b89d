"""Labels, and words in doubt, by how well they explain the visible part of an update."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import torch

from attacks.inversion.exposure import Exposure

MAX_LABELINGS = 256
"""Up to how many labelings of a batch are all tried."""
EXPLAINED = 1e-10
"""Squared error relative to what is seen, below which nothing is left to explain; float32 leaves 1e-14."""


class Fit:
    """Squared error on compared entries between a batch's update and the one that was sent."""

    def __init__(self, exposure: Exposure) -> None:
        self.exposure = exposure
        # A product is far cheaper than picking a million entries by index.
        self.seen = exposure.compared.to(exposure.visible.dtype)
        self.size = float((exposure.visible * self.seen).square().sum())

    def error(self, tokens: torch.Tensor, labels: torch.Tensor) -> float:
        """Of these sentences, int64 [B, tokens], with these labels, int64 [B]."""
        of = self.exposure
        with torch.no_grad():
            update = of.training.mean_gradient(of.victim, of.parameters, tokens, labels)
        return float(((update - of.visible) * self.seen).square().sum())

    def explained(self, error: float) -> bool:
        """True if such an error is rounding."""
        return error <= EXPLAINED * self.size


def labels_that_fit(exposure: Exposure, tokens: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The labels with which these sentences explain what is seen best, int64 [B], and the squared error left.

    All labelings are tried if there are at most ``MAX_LABELINGS``, otherwise one sentence after the other.
    Labels that the attacker knows belong to sentences in an order it doesn't know: then only
    their permutations are.

    Args:
        exposure: of B sentences.
        tokens: int64 [B, tokens].
    """
    fit = Fit(exposure)

    def error(labels: Sequence[int]) -> float:
        return fit.error(tokens, torch.tensor(labels, device=tokens.device))

    size, classes = exposure.batch_size, exposure.victim.classes
    if exposure.labels is not None:
        known = tuple(int(label) for label in exposure.labels)
        tried = sorted(set(itertools.permutations(known))) if size <= 4 else [known]
    elif classes**size <= MAX_LABELINGS:
        tried = list(itertools.product(range(classes), repeat=size))
    else:
        tried = [(0,) * size]
    best = min(tried, key=error)
    if exposure.labels is None and classes**size > MAX_LABELINGS:
        for place in range(size):
            best = min(((*best[:place], label, *best[place + 1 :]) for label in range(classes)), key=error)
    return torch.tensor(best, device=tokens.device), error(best)


def refined(
    exposure: Exposure,
    tokens: torch.Tensor,
    choices: Sequence[Sequence[int]],
    *,
    attempts: int,
    deadline: float = float("inf"),
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Sentences whose words were exchanged, one at a time or between two, as long as the error sinks.

    Words are replaced at positions with more choices, or fewer, than sentences; those of others are certain,
    but for the sentence that they are in.

    Args:
        tokens: where to start, int64 [B, tokens].
        choices: which words can stand at each position.
        attempts: how many exchanges are tried, at most.
        deadline: of ``time.monotonic``, at which the best so far is returned.

    Returns:
        Sentences, labels, and the squared error left.
    """
    fit, current = Fit(exposure), tokens
    labels, least = labels_that_fit(exposure, current)
    while not fit.explained(least):
        before = least
        for move in _moves(len(tokens), choices):
            tried = _moved(current, move)
            if fit.explained(least) or attempts <= 0 or time.monotonic() > deadline:
                return current, labels, least
            if torch.equal(tried, current):
                continue
            error, attempts = fit.error(tried, labels), attempts - 1
            if error < least:
                current, least = tried, error
        refitted, error = labels_that_fit(exposure, current)
        if error < least:
            labels, least = refitted, error
        if least >= before:
            break
    return current, labels, least


def _moves(size: int, choices: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int, bool]]:
    """(sentence, position, word, False) to replace, (sentence, position, other sentence, True) to swap."""
    for p, words in enumerate(choices):
        if len(words) != size:
            yield from ((s, p, word, False) for s in range(size) for word in words)
    for p in range(len(choices)):
        yield from ((s, p, other, True) for s, other in itertools.combinations(range(size), 2))


def _moved(tokens: torch.Tensor, move: tuple[int, int, int, bool]) -> torch.Tensor:
    sentence, p, new, swap = move
    moved = tokens.clone()
    moved[sentence, p] = tokens[new, p] if swap else new
    if swap:
        moved[new, p] = tokens[sentence, p]
    return moved
