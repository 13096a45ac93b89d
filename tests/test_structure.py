"""What must hold of the code's structure: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("secagg", "defenses", "attacks", "benchmarks")


def imports_of(path: Path) -> set[str]:
    """Dotted names a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    """secagg <- defenses <- attacks <- benchmarks; only the programs that wire them look the other way."""
    above = ORDER[ORDER.index(package) + 1 :]
    # The command line and the simulation are the programs: they put the packages together.
    programs = {ROOT / "secagg" / "cli", ROOT / "secagg" / "simulation"}
    for path in modules(package):
        if programs & set(path.parents):
            continue
        wrong = {name for name in imports_of(path) if name.split(".")[0] in above}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_only_the_ckks_package_imports_tenseal() -> None:
    """All lattice crypto has one home."""
    for package in ORDER[:3]:
        for path in modules(package):
            if ROOT / "secagg" / "ckks" not in path.parents:
                assert not any(name.split(".")[0] == "tenseal" for name in imports_of(path)), path


def test_middleware_loads_without_torch() -> None:
    """A client that only needs the codec, and the server, never load torch."""
    program = (
        "import sys, secagg, secagg.server.service, secagg.client.session, secagg.cli, defenses\n"
        "heavy = {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def test_modules_stay_small() -> None:
    """One idea per file: nothing that is written by hand exceeds 400 lines."""
    for package in (*ORDER, "tests"):
        for path in modules(package):
            if "_proto" not in path.parts:
                assert len(path.read_text().splitlines()) <= 400, path.relative_to(ROOT)
