"""``secagg join``: one line per round, one line per error."""

import subprocess
import sys

import numpy as np
import pytest

from secagg.cli.join import load_trainer
from secagg.errors import Code, ConfigError

MODEL = {"w": np.zeros(8, np.float32)}
TRAINER = """
import numpy as np

NOT_CALLABLE = 3

def train(model, round):
    return {name: tensor + np.float32(1) for name, tensor in model.items()}, 5
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a trainer module, as a user of the command has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "adding_trainer.py").write_text(TRAINER)
    return tmp_path


def join(fed, here, *more, trainer="adding_trainer:train"):
    return subprocess.run(
        [
            sys.executable, "-m", "secagg.cli", "join", fed.identity("alice"),
            "--server", fed.address, "--trainer", trainer, *more,
        ],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip


def test_trainer_is_found_in_the_working_folder(here):
    """``module:callable`` names a function beside the user, installed or not."""
    tensors, count = load_trainer("adding_trainer:train")({"w": np.zeros(2, np.float32)}, 1)
    assert count == 5 and tensors["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "name", ["adding_trainer", ":train", "nowhere_trainer:train", "adding_trainer:nothing",
             "adding_trainer:NOT_CALLABLE"],
)  # fmt: skip
def test_trainer_that_is_none_is_refused_by_name(here, name):
    """The line says which trainer and why."""
    with pytest.raises(ConfigError, match=name) as caught:
        load_trainer(name)
    assert caught.value.code is Code.CONFIG_INVALID


def test_joining_prints_one_line_per_round(federation, here):
    """Two rounds, two lines, exit 0 at the federation's end; the model went through both rounds."""
    fed = federation(MODEL, ["alice"], rounds=2)
    fed.serve()
    done = join(fed, here)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2"]
    assert all("MiB up" in line and "opened in" in line for line in lines)


def test_leaving_after_some_rounds(federation, here):
    """``--rounds 1`` takes part once."""
    fed = federation(MODEL, ["alice"], rounds=2)
    fed.serve()
    done = join(fed, here, "--rounds", "1")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--patience", "0.3"], "SERVER_UNREACHABLE"),
        (["--patience", "-1"], "CONFIG_INVALID"),
        (["--trainer", "nowhere_trainer:train"], "CONFIG_INVALID"),
        (["--server", "localhost"], "CONFIG_INVALID"),
    ],
)
def test_error_is_one_line_with_its_code(federation, here, more, code):
    """No traceback: a code, what it concerns, exit status 2."""
    fed = federation(MODEL, ["alice"])
    done = join(fed, here, *more)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"secagg: {code}: ")
    assert "Traceback" not in done.stderr
