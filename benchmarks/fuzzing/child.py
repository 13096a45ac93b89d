"""A process that reads mutated messages, and tells which one it is at in case it dies of it.

    python -m benchmarks.fuzzing.child MODULE SEED PROGRESS

MODULE has ``forms(folder)``. Jobs come as JSON lines on standard input (form, first, count); a JSON line with
the outcomes of each goes to standard output. PROGRESS is a file whose first 8 bytes are the number of the
message that is being read.
"""

from __future__ import annotations

import json
import mmap
import resource
import struct
import sys
import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path

from benchmarks.fuzzing.form import Form
from benchmarks.fuzzing.mutation import mutated
from secagg.errors import SecaggError

ALLOWANCE_BYTES = 256 * 2**20
"""More than this, beside what valid messages take, nothing may ask the system for."""
KEPT = 5
"""So many faulty messages of each kind are named per job."""


def message_of(form: Form, seed: int, index: int) -> bytes:
    """Message ``index`` of a form; the same in every process."""
    text = f"{seed}/{form.name}/{index}"
    return mutated(form.messages[index % len(form.messages)], form.messages, text)


def outcome_of(form: Form, message: bytes, honest: set[object]) -> str:
    """``accepted``, ``unchanged``, ``wrongly accepted``, an error's code, or another exception's type."""
    try:
        found = form.parse(message)
    except SecaggError as error:
        return str(error.code)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"[:200]
    if not form.authenticated:
        return "accepted"
    return "unchanged" if found in honest else "wrongly accepted"


def is_fault(outcome: str) -> bool:
    """True for what must never happen."""
    return outcome.startswith("raised") or outcome == "wrongly accepted"


def run(form: Form, seed: int, first: int, count: int, progress: mmap.mmap) -> dict[str, object]:
    """The outcomes of some messages."""
    progress[:8] = struct.pack("<Q", first)
    outcomes: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    honest = {form.parse(message) for message in form.messages} if form.authenticated else set()
    for index in range(first, first + count):
        message = message_of(form, seed, index)
        progress[:8] = struct.pack("<Q", index)
        outcome = outcome_of(form, message, honest)
        if is_fault(outcome):
            faults.append((index, outcome))
            outcome = outcome.partition(":")[0]
        outcomes[outcome] += 1
    return {"outcomes": outcomes, "faults": faults[:KEPT], "peak_kib": peak_kib()}


def peak_kib() -> int:
    """The largest resident set this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def limit_memory() -> None:
    """Let no later allocation exceed what is mapped now by more than the allowance."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ALLOWANCE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Work until standard input ends."""
    module, seed, progress_path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder, progress_path.open("r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
        forms = {form.name: form for form in import_module(module).forms(Path(folder))}
        for form in forms.values():
            for message in form.messages:
                form.parse(message)
        limit_memory()
        print(json.dumps({"peak_kib": peak_kib()}), flush=True)
        for line in sys.stdin:
            name, first, count = json.loads(line)
            print(json.dumps(run(forms[name], seed, first, count, progress)), flush=True)


if __name__ == "__main__":
    main()
