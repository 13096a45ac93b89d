"""``secagg overhead`` as it is called: refusals in one line, results on disk, also of a run cut short."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secagg.cli import EXIT_INTERRUPTED, EXIT_REFUSED, main

DESIGNED = {"model", "values", "scheme", "peer", "bytes_up", "bytes_down", "seal_s", "aggregate_s", "open_s",
            "client_peak_mib", "server_peak_mib"}  # fmt: skip


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["overhead", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "alexnet"], "model 'alexnet' is unknown; choose from lenet"),
        (["--scheme", "compact,rsa"], "scheme 'rsa' is unknown; choose from plain"),
        (["--scheme", "selective:7"], "the ratio is the share of encrypted entries"),
        (["--scheme", "compact", "--clients", "181"], "181 clients; scheme compact has headroom for 180"),
        (["--clients", "0"], "'--clients'"),
        (["--repeat", "x"], "'--repeat'"),
        (["--out", "/dev/null/there"], "/dev/null/there can't be written to"),
        (["--profils"], "--profil"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == EXIT_REFUSED
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and says in shown.err and not shown.out
    assert not list(tmp_path.iterdir())


def test_profiles_are_listed_without_measuring(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("--profiles") == 0
    assert "compact-10" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_ctrl_c_leaves_what_was_measured_and_a_later_call_takes_it_up(capsys, tmp_path):
    """What is measured is on disk at once; an interrupted run leaves no process and no scratch file."""
    arguments = ("--model", "lenet", "--scheme", "plain,compact", "--clients", 2, "--repeat", 1, "--seed", 3,
                 "--out", tmp_path)  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "secagg.cli", "overhead", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith("lenet plain: seal")
        run.send_signal(signal.SIGINT)
        shown, errors = run.communicate(timeout=60)
    assert run.returncode == EXIT_INTERRUPTED, errors
    assert "Traceback" not in errors and "lenet: 61,706 values, 2 clients" in shown
    content = json.loads((tmp_path / "result.json").read_text())
    assert {"schema", "command", "machine", "versions", "seed", "rows"} <= content.keys()
    assert (content["schema"], content["seed"], content["complete"]) == (1, 3, False)
    (plain,) = content["rows"]
    assert plain.keys() >= DESIGNED and (plain["scheme"], plain["bytes_up"]) == ("plain", 4 * 61_706)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overhead.png", "result.json"]
    assert not [line for line in commands() if str(tmp_path) in line]

    # The row that is there is kept, to the last digit.
    assert call(*arguments, "--resume") == 0
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["complete"] is True and content["rows"][0] == plain
    assert [row["scheme"] for row in content["rows"]] == ["plain", "compact"]
    shown = capsys.readouterr().out
    assert "lenet compact: seal" in shown and "lenet plain: seal" not in shown
    assert f"wrote {tmp_path}/result.json and {tmp_path}/overhead.png" in shown


def commands() -> list[str]:
    """Command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_measuring_needs_neither_torch_nor_matplotlib():
    program = (
        "import sys\n"
        "import secagg.cli.overhead, secagg.overhead.sweep, secagg.overhead.display\n"
        "import secagg.overhead.client_role, secagg.overhead.server_role, defenses\n"
        "heavy = {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
