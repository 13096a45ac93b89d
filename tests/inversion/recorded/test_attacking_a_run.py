"""Attacks on what a real run put on the wire in the clear."""

import io
import json
import math
import stat

import pytest
import torch
from rich.console import Console

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.attackers.gauss_newton import GaussNewton
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.from_command import attack_run
from attacks.inversion.bench.from_run import Trial, play
from attacks.inversion.bench.rows import FRONT
from secagg.errors import Code, ConfigError

SHORT = Budget(effort=0.2)


def test_a_plain_run_with_one_sample_per_client_is_read_by_division(plain_run):
    """x = ∂L/∂W_i ÷ ∂L/∂b_i: each client's image comes back, labels too, from float32 on the wire."""
    rows = play(plain_run, Trial(attackers=("analytic",))).rows
    clear = [row for row in rows if row["significance"] == "none"]
    assert sorted(row["client"] for row in clear) == ["client-1", "client-2", "client-3"]
    for row in clear:
        assert row["psnr_db"] > 60 and row["ssim"] > 0.99 and row["label_correct"] is True
        assert (row["status"], row["ratio"], row["round"]) == ("leaked", 0.0, 1)
        assert row["psnr_pred_db"] > 60 > row["mean_psnr_db"]


def test_rows_have_the_columns_of_a_sweep_first_and_say_whose_they_are(plain_run):
    rows = play(plain_run, Trial(attackers=("analytic",), clients=("client-2",))).rows
    for row in rows:
        assert tuple(row)[: len(FRONT)] == FRONT
        assert (row["client"], row["round"], row["dataset"]) == ("client-2", 1, "digits")
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(number) for number in numbers)


