"""``secagg run`` as a user calls it: real processes, real sockets, real data, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from idx_files import blobs, write_idx

from secagg.model_file import load_model

DEADLINE_S = 240


def secagg_run(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secagg.cli", "run", "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def result_of(done: subprocess.CompletedProcess[str], out: Path) -> dict:
    assert done.returncode == 0, done.stderr
    content = json.loads((out / "result.json").read_text())
    assert content["completed"] is True
    return content


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory):
    """A data set the project has never seen."""
    folder = tmp_path_factory.mktemp("rows-of-light")
    for kind, count in (("train", 200), ("t10k", 80)):
        images, labels = blobs(count, seed=count)
        write_idx(folder / f"{kind}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{kind}-labels-idx1-ubyte.gz", labels)
    return folder


def test_a_poisoned_federation_under_encryption_learns_an_unseen_data_set(tmp_path, idx_folder):
    """Four clients, one flips its sign threefold, ddfed over ciphertexts: it is rejected, the rest learns."""
    out = tmp_path / "run"
    done = secagg_run(out, "--dataset", idx_folder, "--clients", 4, "--rounds", 3, "--protect", "full",
                      "--rule", "ddfed", "--poison", "sign-flip:0.25", "--model", "mlp")  # fmt: skip
    result = result_of(done, out)
    assert [row["round"] for row in result["rows"]] == [1, 2, 3]
    assert (result["protect"], result["rule"], len(result["malicious"])) == ("full", "ddfed", 1)
    assert result["profile"] == "robust"
    assert all(result["malicious"][0] in row["rejected_clients"].split() for row in result["rows"])
    assert result["final_accuracy"] > 0.9 and result["recall"] == 1.0
    for row in result["rows"]:
        assert row["accepted"] + row["rejected"] == 4
        assert row["bytes_up"] > 0 and row["bytes_down"] > 0
        assert row["seal_s"] > 0 and row["aggregate_s"] > 0 and row["open_s"] > 0 and row["wall_s"] > 0
    model = load_model(out / "model.npz")
    assert list(model) == ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    assert "rejected" in done.stdout and "100%" in done.stdout
    assert result["backdoor_success"] is None


@pytest.mark.parametrize(
    "choice",
    [("magnitude", "--ratio", 0.3), ("random", "--ratio", 0.3), ("layers", "--layers", "output.weight")],
    ids=lambda choice: choice[0],
)
def test_selective_federations_learn(tmp_path, idx_folder, choice):
    out = tmp_path / "run"
    done = secagg_run(out, "--dataset", idx_folder, "--clients", 3, "--rounds", 2, "--model", "linear",
                      "--protect", "selective", "--significance", *choice)  # fmt: skip
    assert result_of(done, out)["final_accuracy"] > 0.9


def test_full_and_plain_give_the_same_model(tmp_path):
    """Same seed, same training: encryption changes the mean by no more than its noise or its rounding."""
    np.savez(tmp_path / "d.npz", x=blobs(160)[0], y=blobs(160)[1])
    models = {}
    for protect, profile in (("plain", "auto"), ("full", "precise"), ("full", "auto")):
        out = tmp_path / f"{protect}-{profile}"
        done = secagg_run(out, "--dataset", tmp_path / "d.npz", "--clients", 3, "--rounds", 1,
                          "--protect", protect, "--model", "linear", "--profile", profile,
                          "--partition", "iid")  # fmt: skip
        dealt = result_of(done, out)["profile"]
        assert (dealt == "compact") == (protect == "full" and profile == "auto")
        models[protect, profile] = load_model(out / "model.npz")
    for name, tensor in models["plain", "auto"].items():
        # The profile's noise is far below float32's own rounding of values near 1.
        np.testing.assert_allclose(models["full", "precise"][name], tensor, atol=1e-6)
        # compact rounds to 2^-15 of a scale that is at most 32 times a tensor's largest value.
        largest = max(float(np.abs(t).max()) for t in models["plain", "auto"].values())
        np.testing.assert_allclose(models["full", "auto"][name], tensor, atol=32 * largest * 2.0**-15)


def test_a_majority_that_lies_decides_and_a_minority_does_not(tmp_path, idx_folder):
    """Liars find each other in opened statistics: three of five throw the honest out, two change nothing."""
    for fraction, believed in ((0.6, True), (0.4, False)):
        out = tmp_path / f"{fraction}"
        done = secagg_run(out, "--dataset", idx_folder, "--clients", 5, "--rounds", 1, "--model", "linear",
                          "--rule", "norm-clipping", "--poison", f"liar:{fraction}")  # fmt: skip
        result = result_of(done, out)
        honest = {f"client-{i + 1}" for i in range(5)} - set(result["malicious"])
        rejected = set(result["rows"][0]["rejected_clients"].split())
        assert rejected == (honest if believed else set())


def test_a_backdoors_success_is_measured_before_and_after_it_opens(tmp_path):
    """From round 2 on two of five replace the mean by models with a backdoor, and accuracy does not tell."""
    out = tmp_path / "run"
    done = secagg_run(out, "--clients", 5, "--rounds", 3, "--protect", "plain",
                      "--poison", "backdoor:0.4@2")  # fmt: skip
    result = result_of(done, out)
    success = [row["backdoor_success"] for row in result["rows"]]
    assert success[0] < 0.2 and min(success[1:]) > 0.7 and result["backdoor_success"] == success[-1]
    assert result["final_accuracy"] > 0.8
    assert "%]" in done.stdout


def test_a_federation_whose_values_explode_still_ends(tmp_path, idx_folder):
    """An attacker at the edge of what can be sealed: honest clients diverge, nothing is refused for ever."""
    out = tmp_path / "run"
    done = secagg_run(out, "--dataset", idx_folder, "--clients", 3, "--rounds", 2, "--model", "linear",
                      "--poison", "gaussian:0.34:1e30")  # fmt: skip
    assert len(result_of(done, out)["rows"]) == 2


def test_settings_come_from_a_file_and_flags_win(tmp_path, idx_folder):
    out = tmp_path / "run"
    (tmp_path / "run.toml").write_text(
        f'dataset = "{idx_folder}"\nclients = 3\nrounds = 9\nmodel = "linear"\nprotect = "plain"\nseed = 5\n'
    )
    result = result_of(secagg_run(out, tmp_path / "run.toml", "--rounds", 1), out)
    assert (len(result["rows"]), result["seed"], result["config"]["clients"]) == (1, 5, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--clients", 1], "CONFIG_INVALID", "clients"),
        (["--dataset", "no-such-folder"], "DATA_MISSING", "digits, fashion-mnist"),
        (["--dataset", "fashion-mnist", "--data", "no-such-folder"], "DATA_MISSING", "zalandoresearch"),
        (["--rule", "krom"], "RULE_UNKNOWN", "mean, ddfed"),
        (
            ["--significance", "layers", "--protect", "selective", "--layers", "nothing"],
            "CONFIG_INVALID",
            "output",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, arguments, code, says):
    done = secagg_run(tmp_path / "run", *arguments)
    assert done.returncode == 2
    assert (
        done.stderr.startswith(f"secagg: {code}: ") and says in done.stderr and done.stderr.count("\n") == 1
    )


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = secagg_run(tmp_path, "--clients", 2)
    assert done.returncode == 2 and "thesis.txt" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


class Running:
    """A run that is under way: its second round has ended."""

    def __init__(self, out: Path, idx_folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "secagg.cli", "run", "--out", str(out), "--dataset", str(idx_folder),
             "--clients", "3", "--rounds", "100000", "--model", "linear", "--protect", "plain"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        deadline = time.monotonic() + DEADLINE_S
        for line in self.process.stdout:
            if line.split()[:1] == ["2"] or time.monotonic() > deadline:
                break
        # The server, its crypto workers, the participants.
        self.below = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.below) > 4

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def assert_nothing_is_left(self, within_s: float) -> None:
        _, alive = psutil.wait_procs(self.below, timeout=within_s)
        # An ended grandchild stays a zombie where process 1 does not collect those it inherits.
        running = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
        assert not running, [process.cmdline() for process in running]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_keeps_its_rows(tmp_path, idx_folder, number):
    out = tmp_path / "run"
    with Running(out, idx_folder) as running:
        running.process.send_signal(number)
        _, errors = running.process.communicate(timeout=60)
        assert running.process.returncode == 130, errors
        running.assert_nothing_is_left(within_s=0.5)
    content = json.loads((out / "result.json").read_text())
    assert content["completed"] is False and len(content["rows"]) >= 2
    assert not list((out / "participants").glob("*.npz"))


def test_a_killed_launcher_takes_its_processes_with_it(tmp_path, idx_folder):
    """SIGKILL can't be handled; the children notice that their parent is gone."""
    with Running(tmp_path / "run", idx_folder) as running:
        running.process.kill()
        running.assert_nothing_is_left(within_s=30)


def test_a_participant_that_dies_ends_the_run_and_is_named(tmp_path, idx_folder):
    """What it last wrote to its log stands in the error."""
    out = tmp_path / "run"
    with Running(out, idx_folder) as running:
        victim = next(p for p in running.below if "client-2.json" in " ".join(p.cmdline()))
        (out / "logs" / "client-2.log").write_text("the last words\n")
        os.kill(victim.pid, signal.SIGKILL)
        _, errors = running.process.communicate(timeout=60)
        assert running.process.returncode == 2
        running.assert_nothing_is_left(within_s=0.5)
    assert "client-2 ended with status -9" in errors and "the last words" in errors
