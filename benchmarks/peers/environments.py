"""The virtual environments of peers, under ``.venv-peers/``: made once, and anew when their pins change."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".venv-peers"
PINS: dict[str, tuple[str, ...]] = {
    "nvflare": ("nvflare[HE]==2.9.0",),
    "flower": ("flwr==1.41.0",),
}


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, which is installed if it isn't there.

    The folder's file ``pins`` says what was installed. It is written last: what an interrupted install leaves
    has none, and the next call starts from an empty folder. A lock keeps two processes from installing at
    once.

    Args:
        name: Of ``PINS``.

    Raises:
        subprocess.CalledProcessError: The install failed; pip's output is on stderr.
    """
    folder, finished = HOME / name, HOME / name / "pins"
    wanted = "\n".join((f"python=={sys.version.split()[0]}", *PINS[name]))
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists() or finished.read_text() != wanted:
            # The old ``pins`` goes first, or an interrupted removal would leave it beside half a folder.
            finished.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, PINS[name])
            written = finished.with_suffix(".new")
            written.write_text(wanted)
            written.replace(finished)
    return folder / "bin" / "python"


def own_packages() -> dict[str, str]:
    """This process's environment variables without those that lend a child packages from elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _install(folder: Path, pins: tuple[str, ...]) -> None:
    """Make the environment in an empty folder, with this environment's own pip."""
    print(f"installing {' '.join(pins)} into {folder.relative_to(ROOT)} (once)", file=sys.stderr, flush=True)
    started = time.perf_counter()
    pip = ["pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    for command in (
        ["venv", "--without-pip", str(folder)],
        [*pip, "install", "--quiet", *pins],
        [*pip, "check"],
    ):
        # Away from the checkout, whose own metadata pip would count among what is installed.
        python = [sys.executable, "-m", *command]
        subprocess.run(python, check=True, stdout=sys.stderr, cwd=HOME, env=own_packages())
    print(f"installed in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
