"""The page of a recorded run: the same samples in several rounds, and masks or none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from report_rows import Elements, cells, picture_of, rows

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Margins
from attacks.inversion.report.content import Findings, page_of
from attacks.inversion.report.page import Answer, Page, write_page
from attacks.inversion.report.tables import leak_table


def of_a_run(*, clients: tuple[str, ...] = ("client-1", "client-2"), masked: bool = False) -> list[Any]:
    """The made-up sweep's two samples as two clients' in two rounds, the second with numbers of its own."""
    return [
        row | {"client": client, "client_sample": 0, "round": played, "sample": 2 * (played - 1) + at}
        for row in rows()
        for at, client in enumerate(clients)
        for played in (1, 2)
        if row["sample"] == at and (masked or row["significance"] in (NONE, FULL))
    ]


def found_in(
    shown: list[Any], answer: Answer | None = None, *, rounds: int = 2, hypothetical: bool = False
) -> Page:
    """The page of a run with these rows, every one of which has pictures."""
    stored = [replace(cell, update=cell.update + 2 * more) for cell in cells() for more in range(rounds)]
    return page_of(
        Findings(
            rows=shown,
            advice=[],
            margins=Margins(),
            pictures=[(cell, partial(picture_of, cell)) for cell in stored],
            costs=(),
            facts=(),
            answer=answer,
            hypothetical=hypothetical,
            command="",
            made_with="",
        )
    )


def test_a_sample_that_is_in_two_rounds_counts_once_in_the_table() -> None:
    """It leaked if it did in one of them; medians are over all."""
    shown = of_a_run(masked=True)
    for row in shown:
        if row["client"] == "client-1" and row["round"] == 2:
            row["status"] = "resisted"
    table = leak_table(shown)
    ends = {(line[1].text, line[2].text, line[4].text): line for line in table.rows}
    assert ends[("magnitude", "10%", "yes")][-1].text == "2\u00a0leaked"
    assert ends[("magnitude", "10%", "yes")][-2].text == "2/2"
    assert "several rounds" in table.note and "several rounds" not in leak_table(rows()).note


def test_pictures_without_a_mask_are_shown_once_with_client_and_round() -> None:
    (gallery,) = found_in(of_a_run()).galleries
    assert gallery.title == "lenet: gauss-newton"
    assert [line[0].caption for line in gallery.rows] == [
        "client-1, round 1, sample 0",
        "client-2, round 1, sample 1",
        "client-1, round 2, sample 2",
        "client-2, round 2, sample 3",
    ]
    naive = [row | {"aware": False} for row in of_a_run()]
    assert found_in(naive).galleries == [gallery]
    masked = found_in(of_a_run(masked=True)).galleries
    assert len(masked) == 2 * 2 and masked[1].title.endswith("takes hidden for zero")


@pytest.mark.parametrize(("rounds", "said"), [(8, ""), (9, " (the first 16 of 18)")])
def test_a_gallery_that_does_not_show_all_samples_says_so(rounds: int, said: str) -> None:
    shown = [
        row | {"round": played, "sample": 2 * (played - 1) + row["sample"] % 2}
        for row in of_a_run()
        for played in range(1, rounds + 1)
    ]
    (gallery,) = found_in(shown, rounds=rounds).galleries
    assert gallery.title == f"lenet: gauss-newton{said}" and len(gallery.rows) == 16


@pytest.mark.parametrize("masked", [False, True])
def test_what_never_travelled_in_the_clear_is_no_leak(*, masked: bool) -> None:
    """A run that encrypted: its ratio 0 says what would have been read, and alarms nobody."""
    clear = "had it been sent in the clear"
    shown = of_a_run(masked=masked)
    for hypothetical in (False, True):
        page = found_in(shown, hypothetical=hypothetical)
        lines = [line for line in page.tables[0].rows if line[2].text == "0%"]
        assert lines and {line[1].text == clear for line in lines} == {hypothetical}
        assert {cell.mark for line in lines for cell in line} == ({""} if hypothetical else {"", "bad"})
        status = "2\u00a0would have leaked" if hypothetical else "2\u00a0leaked"
        assert {line[-1].text for line in lines} == {status}
        heads = {gallery.columns[1] for gallery in page.galleries}
        assert heads == {clear if hypothetical else "0%"}
        others = [line[-1] for line in page.tables[0].rows if line[2].text == "10%"]
        assert all(cell.mark == "bad" and "would" not in cell.text for cell in others)


def test_a_sweep_s_pictures_say_which_sample_they_are_of() -> None:
    assert [line[0].caption for line in found_in(rows()).galleries[0].rows] == ["sample 0", "sample 1"]


def test_a_client_s_name_is_text_and_not_markup(tmp_path: Path) -> None:
    """Whoever joins a federation chooses it."""
    page = found_in(of_a_run(clients=("<b onclick=x>", '"><script>')), Answer(kind="none", text="<i>none"))
    written = write_page(page, tmp_path).read_text(encoding="utf-8")
    assert not {"script", "b", "i"} & {tag for tag, _ in Elements(written).found}
    assert "<b onclick=x>, round 1, sample 0" in Elements(written).text
    assert "<i>none" in Elements(written).text


@pytest.mark.parametrize("kind", ["none", "whole", "inconclusive"])
def test_an_answer_that_no_advice_gives_is_a_card_on_top(kind: str, tmp_path: Path) -> None:
    """Of a run in which no mask was judged."""
    given = Answer(kind=kind, text="use full", reasons=["6 of 6 samples were read"])
    page = found_in(of_a_run(), given)
    assert page.answers == [given]
    written = write_page(page, tmp_path).read_text(encoding="utf-8")
    card = written.index(f'<section class="answer {kind}">')
    assert card < written.index("use full</strong>") < written.index("Originals beside")
    assert f".answer.{kind}" in written
    assert found_in(of_a_run()).answers == []
