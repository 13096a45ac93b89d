"""The page of a sweep: it holds all that was found, and nothing that is loaded or run."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from report_rows import RATIOS, SAMPLES, Elements, cells, picture_of, rows

from attacks.inversion.bench.advice import Advice, Finding, Judgement, advise
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Margins
from attacks.inversion.report.content import Findings, page_of
from attacks.inversion.report.drawn import figures
from attacks.inversion.report.grouping import choices
from attacks.inversion.report.page import write_page
from attacks.inversion.report.pictures import data_uri
from attacks.inversion.report.tables import leak_table

COST = {
    "victim": "lenet",
    "ratio": 0.1,
    "scheme": "selective:0.1:compact",
    "values": 13426,
    "bytes_up": 60000,
    "bytes_down": 65000,
    "seal_ms": 1.52,
    "aggregate_ms": 0.4,
    "open_ms": 0.9,
}


def written(folder: Path, *, title: str = "What leaks?") -> str:
    found = Findings(
        rows=rows(),
        advice=advise(rows(), Margins()),
        margins=Margins(),
        pictures=[(cell, partial(picture_of, cell)) for cell in cells()],
        costs=[COST],
        facts=["lenet on digits"],
        command="secagg leak --out '<x>'",
        made_with="secagg",
        title=title,
    )
    return write_page(page_of(found), folder).read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(tmp_path: Path) -> None:
    """A page that is mailed to a hospital's data protection officer must work without a network."""
    page = Elements(written(tmp_path))
    assert not [tag for tag, _ in page.found if tag in ("script", "link", "iframe", "object", "embed")]
    for tag, attributes in page.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value is not None and value.startswith(("data:image/png;base64,", "#")), (tag, value)


def test_what_a_user_typed_is_text_and_not_markup(tmp_path: Path) -> None:
    """A title or a command with angle brackets stays what it is."""
    page = written(tmp_path, title="<img src=x onerror=alert(1)>")
    assert "<img src=x" not in page
    assert "<img src=x onerror=alert(1)>" in Elements(page).text
    assert "secagg leak --out '<x>'" in Elements(page).text


def test_every_sample_stands_beside_what_was_made_of_it(tmp_path: Path) -> None:
    """Per gallery and sample: the original, one picture per ratio, and one where all is hidden."""
    page = Elements(written(tmp_path))
    pictures = [a["src"] for tag, a in page.found if tag == "img"]
    galleries = 2 * 2  # significances x knowledge
    assert len(pictures) == galleries * SAMPLES * (1 + len(RATIOS) + 1)
    shades = {
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))))[0, 0] for p in pictures if p
    }
    assert 255 in shades  # the originals, drawn white
    assert len(shades) > len(RATIOS)


def test_the_answer_comes_first_and_says_to_encrypt_everything(tmp_path: Path) -> None:
    """At 90% this law still leaves 14 dB against 10 known: no ratio holds, and the page says so on top."""
    text = Elements(written(tmp_path)).text
    answer, table = text.index("none, use full"), text.index("What leaked")
    assert answer < table
    assert "safe" not in re.sub(r"\s+", " ", text)


def test_there_is_a_curve_for_each_choice_and_knowledge(tmp_path: Path) -> None:
    """Lines are told apart by the legend; the bound is on the same axes as PSNR."""
    text = Elements(written(tmp_path)).text
    for significance in ("magnitude", "random"):
        for end in ("knows the mask", "takes hidden for zero", "information bound"):
            assert f"{significance}, {end}" in text


def test_the_table_has_medians_and_the_worst_sample() -> None:
    """The worst is the largest: it is the one that leaked most."""
    found = rows()
    for row in found:
        if row["sample"] == 1 and row["psnr_db"] is not None:
            row["psnr_db"] = float(str(row["psnr_db"])) + 4
    table = leak_table(found)
    at = {head: place for place, head in enumerate(table.heads)}
    line = next(
        line
        for line in table.rows
        if [cell.text for cell in line[1:5]] == ["magnitude", "10%", "gauss-newton", "yes"]
    )
    assert line[at["median dB"]].text == "48.0"
    assert line[at["worst dB"]].text == "50.0"
    assert line[at["worst dB"]].mark == "bad"


