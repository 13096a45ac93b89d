"""What ``make run`` says about its three federations."""

from dataclasses import replace

import pytest
from rich.console import Console

from secagg.simulation.comparison import ARMS, Outcome, print_comparison, withstood
from secagg.simulation.config import RunConfig
from secagg.simulation.launcher import RunResult
from secagg.simulation.rows import Row

ROW = Row(round=1, accuracy=0.1, loss=2.0, accepted=10, rejected=0, rejected_clients="", reasons="",
          bytes_up=2**20, bytes_down=2**21, train_s=1, seal_s=1, aggregate_s=1, open_s=1,
          wall_s=1)  # fmt: skip


def outcomes(*accuracies: float) -> list[Outcome]:
    found = []
    for arm, accuracy in zip(ARMS, accuracies, strict=True):
        config = RunConfig(protect=arm.protect, rule=arm.rule, poison=arm.poison, rounds=1)
        rows = (replace(ROW, accuracy=accuracy),)
        result = RunResult(
            config=config, profile="compact", rows=rows, precision=1.0, recall=1.0, completed=True
        )
        found.append(Outcome(arm=arm, result=result, seconds=20))
    return found


@pytest.mark.parametrize(
    ("defended", "says"),
    [
        (0.947, "0.3 points below the unpoisoned one (within 2 points)"),
        (0.955, "0.5 points above the unpoisoned one (within 2 points)"),
        (0.9, "5.0 points below the unpoisoned one (NOT within 2 points)"),
    ],
)
def test_the_verdict_follows_from_the_accuracies(capsys, defended, says):
    print_comparison(outcomes(0.1, defended, 0.95), Console(width=80))
    shown = capsys.readouterr().out
    assert says in shown
    assert withstood(outcomes(0.1, defended, 0.95)) is ("NOT" not in says)
    assert f"{100 * defended:.1f}%" in shown and "1.0 MiB" in shown and "…" not in shown


def test_the_arms_differ_in_poison_and_defence_alone():
    """The same three of ten attack where anybody does, and all start from the same model and split."""
    configs = [RunConfig(protect=arm.protect, rule=arm.rule, poison=arm.poison) for arm in ARMS]
    assert configs[0].malicious == configs[1].malicious and len(configs[0].malicious) == 3
    assert configs[2].malicious == ()
    assert len({(c.seed, c.clients, c.partition, c.model, c.learning_rate) for c in configs}) == 1


def test_rows_of_the_comparison_are_flat():
    flat = outcomes(0.1, 0.9, 0.95)[1].flat()
    assert (flat["arm"], flat["accuracy"], flat["bytes_up"]) == ("defended", 0.9, 2**20)
    assert all(isinstance(value, (str, int, float, type(None))) for value in flat.values())
