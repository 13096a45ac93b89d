"""DAGER: words whose embeddings lie in the span of the attention gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from attacks.inversion.attackers.attacker import Budget, Reconstruction, Status
from attacks.inversion.attackers.layers.low_rank import Span, span_of
from attacks.inversion.attackers.words.same_sentence import sentences
from attacks.inversion.attackers.words.span_words import SpanWords
from attacks.inversion.attackers.words.text_fit import Fit, labels_that_fit, refined
from attacks.inversion.attackers.words.text_layers import (
    AttentionLayer,
    attention_layers,
    read_by,
    reads_text,
)
from attacks.inversion.exposure import Exposure

CHUNK = 1024
"""How many words' embeddings are held at once."""
SPARE = 3
"""How many times B words are kept per position: words of other positions get into the span, too."""
LEAST_TOLERANCE = 1e-9


@dataclass(slots=True, kw_only=True)
class Dager:
    """Span check against low-rank gradients (Petrov, Dimitrov, Baader, Müller, Vechev, arXiv 2405.15586).

    The gradient of an attention layer's projections is Σ_t h_t·δ_tᵀ over all tokens t of the batch. While
    they are fewer than the layer is wide, their h_t lie in its column space and others don't. Before the
    first layer h_t depends on a word and its position only, so all words are tried at all positions. Before
    the second, it depends on the sentence: on its beginning, for a decoder, whose sentences grow
    word by word; on all of it, for an encoder, where one word after the other is exchanged as long as
    the distance to the span sinks.

    Deviations from the paper: query, key and value gradients are used together. Where no word lies in the
    span, the nearest ones are taken, so that noise degrades the attack gradually. Hidden entries are
    completed (``span_of``); the naive attacker takes them for zeros. Sentences are put together by who
    attended to whom (``affinities``) before the second layer is asked, which in a network of two
    layers tells nothing; words in doubt are decided by ``SpanWords`` and by the fit of the whole update.

    Args:
        starts: from how many random sentences an encoder's search begins.
        exchanges: how many exchanges of words in doubt are tried by who attended to whom (``SpanWords``).
        attempts: how many exchanges of words in doubt are tried by the fit of the whole update.
    """

    name: str = "dager"
    starts: int = 24
    exchanges: int = 400
    attempts: int = 100

    def unsuited(self, exposure: Exposure) -> str:
        """Needs text, attention layers whose projections are trained, and fewer tokens than they are wide."""
        victim = exposure.victim
        if not reads_text(victim):
            return "needs a victim that reads text"
        layers = attention_layers(victim)
        if not layers:
            return "needs attention layers that are trained"
        width = layers[0].gradient(exposure)[0].shape[0]
        if exposure.batch_size * victim.shape[0] >= width:
            return f"needs fewer tokens in the batch than its layers are wide, {width}"
        return ""

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """The sentences; ``detail`` says at how many positions a word lay in the span, within tolerance.

        UNSUITED if nothing is seen that spans anything; the sentences are then arbitrary.
        """
        layers = attention_layers(exposure.victim)
        tokens = exposure.batch_size * exposure.victim.shape[0]
        spans = [_span(exposure, layer, tokens) for layer in layers[:2]]
        words, distances = candidates(exposure, layers[0], spans[0])
        accepted = distances <= max(spans[0].tolerance, LEAST_TOLERANCE)
        size = exposure.batch_size
        # Where nothing lies in the span, the nearest words are as good a guess as there is.
        choices = [
            [int(word) for word in (row[sure] if bool(sure.any()) else row[:size])]
            for row, sure in zip(words, accepted, strict=True)
        ]
        sure = int(accepted.any(dim=1).sum())
        if size == 1 or not spans[0].rank:
            found = words[:, :size].T
            labels, error = labels_that_fit(exposure, found)
        else:
            deadline = time.monotonic() + budget.seconds
            found, words_left = self._batch(exposure, layers, spans, choices, sure, seed, budget, deadline)
            labels, error = labels_that_fit(exposure, found)
            if sure:
                attempts = budget.iterations(self.attempts)
                found, labels, error = refined(
                    exposure, found, words_left, attempts=attempts, deadline=deadline
                )
        # Of a span of no dimension nothing is inside, whatever its tolerance.
        sure = sure if spans[0].rank else 0
        return Reconstruction(
            inputs=found,
            labels=labels,
            loss=error,
            status=Status.DONE if spans[0].rank else Status.UNSUITED,
            iterations=len(words),
            detail=f"rank={spans[0].rank} in_span={sure}/{len(words)}",
        )

    def _batch(
        self,
        exposure: Exposure,
        layers: tuple[AttentionLayer, ...],
        spans: list[Span],
        choices: list[list[int]],
        sure: int,
        seed: int,
        budget: Budget,
        deadline: float,
    ) -> tuple[torch.Tensor, list[list[int]]]:
        """Words put together to sentences, and which words are left per position.

        By who attended to whom first; if that leaves an error, by the second layer, if that is better.
        """
        size, device = exposure.batch_size, exposure.victim.device
        span = SpanWords(exposure, layers[0], choices)
        if sure == len(choices):
            span.exchanged(budget.iterations(self.exchanges), deadline)
        words, near = span.words()
        first = torch.tensor(sentences(words, near, size), device=device)
        # In the last layer all gradients come through one token's attention: their span holds mixtures only.
        if sure < len(choices) or len(spans) < 2 or spans[1].rank < spans[0].rank:
            return first, words
        if Fit(exposure).explained(error := labels_that_fit(exposure, first)[1]):
            return first, words
        if layers[0].transposed:
            second = _grown(exposure, layers[1], spans[1], choices)
        else:
            starts = budget.iterations(self.starts)
            second = _exchanged(exposure, layers[1], spans[1], choices, seed, starts)
        return (second, choices) if labels_that_fit(exposure, second)[1] < error else (first, words)