def test_a_table_counts_labels_by_the_attack_and_by_the_mask() -> None:
    """Whoever doesn't know the mask learns nothing from it."""
    table = leak_table(rows())
    at = table.heads.index("labels")
    found = {(line[1].text, line[2].text, line[4].text): line[at].text for line in table.rows}
    assert found[("magnitude", "10%", "yes")] == "2/2 / 1/2"
    assert found[("magnitude", "10%", "no")] == "2/2"
    assert found[("magnitude", "0%", "–")] == "2/2 / –"


def test_what_has_no_mask_is_in_the_table_once() -> None:
    """Attackers who know the mask and those who don't are the same where there is none."""
    lines = [tuple(cell.text for cell in line[1:5]) for line in leak_table(rows()).rows]
    assert len(lines) == len(set(lines)) == 2 * (1 + 2 * 2)
    assert {line[3] for line in lines if line[1] == "0%"} == {"–"}
    unmasked = [row for row in rows() if row["significance"] in (NONE, FULL)]
    both = [row | {"aware": aware} for row in unmasked for aware in (False, True)]
    for shown in (both, [row | {"aware": False} for row in unmasked]):
        assert [[cell.text for cell in line[1:5]] for line in leak_table(shown).rows] == [
            ["nothing encrypted", "0%", "gauss-newton", "–"],
            ["everything encrypted", "100%", "gauss-newton", "–"],
        ]


def test_nothing_on_the_page_is_kept_from_wrapping(tmp_path: Path) -> None:
    """A laptop's 1366 pixels have room for every column then, whatever names there are."""
    page = written(tmp_path)
    assert "nowrap" not in page and "text-overflow" not in page
    assert int(re.findall(r"main { max-width: (\d+)px", page)[0]) <= 1366 - 2 * 16


def judgement(ratio: float, finding: Finding, **changes: Any) -> Judgement:
    """Of a made-up advice."""
    return Judgement(ratio=ratio, finding=finding, why="so it was measured", **changes)


def advice(
    *judgements: Judgement, ratio: float | None, significance: str = "magnitude", perturb: str = ""
) -> Advice:
    """Of these judgements."""
    return Advice(
        victim="lenet",
        significance=significance,
        perturb=perturb,
        ratio=ratio,
        finding=judgements[-1].finding,
        text="",
        judgements=judgements,
        labels=judgements[-1].labels,
    )


def headline(one: Advice) -> tuple[str, str, list[str]]:
    """Kind, text and reasons of the page's answer."""
    page = page_of(
        Findings(
            rows=rows(),
            advice=[one],
            margins=Margins(),
            pictures=(),
            costs=(),
            facts=(),
            command="",
            made_with="",
        )
    )
    (answer,) = page.answers
    return answer.kind, answer.text, list(answer.reasons)


def test_a_headline_says_that_labels_are_told_and_what_is_really_hidden() -> None:
    """A green answer that left either out would mislead."""
    labels = "labels are told for 8 of 8 samples by which entries are hidden"
    shares = {"least_hidden": 0.46, "most_hidden": 0.46}
    kind, text, reasons = headline(advice(judgement(0.1, Finding.HOLDS, labels=labels, **shares), ratio=0.1))
    assert kind == "ratio"
    assert text == f"lenet, chosen by magnitude: encrypt at least 10% (asked; 46% hidden); {labels}"
    assert reasons[0] == f"10% asked, 46% hidden: so it was measured; {labels}."
    kind, text, reasons = headline(advice(judgement(0.1, Finding.HOLDS), ratio=0.1))
    assert text == "lenet, chosen by magnitude: encrypt at least 10%"
    assert reasons[0] == "10% encrypted: so it was measured."


def test_a_perturbation_without_encryption_has_an_answer() -> None:
    """Its only ratio is 0."""
    noise = {"significance": NONE, "perturb": "noise:0.1"}
    kind, text, reasons = headline(advice(judgement(0.0, Finding.LEAKS), ratio=None, **noise))
    assert (kind, text) == ("none", "lenet, noise:0.1 alone: none, use full")
    assert reasons == ["Under noise:0.1: so it was measured."]
    kind, text, _ = headline(advice(judgement(0.0, Finding.HOLDS), ratio=0.0, **noise))
    assert (kind, text) == ("ratio", "lenet, noise:0.1 alone: holds without encryption")


