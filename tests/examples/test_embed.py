"""The embedding example, as a newcomer would run it: commands, processes, sockets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["north", "south", "west"]
ROUNDS = 3


def command(*arguments):
    """Run one ``secagg`` command to its end; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "secagg.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def server(tmp_path):
    """A federation made on the command line, and its server process; gives folder and port."""
    model, folder = tmp_path / "model.npz", tmp_path / "hospitals"
    subprocess.run([sys.executable, EXAMPLES / "initial_model.py", model], check=True, timeout=120)
    command(
        "init", folder, "--initial-model", model, "--rounds", ROUNDS, "--min-clients", len(NAMES),
        "--address", "localhost:0",
    )  # fmt: skip
    command("enroll", "new", folder, *NAMES)
    command("deal", folder)
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "secagg.cli", "serve", folder / "server", "--events"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            port = next(e["port"] for e in map(json.loads, process.stdout) if e["event"] == "listening")
            yield folder, port
        finally:
            process.terminate()
            # Reading on lets the server end even if its last lines fill the pipe.
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_three_hospitals_train_one_model_under_encryption(server):
    """Each hospital's process ends by itself after the last round, with a model that serves all of them."""
    folder, port = server
    clients = [
        subprocess.Popen(
            [
                sys.executable, EXAMPLES / "embed.py", folder / "clients" / name,
                f"localhost:{port}", str(part), str(len(NAMES)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part, name in enumerate(NAMES)
    ]  # fmt: skip
    for client in clients:
        output, errors = client.communicate(timeout=180)
        assert client.returncode == 0, errors
        accuracies = [float(a) for a in re.findall(r"accuracy (\d\.\d+)", output)]
        assert len(accuracies) == ROUNDS
        assert accuracies[-1] > 0.95
