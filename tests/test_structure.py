"""What must hold of the code's structure: who may import whom."""

import ast
import re
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


def names_in(path: Path) -> set[str]:
    """Every identifier a module's code uses: names, attributes, and what it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_only_custody_and_ckks_know_the_whole_secret_key() -> None:
    """Custody is a seam: whoever else seals or opens does not see that one party holds the key."""
    homes = {ROOT / "secagg" / "ckks", ROOT / "secagg" / "custody"}
    for package in (*ORDER[:3], "examples"):
        for path in modules(package):
            if not homes & set(path.parents):
                wrong = names_in(path) & {"SecretKey", "Sealer", "Opener", "LweSecret", "secret_key"}
                assert not wrong, f"{path.relative_to(ROOT)} names {wrong}"


def dotted_names(path: Path) -> set[str]:
    """Every dotted name a module uses; what it imports from a module is ``module.name``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(f"{alias.name} as {alias.asname}" for alias in node.names if alias.asname)
    return found


@pytest.mark.parametrize("package", ["secagg/server", "secagg/client"])
def test_deadlines_do_not_look_at_the_wall_clock(package: str) -> None:
    """What waits, waits on the monotonic clock: setting a machine's time ends no round."""
    forbidden = re.compile(
        r"(.*\.)?(time\.time(_ns)?|(datetime|date)\.(now|utcnow|today))|(time|datetime) as .*"
    )
    assert modules(package)
    for path in modules(package):
        wrong = {name for name in dotted_names(path) if forbidden.fullmatch(name)}
        assert not wrong, f"{path.relative_to(ROOT)} reads {wrong}"
        # What isn't imported can't be asked under another name either.
        assert "datetime" not in imports_of(path), path.relative_to(ROOT)


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
