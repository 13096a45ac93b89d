"""An attacker that ends in an error: its numbers have diverged, or it has a fault."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from attacks.inversion.bench import play as playing
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.sweep import Sweep


@pytest.fixture(scope="module")
def sweep():
    return Sweep.planned(
        SweepConfig(
            victim=("mlp",),
            dataset="digits",
            significance=("random",),
            ratio=(0.5,),
            attacker=("gauss-newton",),
            samples=1,
        )
    )


def cell_of(sweep: Sweep) -> Cell:
    return next(
        cell for cell in sweep.cells if (cell.significance, cell.attacker) == ("random", "gauss-newton")
    )


@dataclass
class Stumbling:
    """An attacker that ends in an error."""

    error: Exception
    name: str = "stumbling"

    def unsuited(self, exposure):
        return ""

    def attack(self, exposure, *, seed, budget):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.linalg.LinAlgError(""),
        np.linalg.LinAlgError("SVD did not converge"),
        ValueError("array must not contain infs or NaNs"),
        ValueError("matrix contains invalid numeric entries"),
        ValueError("cost matrix is infeasible"),
        ValueError("cannot convert float NaN to integer"),
        RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"),
        FloatingPointError("overflow encountered in multiply"),
        OverflowError(34, "Numerical result out of range"),
    ],
    ids=repr,
)
def test_an_attacker_that_stumbles_over_its_numbers_has_diverged(sweep, monkeypatch, error):
    """The row says why, and under which seed."""
    cell = cell_of(sweep)
    monkeypatch.setattr(playing, "load_attacker", lambda _name: Stumbling(error))
    (row,) = sweep.stage.play(cell).rows
    assert (row["ended"], row["seed"]) == ("diverged", cell.seed)
    assert row["detail"] == (str(error) or "_LinAlgError")


@pytest.mark.parametrize(
    "error",
    [
        TypeError("nan"),
        KeyError("inf"),
        AttributeError("infinite"),
        ValueError("operands could not be broadcast together; information is missing"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        NotImplementedError("not finite yet"),
    ],
    ids=repr,
)
def test_an_attacker_with_a_fault_fails(sweep, monkeypatch, error):
    """A sample that a bug kept safe is not one that was safe."""
    monkeypatch.setattr(playing, "load_attacker", lambda _name: Stumbling(error))
    with pytest.raises(type(error)):
        sweep.stage.play(cell_of(sweep))
