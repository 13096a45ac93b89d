"""What an optimising attacker looks for: a batch's pixels and, where nobody told it, labels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from attacks.inversion.attackers.attacker import Reconstruction, Status
from attacks.inversion.attackers.labels import infer_labels
from attacks.inversion.exposure import Exposure

GREY, SPREAD = 0.5, 0.1


def known_labels(exposure: Exposure) -> torch.Tensor | None:
    """Labels that are known or can be inferred, int64 [B]; None if they must be found with the pixels."""
    try:
        return infer_labels(exposure)
    except ValueError:
        return None


def no_images(exposure: Exposure) -> str:
    """Why an attack on pixels can't work on an exposure; empty if it can."""
    return "samples are text: tokens have no gradient" if exposure.victim.vocabulary else ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unknowns:
    """All that is looked for as one flat vector z: B·d_x pixels, then B·classes logits if labels are unknown.

    Unknown labels are probabilities softmax(logits), found together with the pixels (Zhu, Liu, Han: Deep
    Leakage from Gradients, NeurIPS 2019, arXiv 1906.08935, algorithm 1).

    Args:
        shape: of the batch, (B, …).
        classes: number of outputs.
        labels: int64 [B] if they are known.
        like: a tensor of the dtype and on the device that z has.
    """

    shape: tuple[int, ...]
    classes: int
    labels: torch.Tensor | None
    like: torch.Tensor

    @classmethod
    def of(cls, exposure: Exposure, labels: torch.Tensor | None) -> Unknowns:
        """Those of an exposure, with labels that are known or guessed."""
        shape = (exposure.batch_size, *exposure.victim.shape)
        like = exposure.parameters
        known = None if labels is None else labels.to(like.device)
        return cls(shape=shape, classes=exposure.victim.classes, labels=known, like=like)

    @property
    def pixels(self) -> int:
        """B·d_x."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """How many numbers z has."""
        return self.pixels + (self.shape[0] * self.classes if self.labels is None else 0)

    def split(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs [B, …] and labels, int64 [B] or probabilities [B, classes], of one z; differentiable."""
        inputs = point[: self.pixels].view(self.shape)
        if self.labels is not None:
            return inputs, self.labels
        logits = point[self.pixels :].view(self.shape[0], self.classes)
        return inputs, torch.softmax(logits, dim=1)

    def boxed(self, points: torch.Tensor) -> torch.Tensor:
        """The nearest with pixels in [0, 1]; of one z, or of rows of them."""
        pixels = points[..., : self.pixels].clamp(0.0, 1.0)
        return torch.cat([pixels, points[..., self.pixels :]], dim=-1)

    def at(self, inputs: torch.Tensor) -> torch.Tensor:
        """z [size] of these inputs, [B, …]; labels that are unknown are equally likely."""
        point = self.like.new_zeros(self.size)
        point[: self.pixels] = inputs.reshape(-1)
        return point

    def starts(self, seed: int, count: int) -> torch.Tensor:
        """Starting points, [count, size]: pixels N(0.5, 0.1²) within the box, logits N(0, 1).

        They are drawn on the CPU in float64, so that they don't depend on where and how the victim computes;
        the first of many is the same as that of one.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn((count, self.size), generator=generator, dtype=torch.float64)
        rows[:, : self.pixels] = GREY + SPREAD * rows[:, : self.pixels]
        return self.boxed(rows).to(self.like)

    def reconstruction(
        self, point: torch.Tensor, *, loss: float, iterations: int, diverged: bool, detail: str = ""
    ) -> Reconstruction:
        """What an attack that ended at z found."""
        inputs, labels = self.split(point.detach())
        return Reconstruction(
            inputs=inputs,
            labels=labels if self.labels is not None else labels.argmax(dim=1),
            loss=loss,
            status=Status.DIVERGED if diverged else Status.DONE,
            iterations=iterations,
            detail=detail,
        )
