"""Attacks on what a real run put on the wire in the clear."""

import html
import io
import json
import math
import pickle
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from attacks.inversion.attackers.attacker import Budget, Reconstruction
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.from_command import attack_run
from attacks.inversion.bench.from_run import RunTrial, Trial
from attacks.inversion.bench.play import attacked as played
from attacks.inversion.bench.rows import FRONT, ordered, rows_of
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.verdict import judged
from attacks.inversion.exposure import Exposure
from secagg.errors import Code, ConfigError

SHORT = Budget(effort=0.2)


class NoNumbers:
    """An attacker whose reconstruction is no picture at all."""

    name = "no-numbers"

    def unsuited(self, exposure: Exposure) -> str:
        return ""

    def attack(self, exposure: Exposure, *, seed: int, budget: Budget) -> Reconstruction:
        inputs = torch.full((exposure.batch_size, *exposure.victim.shape), torch.nan, dtype=torch.float64)
        return Reconstruction(inputs=inputs, labels=torch.zeros(exposure.batch_size).long())


def rows_from(run: Path, trial: Trial) -> list[dict]:
    """What a trial comes to, played in this process."""
    planned = RunTrial.planned(run, trial)
    ended = [(cell, planned.stage.play(cell)) for cell in planned.cells]
    return [ordered(row) for row in judged(rows_of(ended, trial.knowledge), trial.margins)]


def attacked(run: Path, trial: Trial, out: Path) -> dict:
    """``result.json`` of the command."""
    assert attack_run(run, trial, out=out, command="", console=Console(quiet=True)) == 0
    return json.loads((out / "result.json").read_text())


def test_a_plain_run_with_one_sample_per_client_is_read_by_division(plain_run):
    """x = ∂L/∂W_i ÷ ∂L/∂b_i: each client's image comes back, labels too, from float32 on the wire."""
    rows = rows_from(plain_run, Trial(attackers=("analytic",)))
    clear = [row for row in rows if row["significance"] == "none" and row["aware"]]
    assert sorted(row["client"] for row in clear) == ["client-1", "client-2", "client-3"]
    for row in clear:
        assert row["psnr_db"] > 60 and row["ssim"] > 0.99 and row["label_correct"] is True
        assert (row["status"], row["ratio"], row["round"]) == ("leaked", 0.0, 1)
        assert row["psnr_pred_db"] > 60 > row["mean_psnr_db"]


def test_rows_have_the_columns_of_a_sweep_first_and_say_whose_they_are(plain_run):
    rows = rows_from(plain_run, Trial(attackers=("analytic",), clients=("client-2",)))
    for row in rows:
        assert tuple(row)[: len(FRONT)] == FRONT
        assert (row["client"], row["round"], row["dataset"]) == ("client-2", 1, "digits")
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(number) for number in numbers)


def test_what_is_hidden_whole_is_a_reference_and_never_called_safe(full_run):
    """Nothing is visible: no attacker can begin, or ends with its prior; the information is the prior's."""
    rows = [
        row for row in rows_from(full_run, Trial(attackers=("analytic",))) if row["significance"] == "full"
    ]
    assert len(rows) == 2
    for row in rows:
        assert row["status"] in ("reference", "unsuited")
        assert row["psnr_pred_db"] == pytest.approx(10 * math.log10(12), abs=1e-3)


def test_knowing_the_mask_makes_the_difference(selective_run):
    """A tenth hidden at random: division by what the mask leaves is exact to rounding for who knows it.

    Reference rows stand beside: the same update as if all, and as if nothing, had travelled in the clear.
    """
    trial = Trial(attackers=("gauss-newton",), rounds=(1,), clients=("client-1",), budget=SHORT)
    rows = rows_from(selective_run, trial)
    kinds = {(row["significance"], row["aware"]) for row in rows}
    assert kinds == {("none", False), ("none", True), ("random", False), ("random", True), ("full", True)}
    best = {
        aware: min(row["psnr_db"] for row in rows if (row["significance"], row["aware"]) == ("random", aware))
        for aware in (False, True)
    }
    assert best[True] > best[False] + 20 and best[True] > 60


