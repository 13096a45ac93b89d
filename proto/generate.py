"""Regenerates ``secagg/_proto`` from the ``.proto`` files; ``--check`` fails if that would change it."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "secagg" / "_proto"
SOURCE = "secagg/v1/aggregator.proto"
HEADER = '"""Generated from proto/secagg/v1; private to this package. `make proto` rewrites it."""\n'


def generate(target: Path) -> None:
    """Write the generated modules and their stubs, flat, into ``target``."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["protoc", f"-I{ROOT}"]
        arguments += [
            f"--{plugin}_out={scratch}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")
        ]
        if protoc.main([*arguments, str(ROOT / SOURCE)]):
            sys.exit("protoc failed; its message stands above")
        target.mkdir(parents=True, exist_ok=True)
        (target / "__init__.py").write_text(HEADER)
        for produced in sorted((Path(scratch) / "secagg" / "v1").iterdir()):
            text = produced.read_text()
            # protoc names modules after the .proto package; ours live in one private package.
            text = re.sub(r"^from secagg\.v1 import", "from secagg._proto import", text, flags=re.M)
            text = text.replace("secagg.v1.aggregator_pb2", "secagg._proto.aggregator_pb2")
            (target / produced.name).write_text(text)


def main() -> None:
    """Generate in place, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the code is stale")
    if not parser.parse_args().check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = [
            path.name
            for path in sorted(Path(scratch).iterdir())
            if not (TARGET / path.name).exists() or (TARGET / path.name).read_text() != path.read_text()
        ]
    if stale:
        sys.exit(f"secagg/_proto is stale ({', '.join(stale)}); run `make proto`")


if __name__ == "__main__":
    main()
