"""``secagg leak`` as it is called: refusals in one line, results on disk, also of a sweep cut short."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.cli import EXIT_INTERRUPTED, EXIT_REFUSED, main

DESIGNED = {"victim", "significance", "ratio", "attacker", "aware", "sample", "psnr_db", "ssim",
            "label_correct", "psnr_pred_db", "status"}  # fmt: skip
QUICK = ("--victim", "lenet-sigmoid", "--dataset", "digits", "--attacker", "gauss-newton:iterations=3",
         "--significance", "random", "--clients", 0, "--processes", 1)  # fmt: skip


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["leak", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, so that whatever is written shows; files a test needs lie beside it."""
    monkeypatch.delenv("SECAGG_DATA", raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, elsewhere, *arguments: object) -> str:
    """The one line on stderr of a call that writes nothing at all."""
    assert call(*arguments) == EXIT_REFUSED
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and not shown.out, shown
    assert not list(elsewhere.iterdir())
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--victim", "alexnet"], "alexnet"),
        (["--attacker", "gauss-newton,wishing"], "'wishing'"),
        (["--attacker", "gauss-newton:luck=3"], "no option 'luck'"),
        (["--significance", "magnitude,beauty"], "no significance 'beauty'"),
        (["--significance", "layers=nothing.weight"], "nothing.weight"),
        (["--ratio", "0,2"], "ratio.1 is 2.0; it must be a number ≥ 0 and ≤ 1"),
        (["--ratio", ""], "ratio is ''; it must name at least one"),
        (["--attacker", ","], "attacker is ','; it must name at least one"),
        (["--ratio", "many"], "ratio is 'many'"),
        (["--perturb", "noise"], "perturbation noise needs a value"),
        (["--perturb", "plain,noise:1e308"], "perturb is 'noise:1e308'; it leaves lenet"),
        (["--dataset", "no-such-data"], "no-such-data"),
        (["--dataset", "fashion-mnist"], "fashion-mnist"),
        (["--samples", "100000"], "100000"),
        (["--batch", "3", "--steps", "2"], "3 samples can't be cut into 2 equal steps"),
        (["--device", "toaster"], "device is 'toaster'; it must be cpu, cuda or cuda:INDEX"),
        (["--device", "cuda:999"], "device is 'cuda:999'"),
        (["--learning-rate", "1e-300"], "learning_rate is 1e-300; it must be a number ≥ 1e-09 and ≤ 100"),
        (["--learning-rate", "1e300"], "learning_rate is 1e+300"),
        (["--labels", "guessed"], "it must be one of known, inferred"),
        (["--clients", "100000"], "clients"),
        (["--mask", "no-such-mask"], "no-such-mask"),
        (["--mask", "no-such+mask"], "no-such+mask"),
        (["--mask", ""], "no mask's file is named"),
        (["no-such-sweep.toml"], "no-such-sweep.toml"),
        (["--samples", "x"], "'--samples'"),
        (["--viktim", "lenet"], "--victim"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line_and_writes_nothing(capsys, elsewhere, arguments, says):
    data = [] if "--dataset" in arguments else ["--dataset", "digits"]
    assert says in refused(capsys, elsewhere, *arguments, *data)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('attacker = ["gauss-newton", "wishing"]', "'wishing'"),
        ('victims = ["lenet"]', "victims is ['lenet']; unknown field, did you mean victim?"),
        ("ratio = [0.1, -1]", "ratio"),
        ('seed = "one"', "seed is 'one'"),
        ("out = 3", "out is 3"),
        ("victim = []", "victim is []; it must be a list of length ≥ 1"),
        ("ratio = [", "not valid TOML"),
    ],
)
def test_a_wrong_sweep_file_is_refused_by_its_name(capsys, elsewhere, content, says):
    file = elsewhere.parent / "sweep.toml"
    file.write_text(f'dataset = "digits"\n{content}\n')
    line = refused(capsys, elsewhere, file)
    assert says in line and ("wishing" in says or "sweep.toml" in line)


def test_a_mask_of_another_shape_or_kind_is_refused(capsys, elsewhere):
    file = elsewhere.parent / "mask.npy"
    for mask, says in (
        (np.zeros(10, dtype=bool), "mask covers 10 entries; the victim has"),
        (np.zeros(10), "a mask is a bool vector"),
    ):
        np.save(file, mask)
        assert says in refused(capsys, elsewhere, "--mask", file, "--dataset", "digits")
    file.write_bytes(b"no mask at all")
    assert "is no .npy file" in refused(capsys, elsewhere, "--mask", file, "--dataset", "digits")


