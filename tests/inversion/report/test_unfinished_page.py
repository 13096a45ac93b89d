"""A sweep that was cut short: the page says so before anything else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from report_rows import Elements
from rich.console import Console

from attacks.inversion.bench.campaign import Played
from attacks.inversion.bench.config import SweepConfig
from attacks.inversion.bench.page import MOST_SAID, unfinished_text
from attacks.inversion.bench.report import report
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.sweep import Sweep

CONFIG = SweepConfig(
    victim=("lenet-sigmoid",),
    dataset="digits",
    significance=("random",),
    ratio=(0.0, 0.5, 1.0),
    attacker=("gauss-newton:iterations=1",),
    samples=1,
)
FAILED = "lenet, <b>random</b> 50%: RuntimeError: no memory\nTraceback: line 7"
BEFORE_TABLES = "of what has ended:"


@pytest.mark.parametrize("complete", [False, True])
def test_a_sweep_that_is_not_complete_says_so_on_top_of_its_page(tmp_path: Path, *, complete: bool) -> None:
    """How many cells ended, and the first failure's first line, as text."""
    sweep = Sweep.planned(CONFIG)
    with Store(tmp_path) as store:
        for cell in sweep.cells[:2]:
            store.add(cell, sweep.stage.play(cell))
    played = Played(failures=[] if complete else [FAILED])
    console = Console(file=io.StringIO(), width=120)
    report(sweep, played, out=tmp_path, command="", costs=[], console=console)
    page = Elements((tmp_path / "leak.html").read_text(encoding="utf-8"))
    said = (
        f"2 of {len(sweep.cells)} cells ended, 1 failed: lenet, <b>random</b> 50%: RuntimeError: no memory; "
        "the same command goes on"
    )
    cards = [given.get("class") for tag, given in page.found if tag == "section"]
    assert page.text.count(said) == (0 if complete else 1) and "line 7" not in page.text
    if not complete:
        assert cards[0] == "answer inconclusive" and page.text.index(said) < page.text.index("What leaked")
    assert "b" not in {tag for tag, _ in page.found}
    assert (BEFORE_TABLES in console.file.getvalue()) is not complete
    assert json.loads((tmp_path / "result.json").read_text())["complete"] is complete


def test_an_interruption_is_called_one_and_a_long_failure_is_cut() -> None:
    """Whatever was written into a failure, the page's first line stays one."""
    assert unfinished_text(Played(), ended=44, cells=44) == ""
    assert (
        unfinished_text(Played(interrupted=True), ended=3, cells=44)
        == "interrupted: 3 of 44 cells ended; the same command goes on"
    )
    text = unfinished_text(Played(failures=["x" * 9999, "y"]), ended=3, cells=44)
    assert "2 failed: xxx" in text and len(text) < MOST_SAID + 80
