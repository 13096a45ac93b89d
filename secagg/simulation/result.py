"""``result.json``: what a command measured, on what machine, with what versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

SCHEMA = 1
RESULT_FILE = "result.json"
_PACKAGES = ("secagg", "numpy", "tenseal", "torch", "grpcio", "protobuf", "cryptography", "scikit-learn")


def write_result(
    folder: Path,
    *,
    command: str,
    seed: int,
    rows: Sequence[Mapping[str, object]],
    more: Mapping[str, object],
) -> Path:
    """Write ``result.json``: schema, command, machine, versions, seed, rows, and ``more`` beside them.

    A reader sees the old file or the whole new one.
    """
    content = {
        "schema": SCHEMA,
        "command": command,
        "machine": machine(),
        "versions": versions(),
        "seed": seed,
        **more,
        "rows": list(rows),
    }
    path = folder / RESULT_FILE
    temporary = folder / f".{RESULT_FILE}.new"
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def machine() -> dict[str, object]:
    """Processor, cores this process may use, memory in MiB, operating system; nothing that names a host."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_mib": memory // 2**20,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python, and those of the packages that matter which are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
