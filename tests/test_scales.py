"""Scales are a pure function of the model a round starts from, and leave it room to grow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.ckks import profile
from secagg.envelope import MAX_SCALES
from secagg.errors import Code, UpdateError
from secagg.scales import MAX_EXPONENT, MIN_EXPONENT, Scales
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="w", shape=(64, 32)),
        TensorSpec(name="b", shape=(32,)),
        TensorSpec(name="fresh", shape=(7,)),
    )
)
sizes = st.floats(2.0**-40, 2.0**18, width=32)


def model_of(w: float, b: float) -> np.ndarray:
    """A flat model whose tensors' largest values are these, the third being all zero."""
    flat = np.zeros(MANIFEST.size, dtype=np.float32)
    flat[5], flat[MANIFEST.slice_of("b").start + 1] = -w, b
    return flat


@given(sizes, sizes)
def test_a_tensor_may_grow_to_its_headroom_before_it_saturates(w: float, b: float) -> None:
    """At least four times, a small one sixteen times; at most twice as much is given away."""
    exponents = Scales.around(model_of(w, b), MANIFEST).exponents
    assert 4 * w <= 2.0 ** exponents[0] < 8 * w
    assert 16 * b <= 2.0 ** exponents[1] < 32 * b
    assert exponents[2] == max(exponents[:2])


def test_a_model_of_zeros_has_scales_of_one() -> None:
    """As a federation that starts from nothing has it."""
    assert Scales.around(np.zeros(MANIFEST.size, np.float32), MANIFEST).exponents == (0, 0, 0)


@pytest.mark.parametrize(("value", "exponent"), [(1e-38, MIN_EXPONENT), (1e38, MAX_EXPONENT)])
def test_scales_stay_in_their_range(value: float, exponent: int) -> None:
    """Whatever a model holds, the byte on the wire is a possible one."""
    assert Scales.around(np.full(MANIFEST.size, value, np.float32), MANIFEST).exponents[0] == exponent


@given(st.lists(st.integers(MIN_EXPONENT, MAX_EXPONENT), max_size=50))
def test_scales_survive_their_bytes(exponents: list[int]) -> None:
    """One byte per tensor, and back."""
    scales = Scales(exponents=tuple(exponents))
    assert len(scales.to_bytes()) == len(exponents)
    assert Scales.from_bytes(scales.to_bytes()) == scales


@pytest.mark.parametrize("data", [b"\x7f", b"\x80", bytes(MAX_SCALES + 1)], ids=["high", "low", "many"])
def test_impossible_scales_are_refused(data: bytes) -> None:
    """Bytes that no honest client signs."""
    with pytest.raises(UpdateError) as caught:
        Scales.from_bytes(data)
    assert caught.value.code is Code.ENVELOPE_MALFORMED


def test_steps_follow_the_runs_of_a_vector_and_the_clients_weight() -> None:
    """2^exponent over 2^15, larger where a client weighs less: its integers are smaller then."""
    scales, used = Scales(exponents=(3, -2, 0)), profile("compact")
    steps = scales.steps(used, [(1, 4), (0, 2)], weight=0.5)
    assert steps.over(0, 6).tolist() == [2.0**-16] * 4 + [2.0**-11] * 2
    assert scales.largest_step(used) == 2.0**-12
    assert scales.largest_step(profile("compact-10")) == 2.0**-6
