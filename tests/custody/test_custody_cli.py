"""What must hold of ``secagg init``, ``enroll`` and ``deal`` as a person types them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secagg.cli import main
from secagg.config import FederationConfig, parse_toml
from secagg.custody.authority import Authority
from secagg.custody.descriptor import SignedDescriptor
from secagg.custody.grant import open_grant
from secagg.custody.identity import ClientIdentity
from secagg.custody.roster import Roster
from secagg.model_file import save_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model in it."""
    save_model(tmp_path / "model.npz", {"w": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def secagg(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr with which a call is refused."""
    capsys.readouterr()
    assert secagg(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("secagg: ")
    return lines[0]


def test_a_federation_with_clients_here_and_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """init, enroll new, request, approve, accept, deal: every client opens its key at the end."""
    assert secagg("init", "fed", "--initial-model", "model.npz", "--rule", "ddfed", "--rounds", "3") == 0
    assert parse_toml(FederationConfig, here / "fed" / "federation.toml").rounds == 3
    assert secagg("enroll", "new", "fed", "alice", "bob") == 0
    assert secagg("enroll", "request", "carol", "--name", "carol") == 0
    capsys.readouterr()
    assert secagg("enroll", "approve", "fed", "carol/request.json") == 0
    told = capsys.readouterr().out.split("--fingerprint ")[1].split()[0]
    assert secagg("enroll", "accept", "carol", "carol.welcome.json", "--fingerprint", told) == 0
    assert secagg("deal", "fed") == 0
    descriptor = SignedDescriptor.load(here / "fed/server/descriptor.signed").open(
        Authority.load(here / "fed/authority").anchor
    )
    for folder in ("fed/clients/alice", "fed/clients/bob", "carol"):
        identity = ClientIdentity.load(here / folder)
        open_grant(identity, descriptor, (here / "fed/server/grants" / identity.name).read_bytes())
    capsys.readouterr()
    assert secagg("enroll", "list", "fed") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["alice", "bob", "carol"]
    assert secagg("enroll", "revoke", "fed", "bob") == 0
    assert "deal --rotate" in capsys.readouterr().out
    assert Roster(here / "fed/server/roster.json").names == ("alice", "carol")


def test_settings_come_from_a_file_and_flags_win(here: Path) -> None:
    """So that one file serves several federations."""
    (here / "base.toml").write_text('name = "base"\nrounds = 7\nmin_clients = 4\n')
    assert secagg("init", "fed", "--config", "base.toml", "--rounds", "9", "--layer", "w",
                  "--protect", "selective", "--significance", "layers") == 0  # fmt: skip
    config = parse_toml(FederationConfig, here / "fed" / "federation.toml")
    assert (config.name, config.rounds, config.min_clients, config.layers) == ("base", 9, 4, ("w",))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("init", "fed", "--rounds", "0"), "CONFIG_INVALID: rounds is 0; it must be a whole number ≥ 1"),
        (("init", "fed", "--ratio", "0.5"), "CONFIG_INVALID: ratio is 0.5; with protect = full"),
        (("init", "fed", "--address", "nowhere"), "CONFIG_INVALID: address is 'nowhere'"),
        (("init", "fed", "--initial-model", "none.npz"), "CONFIG_INVALID: "),
        (("init", "fed", "--authority-days", "0"), "CONFIG_INVALID: "),
        (("enroll", "new", "fed", "alice"), "IDENTITY_INVALID: fed is no federation's folder"),
        (("enroll", "list", "."), "IDENTITY_INVALID: "),
        (("enroll", "request", "new", "--name", "../x"), "IDENTITY_INVALID: client name '../x'"),
        (("deal", "fed"), "IDENTITY_INVALID: fed is no federation's folder"),
        (("nonsense",), "CONFIG_INVALID: No such command 'nonsense'"),
        (("deal",), "CONFIG_INVALID: Missing argument 'FEDERATION'"),
        (("deal", "--nonsense", "fed"), "CONFIG_INVALID: No such option"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    """Status 2, one line, nothing made."""
    assert expected in refused(capsys, *arguments)
    assert [p.name for p in here.iterdir()] == ["model.npz"]


def test_dealing_without_a_model_says_where_it_belongs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """init without one says so too."""
    assert secagg("init", "fed") == 0
    assert "put the model to start from at fed/initial_model.npz" in capsys.readouterr().out
    assert "DATA_MISSING: initial model fed/initial_model.npz" in refused(capsys, "deal", "fed")


def test_a_file_that_cannot_be_written_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The system's reason in one line, no traceback."""
    assert secagg("init", "fed") == 0
    assert secagg("enroll", "request", "carol", "--name", "carol") == 0
    line = refused(capsys, "enroll", "approve", "fed", "carol/request.json", "--out", "no/such/folder/x")
    assert "CONFIG_INVALID: no/such/folder" in line


def test_help_and_version_need_no_optional_package() -> None:
    """The list of commands is printed without loading any of them."""
    program = (
        "import sys\nfrom secagg.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as ended: assert ended.code == 0\n"
        "heavy = {'torch', 'sklearn', 'tenseal', 'grpc', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("run", "init", "enroll", "deal", "serve", "join"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", [("init",), ("deal",), ("enroll",), ("enroll", "approve")])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """--help ends well and says more than the usage."""
    assert secagg(*command, "--help") == 0
    assert len(capsys.readouterr().out.splitlines()) > 6


def test_ctrl_c_ends_quietly(here: Path) -> None:
    """Status 130 and not a word; a real process that waits for a real file."""
    assert secagg("init", "fed") == 0
    os.mkfifo(here / "slow.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "secagg.cli", "enroll", "approve", here / "fed", here / "slow.json"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # Opening for writing returns when the process has opened for reading: it waits in there now.
    with (here / "slow.json").open("wb"):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
