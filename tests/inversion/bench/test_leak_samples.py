"""Samples of a recorded run: the same ones in every round."""

import io

import pytest
from leak_rows import of_client, references, row
from rich.console import Console

from attacks.inversion.bench.cell import NONE, Cell, Setting
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.rows import rows_of
from attacks.inversion.bench.samples import by_round, by_sample, sample_of, samples_in, statuses
from attacks.inversion.bench.store import Outcome
from attacks.inversion.bench.tables import print_tables
from attacks.inversion.bench.verdict import Margins, judged


def outcome(cell: Cell, first: int, **own: object) -> tuple[Cell, Outcome]:
    """Two samples' rows, as a cell's play leaves them."""
    rows = [{"sample": first + at, "ended": "done", **own} for at in range(2)]
    return cell, Outcome(rows=rows, seconds=0.0)


def test_rows_say_which_of_its_client_s_samples_they_are_of():
    """Whatever the round, and whether or not the first rounds are there; a sweep's rows say nothing."""
    cells = [
        Cell(
            setting=Setting(dataset="digits"),
            victim="mlp",
            significance=NONE,
            ratio=0.0,
            update=update,
            attacker="gn",
        )
        for update in (3, 5)
    ]
    ended = [
        outcome(cell, 10 * played, client="a", round=played)
        for cell, played in zip(cells, (2, 3), strict=True)
    ]
    found = rows_of(ended, Knowledge.BOTH)
    assert [one["client_sample"] for one in found] == [0, 1] * 4
    assert {sample_of(one) for one in found} == {("a", 0), ("a", 1)} and samples_in(found) == 2
    assert not any("client_sample" in one for one in rows_of([outcome(cells[0], 0)], Knowledge.BOTH))


def test_rows_of_a_sample_and_of_a_round_stand_together():
    rows = [
        of_client(client, place, played, 10 * played)[-1]
        for played in (1, 2)
        for client in "ab"
        for place in (0, 1)
    ]
    assert [len(mine) for mine in by_sample(rows)] == [2] * 4
    assert [len(mine) for mine in by_round(rows)] == [4] * 2
    sweep = [row("magnitude", 0.1, 9.0, sample=sample) for sample in range(3)]
    assert [len(mine) for mine in by_sample(sweep)] == [1] * 3 and by_round(sweep) == [sweep]


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        (("resisted", "leaked"), "leaked"),
        (("leaked", "diverged"), "leaked"),
        (("resisted", "inconclusive"), "inconclusive"),
        (("unsuited", "resisted"), "unsuited"),
        (("resisted", "resisted"), "resisted"),
    ],
)
def test_a_sample_is_read_if_it_is_once_and_resists_if_it_always_does(rounds, said):
    rows = [
        of_client("a", 0, played, played)[-1] | {"status": status}
        for played, status in enumerate(rounds, start=1)
    ]
    assert statuses(rows) == [said]


def shown(rows: list[dict[str, object]]) -> list[str]:
    """The lines of a table on a console that begin with a ratio."""
    console = Console(file=io.StringIO(), width=200)
    print_tables(judged([one | {"dataset": "digits"} for one in rows], Margins()), [], [], console)
    return [line for line in console.file.getvalue().splitlines() if line.split()[:1] in (["0"], ["0.1"])]


def test_a_console_s_table_counts_a_sample_of_two_rounds_once():
    """The one nobody reads in the clear in round 2 is open."""
    rows = [one for played in (1, 2) for one in of_client("a", 0, played, played, label_correct=played == 1)]
    rows = [one | {"psnr_db": 10.0} if (one["ratio"], one["round"]) == (0, 2) else one for one in rows]
    line = shown(rows)[-1]
    # Told, labels by the attack and by the mask, open.
    assert "0/1 1/1 / – 1/1" in " ".join(line.split())


def test_a_perturbation_alone_is_shown_once_for_both_kinds_of_attackers():
    """There is no mask to know."""
    rows = [*references(), *(row(NONE, 0.0, 20.0, perturb="noise", aware=aware) for aware in (True, False))]
    assert len(shown(rows)) == 2
