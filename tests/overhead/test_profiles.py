"""``secagg overhead --profiles`` shows every preset, and nothing that the parameters don't say."""

import numpy as np
import pytest
from rich.console import Console

from secagg.ckks import PROFILES
from secagg.ckks.bounds import error_bound
from secagg.overhead.profiles import PURPOSES, VALUES, print_profiles, profile_rows


def test_every_preset_is_there_with_what_it_is_for():
    assert [row["profile"] for row in profile_rows()] == list(PROFILES)
    assert set(PURPOSES) == set(PROFILES)


@pytest.mark.parametrize("row", profile_rows(), ids=lambda row: row["profile"])
def test_a_row_is_what_the_profile_computes(row):
    profile = PROFILES[row["profile"]]
    assert row["security_bits"] == profile.security_bits >= 128
    assert row["bytes_per_value_up"] * VALUES == pytest.approx(profile.sealed_bytes(VALUES))
    assert row["down_ratio"] * 4 * VALUES == pytest.approx(profile.aggregate_bytes(VALUES))
    assert (row["max_abs"] is None) == row["error_is_relative"] == profile.quantised
    step = 2.0 ** (1 - profile.encoding.bits) if profile.quantised else 0.0
    bound = error_bound(profile, VALUES, np.array([1]), step=step)
    assert row["error"] == bound < 1e-2


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(capsys, width):
    print_profiles(Console(width=width))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert "…" not in shown
    assert all(len(line) <= max(width, 104) for line in lines)
    for row in profile_rows():
        assert str(row["profile"]) in lines[0]
        assert f"{row['bytes_per_value_up']:.2f}" in shown and f"{row['error']:.1e}" in shown
