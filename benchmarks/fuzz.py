"""Mutates valid messages of every form and has them read: nothing may die, nothing forged be accepted.

    python -m benchmarks.fuzz --messages 100000 --seed 1

Each message is a pure function of seed, form and number, so a finding is repeated with ``--only
FORM/NUMBER``. Messages are read in child processes that are limited in memory. Two kinds of forms: those
without authentication may accept or refuse anything, but only with an error of this project; of the
authenticated ones nothing may be accepted but what was signed ("same" in the table: a change beside it, or
one that undid itself). Exits with 1 if a process died or hung, something forged was accepted, or another
exception was raised.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from benchmarks.fuzzing.child import is_fault, message_of, outcome_of
from secagg.simulation.result import write_result

ROOT = Path(__file__).resolve().parent.parent
FORMS = "benchmarks.fuzzing.forms"
JOB_MESSAGES = 500
PROGRESS_S = 10.0
HANG_S = 120.0
"""A job that takes longer is stuck; an honest one takes a second."""
MAX_DEATHS = 5
"""After so many the rest of a form's messages is left out: each costs a new process."""


@dataclass(frozen=True, slots=True)
class Job:
    """Some messages of one form."""

    form: str
    first: int
    count: int


@dataclass(slots=True)
class Found:
    """What became of a form's messages."""

    authenticated: bool
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """How many were read."""
        return self.outcomes.total()

    def count(self, *kinds: str) -> int:
        """How many ended in one of these ways."""
        return sum(self.outcomes[kind] for kind in kinds)

    @property
    def died(self) -> int:
        """How many ended or hung their process."""
        return self.count("died", "hung")

    @property
    def raised(self) -> int:
        """How many raised something that is no error of this project."""
        return sum(count for kind, count in self.outcomes.items() if kind.startswith("raised"))

    @property
    def refused(self) -> dict[str, int]:
        """Refusals by code."""
        kept = ("accepted", "unchanged", "wrongly accepted", "died", "hung")
        return {
            kind: count
            for kind, count in self.outcomes.most_common()
            if kind not in kept and not kind.startswith("raised")
        }


class Child:
    """A process that reads messages.

    Args:
        module: where the forms are.
        seed: of all messages.
        scratch: a folder for the file in which it says where it is.
    """

    def __init__(self, module: str, seed: int, scratch: Path) -> None:
        self._progress = scratch / "progress"
        self._progress.write_bytes(bytes(8))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzzing.child", module, str(seed), str(self._progress)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        started = self._answer(HANG_S)
        if started is None:
            sys.exit(f"the forms of {module} can't be made ({self.end()})")
        self.peak_kib_at_start: int = started["peak_kib"]

    def run(self, job: Job, timeout_s: float) -> dict | None:
        """The job's outcomes, or None if the process died or hung: ``end`` says which, ``at`` of what."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps([job.form, job.first, job.count]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._answer(timeout_s)

    def _answer(self, timeout_s: float) -> dict | None:
        assert self._process.stdout
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        self._hung = not readable
        line = b"" if self._hung else self._process.stdout.readline()
        return json.loads(line) if line else None

    @property
    def at(self) -> int:
        """The number of the message that was being read."""
        return struct.unpack("<Q", self._progress.read_bytes()[:8])[0]

    def end(self) -> str:
        """Ends the process; how it had ended before."""
        assert self._process.stdin
        assert self._process.stdout
        if self._hung:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait()
        self._process.stdout.close()
        if self._hung:
            return "hung"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"died with exit status {code}"


def fuzz(
    names: dict[str, bool],
    messages: int,
    seed: int,
    *,
    module: str = FORMS,
    hang_s: float = HANG_S,
    progress: bool = False,
) -> tuple[dict[str, Found], float]:
    """What became of so many messages of each form, and by how many MiB the largest child grew.

    Args:
        names: form -> whether it is authenticated.
        messages: of each form.
        seed: of all of them.
        module: where the forms are.
        hang_s: how long a job may take.
        progress: print a line now and then.
    """
    found = {name: Found(authenticated=authenticated) for name, authenticated in names.items()}
    jobs = deque(
        Job(name, first, min(JOB_MESSAGES, messages - first))
        for first in range(0, messages, JOB_MESSAGES)
        for name in names
    )
    grown_kib, told = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        child = Child(module, seed, Path(scratch))
        while jobs:
            job = jobs.popleft()
            form = found[job.form]
            if form.died >= MAX_DEATHS:
                continue
            result = child.run(job, hang_s)
            if result is None:
                # The messages before it are read again: their outcomes went with the process.
                at, how = child.at, child.end()
                form.outcomes["hung" if how == "hung" else "died"] += 1
                form.faults.append((at, how))
                rest = (
                    Job(job.form, job.first, at - job.first),
                    Job(job.form, at + 1, job.first + job.count - at - 1),
                )
                jobs.extendleft(part for part in reversed(rest) if part.count)
                child = Child(module, seed, Path(scratch))
                continue
            form.outcomes.update(result["outcomes"])
            form.faults += [(index, what) for index, what in result["faults"]]
            grown_kib = max(grown_kib, result["peak_kib"] - child.peak_kib_at_start)
            if progress and time.monotonic() - told > PROGRESS_S:
                told, total = time.monotonic(), sum(item.messages for item in found.values())
                print(f"… {total} messages", file=sys.stderr, flush=True)
        child.end()
    return found, grown_kib / 1024


def sound(found: dict[str, Found]) -> bool:
    """True if nothing happened that must never happen."""
    return not any(item.died or item.raised or item.count("wrongly accepted") for item in found.values())


def names_of(module: str) -> dict[str, bool]:
    """Every form's name, and whether it is authenticated."""
    with tempfile.TemporaryDirectory() as folder:
        return {form.name: form.authenticated for form in import_module(module).forms(Path(folder))}


