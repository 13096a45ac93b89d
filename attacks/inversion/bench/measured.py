"""What is said of an exposure without an attack, one row per sample."""

from __future__ import annotations

from math import log10
from typing import Any

import torch

from attacks.inversion.attackers.attacker import Reconstruction
from attacks.inversion.batch import Batch
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.labels import LABEL_FIELDS, label_figures
from attacks.inversion.bench.scene import Scene
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures import Measures, Prior, jacobian, measure
from attacks.inversion.measures.measure import MOST_EXACT_ENTRIES, MOST_EXACT_NUMBERS, PROBES, STEPS
from attacks.inversion.metrics import Scores, compare

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
    "mean_token_accuracy",
    "mean_bag_accuracy",
    *LABEL_FIELDS,
)
"""Of a row."""
LARGE = 1_000_000
"""Parameters of a victim whose measures are estimated from a few products with J, so that they take no longer
than attacks."""
FEW_PROBES, FEW_STEPS = 2, 16


def measured_rows(scene: Scene, cell: Cell) -> list[dict[str, Any]]:
    """``FIELDS`` of every sample of a cell's update.

    ``leaked_dimensions`` is a sample's share of the batch's. Text has no measures of information: they are of
    real numbers with a Gaussian prior, and a word is one of finitely many. Reading it takes no more than
    a few bits of what its embedding's 128 numbers would say, so PSNR_pred would be low where texts are read.
    """
    exposure, batch = scene.exposure(cell), scene.batch(cell)
    known = _known_figures(scene, batch)
    labels = label_figures(exposure, batch, scene.pool.known.labels)
    if scene.pool.vocabulary:
        figures: list[dict[str, float]] = [{}] * len(batch)
    elif exposure.hidden.all():
        # Nothing is visible, so nothing is left but the prior.
        blind = _rounded(-10 * log10(scene.prior.mse(batch.inputs[0].numel())))
        figures = [{"psnr_pred_db": blind, "leaked_dimensions": 0.0}] * len(batch)
    else:
        found = _measures(scene, exposure, batch, scene.prior, cell)
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
            **labels[at],
            "input_numbers": batch.inputs[0].numel(),
            "hidden_share": float(exposure.hidden.double().mean()),
            **{name: _rounded(values[at]) for name, values in known.items()},
        }
        for at in range(len(batch))
    ]


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


def _known_figures(scene: Scene, batch: Batch) -> dict[str, list[float]]:
    """Of what everybody knows of samples, the mean image or the usual words, as if it were reconstructed."""

    def scored(guess: torch.Tensor) -> Scores:
        found = Reconstruction(inputs=guess.expand_as(batch.inputs), labels=torch.zeros_like(batch.labels))
        return compare(batch, found, text=bool(scene.pool.vocabulary), padding=scene.pool.padding)

    usual = scene.pool.usual
    if usual is not None:
        places, bag = (scored(guess.to(batch.inputs)) for guess in usual)
        return {
            "mean_token_accuracy": places.token_accuracy.tolist(),
            "mean_bag_accuracy": bag.bag_accuracy.tolist(),
        }
    assert scene.pool.mean is not None
    scores = scored(scene.pool.mean)
    found = {"mean_psnr_db": scores.psnr_db.tolist()}
    return found if batch.inputs.ndim != 4 else {**found, "mean_ssim": scores.ssim.tolist()}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