def test_table_and_captions_say_what_is_really_hidden() -> None:
    """Where it is another share than the one that was asked for."""
    plain = figures(rows())[0].note
    assert "asked" not in plain
    found = [row | {"hidden_share": 0.46} if row["ratio"] == 0.1 else row for row in rows()]
    (line,) = {line[2].text for line in leak_table(found).rows if line[2].text.startswith("10%")}
    assert line == "10% (46% hidden)"
    assert figures(found)[0].note.endswith(
        "really hidden is another share: magnitude at 10% hides 46%; random at 10% hides 46%."
    )


def test_a_perturbation_alone_is_a_choice_unless_it_is_another_one_s_ratio_0() -> None:
    """Otherwise its rows would be in no table and no picture."""
    named = [("magnitude", ""), (NONE, ""), (FULL, ""), (NONE, "noise:0.1")]
    made = [{"significance": significance, "perturb": perturb} for significance, perturb in named]
    assert [one.label for one in choices(made)] == ["magnitude", "noise:0.1 alone"]
    made.append({"significance": "random", "perturb": "noise:0.1"})
    assert [one.label for one in choices(made)] == ["magnitude", "random + noise:0.1"]


def test_what_has_no_mask_is_one_curve() -> None:
    """Noise alone, beside a mask without it."""
    noise = [
        row | {"significance": NONE, "perturb": "noise:0.1", "aware": aware}
        for row in rows()
        for aware in (True, False)
        if row["significance"] == NONE
    ]
    drawn = figures([*rows(), *noise])[0].svg
    assert ">noise:0.1 alone<" in drawn and "noise:0.1 alone, knows" not in drawn


LONG = "hospital_of_the_west." + "radiology." * 12 + "networks:build_the_latest"


def test_long_names_keep_both_ends_in_headings_and_tables() -> None:
    """A heading of a module's whole path, or a column as wide as it, can't be read."""
    file = f"file=/srv/{'masks/' * 20}today.npy"
    changed: list[dict[str, Any]] = [
        row
        | {"victim": LONG, "significance": file if row["significance"] == "random" else row["significance"]}
        for row in rows()
    ]
    stored = [
        replace(cell, victim=LONG, significance=file if cell.significance == "random" else cell.significance)
        for cell in cells()
    ]
    page = page_of(
        Findings(
            rows=changed,
            advice=[
                replace(advice(judgement(0.1, Finding.LEAKS), ratio=None, significance=file), victim=LONG)
            ],
            margins=Margins(),
            pictures=[(cell, partial(picture_of, cell)) for cell in stored],
            costs=[COST | {"victim": LONG}],
            facts=(),
            command="",
            made_with="",
        )
    )
    headings = [
        *(answer.text for answer in page.answers),
        *(figure.title for figure in page.figures),
        *(gallery.title for gallery in page.galleries),
    ]
    assert len(headings) == 1 + 2 + 4
    for heading in headings:
        assert heading.startswith("hospital_of") and "the_latest" in heading and len(heading) < 200
    assert any("today.npy" in gallery.title for gallery in page.galleries)
    for figure in page.figures:
        assert "…" in figure.svg and "masks/" * 10 not in figure.svg
    for table in page.tables:
        assert all(len(cell.text) <= 40 for line in table.rows for cell in line[: table.names])
        assert all(line[0].text.endswith("the_latest") for line in table.rows)


def test_a_dollar_sign_in_a_name_is_no_formula() -> None:
    """Of a mask's path, say; half a formula would stop the page."""
    changed = [
        row | {"significance": r"file=$\half$.npy"} for row in rows() if row["significance"] == "random"
    ]
    assert r"$\half$.npy, knows the mask" in figures(changed)[0].svg


def test_what_is_no_number_is_drawn_black() -> None:
    """A diverged reconstruction must not stop the page."""
    sample = np.full((1, 4, 4), np.nan)
    sample[0, 0, 0] = np.inf
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data_uri(sample).partition(",")[2]))))
    assert picture[1, 1] == 0 and picture[0, 0] == 255