def _span(exposure: Exposure, layer: AttentionLayer, tokens: int) -> Span:
    values, seen = layer.gradient(exposure)
    return span_of(values, seen, at_most=min(tokens, values.shape[0] - 1), noise=exposure.noise)


def candidates(exposure: Exposure, layer: AttentionLayer, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
    """At every position the B words nearest to the first layer's span, and their distances, nearest first.

    Returns:
        int64 [tokens, B] and [tokens, B].
    """
    victim, length = exposure.victim, exposure.victim.shape[0]
    kept = min(SPARE * exposure.batch_size, victim.vocabulary)
    distances = []
    for start in range(0, victim.vocabulary, CHUNK):
        words = torch.arange(start, min(start + CHUNK, victim.vocabulary), device=victim.device)
        read = read_by(victim, exposure.parameters, layer, words[:, None].expand(-1, length))
        distances.append(span.distance(read))
    best = torch.cat(distances).topk(kept, dim=0, largest=False)
    return best.indices.T, best.values.T


def _grown(exposure: Exposure, layer: AttentionLayer, span: Span, choices: list[list[int]]) -> torch.Tensor:
    """Sentences of a decoder: the best B beginnings, then every choice for their next words."""
    size, device = exposure.batch_size, exposure.victim.device
    beginnings = torch.zeros((1, 0), dtype=torch.int64, device=device)
    for words in choices:
        tried = torch.tensor(
            [[*beginning, word] for beginning in beginnings.tolist() for word in words], device=device
        )
        distances = span.distance(read_by(exposure.victim, exposure.parameters, layer, tried)[:, -1])
        order = distances.argsort()[:size]
        within = order[distances[order] <= max(span.tolerance, LEAST_TOLERANCE)]
        beginnings = tried[within if len(within) else order]
    return _filled(beginnings.tolist(), choices, size)


def _exchanged(
    exposure: Exposure,
    layer: AttentionLayer,
    span: Span,
    choices: list[list[int]],
    seed: int,
    starts: int,
) -> torch.Tensor:
    """Sentences of an encoder: from random ones, the exchange of one word that brings them nearest."""
    generator = torch.Generator().manual_seed(seed)

    def far(sentences: list[list[int]]) -> torch.Tensor:
        tokens = torch.tensor(sentences, device=exposure.victim.device)
        return span.distance(read_by(exposure.victim, exposure.parameters, layer, tokens)).square().sum(dim=1)

    ends: dict[tuple[int, ...], float] = {}
    for _ in range(starts):
        current = [words[int(torch.randint(len(words), (1,), generator=generator))] for words in choices]
        least = float(far([current])[0])
        while True:
            tried = [
                [*current[:p], word, *current[p + 1 :]]
                for p, words in enumerate(choices)
                for word in words
                if word != current[p]
            ]
            if not tried:
                break
            distances = far(tried)
            best = int(distances.argmin())
            if float(distances[best]) >= least:
                break
            current, least = tried[best], float(distances[best])
        ends[tuple(current)] = least
    ordered = sorted(ends, key=lambda sentence: (ends[sentence], sentence))
    return _filled(
        [list(sentence) for sentence in ordered[: exposure.batch_size]], choices, exposure.batch_size
    )


def _filled(found: list[list[int]], choices: list[list[int]], size: int) -> torch.Tensor:
    """B sentences: those found, and for missing ones the words that none of them has, place by place."""
    sentences = [list(sentence) for sentence in found[:size]]
    while len(sentences) < size:
        sentences.append(
            [
                next(
                    (w for w in words if w not in {s[p] for s in sentences}),
                    words[len(sentences) % len(words)],
                )
                for p, words in enumerate(choices)
            ]
        )
    return torch.tensor(sentences)
