"""TAG: match gradients over word embeddings, then take the nearest words."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from attacks.inversion.attackers.attacker import Budget, Reconstruction, Status
from attacks.inversion.attackers.words.text_fit import labels_that_fit
from attacks.inversion.attackers.words.text_layers import reads_text
from attacks.inversion.exposure import Exposure
from attacks.inversion.victims.transformer import embedding_name


@dataclass(slots=True, kw_only=True)
class Tag:
    """min Σ_l ‖Δ_l‖₂² + α(l)·‖Δ_l‖₁, Δ_l = ∇_l(e) − g_l (Deng et al., EMNLP Findings 2021, arXiv 2103.06819).

    Over embeddings e of B sentences, with Adam; α falls from the first tensor to the last, as gradients
    near the input tell more of it. Afterwards every e becomes the word whose embedding is nearest to it
    in angle. The gradient of the word embeddings is left out: what is looked for has no words yet.

    Each tensor's terms are divided by the root mean square of its own visible part, so that small gradients
    count, too (a deviation from the paper). Only entries that the attacker compares count.

    Args:
        steps: of Adam.
        rate: its learning rate, relative to the root mean square of the embeddings.
        alpha: weight of the absolute differences in the first tensor.
        decay: α(l) = alpha·exp(−decay·l/L) for the l-th tensor of L.
    """

    name: str = "tag"
    steps: int = 250
    rate: float = 0.1
    alpha: float = 0.1
    decay: float = 2.0

    def unsuited(self, exposure: Exposure) -> str:
        """Needs a victim that reads text."""
        return "" if reads_text(exposure.victim) else "needs a victim that reads text"

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        """The sentences; unknown labels are looked for together with them."""
        deadline = time.monotonic() + budget.seconds
        generator = torch.Generator().manual_seed(seed)
        best: tuple[float, torch.Tensor, int, bool] | None = None
        for _ in range(budget.restarts):
            end = self._descend(exposure, generator, budget.iterations(self.steps), deadline)
            if best is None or end[0] < best[0]:
                best = end
            if time.monotonic() > deadline:
                break
        assert best is not None
        loss, embeddings, iterations, finite = best
        tokens = nearest_words(_vectors(exposure), embeddings)
        return Reconstruction(
            inputs=tokens,
            labels=labels_that_fit(exposure, tokens)[0],
            loss=loss,
            status=Status.DONE if finite else Status.DIVERGED,
            iterations=iterations,
        )

    def _descend(
        self, exposure: Exposure, generator: torch.Generator, steps: int, deadline: float
    ) -> tuple[float, torch.Tensor, int, bool]:
        """Least loss, its embeddings, how many steps were made, and whether all stayed finite."""
        victim, vectors = exposure.victim, _vectors(exposure)
        scale = float(vectors.square().mean().sqrt())
        shape = (exposure.batch_size, *victim.shape, vectors.shape[1])
        # In units of the embeddings' own size, so that one rate suits all networks.
        guess = torch.randn(shape, generator=generator, dtype=torch.float64).to(vectors).requires_grad_()
        logits = torch.zeros(
            (exposure.batch_size, victim.classes),
            dtype=victim.dtype,
            device=victim.device,
            requires_grad=True,
        )
        objective = _Objective(exposure, alpha=self.alpha, decay=self.decay)
        optimiser = torch.optim.Adam([guess, logits], lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        least, best, made = float("inf"), guess.detach().clone(), 0
        for _ in range(steps):
            labels = logits.softmax(dim=1) if exposure.labels is None else exposure.labels
            loss = objective(guess * scale, labels)
            value = float(loss.detach())
            if not value < float("inf"):
                return least, best, made, False
            if value < least:
                least, best = value, guess.detach().clone()
            gradients = torch.autograd.grad(loss, (guess, logits), allow_unused=True)
            for variable, gradient in zip((guess, logits), gradients, strict=True):
                variable.grad = gradient
            optimiser.step()
            schedule.step()
            made += 1
            if time.monotonic() > deadline:
                break
        return least, best, made, True


class _Objective:
    """Weights of every entry, once for all steps."""

    def __init__(self, exposure: Exposure, *, alpha: float, decay: float) -> None:
        self.exposure = exposure
        specs = exposure.victim.manifest.tensors
        words = embedding_name(exposure.victim)
        seen = exposure.compared.to(exposure.visible.dtype)
        self.squares, self.sizes = seen.clone(), torch.zeros_like(seen)
        for place, spec in enumerate(specs):
            part = exposure.victim.manifest.slice_of(spec.name)
            count = float(seen[part].sum())
            size = float((exposure.visible[part].square() * seen[part]).sum() / max(count, 1.0)) ** 0.5
            if spec.name == words or not size:
                self.squares[part] = 0
                continue
            weight = alpha * torch.exp(torch.tensor(-decay * place / len(specs))).item()
            self.squares[part] /= size**2 * count
            self.sizes[part] = seen[part] * weight / (size * count)

    def __call__(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        of = self.exposure
        update = of.training.mean_gradient(of.victim, of.parameters, embeddings, labels)
        gaps = update - of.visible
        return (self.squares * gaps.square()).sum() + (self.sizes * gaps.abs()).sum()


def _vectors(exposure: Exposure) -> torch.Tensor:
    return exposure.victim.named(exposure.parameters)[embedding_name(exposure.victim)]


def nearest_words(vectors: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """The words whose embeddings are at the smallest angle to these; int64 [B, tokens].

    Args:
        vectors: of all words, [vocabulary, width].
        embeddings: [B, tokens, width].
    """
    return (normalize(embeddings, dim=-1) @ normalize(vectors, dim=-1).T).argmax(dim=-1)
