"""Rows are put together from what processes say, in whatever order they say it."""

import json

import pytest
from rich.console import Console

from secagg.simulation.display import COLUMNS, PlainLines, binary_size, cells, display_for
from secagg.simulation.result import machine, versions, write_result
from secagg.simulation.rows import Rows, detection

DESIGNED = ("round", "accuracy", "loss", "accepted", "rejected", "bytes_up", "bytes_down",
            "seal_s", "aggregate_s", "open_s", "wall_s")  # fmt: skip


class Clock:
    """A clock that is set by the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def reports(round_: int, size: int, **quality: object) -> dict[str, object]:
    times = {"train_s": 1, "seal_s": 0.5, "open_s": 0.25}
    return {"round": round_, "bytes_up": size, "bytes_down": 10, **times, **quality}


def one_row(clock: Clock):
    rows = Rows(["a", "b", "c"], clock)
    rows.begin()
    clock.now += 2
    rows.server_time(1, 0.25)
    rows.decided(1, {"a": 5, "b": 0, "c": 7, "root": 0}, {"b": "norm", "root": "root"})
    rows.server_time(1, 0.5)
    assert rows.reported("a", reports(1, 100)) is None
    assert rows.reported("c", reports(1, 300, accuracy=0.75, loss=0.5)) is None
    clock.now += 1
    return rows, rows.reported("b", reports(1, 200))


def test_a_row_is_complete_with_the_last_report():
    """Means per client, the server's time summed, rejected = weight 0, accuracy from who measured it."""
    _, row = one_row(Clock())
    assert row is not None and tuple(name for name in row.flat() if name in DESIGNED) == DESIGNED
    # The root update is compared with and not meant to be summed.
    assert (row.accepted, row.rejected, row.rejected_clients, row.reasons) == (2, 1, "b", "norm")
    assert (row.bytes_up, row.bytes_down) == (200, 10)
    assert (row.train_s, row.seal_s, row.open_s, row.aggregate_s, row.wall_s) == (1, 0.5, 0.25, 0.75, 3)
    assert (row.accuracy, row.loss) == (0.75, 0.5)


def test_time_of_a_round_starts_where_the_one_before_ended():
    clock = Clock()
    rows, _ = one_row(clock)
    clock.now += 4
    for name in "ab":
        assert rows.reported(name, reports(2, 1)) is None
    row = rows.missed("c", 2)
    assert row is not None and row.wall_s == 4 and row.accuracy is None


def test_a_backdoors_success_stands_beside_the_accuracy():
    """Where one is attempted; None, and no bracket, elsewhere."""
    rows = Rows(["a", "b"], Clock())
    assert rows.reported("a", reports(1, 1)) is None
    row = rows.reported("b", reports(1, 1, accuracy=0.75, loss=0.5, backdoor_success=0.875))
    assert row is not None and row.flat()["backdoor_success"] == 0.875
    assert cells(row)[1] == "75.0% [88%]"
    _, other = one_row(Clock())
    assert other is not None and other.flat()["backdoor_success"] is None and cells(other)[1] == "75.0%"


def test_a_round_that_everybody_missed_is_no_row():
    rows = Rows(["a", "b"], Clock())
    assert rows.missed("a", 1) is None and rows.missed("b", 1) is None


def test_precision_and_recall_count_over_all_rounds():
    """b is rejected, a is malicious too and is not: recall 1/2, precision 1."""
    _, row = one_row(Clock())
    assert detection([row], ["a", "b"]) == (1.0, 0.5)
    assert detection([row], []) == (0.0, None)
    assert detection([], ["a"]) == (None, None)


def test_result_file_has_the_designed_form(tmp_path):
    _, row = one_row(Clock())
    path = write_result(tmp_path, command="x", seed=3, rows=[row.flat()], more={"final_accuracy": 0.75})
    content = json.loads(path.read_text())
    assert {"schema", "command", "machine", "versions", "seed", "rows"} <= content.keys()
    assert content["schema"] == 1 and content["rows"][0]["bytes_up"] == 200
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_nan_is_never_written_as_json(tmp_path):
    with pytest.raises(ValueError):
        write_result(tmp_path, command="x", seed=0, rows=[{"loss": float("nan")}], more={})


def test_machine_and_versions_name_no_host():
    import platform

    assert platform.node() not in json.dumps(machine())
    assert {"python", "numpy", "tenseal"} <= versions().keys()


def test_without_a_terminal_progress_is_one_line_per_round(capsys):
    _, row = one_row(Clock())
    with display_for(Console(), "title") as display:
        assert isinstance(display, PlainLines)
        display.note("starting")
        display.row(row)
        display.row(row)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0] == "starting"
    assert lines[1].split()[0] == "round" and "75.0%" in lines[3]


def test_on_a_terminal_progress_is_one_table(capsys):
    _, row = one_row(Clock())
    console = Console(force_terminal=True, width=120)
    with display_for(console, "ten clients") as display:
        display.note("starting")
        display.row(row)
    shown = capsys.readouterr().out
    assert "ten clients" in shown and "75.0%" in shown and all(name in shown for name in COLUMNS)


def test_cells_say_who_was_rejected_and_why():
    """By reason; a weight of 0 without one is the rule's."""
    _, row = one_row(Clock())
    assert cells(row)[3] == "norm b" and len(cells(row)) == len(COLUMNS)
    rows = Rows(["client-1", "client-2", "client-3"], Clock())
    rows.decided(1, {f"client-{i}": 0 for i in (1, 2, 3)}, {"client-1": "norm", "client-3": "norm"})
    found = [rows.reported(f"client-{i}", reports(1, 1)) for i in (1, 2, 3)][-1]
    assert found is not None and cells(found)[3] == "norm 1, 3; rule 2"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (110_800, "108 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (5 * 2**30, "5.00 GiB"),
    ],
)
def test_sizes_have_binary_units(count, text):
    assert binary_size(count) == text
