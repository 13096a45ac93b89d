"""The processes of a measured round's roles, and how much memory they ever held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from secagg.errors import Code, SecaggError

_REFUSED = 3
"""Exit status of a role that says why on standard output."""


class Role:
    """A role's process, from its start to its end; within the block.

    It and its own children are in a session of their own, so that Ctrl-C reaches only this process, which
    ends them all; should this process die, the role's does.

    Args:
        module: the role's, which calls ``play``.
        name: what to do there.
        log: file for its standard error.
    """

    def __init__(self, module: str, name: str, log: Path) -> None:
        self._module, self._name, self._log = module, name, log

    def __enter__(self) -> Role:
        program = ["-m", "secagg.simulation.tether", str(os.getpid()), "-m", self._module, self._name]
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            self._process.communicate()

    def get_ready(self) -> None:
        """Wait until it has imported what it needs. Raises as ``play``."""
        self._listen()

    def play(self, task: str) -> dict[str, Any]:
        """What the role measures; it has ended then.

        Args:
            task: for the role, in one line.

        Raises:
            SecaggError: what the role refuses; INTERNAL if it ended without figures.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{task}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # no answer will come either
        return self._listen()

    def _listen(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            killed = self._process.wait() == -signal.SIGKILL
            ending = "was killed, perhaps for want of memory" if killed else "failed"
            raise SecaggError(Code.INTERNAL, f"the process to {self._name} {ending}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "code" in answer:
            raise SecaggError(Code(answer["code"]), answer["message"])
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"


def play(roles: Mapping[str, Callable[[str], Mapping[str, object]]]) -> None:
    """A role's process: say that it is ready, read its task, answer with figures or with its refusal.

    Args:
        roles: by the name on the command line.
    """
    _answer({})
    try:
        _answer(roles[sys.argv[1]](sys.stdin.readline()))
    except SecaggError as error:
        _answer({"code": error.code, "message": error.message})
        sys.exit(_REFUSED)


def _answer(fields: Mapping[str, object]) -> None:
    print(json.dumps(fields), flush=True)


def family_peak_mib() -> float:
    """The largest resident sets that this process and each of its children ever had, summed: MiB.

    The peaks need not have been at the same time, and memory that processes share counts for each, so it can
    only overstate. Read from VmHWM: ``ru_maxrss`` of a child begins with its parent's.
    """
    return sum(_peak_kib(process) for process in _family(os.getpid())) / 1024


def own_peak_mib() -> float:
    """The same of this process alone."""
    return _peak_kib(os.getpid()) / 1024


def _family(pid: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in front, in parentheses, may hold anything.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(stat.parent.name)] = int(fields[1])
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) if lines else 0
