"""Rounding to steps is right in the mean, never off by more than a step, and forgets nothing."""

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sealed_vectors import pair_of, sealed_reader

from secagg.ckks import PROFILES, Opener, Sealer, Steps, aggregate_vector
from secagg.ckks.bounds import FAILURE_LOG2, error_bound
from secagg.ckks.encoding import QuantisedCode
from secagg.ckks.parameters import Quantised
from secagg.ckks.quantisation import MIN_STEP, StochasticRounding

COMPACT = PROFILES["compact"]
LARGEST = 2**15 - 1
RUNS = st.lists(st.tuples(st.integers(0, 9), st.floats(1e-9, 1e9)), min_size=1, max_size=12)


class Remembered:
    """A carry in memory."""

    def __init__(self, values: int) -> None:
        self.left_over = np.zeros(values, dtype=np.float32)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """A copy of what is left over."""
        return self.left_over[start:stop].copy()

    def write(self, start: int, left_over: NDArray[np.float32]) -> None:
        """What the next vector must bring along."""
        assert left_over.dtype == np.float32
        self.left_over[start : start + left_over.size] = left_over


@given(runs=RUNS, data=st.data())
def test_steps_over_a_range_are_each_values_own(runs: list[tuple[int, float]], data: st.DataObject) -> None:
    """Against one step per value written out; where all are the same, one may stand for all."""
    naive = np.repeat([size for _, size in runs], [count for count, _ in runs])
    steps = Steps.of([count for count, _ in runs], [size for _, size in runs])
    assert steps.values == naive.size
    assert steps.largest == naive.max(initial=0.0)
    if not naive.size:
        return
    start = data.draw(st.integers(0, naive.size - 1))
    stop = data.draw(st.integers(start + 1, naive.size))
    over = steps.over(start, stop)
    assert over.size in (1, stop - start)
    assert np.array_equal(np.broadcast_to(over, stop - start), naive[start:stop])


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([1, 2], [1.0]),
        ([1], [1.0, 2.0]),
        ([1], [0.0]),
        ([1], [-1.0]),
        ([1], [np.nan]),
        ([1], [np.inf]),
        ([1], [MIN_STEP / 2]),
        ([1, 1], [1.0, 0.0]),
    ],
)
def test_steps_that_divide_nothing_are_refused(counts: list[int], sizes: list[float]) -> None:
    """One per run, finite, and large enough that float32 holds a value divided by it."""
    with pytest.raises(ValueError, match="runs with steps"):
        Steps.of(counts, sizes)


def test_largest_value_over_the_smallest_step_saturates() -> None:
    """Nothing overflows on the way, in either direction; warnings are errors here."""
    rounding = StochasticRounding(LARGEST)
    values = np.array([COMPACT.max_abs, -COMPACT.max_abs, 0.0])
    for dtype in (np.float32, np.float64):
        integers = rounding.integers(values.astype(dtype), np.array([MIN_STEP]))
        assert integers.tolist() == [LARGEST, -LARGEST, 0]


@settings(max_examples=40)
@given(
    steps_away=st.floats(-LARGEST, LARGEST),
    step=st.floats(2.0**-40, 2.0**10),
    exponent=st.booleans(),
    wide=st.booleans(),
)
def test_rounding_is_unbiased(steps_away: float, step: float, exponent: bool, wide: bool) -> None:
    """The mean of n roundings of x is within Hoeffding's bound of x, and none is off by more than a step.

    Each lies in an interval of length 1, so P(|mean - x| > t) ≤ 2·exp(-2nt²). Beside it stand roundings to
    float32: of the value, of 1/step, of their product and of the sum with the uniform number.
    """
    size = 2.0 ** np.ceil(np.log2(step)) if exponent else step
    value = np.float64(steps_away * size).astype(np.float64 if wide else np.float32)
    exact, count = float(value) / size, 1 << 14
    integers = StochasticRounding(LARGEST).integers(np.full(count, value), np.array([size]))
    t = sqrt((log(2) - FAILURE_LOG2 * log(2)) / (2 * count))
    float32 = 4 * 2.0**-24 * (1 + abs(exact))
    assert abs(float(integers.mean(dtype=np.float64)) - exact) <= t + float32
    assert np.abs(integers - exact).max() <= 1 + float32
    assert np.array_equal(integers, np.rint(integers))


@given(beyond=st.floats(1.0, 1e6), bits=st.sampled_from([10, 16]))
def test_values_beyond_the_largest_integer_saturate(beyond: float, bits: int) -> None:
    """± L and no further, so that a sum can't overflow whatever a client seals."""
    largest = Quantised(bits=bits, fields=1).largest
    values = np.array([beyond, -beyond], dtype=np.float32) * (largest + 1)
    integers = StochasticRounding(largest).integers(values, np.array([1.0]))
    assert integers.tolist() == [largest, -largest]


