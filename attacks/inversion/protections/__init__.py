"""What of an update is encrypted and what is done to the rest, in the wire's own masks and layouts."""

from attacks.inversion.protections.perturbations import (
    Clipping,
    Noise,
    Part,
    Perturbation,
    Pruning,
    Quantisation,
)
from attacks.inversion.protections.protection import Protection
from attacks.inversion.protections.scores import SCORES, Evidence
from attacks.inversion.protections.sending import Precision, hidden_entries, visible_bytes
from attacks.inversion.protections.significance import Granularity, Scores, Significance
from attacks.inversion.protections.text import parse_perturbations

__all__ = [
    "SCORES",
    "Clipping",
    "Evidence",
    "Granularity",
    "Noise",
    "Part",
    "Perturbation",
    "Precision",
    "Protection",
    "Pruning",
    "Quantisation",
    "Scores",
    "Significance",
    "hidden_entries",
    "parse_perturbations",
    "visible_bytes",
]
