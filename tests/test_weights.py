"""Real weights become integers that ciphertexts can be multiplied with."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import Code, RoundError
from secagg.weights import agreeing, countable_weights, integer_weights

TOTAL = 2**16

positive = st.floats(min_value=0.0, allow_nan=False, allow_infinity=False)
lists = st.lists(positive, min_size=1, max_size=50).filter(lambda ws: max(ws) > 0)


@settings(deadline=None)
@given(lists)
def test_integers_sum_to_the_total_or_are_kept(weights: list[float]) -> None:
    """The sum never exceeds the total; it equals it unless the weights were small integers already."""
    result = integer_weights(np.array(weights), total=TOTAL)
    assert result.dtype == np.int64
    assert (result >= 0).all()
    if all(w == math.floor(w) for w in weights) and sum(weights) <= TOTAL:
        assert result.tolist() == weights
    else:
        assert int(result.sum()) == TOTAL


@settings(deadline=None)
@given(lists)
def test_each_share_is_within_one_unit_of_its_quota(weights: list[float]) -> None:
    """|W_i/ΣW - w_i/Σw| < 1/total, compared in exact arithmetic; slack for the double quotas only."""
    result = integer_weights(np.array(weights), total=TOTAL)
    exact = [Fraction(w) for w in weights]
    for share, weight in zip(result.tolist(), exact, strict=True):
        error = abs(Fraction(share, int(result.sum())) - weight / sum(exact))
        assert error < Fraction(1, TOTAL) * (1 + Fraction(1, 10**6))


@settings(deadline=None)
@given(lists)
def test_a_rejected_update_stays_rejected(weights: list[float]) -> None:
    """A weight of zero never becomes positive by rounding."""
    result = integer_weights(np.array([*weights, 0.0]), total=TOTAL)
    assert result[-1] == 0


def test_equal_weights_are_split_to_the_last_unit_by_index() -> None:
    """Ties go to the lower index, so every run gives the same integers."""
    assert integer_weights(np.array([0.3, 0.3, 0.3]), total=100).tolist() == [34, 33, 33]


def test_sample_counts_are_kept_exactly() -> None:
    """Small integers are used as they are: the mean then has no rounding of weights."""
    assert integer_weights(np.array([600.0, 0.0, 450.0]), total=TOTAL).tolist() == [600, 0, 450]


@pytest.mark.parametrize(
    "weights",
    [[], [[1.0]], [0.0, 0.0], [1.0, -1e-9], [math.nan, 1.0], [math.inf]],
    ids=["none", "matrix", "all zero", "negative", "nan", "infinite"],
)
def test_weights_that_say_nothing_are_no_decision(weights: list[float]) -> None:
    """Every impossible vector of weights gives NO_DECISION, not a number."""
    with pytest.raises(RoundError) as caught:
        integer_weights(np.array(weights), total=TOTAL)
    assert caught.value.code is Code.NO_DECISION


def test_no_small_client_is_dropped_by_a_small_total() -> None:
    """With room for 180 in all, one of a thousandth still counts 1, taken from the largest."""
    weights = np.array([100_000.0, 50_000.0, 100.0, 0.0])
    integers = countable_weights(weights, 180)
    assert integers.tolist() == [119, 60, 1, 0]
    assert countable_weights(np.ones(180), 180).tolist() == [1] * 180


def test_more_updates_than_headroom_have_no_decision() -> None:
    """Whoever weighs: each update's rounded values are added once."""
    for applied in (None, np.full(181, 7)):
        with pytest.raises(RoundError, match="headroom for 180") as caught:
            countable_weights(np.full(181, 7.0), 180, applied)
        assert caught.value.code is Code.NO_DECISION


def test_where_clients_weighed_a_rule_can_only_leave_out() -> None:
    """The integers are the counts; any other proportion can't be applied any more."""
    counts = np.array([600, 450, 30])
    assert countable_weights(np.array([1200.0, 0.0, 60.0]), 180, counts).tolist() == [600, 0, 30]
    with pytest.raises(RoundError, match="sample counts only"):
        countable_weights(np.array([1.0, 1.0, 1.0]), 180, counts)


def test_updates_in_other_scales_than_most_do_not_agree() -> None:
    """Of two that are equally frequent neither counts: nobody can choose bytes that win."""
    assert agreeing([b"a", b"b", b"a"]).tolist() == [True, False, True]
    assert not agreeing([b"b", b"a"]).any()
    assert not agreeing([b"a", b"b", b"b", b"a", b"c"]).any()
    assert agreeing([b"", b""]).all()
