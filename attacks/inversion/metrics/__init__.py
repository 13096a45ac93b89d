"""How much an attacker found: figures of every sample, after matching reconstructions with samples."""

from attacks.inversion.metrics.image import CAP_DB, mse, psnr_db, ssim
from attacks.inversion.metrics.matching import identified, matched, similarities
from attacks.inversion.metrics.scores import Scores, compare
from attacks.inversion.metrics.text import (
    bag_accuracy,
    rouge,
    rouge_l,
    rouge_n,
    text_similarity,
    token_accuracy,
)

__all__ = [
    "CAP_DB",
    "Scores",
    "bag_accuracy",
    "compare",
    "identified",
    "matched",
    "mse",
    "psnr_db",
    "rouge",
    "rouge_l",
    "rouge_n",
    "similarities",
    "ssim",
    "text_similarity",
    "token_accuracy",
]