def test_the_same_seed_gives_the_same_rows(plain_run):
    def figures():
        trial = Trial(
            attackers=("gauss-newton",),
            clients=("client-1",),
            knowledge=Knowledge.AWARE,
            seed=3,
            budget=SHORT,
        )
        return [{**row, "seconds": None} for row in rows_from(plain_run, trial)]

    assert figures() == figures()


def test_what_can_not_be_attacked_is_refused(tmp_path, plain_run):
    with pytest.raises(ConfigError) as caught:
        RunTrial.planned(tmp_path, Trial())
    assert caught.value.code is Code.DATA_MISSING
    with pytest.raises(ConfigError, match="crystal-ball"):
        RunTrial.planned(plain_run, Trial(attackers=("crystal-ball",)))


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
    assert "none: use full" in lines.getvalue()
    assert "12 attacks on 3 recorded updates" in lines.getvalue()


def test_a_round_that_was_hidden_whole_says_nothing_of_the_mask(magnitude_run, tmp_path):
    """Round 1's three samples are references alone; the mask is judged by round 2's three, by all of them."""
    assert RunTrial.planned(magnitude_run, Trial()).blank_rounds == (1,)
    rows = rows_from(magnitude_run, Trial(attackers=("analytic",)))
    masked = [row for row in rows if row["significance"] == "magnitude"]
    assert {row["round"] for row in masked} == {2} and len({row["sample"] for row in masked}) == 3
    assert {row["round"] for row in rows if row["significance"] in ("none", "full")} == {1, 2}
    out = tmp_path / "leak"
    trial = Trial(attackers=("gauss-newton",), knowledge=Knowledge.AWARE, budget=SHORT)
    attack_run(magnitude_run, trial, out=out, command="", console=Console(quiet=True))
    (advice,) = json.loads((out / "result.json").read_text())["advice"]
    assert advice["significance"] == "magnitude" and "of 3 samples" in advice["text"]
    assert "nothing was visible in round 1" in (out / "leak.html").read_text()


def test_pictures_stand_beside_their_rows_whatever_clients_have(magnitude_run, tmp_path):
    """One client has one sample, another two: each picture's original is that of its row's PSNR."""
    trial = Trial(attackers=("analytic",), knowledge=Knowledge.AWARE)
    result, planned = attacked(magnitude_run, trial, tmp_path), RunTrial.planned(magnitude_run, trial)
    rows = {row["sample"]: row for row in result["rows"] if row["significance"] == "none"}
    with Store(tmp_path) as store:
        pictures = [one for one in planned.pictures(store) if one[0].significance == "none"]
        originals, reconstructions = (
            {cell.update: found for cell, picture in pictures if (found := picture(kind)) is not None}
            for kind in ("original", "reconstruction")
        )
    assert sorted(originals) == sorted(reconstructions) == sorted(rows) == list(range(6))
    for sample, row in rows.items():
        original, made = (found[sample].astype(float) for found in (originals, reconstructions))
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


def test_a_trial_of_more_goes_on_from_one_of_fewer(selective_run, tmp_path):
    """Client 1 is attacked, then everybody: what there was is played no second time, and stays as it was."""
    trial = Trial(attackers=("gauss-newton",), rounds=(1,), budget=SHORT)
    first = attacked(selective_run, replace(trial, clients=("client-1",)), tmp_path)
    with Store(tmp_path) as store:
        there = store.keys()
    lines = io.StringIO()
    console = Console(file=lines, width=120)
    assert attack_run(selective_run, trial, out=tmp_path, command="", console=console) == 0
    assert f"{len(there)} of {3 * len(there)} cells are already" in " ".join(lines.getvalue().split())
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [row for row in rows if row["client"] == "client-1"] == first["rows"]


def test_another_recording_under_the_same_folder_is_not_taken_for_the_first(selective_run, batched_run):
    """Cells know what they are of: nothing of one run is shown as another's."""
    keys = [
        {cell.key for cell in RunTrial.planned(run, Trial()).cells} for run in (selective_run, batched_run)
    ]
    assert keys[0].isdisjoint(keys[1])