def test_a_mask_s_path_that_is_none_is_refused(capsys, elsewhere):
    """A file may hold what no command line can."""
    file = elsewhere.parent / "sweep.toml"
    file.write_text('dataset = "digits"\nsignificance = "file=a\\u0000b"\n')
    assert "mask 'a\\x00b' is not a path" in refused(capsys, elsewhere, file)


def test_what_a_recorded_run_decides_is_refused_by_the_name_it_was_given(capsys, elsewhere):
    line = refused(capsys, elsewhere, "--from", "run", "--mask", "mask.npy", "--seed", 3)
    assert ": --mask can't be given with --from" in line


@pytest.mark.parametrize("name", ["result.json", "leak.html", ".leak.html.new"])
def test_a_folder_in_a_result_s_place_is_refused_before_anything_is_played(capsys, tmp_path, name):
    (tmp_path / name).mkdir()
    assert call(*QUICK, "--samples", 1, "--out", tmp_path) == EXIT_REFUSED
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and f"{tmp_path / name} is a folder" in shown.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_damaged_cells_are_refused_before_anything_is_played(capsys, tmp_path):
    arguments = (*QUICK, "--ratio", 0, "--samples", 1, "--out", tmp_path)
    assert call(*arguments) == 0
    with sqlite3.connect(tmp_path / "cells.sqlite3") as database:
        database.execute("UPDATE cells SET rows = '[' WHERE key = (SELECT MIN(key) FROM cells)")
    database.close()
    capsys.readouterr()
    assert call(*arguments) == EXIT_REFUSED
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and "cells.sqlite3: cell " in shown.err and "another --out" in shown.err
    assert "attacks on" not in shown.out


def test_names_with_brackets_are_printed_as_they_are(capsys, elsewhere, monkeypatch):
    """Nothing that a user may name is markup: of a network, which costs are measured of, or a folder."""
    (elsewhere.parent / "bracketed.py").write_text(
        "from torch import nn\n"
        "globals()['[/red]'] = lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    arguments = ("--victim", "bracketed:[/red]", "--dataset", "digits", "--attacker", "analytic",
                 "--significance", "random", "--ratio", 0.5, "--clients", 2, "--processes", 1,
                 "--samples", 1, "--out", "[bold]:smile:")  # fmt: skip
    assert call(*arguments) == 0
    assert "bracketed:[/red], random: " in capsys.readouterr().out
    assert call(*arguments) == 0
    assert "cells are already in [bold]:smile:\n" in capsys.readouterr().out


STOPPING = """
import multiprocessing, os, signal
from torch import nn

def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def while_planned(shape, classes):
    os.kill(os.getpid(), signal.SIGINT)
    return build(shape, classes)

def while_played(shape, classes):
    if multiprocessing.parent_process() is not None:
        os.kill(os.getppid(), signal.SIGINT)
        signal.pause()
    return build(shape, classes)
"""


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("while_planned", "interrupted before the first attack: nothing is written\n"),
        ("while_played", "interrupted before anything had ended: there is nothing to report\n"),
    ],
)
def test_ctrl_c_before_anything_has_ended_says_so_in_a_line(capsys, elsewhere, monkeypatch, when, says):
    """No page without a row, and no empty line."""
    (elsewhere.parent / "stopping.py").write_text(STOPPING)
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    others = QUICK[QUICK.index("--dataset") :]
    assert call("--victim", f"stopping:{when}", *others, "--samples", 1, "--out", "out") == EXIT_INTERRUPTED
    shown = capsys.readouterr()
    assert shown.out.endswith(says) and shown.out.count("interrupted") == 1 and not shown.err
    assert not list(elsewhere.rglob("result.json")) and not list(elsewhere.rglob("leak.html"))


