"""The study of selective encryption: end to end in miniature, and what it concludes from rows."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from attacks.inversion.bench.store import STORE_FILE
from attacks.inversion.bench.verdict import Status
from benchmarks.leak_study.findings import factors, ranking, reached, smallest
from benchmarks.selective_study import main

FLAGS = [
    *("--short", "--parts", "lenet-sigmoid", "--significances", "magnitude", "random"),
    *("--ratios", "0.1", "--effort", "0.1"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that has ended."""
    out = tmp_path_factory.mktemp("study")
    assert main([*FLAGS, "--out", str(out)]) == 0
    return out


def content(out: Path) -> Any:
    """``result.json``."""
    return json.loads((out / "result.json").read_text())


def test_a_study_says_what_was_reached_and_what_follows(finished: Path) -> None:
    """Rows of both attackers under both protections, the label from ten masks, a table and three answers."""
    found = content(finished)
    assert found["complete"] and found["schema"] == 1
    hidden = {(row["significance"], row["aware"]) for row in found["rows"] if row["ratio"] == 0.1}
    assert hidden == {(name, aware) for name in ("magnitude", "random") for aware in (False, True)}
    assert {row["of"] for row in found["labels_from_mask"]} == {10}
    table = (finished / "tables.md").read_text()
    assert "| magnitude | 0.1 |" in table and "| random | 0.1 |" in table
    answers = (finished / "conclusions.md").read_text()
    assert answers.count("###") == 3 and "lenet-sigmoid" in answers


def test_the_same_command_goes_on_from_what_is_stored(finished: Path) -> None:
    """Of a finished study nothing is played again; ``--report`` plays nothing of an unfinished one either."""

    def ended() -> list[Any]:
        with sqlite3.connect(finished / STORE_FILE) as database:
            return database.execute("SELECT key, ended FROM cells ORDER BY key").fetchall()

    before = ended()
    assert main([*FLAGS, "--out", str(finished)]) == 0
    assert ended() == before
    assert main([*FLAGS, "--samples", "2", "--report", "--out", str(finished)]) == 0
    assert ended() == before
    # Sample 1 was never attacked, so nothing is said of it.
    assert {row["sample"] for row in content(finished)["rows"]} == {0}


@pytest.mark.parametrize("flags", [["--significances", "nonsense"], ["--ratios", "2"], ["--samples", "0"]])
def test_what_cannot_be_asked_is_refused_before_anything_is_written(flags, tmp_path, capsys) -> None:
    """One line, exit code 2, no folder."""
    out = tmp_path / "study"
    assert main([*FLAGS, *flags, "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not out.exists()


def row(name: str, ratio: float, status: Status, *, aware: bool = True, **more: Any) -> dict[str, Any]:
    """One judged row of a made-up part."""
    usual = {"sample": 0, "attacker": "gauss-newton", "psnr_db": 20.0, "prior_psnr_db": 10.0}
    return {**usual, "significance": name, "ratio": ratio, "aware": aware, "status": status, **more}


def test_a_ratio_holds_only_if_all_larger_ones_do_and_somebody_could_have_read() -> None:
    """A ratio that held by luck, below one that leaks, and attacks that can't read decide nothing."""
    leaks, holds, says_nothing = Status.LEAKED, Status.RESISTED, Status.INCONCLUSIVE
    by_luck = [row("magnitude", *each) for each in ((0.1, holds), (0.3, leaks), (0.5, holds))]
    assert smallest(by_luck, text=False) == 0.5
    assert smallest([row("magnitude", 0.1, says_nothing)], text=False) is None
    both = [row("magnitude", 0.1, holds), row("magnitude", 0.1, leaks, attacker="dlg")]
    assert not reached(both, text=False).holds
    other = [row("magnitude", 0.1, holds), row("magnitude", 0.1, says_nothing, sample=1)]
    assert not reached(other, text=False).holds


def test_metrics_are_ranked_by_the_smallest_ratio_that_holds() -> None:
    """Where none holds the one that leaves least is said; a factor is a bound where the aware always read."""
    rows = [
        row("magnitude", 0.1, Status.RESISTED, aware=False),
        row("magnitude", 0.5, Status.RESISTED, aware=False),
        row("random", 0.1, Status.LEAKED, aware=False),
        row("random", 0.5, Status.RESISTED, aware=False),
        row("magnitude", 0.1, Status.LEAKED),
        row("magnitude", 0.5, Status.RESISTED),
        row("random", 0.1, Status.LEAKED, psnr_db=15.0),
        row("random", 0.5, Status.LEAKED, psnr_db=15.0),
    ]
    naive, aware = (ranking("net", rows, aware=kind, text=False) for kind in (False, True))
    assert naive is not None and aware is not None
    assert naive.smallest == {"magnitude": 0.1, "random": 0.5} and naive.best == ("magnitude",)
    assert aware.best == ("magnitude",) and aware.lowest == "random"
    first, second = factors(naive, aware, {"magnitude": 0.5, "random": None})
    # Less than 10% might do for magnitude where the mask isn't known: five times is the least.
    assert (first.least, first.bound, first.advised_least) == (5.0, True, 5.0)
    assert (second.least, second.bound, second.advised_least) == (2.0, False, 2.0)


def test_no_factor_follows_where_the_smallest_ratio_holds_against_both() -> None:
    """It would be 1 whatever smaller ratios do."""
    rows = [row("magnitude", 0.1, Status.RESISTED, aware=aware) for aware in (False, True)]
    naive, aware = (ranking("net", rows, aware=kind, text=False) for kind in (False, True))
    assert naive is not None and aware is not None
    (found,) = factors(naive, aware, {})
    assert not found.decided and found.least is None


def test_words_count_wherever_they_stand() -> None:
    """A text's figure is the larger one of tokens at their places and of words in any order."""
    found = row("random", 0.5, Status.LEAKED, psnr_db=None, token_accuracy=0.1, bag_accuracy=0.6)
    assert reached([found], text=True).worst == 0.6
