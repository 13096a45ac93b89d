"""Attacks on what a real run put on the wire in the clear."""

import io
import json
import math

import pytest
from rich.console import Console

from attacks.inversion.attackers.attacker import Budget
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.from_command import attack_run
from attacks.inversion.bench.from_run import Trial, play
from attacks.inversion.bench.rows import FRONT
from secagg.errors import Code, ConfigError

SHORT = Budget(effort=0.2)


def test_a_plain_run_with_one_sample_per_client_is_read_by_division(plain_run):
    """x = ∂L/∂W_i ÷ ∂L/∂b_i: each client's image comes back, labels too, from float32 on the wire."""
    rows = play(plain_run, Trial(attackers=("analytic",)))
    clear = [row for row in rows if row["significance"] == "none"]
    assert sorted(row["client"] for row in clear) == ["client-1", "client-2", "client-3"]
    for row in clear:
        assert row["psnr_db"] > 60 and row["ssim"] > 0.99 and row["label_correct"] is True
        assert (row["status"], row["ratio"], row["round"]) == ("leaked", 0.0, 1)
        assert row["psnr_pred_db"] > 60 > row["mean_psnr_db"]


def test_rows_have_the_columns_of_a_sweep_first_and_say_whose_they_are(plain_run):
    rows = play(plain_run, Trial(attackers=("analytic",), clients=("client-2",)))
    for row in rows:
        assert tuple(row)[: len(FRONT)] == FRONT
        assert (row["client"], row["round"], row["dataset"]) == ("client-2", 1, "digits")
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(number) for number in numbers)


def test_what_is_hidden_whole_is_a_reference_and_never_called_safe(full_run):
    """Nothing is visible: no attacker can begin, or ends with its prior; the information is the prior's."""
    rows = [row for row in play(full_run, Trial(attackers=("analytic",))) if row["significance"] == "full"]
    assert len(rows) == 2
    for row in rows:
        assert row["status"] in ("reference", "unsuited")
        assert row["psnr_pred_db"] == pytest.approx(10 * math.log10(12), abs=1e-3)


def test_knowing_the_mask_makes_the_difference(selective_run):
    """A tenth hidden at random: division by what the mask leaves is exact to rounding for who knows it.

    Reference rows stand beside: the same update as if all, and as if nothing, had travelled in the clear.
    """
    told = []
    trial = Trial(attackers=("gauss-newton",), rounds=(1,), clients=("client-1",), budget=SHORT)
    rows = play(selective_run, trial, told=lambda done, total, title: told.append((done, total, title)))
    kinds = {(row["significance"], row["aware"]) for row in rows}
    assert kinds == {("none", True), ("random", False), ("random", True), ("full", True)}
    best = {
        aware: min(row["psnr_db"] for row in rows if (row["significance"], row["aware"]) == ("random", aware))
        for aware in (False, True)
    }
    assert best[True] > best[False] + 20 and best[True] > 60
    assert [(done, total) for done, total, _ in told] == [(at, 4) for at in range(4)]
    assert told[2][2] == "round 1, client-1, random 0.1: gauss-newton (aware)"


def test_the_same_seed_gives_the_same_rows(plain_run):
    def figures():
        trial = Trial(
            attackers=("gauss-newton",),
            clients=("client-1",),
            knowledge=Knowledge.AWARE,
            seed=3,
            budget=SHORT,
        )
        return [{**row, "seconds": None} for row in play(plain_run, trial)]

    assert figures() == figures()


def test_what_can_not_be_attacked_is_refused(tmp_path, plain_run):
    with pytest.raises(ConfigError) as caught:
        play(tmp_path)
    assert caught.value.code is Code.DATA_MISSING
    with pytest.raises(ConfigError, match="crystal-ball"):
        play(plain_run, Trial(attackers=("crystal-ball",)))


def test_a_run_is_attacked_from_recording_to_result_and_advice(selective_run, tmp_path):
    """``result.json`` has the rows, and the advice that follows from them is printed."""
    lines = io.StringIO()
    status = attack_run(
        selective_run,
        Trial(attackers=("analytic",), rounds=(1,)),
        out=tmp_path / "leak",
        command="secagg leak --from runs/run",
        console=Console(file=lines, width=120),
    )
    result = json.loads((tmp_path / "leak" / "result.json").read_text())
    assert status == 0 and result["command"] == "secagg leak --from runs/run"
    assert {(row["client"], row["round"]) for row in result["rows"]} == {
        (f"client-{at}", 1) for at in (1, 2, 3)
    }
    assert len(result["advice"]) == 1 and "none: use full" in result["advice"][0]["text"]
    assert "none: use full" in lines.getvalue() and "[0/12] round 1, client-1" in lines.getvalue()


def test_nothing_is_written_if_the_run_was_not_recorded(tmp_path):
    with pytest.raises(ConfigError):
        attack_run(tmp_path, Trial(), out=tmp_path / "leak", command="", console=Console(quiet=True))
    assert not (tmp_path / "leak").exists()
