"""How `secagg serve` says why it can't: whose trouble it is, in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from served import make_federation


def test_a_servers_own_trouble_is_not_called_a_setting(tmp_path: Path) -> None:
    """A spool that can't be had is INTERNAL: one line, after a log that says where."""
    folder = make_federation(tmp_path / "f", 2)
    (folder / "server/spool").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "secagg.cli", "serve", str(folder / "server")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("secagg: INTERNAL: the server can't go on: [Errno 17]")


def test_a_missing_file_of_the_folder_is_for_whoever_set_it_up(tmp_path: Path) -> None:
    """CONFIG_INVALID and the file's name, without a traceback."""
    folder = make_federation(tmp_path / "f", 2)
    (folder / "server/ckks_public.key").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "secagg.cli", "serve", str(folder / "server")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("secagg: CONFIG_INVALID: ")
    assert "ckks_public.key: No such file" in last
