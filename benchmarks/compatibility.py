"""Installs the project beside other frameworks' pins and runs what must work there.

Each environment is made from scratch in a temporary folder: the resolver must find a solution, ``pip check``
must be content, the generated code must load, and the tests named must pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMOKE = "import secagg, secagg._proto.aggregator_pb2_grpc, secagg.server.service, secagg.client.session"
ENGINE = ("tests/ckks", "tests/selection", "tests/test_update.py", "tests/test_plan.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One set of pins and what is run under it."""

    name: str
    pins: tuple[str, ...]
    tests: tuple[str, ...] = ()


ENVIRONMENTS = (
    Environment(name="flower", pins=("flwr==1.41.0",)),
    Environment(name="nvflare", pins=("nvflare[HE]==2.9.0",), tests=ENGINE),
    Environment(name="protobuf-6", pins=("protobuf>=6.33,<6.34", "grpcio==1.78.*"), tests=ENGINE),
    Environment(name="protobuf-7", pins=("protobuf>=7.36,<7.37",), tests=ENGINE),
)


def run(command: list[str], *, cwd: Path = ROOT) -> str:
    """The command's output; a failure ends this program with it."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def check(environment: Environment) -> str:
    """Install, check and test one environment; one line about it."""
    with tempfile.TemporaryDirectory() as scratch:
        python = str(Path(scratch) / "venv" / "bin" / "python")
        run([sys.executable, "-m", "venv", str(Path(scratch) / "venv")])
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        tools = ["pytest", "pytest-asyncio", "hypothesis", "scipy"] if environment.tests else []
        run([*pip, "install", "--quiet", "-e", str(ROOT), *environment.pins, *tools])
        run([*pip, "check"])
        run([python, "-c", SMOKE], cwd=Path(scratch))
        ended = "imports"
        if environment.tests:
            ended = run([python, "-m", "pytest", "-q", *environment.tests]).strip().splitlines()[-1]
        listed = run([*pip, "list", "--format=freeze"]).splitlines()
        wanted = ("protobuf", "grpcio", "tenseal", "cryptography")
        versions = ", ".join(line for line in listed if line.split("==")[0] in wanted)
        return f"{environment.name:<11} {ended}  [{versions}]"


def main() -> None:
    """Check all environments, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(e.name for e in ENVIRONMENTS)}; all if none")
    names = parser.parse_args().names
    unknown = set(names) - {environment.name for environment in ENVIRONMENTS}
    if unknown:
        sys.exit(f"unknown environment {', '.join(sorted(unknown))}")
    for environment in ENVIRONMENTS:
        if not names or environment.name in names:
            print(check(environment), flush=True)


if __name__ == "__main__":
    main()
