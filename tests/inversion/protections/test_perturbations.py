"""What is done to visible entries is what was asked for, and no more."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.inversion.protections import Clipping, Noise, Part, Perturbation, Pruning, Quantisation
from secagg.selection.mask import entries_to_hide

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


def apply(step: Perturbation, values: torch.Tensor, *, noise: float = 0.0, tensors: int = 1) -> Part:
    """One step on values that are spread over some tensors in turn."""
    part = Part(values=values, tensors=torch.arange(len(values)) % tensors, noise=noise)
    return step.apply(part, torch.Generator().manual_seed(0))


@settings(max_examples=40)
@given(values=VALUES, norm=st.floats(1e-3, 1e9))
def test_clipping_keeps_the_direction_and_bounds_the_norm(values: list[float], norm: float) -> None:
    """min(‖v‖, norm) within rounding; shorter vectors are untouched."""
    before = torch.tensor(values, dtype=torch.float64)
    after = apply(Clipping(norm=norm), before, noise=2.0)
    length = float(torch.linalg.vector_norm(before))
    if length <= norm:
        assert torch.equal(after.values, before)
        assert after.noise == 2.0
    else:
        assert float(torch.linalg.vector_norm(after.values)) == pytest.approx(norm, rel=1e-12)
        assert torch.allclose(after.values * length, before * norm, rtol=1e-12, atol=0)
        assert after.noise == pytest.approx(2.0 * norm / length)


@settings(max_examples=40)
@given(values=VALUES, share=st.floats(0, 1))
def test_pruning_keeps_the_largest_and_as_many_as_it_says(values: list[float], share: float) -> None:
    """ceil((1 − share)·n) are kept as they are, and none of the others is larger."""
    before = torch.tensor(values, dtype=torch.float64)
    after = apply(Pruning(share=share), before).values
    order = sorted(range(len(values)), key=lambda index: (-abs(values[index]), index))
    kept = order[: entries_to_hide(len(values), 1 - share)]
    expected = torch.zeros_like(before)
    expected[kept] = before[kept]
    assert torch.equal(after, expected)


@settings(max_examples=40)
@given(values=VALUES, bits=st.integers(2, 16), tensors=st.integers(1, 4))
def test_quantisation_errs_by_half_a_step_of_each_tensor_at_most(
    values: list[float], bits: int, tensors: int
) -> None:
    """The largest entry keeps its value, zeros stay zeros, and there are at most 2^bits − 1 levels."""
    before = torch.tensor(values, dtype=torch.float64)
    after = apply(Quantisation(bits=bits), before, tensors=tensors).values
    for index in range(min(tensors, len(values))):
        own, now = before[index::tensors], after[index::tensors]
        step = float(own.abs().max()) / (2 ** (bits - 1) - 1)
        # Rounding of the quotient and of the product, each half a unit in the last place of |v|.
        slack = 4 * torch.finfo(torch.float64).eps * float(own.abs().max())
        assert float((own - now).abs().max()) <= step / 2 + slack
        assert float(now.abs().max()) == pytest.approx(float(own.abs().max()), rel=1e-12)
        assert torch.equal(now[own == 0], own[own == 0])
        assert len(now.unique()) <= 2**bits - 1


def test_quantisation_states_the_variance_of_uniform_errors() -> None:
    """Δ²/12 is what many values in general position show: within five standard errors of their squares."""
    values = torch.rand(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    after = apply(Quantisation(bits=8), values)
    step, errors = float(values.abs().max()) / 127, (after.values - values).square()
    assert after.noise == pytest.approx(step / math.sqrt(12))
    # Var(u²) of u uniform in ±Δ/2 is Δ⁴/180.
    assert abs(float(errors.mean()) - step**2 / 12) <= 5 * step**2 / math.sqrt(180 * len(values))


@pytest.mark.parametrize("relative", [True, False])
def test_noise_has_the_spread_it_says(relative: bool) -> None:
    """Mean and variance of what was added, within five standard errors; and it is stated."""
    values = 3.0 * torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    after = apply(Noise(std=0.5, relative=relative), values)
    std = 0.5 * float(values.square().mean().sqrt()) if relative else 0.5
    added, count = after.values - values, len(values)
    assert after.noise == pytest.approx(std)
    assert abs(float(added.mean())) <= 5 * std / math.sqrt(count)
    assert abs(float(added.square().mean()) - std**2) <= 5 * std**2 * math.sqrt(2 / count)


def test_noises_add_up_in_squares() -> None:
    """3, 4: 5."""
    assert apply(Noise(std=3, relative=False), torch.ones(4), noise=4.0).noise == pytest.approx(5)


@pytest.mark.parametrize("step", [Noise(std=1), Clipping(norm=1), Pruning(share=0.5), Quantisation(bits=4)])
def test_nothing_visible_is_nothing_to_perturb(step: Perturbation) -> None:
    """A full round has an empty visible part."""
    assert len(apply(step, torch.zeros(0, dtype=torch.float64)).values) == 0


@pytest.mark.parametrize("step", [Noise(std=1), Clipping(norm=1), Pruning(share=0.5), Quantisation(bits=4)])
def test_zeros_give_nothing_that_is_not_a_number(step: Perturbation) -> None:
    """Gradients of a dead network are zeros throughout."""
    assert torch.equal(apply(step, torch.zeros(9, dtype=torch.float64)).values, torch.zeros(9).double())