def test_two_clients_round_differently() -> None:
    """Generators are seeded by the operating system: errors of a round's clients average out."""
    halves, one = np.full(1000, 0.5), np.array([1.0])
    first, second = (StochasticRounding(LARGEST).integers(halves, one) for _ in range(2))
    assert not np.array_equal(first, second)


def test_rounding_error_stays_below_the_bound_where_float32_does_not_divide() -> None:
    """A step and a value whose three roundings all go the same way, as often as makes the worst one seen."""
    value, step = 1.0007775426171566, 6.103047452526974e-05
    integers = StochasticRounding(LARGEST).integers(np.full(1 << 20, value), np.array([step]))
    bound = error_bound(COMPACT, 1 << 20, np.array([1]), max_abs=value, step=step)
    error = np.abs(integers.astype(np.float64) * step - value).max()
    assert 1.002 * step <= error <= bound


@settings(max_examples=25)
@given(
    rounds=st.integers(1, 30),
    largest=st.sampled_from([1e-6, 1.0, 1e4]),
    runs=st.lists(st.tuples(st.integers(1, 4000), st.sampled_from([1.0, 1.5, 8.0])), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_sum_over_rounds_is_off_by_one_step_however_many_rounds(
    rounds: int, largest: float, runs: list[tuple[int, float]], seed: int
) -> None:
    """With error feedback Σ opened = Σ true - what is left over, and that is below a step.

    Beside it stand float32's roundings of value plus carry and of the carry itself, in every round.
    """
    steps = Steps.of([count for count, _ in runs], [2 * largest / LARGEST * size for _, size in runs])
    carry, generator = Remembered(steps.values), np.random.default_rng(seed)
    true, opened = np.zeros(steps.values), np.zeros(steps.values)
    for _ in range(rounds):
        vector = generator.uniform(-largest, largest, steps.values).astype(np.float32)
        code = QuantisedCode(COMPACT, steps, carry)
        coefficients = code.encode(vector, 0, COMPACT.ciphertext_count(vector.size))
        opened += code.decode(coefficients, 0, 1)
        true += vector
    step = np.broadcast_to(steps.over(0, steps.values), steps.values)
    float32 = rounds * 2.0**-22 * (largest + step)
    assert (np.abs(opened + carry.left_over - true) <= float32).all()
    assert (np.abs(opened - true) <= step + float32).all()


def test_what_saturates_is_sealed_with_later_vectors() -> None:
    """A value of 2.5 times the largest is spread over three rounds; without feedback it would be lost."""
    values, steps = 100, Steps.uniform(100, 1 / LARGEST)
    for carry, reached in ((Remembered(values), 2.5), (None, 1.0)):
        code = QuantisedCode(COMPACT, steps, carry)
        opened = sum(
            code.decode(code.encode(np.full(values, first), 0, 1), 0, 1) for first in (2.5, 0.0, 0.0)
        )
        assert np.abs(opened - reached).max() <= 2 / LARGEST


def test_carry_reaches_into_every_ciphertext_of_a_sealed_vector() -> None:
    """Through sealing and opening: two rounds of 40,000 values, more than one batch's worth of runs."""
    pair, values = pair_of("compact"), 40_000
    steps, carry = Steps.uniform(values, 1 / LARGEST), Remembered(values)
    generator = np.random.default_rng(1)
    true, opened = np.zeros(values), np.zeros(values)
    for _ in range(4):
        vector = generator.uniform(-0.9, 0.9, values).astype(np.float32)
        data = Sealer(pair.secret).seal(vector, steps=steps, carry=carry)
        aggregate = b"".join(aggregate_vector([sealed_reader(data, COMPACT)], [1], values, COMPACT))
        opened += Opener(pair.secret).open_vector(aggregate, values, steps=steps)
        true += vector
    assert np.abs(opened - true).max() <= steps.largest + 4 * 2.0**-22


def test_vectors_longer_or_shorter_than_their_steps_are_refused() -> None:
    """Before anything is sealed or opened; so are steps, and feedback, that a profile has no use for."""
    vector = np.zeros(100, dtype=np.float32)
    compact, robust = Sealer(pair_of("compact").secret), Sealer(pair_of("robust").secret)
    for steps, found in ((None, "none"), (Steps.uniform(99, 1.0), "99"), (Steps.uniform(101, 1.0), "101")):
        with pytest.raises(ValueError, match=f"compact needs steps for 100 values; there are {found}"):
            compact.seal_blocks(vector, steps=steps)
    aggregate = b"".join(
        aggregate_vector(
            [sealed_reader(compact.seal(vector, steps=Steps.uniform(100, 1.0)), COMPACT)], [1], 100, COMPACT
        )
    )
    with pytest.raises(ValueError, match="there are 99"):
        Opener(pair_of("compact").secret).open_vector(aggregate, 100, steps=Steps.uniform(99, 1.0))
    with pytest.raises(ValueError, match="robust seals values as they are"):
        robust.seal_blocks(vector, steps=Steps.uniform(100, 1.0))
    with pytest.raises(ValueError, match="robust seals values as they are"):
        robust.seal_blocks(vector, carry=Remembered(100))