def test_a_recording_that_is_replaced_while_it_is_attacked_is_no_longer_attacked(selective_run, batched_run):
    """Nothing of another run is stored as this one's."""
    planned = RunTrial.planned(selective_run, Trial(attackers=("analytic",)))
    planned.stage.run = batched_run
    in_another_process = pickle.loads(pickle.dumps(planned.stage))
    with pytest.raises(ConfigError, match="another one than when the attack began"):
        in_another_process.play(planned.cells[0])


def test_an_interrupted_trial_reports_what_ended_and_goes_on(selective_run, tmp_path):
    """Ctrl-C in a real process: status 130, a page of what there is; the same command ends it.

    The first line comes as the second of 33 cells has ended, six before the first attack on a masked update:
    of the mask there is no answer then.
    """
    command = [
        str(Path(sys.executable).with_name("secagg")),
        "leak",
        "--from",
        str(selective_run),
        "--out",
        str(tmp_path),
    ]
    command += ["--attacker", "analytic", "--attacker", "gauss-newton"]
    command += ["--processes", "1", "--effort", "0.1", "--from-round", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("["):
            assert line or process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 130 and "the same command goes on" in rest
    result = json.loads((tmp_path / "result.json").read_text())
    page = (tmp_path / "leak.html").read_text()
    assert result["complete"] is False and result["advice"] == []
    assert page.count("interrupted: ") == page.count("cells ended; the same command goes on</strong>") == 1
    assert "of what has ended:" in rest
    assert all("no answer yet: no attack on a masked update has ended" in text for text in (rest, page))
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert "cells are already in" in " ".join(ended.stdout.split())
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["complete"] is True and len(result["advice"]) == 1


def test_rounds_seen_together_are_read_where_one_is_not(many_rounds_run):
    """Each round shows other pixels: twelve of them all. The bound says so, and an attack gets there."""
    trial = Trial(attackers=("gauss-newton",), clients=("client-1",), rounds=(12,), labels_known=True)
    one, all_of_them = (
        [
            row
            for row in rows_from(many_rounds_run, replace(trial, together=count))
            if row["significance"] == "random" and row["aware"]
        ]
        for count in (1, 12)
    )
    assert len(one) == len(all_of_them) == 1
    assert one[0]["psnr_pred_db"] < 25 and one[0]["psnr_db"] < 25
    assert all_of_them[0]["psnr_pred_db"] > 60 and all_of_them[0]["psnr_db"] > 60


def test_labels_that_attackers_are_given_are_not_counted_as_found(plain_run):
    """What follows from the last layer stands in a column of its own, whoever attacks."""
    for known in (True, False):
        rows = rows_from(plain_run, Trial(attackers=("analytic",), labels_known=known))
        clear = [row for row in rows if row["significance"] == "none"]
        assert {row["label_correct"] for row in clear} == {None if known else True}
        assert all(row["label_from_update"] is True and row["label_chance"] > 0 for row in clear)
        assert all(row["label_from_mask"] is None for row in clear)


def test_a_reconstruction_that_is_no_number_diverged(plain_run):
    """Not an error of the run's."""

    planned = RunTrial.planned(plain_run, Trial(attackers=("gauss-newton",), clients=("client-1",)))
    cell = next(cell for cell in planned.cells if cell.attacker == "gauss-newton")
    recording = planned.stage.recording
    recorded = recording.update(recording.honest[cell.update])
    (row,) = played(NoNumbers(), recorded.exposure, recorded.batch, cell).rows
    assert row["ended"] == "diverged" and "NaN" in row["detail"] and row["seed"] == cell.seed


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


@pytest.mark.parametrize(
    ("kind", "hypothetical"), [("plain_run", False), ("full_run", True), ("magnitude_run", True)]
)
def test_what_a_run_encrypted_is_not_shown_as_sent_in_the_clear(kind, hypothetical, request, tmp_path):
    """Ratio 0 of a run without protection is what travelled; of any other what would have been read."""
    run = request.getfixturevalue(kind)
    attacked(run, Trial(attackers=("analytic",), clients=("client-1",)), tmp_path / "leak")
    page = html.unescape((tmp_path / "leak" / "leak.html").read_text())
    assert ("<th>had it been sent in the clear</th>" in page) is hypothetical
    assert ("had it been sent in the clear</td>" in page) is hypothetical
    assert f"<h1>What did the run in '{run.name}' leak?</h1>" in page
