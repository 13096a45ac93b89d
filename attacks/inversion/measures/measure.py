"""All measures of one exposure."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Literal

import torch

from attacks.inversion.batch import Batch
from attacks.inversion.exposure import Exposure
from attacks.inversion.measures.influence import estimated_influence, exact_influence
from attacks.inversion.measures.information import estimated_information, exact_information
from attacks.inversion.measures.noise import rounding_variance
from attacks.inversion.measures.prior import Prior
from attacks.inversion.measures.rounds import Rounds
from secagg.errors import Code, ConfigError

Method = Literal["auto", "exact", "lanczos"]
MOST_EXACT_NUMBERS = 1500
"""B·d_x up to which J is decomposed."""
MOST_EXACT_ENTRIES = 1 << 26
"""Entries of J, all rounds', up to which it is kept: 512 MiB."""
DAMPING = 1e-6
"""I2F's ε as a share of λ_max: attackers stop before directions that they see a thousand times worse."""
CORNER = 0.25
"""(½)²: where a solution is far outside of [0, 1], attackers that stay inside end at black and white."""
PROBES = 16
"""Probes of the whole batch; a sample has two at least."""
STEPS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What an exposure holds, without an attack.

    All are of the update's linearisation at the true samples, with labels and model known to the attacker
    and Gaussian prior and noise. What they don't promise:

    - ``psnr_pred_db`` is an information limit: no unbiased use of the visible entries does better *near
      the truth*. Whether an attack finds that place is another matter. On a network with ReLU, whose
      update is piecewise linear in its weights, attacks stop far below it: the figure is then the leak at
      worst, not what to expect. A low figure in turn says what entries' first derivatives can't tell: zeros
      (which unit is dead), positions of hidden entries and a prior better than a Gaussian are not in it.
    - ``psnr_naive_pred_db`` is first order in what is hidden: it is meant for small hidden parts, and levels
      off at what an unrelated picture in black and white has.
    - The counting bound is necessary, and sufficient only for entries that are independent.

    Args:
        psnr_pred_db: −10·log10 of the batch's mean MSE, for an attacker who knows the mask.
        psnr_pred_low_db, psnr_pred_high_db: what it lies between; the same where the method is exact.
        sample_psnr_pred_db: the same as ``psnr_pred_db`` of each sample.
        psnr_naive_pred_db: −10·log10 of I2F²/(B·d_x), levelled off, for one who takes hidden for zero.
        leaked_dimensions: tr[H(H + Σx⁻¹)⁻¹], 0 to B·d_x: of how many more is known than not.
        leaked_error: its standard error.
        i2f: ‖(JJᵀ + εI)⁻¹ J δ‖ in pixels of [0, 1].
        i2f_bound: ‖J δ‖/(λ_max + ε).
        counting_ratio: max(0, 1 − B·d_x/d_θ), d_θ of all rounds: hidden below it, numbers are no fewer than
            unknowns.
        visible: entries that are not hidden, of all rounds.
        nonzero_visible: those of them that are not structurally zero.
        input_numbers: B·d_x.
        method: how it was measured.
    """

    psnr_pred_db: float
    psnr_pred_low_db: float
    psnr_pred_high_db: float
    sample_psnr_pred_db: tuple[float, ...]
    psnr_naive_pred_db: float
    leaked_dimensions: float
    leaked_error: float
    i2f: float
    i2f_bound: float
    counting_ratio: float
    visible: int
    nonzero_visible: int
    input_numbers: int
    method: Literal["exact", "lanczos"]


def measure(
    exposure: Exposure,
    batch: Batch,
    method: Method = "auto",
    seed: int = 0,
    *,
    prior: Prior | None = None,
    damping: float = DAMPING,
    matrix: torch.Tensor | None = None,
    probes: int = PROBES,
    steps: int = STEPS,
) -> Measures:
    """What an exposure holds of its batch, to attackers who know the mask and to those who don't.

    Args:
        exposure: what is visible; ``aware`` does not matter, both kinds are measured.
        batch: the true samples, pixels in [0, 1].
        method: ``exact`` decomposes J, [Σ d, n]; ``lanczos`` only multiplies with it; ``auto`` is exact up
            to ``MOST_EXACT_NUMBERS`` unknowns.
        seed: of Lanczos' probes.
        prior: what is known of samples; by default that pixels lie in [0, 1].
        damping: I2F's ε/λ_max, positive.
        matrix: J if it is known already (``shared_jacobian``), for many masks of one update; then the method
            is exact.
        probes: Lanczos', of the whole batch.
        steps: Lanczos', at most.

    Raises:
        ConfigError: CONFIG_INVALID for a batch of another size or of tokens, a prior of another size, a
            damping that is not positive, an unknown method.
    """
    if not 0 < damping < float("inf"):
        raise ConfigError(Code.CONFIG_INVALID, f"damping must be positive, not {damping}")
    if method not in ("auto", "exact", "lanczos"):
        raise ConfigError(Code.CONFIG_INVALID, f"no method {method!r}: give auto, exact or lanczos")
    rounds, prior = Rounds.of(exposure, batch), prior or Prior()
    numbers = rounds.input_numbers
    if method == "auto":
        method = "exact" if matrix is not None or _is_small(rounds) else "lanczos"
    if method == "exact":
        matrix = rounds.matrix() if matrix is None else matrix.to(rounds.update)
        information = exact_information(matrix, rounds, prior)
        influence = exact_influence(matrix, rounds.missing, damping=damping)
    else:
        each = max(2, -(-probes // len(batch)))
        information = estimated_information(rounds, prior, seed=seed, probes=each, steps=steps)
        influence = estimated_influence(rounds, damping=damping, steps=steps)
    # Reconstructions are rounded, too; so no figure is infinite.
    floor = rounding_variance(exposure.parameters.dtype)

    def psnr_db(mse: float) -> float:
        return -10 * log10(mse + floor)

    def mean_db(mses: tuple[float, ...]) -> float:
        return psnr_db(sum(mses) / len(mses))

    blind = prior.mse(numbers // len(batch))
    return Measures(
        psnr_pred_db=mean_db(information.mse),
        psnr_pred_low_db=mean_db(information.mse_high),
        psnr_pred_high_db=mean_db(information.mse_low),
        sample_psnr_pred_db=tuple(psnr_db(mse) for mse in information.mse),
        psnr_naive_pred_db=psnr_db(levelled(influence.value**2 / numbers, blind + CORNER)),
        leaked_dimensions=information.leaked,
        leaked_error=information.leaked_error,
        i2f=influence.value,
        i2f_bound=influence.bound,
        counting_ratio=max(0.0, 1 - numbers / rounds.entries),
        visible=sum(int((~round.exposure.hidden).sum()) for round in rounds.each),
        nonzero_visible=rounds.nonzero_visible,
        input_numbers=numbers,
        method=method,
    )


def shared_jacobian(exposure: Exposure, batch: Batch) -> torch.Tensor | None:
    """J of an exposure's rounds beneath each other, which all masks of its updates share.

    Args:
        exposure: of any of the masks.
        batch: the true samples.

    Returns:
        Float64 [Σ d, n]; None where ``measure`` decomposes no J of that size.

    Raises:
        ConfigError: CONFIG_INVALID for a batch of another size or of tokens.
    """
    rounds = Rounds.of(exposure, batch)
    return rounds.matrix() if _is_small(rounds) else None


def _is_small(rounds: Rounds) -> bool:
    numbers = rounds.input_numbers
    return numbers <= MOST_EXACT_NUMBERS and numbers * rounds.entries <= MOST_EXACT_ENTRIES


def levelled(mse: float, most: float) -> float:
    """mse·most/(mse + most): a first-order error that does not pass what it can't.

    Args:
        mse: in squared pixels, ≥ 0.
        most: where it levels off; positive.
    """
    return mse / (1 + mse / most)
