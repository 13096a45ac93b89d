"""Names on a console: as they are, and no longer than a heading takes them."""

import io

from leak_rows import references, row
from rich.console import Console

from attacks.inversion.bench.names import shortened
from attacks.inversion.bench.tables import print_tables
from attacks.inversion.bench.verdict import Margins, judged

LONG = "hospital_of_the_west." + "radiology." * 12 + "networks:build_the_"


def test_a_name_is_cut_in_its_middle():
    assert shortened("lenet", 5) == "lenet"
    assert shortened("lenet-sigmoid", 8) == "lene…oid"
    assert len(shortened(LONG, 60)) == 60


def test_tables_of_long_names_stay_apart_and_brackets_stay():
    """Two names that look alike once they are cut are two tables still."""
    rows = [
        one | {"victim": LONG.replace("radiology.radiology", middle) + "[red]", "dataset": "digits"}
        for middle in ("radiology.radiology", "radiology.nephrology")
        for one in [*references(attacker="[bold]gn"), row("random", 0.5, 40.0, attacker="[bold]gn")]
    ]
    console = Console(file=io.StringIO(), width=200)
    print_tables(judged(rows, Margins()), [], [], console)
    shown = console.file.getvalue()
    assert shown.count("hospital_of_the_west") == shown.count("build_the_[red]") == 4
    assert "[bold]gn" in shown and "radiology." * 6 not in shown
