"""Playing one cell: whatever ends it is told."""

from dataclasses import dataclass

import pytest

from attacks.inversion.bench.crew import played


@dataclass
class Failing:
    """Plays nothing."""

    error: BaseException

    def play(self, cell):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(7)])
def test_what_ends_a_cell_is_told_first(error):
    """Also a network that exits: nothing is lost but its own cell."""
    ended = played(Failing(error), "cell")
    assert ended.cell == "cell" and ended.outcome is None
    assert ended.complaint.splitlines()[0] == f"{type(error).__name__}: {error}"


def test_ctrl_c_is_nobodys_outcome():
    """Whoever stops a sweep stops it."""
    with pytest.raises(KeyboardInterrupt):
        played(Failing(KeyboardInterrupt()), "cell")
