"""The rules against byzfl 0.0.11's own results, kept by ``tests/vectors/make_byzfl_vectors.py``."""

from pathlib import Path

import numpy as np
import pytest

from defenses import load_rule
from defenses.mixing import mixed
from secagg.rule import statistics_of

VECTORS = sorted((Path(__file__).parent.parent / "vectors").glob("byzfl_*.npz"))
TOLERANCE = 1e-9
"""Inner products of some dozens of numbers near 1, in float64, whose order of additions differs."""

SAME = {
    "mda": "mda",
    "nnm": "nnm",
    "monna": "monna:pivot=1",
    "geometric_median": "geometric-median:steps=3,nu=0.1",
    "centered_clipping": "centered-clipping:tau=100,iterations=1",
    "centered_clipping_short": "centered-clipping:tau=2.5,iterations=4",
    "norm_clipping": "norm-clipping:c=2",
    "arc": "arc",
    # byzfl's code with as many steps of power iteration as converge.
    "caf": "caf",
    "smea": "smea",
}


@pytest.fixture(params=VECTORS, ids=lambda path: path.stem)
def case(request):
    with np.load(request.param) as file:
        return dict(file)


def test_vectors_are_there():
    assert len(VECTORS) == 4


@pytest.mark.parametrize("name", SAME)
def test_results_are_byzfls(case, name):
    """Σa_i·u_i is what byzfl returns; of what mixes, the mean."""
    updates, f = case["updates"], int(case["f"])
    found = load_rule(SAME[name]).coefficients(statistics_of(updates), f) @ updates
    wanted = case[name] if case[name].ndim == 1 else case[name].mean(axis=0)
    assert np.abs(found - wanted).max() < TOLERANCE


@pytest.mark.parametrize("name", ["nnm", "norm_clipping", "arc"])
def test_mixed_updates_are_byzfls(case, name):
    """Row by row, and not only in the mean."""
    updates, f = case["updates"], int(case["f"])
    matrix = load_rule(SAME[name]).mixing(statistics_of(updates), f)
    assert np.abs(matrix @ updates - case[name]).max() < TOLERANCE


def test_krum_is_byzfls_with_one_attacker_less(case):
    """byzfl sums over n − f − 1 neighbours, the paper over n − f − 2: its f − 1 is byzfl's f."""
    updates, f = case["updates"], int(case["f"])
    statistics, n = statistics_of(updates), len(updates)
    for name, text in (("krum", "krum:k_min=1"), ("multi_krum", f"multi-krum:m={n - f}")):
        found = load_rule(text).coefficients(statistics, f - 1) @ updates
        assert np.abs(found - case[name]).max() < TOLERANCE


def test_krum_on_mixed_updates_is_byzfls(case):
    """Coefficients of mixed updates are pulled back to those of the updates themselves."""
    updates, f = case["updates"], int(case["f"])
    statistics = statistics_of(updates)
    matrix = load_rule("nnm").mixing(statistics, f)
    chosen = load_rule("krum:k_min=1").coefficients(mixed(statistics, matrix), f - 1)
    assert np.abs(matrix.T @ chosen @ updates - case["nnm_krum"]).max() < TOLERANCE


def test_monna_with_a_root_is_byzfls_without_its_pivot(case):
    """byzfl averages the trusted update too; here the root client's is not summed."""
    updates, f = case["updates"], int(case["f"])
    statistics = statistics_of(updates, root=1)
    # byzfl's n counts the pivot: n − f nearest, of which one is the pivot.
    kept = len(updates) - f
    found = load_rule("monna").coefficients(statistics, f) @ updates
    wanted = (case["monna"] * kept - updates[1]) / (kept - 1)
    assert np.abs(found - wanted).max() < TOLERANCE


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "meamed"])
def test_coordinate_rules_are_byzfls(case, name):
    text = name.replace("_", "-")
    rule = load_rule(text if name == "median" else f"{text}:f={int(case['f'])}")
    assert np.abs(rule.combine(case["updates"]) - case[name]).max() < TOLERANCE