def test_what_is_hidden_whole_is_a_reference_and_never_called_safe(full_run):
    """Nothing is visible: no attacker can begin, or ends with its prior; the information is the prior's."""
    rows = [
        row for row in play(full_run, Trial(attackers=("analytic",))).rows if row["significance"] == "full"
    ]
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
    rows = play(selective_run, trial, told=lambda done, total, title: told.append((done, total, title))).rows
    kinds = {(row["significance"], row["aware"]) for row in rows}
    assert kinds == {("none", True), ("random", False), ("random", True), ("full", True)}
    best = {
        aware: min(row["psnr_db"] for row in rows if (row["significance"], row["aware"]) == ("random", aware))
        for aware in (False, True)
    }
    assert best[True] > best[False] + 20 and best[True] > 60
    assert [(done, total) for done, total, _ in told] == [(at, 4) for at in range(4)]
    assert [title.partition(", client-1, ")[2] for _, _, title in told] == [
        "none: gauss-newton", "full: gauss-newton", "random 0.1: gauss-newton (naive)",
        "random 0.1: gauss-newton (aware)",
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_rows(plain_run):
    def figures():
        trial = Trial(
            attackers=("gauss-newton",),
            clients=("client-1",),
            knowledge=Knowledge.AWARE,
            seed=3,
            budget=SHORT,
        )
        return [{**row, "seconds": None} for row in play(plain_run, trial).rows]

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


def test_a_round_that_was_hidden_whole_says_nothing_of_the_mask(magnitude_run, tmp_path):
    """Round 1's three samples are references alone; the mask is judged by round 2's three, by all of them."""
    played = play(magnitude_run, Trial(attackers=("analytic",)))
    assert played.blank_rounds == [1] and played.complete
    masked = [row for row in played.rows if row["significance"] == "magnitude"]
    assert {row["round"] for row in masked} == {2} and len({row["sample"] for row in masked}) == 3
    assert {row["round"] for row in played.rows if row["significance"] in ("none", "full")} == {1, 2}
    out = tmp_path / "leak"
    trial = Trial(attackers=("gauss-newton",), knowledge=Knowledge.AWARE, budget=SHORT)
    attack_run(magnitude_run, trial, out=out, command="", console=Console(quiet=True))
    (advice,) = json.loads((out / "result.json").read_text())["advice"]
    assert advice["significance"] == "magnitude" and "of 3 samples" in advice["text"]
    assert "nothing was visible in round 1" in (out / "leak.html").read_text()


def test_pictures_stand_beside_their_rows_whatever_clients_have(magnitude_run, tmp_path):
    """One client has one sample, another two: each picture's original is that of its row's PSNR."""
    played = play(magnitude_run, Trial(attackers=("analytic",), knowledge=Knowledge.AWARE))
    rows = {
        (row["significance"], row["ratio"], row["attacker"], row["aware"], row["sample"]): row
        for row in played.rows
    }
    clear = [(cell, picture) for cell, picture in played.pictures if cell.significance == "none"]
    assert sorted(cell.update for cell, _ in clear) == list(range(6))
    for cell, picture in clear:
        row = rows[(cell.significance, cell.ratio, cell.attacker, cell.aware, cell.update)]
        original, made = (picture(kind).astype(float) for kind in ("original", "reconstruction"))
        assert original.shape == made.shape == (1, 1, 8, 8)
        # Float16 keeps a pixel to 2⁻¹² or better: beyond about 70 dB pictures no longer tell.
        apart = ((original - made.clip(0, 1)) ** 2).mean() + 1e-9
        assert min(-10 * math.log10(apart), 60) == pytest.approx(min(row["psnr_db"], 60), abs=0.5)


def test_the_page_shows_samples_and_only_its_owner_can_read_it(selective_run, tmp_path):
    out = tmp_path / "leak"
    trial = Trial(attackers=("gauss-newton",), rounds=(1,), clients=("client-1",), budget=SHORT)
    attack_run(selective_run, trial, out=out, command="", console=Console(quiet=True))
    assert "data:image/png" in (out / "leak.html").read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


@pytest.mark.parametrize("after", [0, 3])
def test_after_an_interruption_what_ended_is_written(selective_run, tmp_path, monkeypatch, after):
    """Ctrl-C in the fourth attack: three are kept, the page says so, and the status is 130."""
    calls = []
    attack = GaussNewton.attack

    def interrupted(self, exposure, **more):
        calls.append(exposure)
        if len(calls) > after:
            raise KeyboardInterrupt
        return attack(self, exposure, **more)

    monkeypatch.setattr(GaussNewton, "attack", interrupted)
    lines, out = io.StringIO(), tmp_path / "leak"
    trial = Trial(attackers=("gauss-newton",), rounds=(1,), budget=SHORT)
    status = attack_run(selective_run, trial, out=out, command="", console=Console(file=lines, width=120))
    assert status == 130
    if not after:
        assert not out.exists() and "nothing is written" in lines.getvalue()
        return
    result = json.loads((out / "result.json").read_text())
    assert result["complete"] is False
    assert [row["significance"] for row in result["rows"]] == ["none"] * 2 + ["full"] * 2 + ["random"] * 2
    assert "interrupted: 3 of 12 attacks ended" in (out / "leak.html").read_text()


def test_labels_that_attackers_are_given_are_not_counted_as_found(plain_run):
    """What follows from the last layer stands in a column of its own, whoever attacks."""
    for known in (True, False):
        rows = play(plain_run, Trial(attackers=("analytic",), labels_known=known)).rows
        clear = [row for row in rows if row["significance"] == "none"]
        assert {row["label_correct"] for row in clear} == {None if known else True}
        assert all(row["label_from_update"] is True and row["label_chance"] > 0 for row in clear)
        assert all(row["label_from_mask"] is None for row in clear)


def test_a_reconstruction_that_is_no_number_diverged(plain_run, monkeypatch):
    """Not an error of the run's."""

    def broken(self, exposure, *, seed, budget):
        inputs = torch.full((exposure.batch_size, *exposure.victim.shape), torch.nan, dtype=torch.float64)
        return Reconstruction(inputs=inputs, labels=torch.zeros(exposure.batch_size).long())

    monkeypatch.setattr(GaussNewton, "attack", broken)
    played = play(plain_run, Trial(attackers=("gauss-newton",), clients=("client-1",)))
    assert {row["status"] for row in played.rows} == {"diverged"} and not played.pictures


def test_nothing_is_written_if_the_run_was_not_recorded(tmp_path):
    with pytest.raises(ConfigError):
        attack_run(tmp_path, Trial(), out=tmp_path / "leak", command="", console=Console(quiet=True))
    assert not (tmp_path / "leak").exists()


@pytest.mark.parametrize(
    ("kind", "said"), [("plain_run", "none: use full; nothing was encrypted"), ("full_run", "everything was")]
)
def test_a_run_without_a_mask_gets_an_answer_too(kind, said, request, tmp_path):
    """Of a plain run that it leaked, of a full one that there was nothing to read."""
    lines = io.StringIO()
    trial = Trial(attackers=("analytic",), clients=("client-1",))
    console = Console(file=lines, width=120)
    attack_run(request.getfixturevalue(kind), trial, out=tmp_path / "leak", command="", console=console)
    assert said in " ".join(lines.getvalue().split())
    assert said in (tmp_path / "leak" / "leak.html").read_text()
