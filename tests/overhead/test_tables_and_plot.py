"""What people see of rows: numbers are neither cut nor mixed up."""

import pytest
from rich.console import Console

from secagg.errors import Code, ConfigError
from secagg.overhead.display import report
from secagg.overhead.plot import PLOT_FILE, point, write_plot
from secagg.overhead.table import cells, print_tables, ratio, seconds, titled
from secagg.simulation.result import RESULT_FILE


def row(model: str, scheme: str, *, peer: str | None = None, factor: float = 1.0) -> dict[str, object]:
    sizes = {"bytes_up": round(2**20 * factor), "bytes_down": round(2**21 * factor)}
    times = {"seal_s": 0.5 * factor, "aggregate_s": 3.0, "open_s": 0.25}
    peaks = {"client_peak_mib": 70.4, "server_peak_mib": 130.6}
    setting = {"model": model, "values": 250_000, "scheme": scheme, "peer": peer, "clients": 10}
    return {**setting, **sizes, **times, **peaks}


ROWS = [
    row("small", "plain"),
    row("small", "selective:0.01", factor=1.5),
    row("small", "selective:0.5", factor=2),
    row("large", "compact", factor=30),
    row("large", "their_he", peer="theirs 1.2.3", factor=500),
]


def test_a_point_is_what_one_client_and_round_cost():
    """Bytes both ways; sealing, opening and a tenth of what the server did for ten."""
    assert point(ROWS[0]) == (3 * 2**20, 0.5 + 0.25 + 0.3)


def test_cells_are_against_plain_float32():
    sizes, times = ("1.0 MiB", "1.05", "2.0 MiB", "2.10"), ("0.500", "3.00", "0.250")
    assert cells(ROWS[0]) == ("plain", *sizes, *times, "70", "131")
    assert cells(ROWS[4])[0] == "theirs 1.2.3"


@pytest.mark.parametrize("width", [80, 120])
def test_each_model_has_a_table_and_no_number_is_cut(capsys, width):
    print_tables([*ROWS, row("small", "selective:0.01:compact-10")], Console(width=width))
    shown = capsys.readouterr().out
    assert shown.index("small: 250,000 values, 10 clients") < shown.index("large: 250,000 values")
    assert "…" not in shown and "theirs 1.2.3" in shown and "524" in shown


@pytest.mark.parametrize("title", ["own:[red]build[/red]: 3 values", "own:b: 3 values", "[/]", "a\\"])
def test_a_title_is_shown_as_it_is(capsys, title):
    """Names that people choose are neither markup nor emoji."""
    table = titled(title)
    table.add_column("scheme")
    table.add_row("x" * 60)
    Console(width=80).print(table)
    assert capsys.readouterr().out.splitlines()[0].strip() == title


def test_figures_have_three_digits():
    assert [ratio(value) for value in (0.9576, 12.34, 123.4)] == ["0.96", "12.3", "123"]
    assert [seconds(value) for value in (0.00123, 0.0123, 1.234, 12.34, 123.4)] == [
        "0.0012",
        "0.012",
        "1.23",
        "12.3",
        "123",
    ]


def test_the_plot_is_a_picture(tmp_path):
    for rows in (ROWS, ROWS[1:2]):
        path = write_plot(rows, tmp_path)
        assert path == tmp_path / PLOT_FILE and path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_how_to_get_the_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError) as caught:
        write_plot(ROWS, tmp_path)
    assert caught.value.code is Code.DEPENDENCY_MISSING
    report(ROWS, tmp_path, Console(width=200))
    shown = capsys.readouterr().out
    assert "no plot: matplotlib is not installed; for the plot: pip install 'secagg[plot]'" in shown
    assert f"wrote {tmp_path / RESULT_FILE}\n" in shown and not list(tmp_path.iterdir())


def test_nothing_is_reported_of_nothing(tmp_path, capsys):
    report([], tmp_path, Console())
    assert not capsys.readouterr().out and not list(tmp_path.iterdir())
