"""Clients whose training diverged send the model they were given: there is no training to attack."""

import io
import json
from shutil import copytree

import numpy as np
import pytest
from rich.console import Console

from attacks.inversion.bench.from_command import attack_run
from attacks.inversion.bench.from_run import RunTrial, Trial
from attacks.inversion.recorded import RecordedRun
from secagg.errors import Code, ConfigError
from secagg.simulation.recording import RECORDING, Recording


@pytest.mark.parametrize("kind", ["diverged_run", "hidden_diverged_run"])
def test_who_sent_its_base_is_left_out_by_name(kind, request):
    """Seen on the wire where something is visible; by training again where nothing is."""
    planned = RunTrial.planned(request.getfixturevalue(kind), Trial(attackers=("analytic",)))
    assert planned.left_out == ("client-1 in round 1 sent the model it was given: its training diverged",)
    honest = planned.stage.recording.honest
    assert {honest[cell.update] for cell in planned.cells} == {(1, "client-2"), (1, "client-3")}


def test_the_report_says_who_was_left_out(diverged_run, tmp_path):
    """On the console, in the page and in the result: whoever reads one of them sees what is not in it."""
    console = Console(file=io.StringIO(), width=200)
    assert (
        attack_run(diverged_run, Trial(attackers=("analytic",)), out=tmp_path, command="", console=console)
        == 0
    )
    said = "client-1 in round 1 sent the model it was given: its training diverged"
    assert isinstance(console.file, io.StringIO) and f"not attacked: {said}\n" in console.file.getvalue()
    assert f"not attacked: {said}" in (tmp_path / "leak.html").read_text()
    assert json.loads((tmp_path / "result.json").read_text())["left_out"] == [said]


@pytest.mark.parametrize("kind", ["diverged_run", "hidden_diverged_run"])
def test_a_trial_of_nothing_but_bases_is_refused(kind, request):
    with pytest.raises(ConfigError, match="no training to attack: client-1 in round 1 sent") as caught:
        RunTrial.planned(request.getfixturevalue(kind), Trial(clients=("client-1",)))
    assert caught.value.code is Code.DATA_MISSING and "\n" not in caught.value.message


def test_nobody_is_left_out_of_a_run_that_trained(selective_run, full_run, plain_run):
    for run in (selective_run, full_run, plain_run):
        assert RunTrial.planned(run, Trial()).left_out == ()


def test_a_base_among_rounds_seen_together_is_passed_over(batched_run, tmp_path, rewritten):
    """Round 1's update of client 1 is made the model it started from: round 2's is seen without it."""
    copytree(batched_run / RECORDING, tmp_path / RECORDING)
    recording = Recording.open(tmp_path)
    shared, _ = recording.round(1)
    base = shared.manifest.flatten(recording.base(1))
    assert not shared.divisor
    rewritten(
        recording.server / "round-1" / "updates" / "client-1.npz",
        visible=base[~shared.mask.hidden].astype(np.float32),
    )
    run = RecordedRun(tmp_path, together=2)
    assert [place for place in run.honest if run.diverged(place)] == [(1, "client-1")]
    earlier = {client: run.update((2, client)).exposure.earlier for client in ("client-1", "client-2")}
    assert earlier["client-1"] == () and len(earlier["client-2"]) == 1
    assert run.in_the_clear((2, "client-1")).earlier == ()
