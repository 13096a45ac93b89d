"""What is said of an exposure without an attack, one row per sample."""

from __future__ import annotations

from math import log10
from typing import Any

import torch

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.scene import Scene
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Measures, Prior, jacobian, measure
from attacks.inversion.measures.measure import MOST_EXACT_ENTRIES, MOST_EXACT_NUMBERS, PROBES, STEPS
from attacks.inversion.metrics import compare
from attacks.inversion.victims.transformer import embedded

FIELDS = (
    "psnr_pred_db",
    "psnr_naive_pred_db",
    "leaked_dimensions",
    "input_numbers",
    "i2f",
    "counting_ratio",
    "hidden_share",
    "mean_psnr_db",
    "mean_ssim",
)
"""Of a row."""
LARGE = 1_000_000
"""Parameters of a victim whose measures are estimated from a few products with J, so that they take no longer
than attacks."""
FEW_PROBES, FEW_STEPS = 2, 16


def measured_rows(scene: Scene, cell: Cell) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample of a cell's update; of text in the space of its word embeddings.

    ``leaked_dimensions`` is a sample's share of the batch's.
    """
    exposure, batch = scene.exposure(cell), scene.batch(cell)
    known = _mean_figures(scene, batch)
    pixels, prior = _pixels(scene, exposure, batch)
    if exposure.hidden.all():
        # Nothing is visible, so nothing is left but the prior.
        blind = _rounded(-10 * log10(prior.mse(pixels.inputs[0].numel())))
        figures = [{"psnr_pred_db": blind, "leaked_dimensions": 0.0}] * len(batch)
    else:
        found = _measures(scene, exposure, pixels, prior, cell)
        figures = [
            {
                "psnr_pred_db": _rounded(found.sample_psnr_pred_db[at]),
                "psnr_naive_pred_db": _rounded(found.psnr_naive_pred_db),
                "leaked_dimensions": _rounded(found.leaked_dimensions / len(batch)),
                "i2f": _rounded(found.i2f),
                "counting_ratio": _rounded(found.counting_ratio),
            }
            for at in range(len(batch))
        ]
    return [
        {
            **dict.fromkeys(FIELDS),
            "sample": cell.update * len(batch) + at,
            **figures[at],
            "input_numbers": pixels.inputs[0].numel(),
            "hidden_share": float(exposure.hidden.double().mean()),
            **{name: _rounded(values[at]) for name, values in known.items()},
        }
        for at in range(len(batch))
    ]


def _pixels(scene: Scene, exposure: Exposure, batch: Batch) -> tuple[Batch, Prior]:
    """The samples as real numbers, and what is known of such."""
    if not scene.pool.vocabulary:
        return batch, scene.prior
    vectors = embedded(scene.victim, exposure.parameters, batch.inputs)
    known = embedded(scene.victim, exposure.parameters, scene.pool.known.inputs[:100])
    return Batch(inputs=vectors, labels=batch.labels), Prior(variance=float(known.var()))


def _measures(scene: Scene, exposure: Exposure, batch: Batch, prior: Prior, cell: Cell) -> Measures:
    matrix = None
    numbers = batch.inputs.numel()
    if (
        scene.setting.rounds == 1
        and numbers <= MOST_EXACT_NUMBERS
        and numbers * exposure.victim.size <= MOST_EXACT_ENTRIES
    ):
        # One update's derivative serves all of its masks.
        matrix = scene.kept(
            ("jacobian", cell.update),
            1,
            lambda: jacobian(scene.victim, exposure.parameters, exposure.training, batch),
        )
    large = exposure.victim.size > LARGE
    return measure(
        exposure,
        batch,
        seed=cell.seed,
        prior=prior,
        matrix=matrix,
        probes=FEW_PROBES if large else PROBES,
        steps=FEW_STEPS if large else STEPS,
    )


def _mean_figures(scene: Scene, batch: Batch) -> dict[str, list[float]]:
    """PSNR and SSIM of the mean image, as if it were a reconstruction."""
    mean = scene.pool.mean
    if mean is None:
        return {}
    guess = mean.expand_as(batch.inputs)
    scores = compare(batch, Reconstruction(inputs=guess, labels=torch.zeros_like(batch.labels)))
    found = {"mean_psnr_db": scores.psnr_db.tolist()}
    return found if batch.inputs.ndim != 4 else {**found, "mean_ssim": scores.ssim.tolist()}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