def test_a_label_outside_the_range_is_refused(capsys, elsewhere):
    file = elsewhere.parent / "odd.npz"
    images = np.zeros((40, 8, 8), dtype=np.uint8)
    np.savez(file, x=images, y=np.tile([0, -1], 20))
    assert "labels run from -1 to 0" in refused(capsys, elsewhere, "--dataset", file)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.linspace(0, 255, 40 * 64).reshape(40, 8, 8), "values run from 0 to 255; give uint8, or divide"),
        (np.full((40, 8, 8), 7, dtype=np.uint8), "no two of them differ"),
        (np.full((40, 64), 7.0), "no two of them differ"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "3 samples are too few to hold some out for testing; one class "
         "at least needs 3"),
    ],
)  # fmt: skip
def test_own_samples_that_say_nothing_are_refused(capsys, elsewhere, images, says):
    """Before anything is played: pixels out of range, samples that are all one, too few of them."""
    file = elsewhere.parent / "own.npz"
    np.savez(file, x=images, y=np.arange(len(images)) % 2)
    assert says in refused(capsys, elsewhere, "--dataset", file, "--victim", "mlp")


def test_text_victims_say_which_text_they_read(capsys, elsewhere):
    """By default they ask for it; of anything else one line names the way out."""
    text = ("--attacker", "embedding-rows")
    assert "tokenizer bert" in refused(capsys, elsewhere, "--victim", "bert,gpt2", "--data", ".", *text)
    for others in (("--victim", "bert", "--dataset", "digits"), ("--victim", "mlp,bert")):
        line = refused(capsys, elsewhere, *others, *text)
        assert "victim bert reads text, which digits is not" in line and "--dataset sst2" in line


def test_a_victim_with_a_layer_that_can_not_be_attacked_is_refused(capsys, elsewhere, monkeypatch):
    (elsewhere.parent / "odd_victim.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.drop = nn.Dropout(0.5)\n"
        "        self.last = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        return self.last(self.drop(x).flatten(1))\n"
        "def build(shape, classes):\n"
        "    return Odd().train()\n"
    )
    monkeypatch.syspath_prepend(str(elsewhere.parent))
    line = refused(capsys, elsewhere, "--victim", "odd_victim:build", "--dataset", "digits")
    assert "drop" in line.lower()


def test_ray_is_asked_for_by_name_where_it_is_missing(capsys, elsewhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(capsys, elsewhere, *QUICK, "--samples", 1, "--ray", "local")
    assert "DEPENDENCY_MISSING" in line and "secagg[ray]" in line


def test_ctrl_c_keeps_what_ended_and_the_same_command_goes_on(capsys, tmp_path):
    """Cells that ended are on disk; no process stays; what is there is not played again."""
    out = tmp_path / "out"
    arguments = (*QUICK, "--ratio", "0.5,0.9", "--samples", 3, "--seed", 3, "--out", out)
    with subprocess.Popen(
        [sys.executable, "-m", "secagg.cli", "leak", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        while not run.stdout.readline().startswith("["):
            pass
        run.send_signal(signal.SIGINT)
        shown, errors = run.communicate(timeout=120)
    assert run.returncode == EXIT_INTERRUPTED, errors
    assert "Traceback" not in errors and "interrupted: what has ended is kept" in shown
    content = json.loads((out / "result.json").read_text())
    assert content["complete"] is False
    ended = stored(out)
    assert 0 < len(ended) < 25
    assert not [line for line in commands() if str(out) in line]
    # It holds the samples themselves.
    assert out.stat().st_mode & 0o777 == 0o700

    assert call(*arguments) == 0
    shown = capsys.readouterr().out
    assert f"{len(ended)} of 33 cells are already in" in shown
    later = stored(out)
    assert len(later) == 33 and ended.items() <= later.items()
    content = json.loads((out / "result.json").read_text())
    assert content["complete"] is True and content["seed"] == 3
    rows = content["rows"]
    assert all(row.keys() >= DESIGNED for row in rows)
    # Of 3 samples: ratio 0 for either kind, two ratios for either kind, and two references.
    assert len(rows) == 3 * (2 + 2 * 2 + 2)
    assert {row["sample"] for row in rows} == {0, 1, 2}
    (advice,) = content["advice"]
    assert (advice["significance"], [item["ratio"] for item in advice["judgements"]]) == (
        "random",
        [0.5, 0.9],
    )


def stored(folder: Path) -> dict[str, float]:
    """When each cell that is stored ended."""
    with sqlite3.connect(folder / "cells.sqlite3") as database:
        found = dict(database.execute("SELECT key, ended FROM cells"))
    database.close()
    return found


def commands() -> list[str]:
    """Command lines of this machine's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
