"""``python -m secagg.simulation.comparison``: what poison does, with and without a defence.

Three federations on the same data, split and initial model. In two of them the same 3 of 10 clients
send their update with its sign flipped and boosted threefold.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from secagg.config import parse_toml
from secagg.errors import SecaggError
from secagg.simulation.config import RunConfig
from secagg.simulation.display import binary_size, display_for
from secagg.simulation.launcher import RunResult, run
from secagg.simulation.result import write_result

POISON = "sign-flip:0.3:3"
COLUMNS = ("", "setting", "accuracy", "recall", "precision", "up", "down", "s")
MARGIN_POINTS = 2.0
"""How far below the unpoisoned federation the defended one may end, in percentage points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One of the federations that are compared."""

    name: str
    protect: str
    rule: str
    poison: str | None

    @property
    def title(self) -> str:
        """One line that says what it is."""
        attackers = "3 of 10 clients attack" if self.poison else "nobody attacks"
        return f"{self.name}: {attackers}; {self.protect}, rule {self.rule}"


ARMS = (
    Arm(name="undefended", protect="plain", rule="mean", poison=POISON),
    Arm(name="defended", protect="full", rule="ddfed", poison=POISON),
    Arm(name="unpoisoned", protect="full", rule="mean", poison=None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An arm's result and how long it took, seconds from data to result file."""

    arm: Arm
    result: RunResult
    seconds: float

    def flat(self) -> dict[str, object]:
        """As a row of ``result.json``; bytes are per client and round."""
        rows = self.result.rows
        return {
            "arm": self.arm.name,
            "protect": self.arm.protect,
            "rule": self.arm.rule,
            "poison": self.arm.poison,
            "rounds": len(rows),
            "accuracy": self.result.final_accuracy,
            "precision": self.result.precision,
            "recall": self.result.recall,
            "bytes_up": round(sum(row.bytes_up for row in rows) / len(rows)),
            "bytes_down": round(sum(row.bytes_down for row in rows) / len(rows)),
            "seconds": round(self.seconds, 3),
        }


def compare(out: Path, *, seed: int, rounds: int, console: Console) -> list[Outcome]:
    """Run the arms one after the other, each in its own folder under ``out``, and write ``result.json``.

    Raises:
        SecaggError: as ``launcher.run``.
    """
    outcomes = []
    for arm in ARMS:
        console.print(f"\n{arm.title}", highlight=False, soft_wrap=True)
        settings = {"protect": arm.protect, "rule": arm.rule, "seed": seed, "rounds": rounds}
        if arm.poison:
            settings["poison"] = arm.poison
        config = parse_toml(RunConfig, {**settings, "out": str(out / arm.name)})
        started = time.monotonic()
        with display_for(console, arm.title) as display:
            result = run(
                config, display, command=["python", "-m", "secagg.simulation.comparison", *sys.argv[1:]]
            )
        outcomes.append(Outcome(arm=arm, result=result, seconds=time.monotonic() - started))
    write_result(
        out,
        command="secagg.simulation.comparison",
        seed=seed,
        rows=[outcome.flat() for outcome in outcomes],
        more={"dataset": "digits", "clients": 10, "malicious": outcomes[0].result.summary()["malicious"]},
    )
    return outcomes


def _accuracies(outcomes: list[Outcome]) -> tuple[float, ...]:
    return tuple(outcome.result.final_accuracy or 0.0 for outcome in outcomes)


def withstood(outcomes: list[Outcome]) -> bool:
    """True if the defended federation ended within ``MARGIN_POINTS`` of the unpoisoned one."""
    _, defended, unpoisoned = _accuracies(outcomes)
    return 100 * (unpoisoned - defended) <= MARGIN_POINTS


def print_comparison(outcomes: list[Outcome], console: Console) -> None:
    """The table, and in one sentence what it shows."""
    table = Table(
        title="3 of 10 clients flip their update's sign and boost it threefold", box=None, pad_edge=False
    )
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right", no_wrap=True)
    for outcome in outcomes:
        flat, arm = outcome.flat(), outcome.arm
        table.add_row(
            arm.name,
            f"{arm.protect} {arm.rule}",
            _percent(outcome.result.final_accuracy, digits=1),
            _percent(outcome.result.recall) if arm.poison else "-",
            _percent(outcome.result.precision) if arm.poison else "-",
            binary_size(float(str(flat["bytes_up"]))),
            binary_size(float(str(flat["bytes_down"]))),
            f"{outcome.seconds:.0f}",
        )
    console.print()
    console.print(table)
    console.print("recall: attackers rejected of all; precision: attackers among those rejected")
    console.print(
        "up, down: per client and round; s: data, keys, processes, training, report", highlight=False
    )
    undefended, defended, unpoisoned = _accuracies(outcomes)
    loss = 100 * (unpoisoned - defended)
    side, verdict = "below" if loss >= 0 else "above", "within" if withstood(outcomes) else "NOT within"
    console.print(
        f"Undefended, the poison leaves {100 * undefended:.1f}%. With ddfed over ciphertexts the federation "
        f"keeps {100 * defended:.1f}%, {abs(loss):.1f} points {side} the unpoisoned one "
        f"({verdict} {MARGIN_POINTS:g} points).",
        highlight=False,
        soft_wrap=True,
    )


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/comparison"), show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
def main(out: Path, seed: int, rounds: int) -> None:
    """Compare an undefended, a defended and an unpoisoned federation of 10 clients on digits.

    Exit status: 1 if the defence did not hold, 2 if a federation could not be run.
    """
    console = Console()
    try:
        outcomes = compare(out, seed=seed, rounds=rounds, console=console)
        print_comparison(outcomes, console)
        sys.exit(0 if withstood(outcomes) else 1)
    except SecaggError as error:
        click.echo(f"secagg: {error}", err=True)
        sys.exit(2)


def _percent(share: float | None, *, digits: int = 0) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}%"


if __name__ == "__main__":
    main()