def report(found: dict[str, Found], seed: int) -> None:
    """The table, and each finding with what repeats it."""
    print(
        f"{'form':<31}{'messages':>9}{'accepted':>9}{'same':>6}{'died':>6}{'raised':>7}{'forged':>7}  refused"
    )
    for name, item in found.items():
        refused = ", ".join(f"{code} {count}" for code, count in item.refused.items())
        print(
            f"{name:<31}{item.messages:>9}{item.count('accepted'):>9}{item.count('unchanged'):>6}"
            f"{item.died:>6}{item.raised:>7}{item.count('wrongly accepted'):>7}  {refused}"
        )
    for name, item in found.items():
        for index, what in item.faults:
            print(f"FOUND {what}: python -m benchmarks.fuzz --seed {seed} --only '{name}/{index}'")


def repeat(only: str, seed: int, out: Path | None) -> str:
    """Read one message in this process; its outcome."""
    name, _, index = only.rpartition("/")
    with tempfile.TemporaryDirectory() as folder:
        forms = {form.name: form for form in import_module(FORMS).forms(Path(folder))}
        if name not in forms or not index.isdigit():
            sys.exit(f"no message {only!r}; forms are {', '.join(forms)}")
        form = forms[name]
        message = message_of(form, seed, int(index))
        if out:
            out.mkdir(parents=True, exist_ok=True)
            (out / "message").write_bytes(message)
        honest = {form.parse(item) for item in form.messages} if form.authenticated else set()
        return outcome_of(form, message, honest)


def rows_of(found: dict[str, Found]) -> list[dict[str, object]]:
    """One flat row per form."""
    return [
        {
            "form": name,
            "authenticated": item.authenticated,
            "messages": item.messages,
            "accepted": item.count("accepted"),
            "unchanged": item.count("unchanged"),
            "wrongly_accepted": item.count("wrongly accepted"),
            "deaths": item.died,
            "other_exceptions": item.raised,
            "refused": sum(item.refused.values()),
            **{f"refused_{code}": count for code, count in item.refused.items()},
            "findings": [f"{index}: {what}" for index, what in item.faults],
        }
        for name, item in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzz, print, write ``result.json`` if asked."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--messages", type=int, default=100_000, help="in all, the same number of each form")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--form", action="append", help="only forms whose name begins so; may be repeated")
    parser.add_argument("--only", metavar="FORM/NUMBER", help="repeat one message in this process")
    parser.add_argument("--out", type=Path, help="folder for result.json, or for the repeated message")
    asked = parser.parse_args(arguments)
    if asked.only:
        outcome = repeat(asked.only, asked.seed, asked.out)
        print(outcome)
        sys.exit(1 if is_fault(outcome) else 0)
    names = names_of(FORMS)
    if asked.form:
        names = {name: kind for name, kind in names.items() if name.startswith(tuple(asked.form))}
        if not names:
            sys.exit(f"no form begins with {' or '.join(asked.form)}")
    started = time.monotonic()
    found, grown_mib = fuzz(names, -(-asked.messages // len(names)), asked.seed, progress=True)
    seconds = time.monotonic() - started
    report(found, asked.seed)
    total = sum(item.messages for item in found.values())
    print(f"{total} messages in {seconds:.0f} s; the reading process grew by {grown_mib:.0f} MiB")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        write_result(
            asked.out,
            command=" ".join(sys.argv),
            seed=asked.seed,
            rows=rows_of(found),
            more={"messages": total, "seconds": seconds, "grown_mib": grown_mib},
        )
    sys.exit(0 if sound(found) else 1)


if __name__ == "__main__":
    main()
