"""``secagg leak --from``: what is refused, what is left alone, and what becomes of files that go missing."""

import io
import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from rich.console import Console

from attacks.inversion.bench.command import naming
from attacks.inversion.bench.from_command import attack_run
from attacks.inversion.bench.from_run import Trial
from attacks.inversion.bench.store import STORE_FILE
from secagg.cli import EXIT_REFUSED, main
from secagg.errors import ConfigError
from secagg.simulation.config import RunConfig
from secagg.simulation.display import PlainLines
from secagg.simulation.launcher import run
from secagg.simulation.recording import RECORDING

ONE = Trial(attackers=("analytic",), clients=("client-1",))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Two clients with two samples each; a tenth of the entries is hidden at random."""
    out = tmp_path_factory.mktemp("recorded")
    config = RunConfig(
        clients=2, rounds=1, samples=4, local_epochs=1, model="linear", protect="selective",
        significance="random", ratio=0.1, record=True, out=str(out),
    )  # fmt: skip
    run(config, PlainLines(Console(quiet=True)))
    return out


@pytest.fixture
def elsewhere(recorded, tmp_path) -> Path:
    """A run's folder that a test may damage."""
    copytree(recorded / RECORDING, tmp_path / "run" / RECORDING)
    return tmp_path / "run"


def refused(capsys, *arguments: object) -> str:
    """The one line on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["leak", *map(str, arguments)])
    shown = capsys.readouterr()
    assert ended.value.code == EXIT_REFUSED and shown.err.count("\n") == 1 and not shown.out, shown
    return shown.err


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("place", ["", RECORDING, f"{RECORDING}/truth", "to-be-made/.."])
def test_the_run_s_own_folder_is_no_place_for_results(capsys, recorded, place):
    """Its ``result.json`` would be lost; and it could not be told whose file is whose."""
    before = content(recorded)
    assert before.keys() >= {recorded / "result.json"}
    line = refused(capsys, "--from", recorded, "--attacker", "analytic", "--out", recorded / place)
    assert f"is of the recorded run {recorded}: give another --out, such as {recorded}/leak" in line
    assert content(recorded) == before


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ({"command": "secagg overhead", "rows": [], "complete": True}, " (secagg overhead)"),
        ({"command": "python -m benchmarks.selective_study", "advice": [], "grid": {}}, "selective_study"),
        ({"final_accuracy": 0.5}, "no result of secagg leak and"),
        ([1], "no result of secagg leak and"),
    ],
)
def test_another_command_s_result_is_not_written_over(capsys, recorded, tmp_path, there, says):
    """Neither by an attack on a run nor by a sweep."""
    (tmp_path / "result.json").write_text(json.dumps(there))
    before = content(tmp_path)
    for asked in (["--from", recorded], ["--victim", "mlp", "--dataset", "digits", "--clients", 0]):
        line = refused(capsys, *asked, "--attacker", "analytic", "--out", tmp_path)
        assert f"{tmp_path / 'result.json'} is no result of secagg leak" in line and says in line
    assert content(tmp_path) == before


def test_a_pipe_in_a_result_s_or_a_store_s_place_is_refused(capsys, recorded, tmp_path):
    """Opening it would wait for ever."""
    for name, says in (("result.json", "no result of secagg leak"), (STORE_FILE, "it is no regular file")):
        os.mkfifo(tmp_path / name)
        line = refused(capsys, "--from", recorded, "--attacker", "analytic", "--out", tmp_path)
        assert f"{tmp_path / name}" in line and says in line
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--from-round", "-1"], "--from-round is '-1'; rounds are 1, 2, 3"),
        (["--from-round", "1,x"], "--from-round is 'x'"),
        (["--from-round", "0"], "--from-round is '0'"),
        (["--from-round", "²"], "--from-round is '²'"),
        (["--from-round", "9" * 5000], "--from-round is '9999"),
        (["--from-round", ","], "from-round is ','; it must name at least one"),
        (["--out", ""], "--out is ''; name a folder"),
        (["--device", "cuda"], "--device can't be given with --from: a recorded run is attacked on the proc"),
        (["--ray", "local"], "--ray can't be given with --from: a recorded run is attacked on this machine"),
        (
            ["--clients", "3"],
            "--clients can't be given with --from: it is of a sweep's table of costs; --from",
        ),
        (["--samples", "3"], "choose recorded updates by --from-client and --from-round"),
        (["--victim", "mlp", "--steps", "2"], "--victim, --steps can't be given with --from: that is as the"),
        (["--victim", "mlp", "--ray", "x"], "run recorded it; --ray can't be given"),
    ],
)
def test_flags_without_meaning_for_a_recorded_run_are_refused_with_the_reason(capsys, recorded, flags, says):
    line = refused(capsys, "--from", recorded, *flags)
    assert says in line and len(line) < 400
    assert not (recorded / "leak").exists()


def test_a_run_without_a_name_is_refused(capsys):
    """It is not the folder one happens to be in."""
    assert "--from is ''; name the folder" in refused(capsys, "--from", "")


def test_no_complaint_moves_the_cursor(capsys, tmp_path):
    """What a name holds besides letters is shown as what it is."""
    line = refused(capsys, "--from", tmp_path / "\x1b[2J\x07")
    assert r"\x1b[2J\x07 can't be attacked: there is no such folder" in line


def attack(run: Path, out: Path, trial: Trial = ONE, file: io.StringIO | None = None) -> int:
    console = Console(file=file or io.StringIO(), width=200)
    return attack_run(run, trial, out=out, command="secagg leak", console=console)


def test_results_are_for_their_owner_alone_whatever_their_folder_is(recorded, tmp_path):
    """They hold samples. What an earlier build left open to others is closed, and a stored row that lacks
    what is shown today is refused in one line, by its file.
    """
    out = tmp_path / "out"
    out.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        (out / STORE_FILE).touch(mode=0o644)
        (out / ".leak.html.new").touch(mode=0o644)
        assert attack(recorded, out) == 0
        assert (tmp_path / "beside").write_text("") == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    assert modes == dict.fromkeys((STORE_FILE, "result.json", "leak.html"), 0o600)
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "beside").stat().st_mode) == 0o644

    for column, change in (
        ("client", "json_remove(rows, '$[0].client')"),
        ("sample", "json_remove(rows, '$[1].sample')"),
        ("psnr_db", "json_remove(rows, '$[0].psnr_db')"),
        ("psnr_db", "json_set(rows, '$[0].psnr_db', 'high')"),
        ("ended", "json_set(rows, '$[0].ended', 'well')"),
    ):
        with Changed(out, change), pytest.raises(ConfigError) as caught:
            attack(recorded, out)
        line = caught.value.message
        assert line.startswith(f"{out / STORE_FILE}: cell ") and column in line and "\n" not in line
        assert line.endswith("give another --out, or delete this folder")
    assert attack(recorded, out) == 0


class Changed:
    """The rows of one attack are others within this block."""

    def __init__(self, folder: Path, change: str) -> None:
        self._path, self._change = folder / STORE_FILE, change

    def _execute(self, *statement: object) -> list[tuple[str, str]]:
        database = sqlite3.connect(self._path)
        with database:
            found = database.execute(*statement).fetchall()
        database.close()
        return found

    def __enter__(self) -> None:
        ((self._key, self._rows),) = self._execute(
            "SELECT key, rows FROM cells WHERE rows LIKE '%\"done\"%' ORDER BY key LIMIT 1"
        )
        self._execute(f"UPDATE cells SET rows = {self._change} WHERE key = ?", (self._key,))

    def __exit__(self, *_: object) -> None:
        self._execute("UPDATE cells SET rows = ? WHERE key = ?", (self._rows, self._key))


class Watching(io.StringIO):
    """Does something when a line with this in it is printed, once."""

    def __init__(self, wanted: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._wanted, self._act = wanted, act

    def write(self, text: str) -> int:
        if self._wanted in text and self._wanted not in self.getvalue():
            self._act()
        return super().write(text)


def test_results_that_somebody_removes_meanwhile_end_the_attack_in_a_line(elsewhere):
    """SQLite would go on in a file without a name, for hours."""
    out = elsewhere / "leak"
    with pytest.raises(ConfigError, match="can't be written to: somebody has removed it") as caught:
        attack(elsewhere, out, file=Watching("[1/", lambda: rmtree(elsewhere)))
    assert str(out / STORE_FILE) in caught.value.message and not out.exists()


def test_a_recording_that_somebody_removes_meanwhile_fails_cell_by_cell(elsewhere, recorded, tmp_path):
    """No process has read it yet when it goes: there is nothing to report, and nothing is. Of what had ended
    there is a report, and the same command goes on once the recording is there again.
    """
    out = tmp_path / "out"
    lines = Watching("attacks on", lambda: rmtree(elsewhere))
    assert attack(elsewhere, out, file=lines) == 1
    shown = lines.getvalue()
    assert f"{elsewhere} can't be attacked: there is no such folder" in shown
    assert shown.endswith("no attack has ended: there is nothing to report\n")
    assert [path.name for path in out.iterdir()] == [STORE_FILE]

    copytree(recorded / RECORDING, elsewhere / RECORDING)
    assert attack(elsewhere, out) == 0
    lines = Watching("attacks on", lambda: rmtree(elsewhere))
    assert attack(elsewhere, out, Trial(attackers=("analytic",)), file=lines) == 1
    result = json.loads((out / "result.json").read_text())
    assert {row["client"] for row in result["rows"]} == {"client-1"} and not result["complete"]
    assert result["failures"] and "cells ended" in (out / "leak.html").read_text()


def test_a_full_disk_is_complained_of_by_the_folder(tmp_path):
    """The system names no file then, and what names none would be taken for a fault of the program."""
    with pytest.raises(OSError, match="No space left") as caught, naming(tmp_path):
        Path("/dev/full").write_text("a page")
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path):
        (tmp_path / "nowhere").read_bytes()
    assert caught.value.filename == str(tmp_path / "nowhere")
