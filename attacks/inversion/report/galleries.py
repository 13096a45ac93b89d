"""Originals beside what attackers made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from attacks.inversion.bench.cell import FULL, NONE, Cell
from attacks.inversion.bench.names import COLUMN, HEADING, shortened
from attacks.inversion.bench.store import ORIGINAL, RECONSTRUCTION, Picture
from attacks.inversion.bench.verdict import Row
from attacks.inversion.report.curves import percent
from attacks.inversion.report.grouping import IN_THE_CLEAR, Choice, choices, knowledge, names, ratios
from attacks.inversion.report.page import Gallery, GalleryCell
from attacks.inversion.report.pictures import data_uri

MOST_ROWS = 16
"""More samples than that make a page too heavy to open; the title says so, and the table counts all."""
_EMPTY = GalleryCell()

Pictures = Sequence[tuple[Cell, Callable[[str], Picture | None]]]
Decoder = Callable[[str, Picture], str]
"""Words of a victim's tokens."""
_Place = tuple[str, str, str, float, str, bool, int]
_Found = Mapping[_Place, tuple[Picture | None, Picture | None]]


def galleries(
    rows: Sequence[Row], pictures: Pictures, decode: Decoder | None, *, hypothetical: bool = False
) -> list[Gallery]:
    """One per victim, way to choose entries, attacker and knowledge of a mask; the first is open.

    Args:
        rows, pictures, decode, hypothetical: as in ``Findings``.
    """
    found, figures = _samples(pictures), {_place_of(row): row for row in rows}
    made = []
    for victim in names(rows, "victim"):
        here = [row for row in rows if row["victim"] == victim]
        for choice in choices(here):
            for attacker in names(here, "attacker"):
                for aware in (True, False) if choice.masked else (True,):
                    gallery = _gallery(here, victim, choice, attacker, aware, found, figures, decode)
                    if gallery is not None:
                        made.append(gallery)
    if hypothetical:
        made = [replace(one, columns=_renamed(one.columns)) for one in made]
    if made:
        made[0] = replace(made[0], open=True)
    return made


def _samples(pictures: Pictures) -> _Found:
    """Original and reconstruction of every sample, by where its row stands."""
    originals: dict[tuple[str, int], Picture] = {}
    for cell, picture in pictures:
        original = picture(ORIGINAL)
        if original is not None:
            originals[(cell.victim, cell.update)] = original
    found: dict[_Place, tuple[Picture | None, Picture | None]] = {}
    for cell, picture in pictures:
        made, original = picture(RECONSTRUCTION), originals.get((cell.victim, cell.update))
        for member in range(0 if made is None else len(made)):
            sample = cell.update * cell.setting.batch + member
            names = (cell.victim, cell.significance, cell.perturb, cell.ratio, cell.attacker, cell.aware)
            found[(*names, sample)] = (
                None if original is None else original[member],
                None if made is None else made[member],
            )
    return found


def _place_of(row: Row) -> _Place:
    return (
        str(row["victim"]),
        str(row["significance"]),
        str(row["perturb"]),
        float(row["ratio"]),
        str(row["attacker"]),
        bool(row["aware"]),
        int(row["sample"]),
    )


def _gallery(
    rows: Sequence[Row],
    victim: str,
    choice: Choice,
    attacker: str,
    aware: bool,
    found: _Found,
    figures: Mapping[_Place, Row],
    decode: Decoder | None,
) -> Gallery | None:
    samples = sorted({int(row["sample"]) for row in rows})
    columns = [(choice.significance if ratio else NONE, ratio) for ratio in ratios(rows)] + [(FULL, 1.0)]
    lines = []
    for sample in samples[:MOST_ROWS]:
        original: GalleryCell | None = None
        line = []
        for significance, ratio in columns:
            # What is not hidden at all is the same for those who know the mask and those who don't.
            places = [
                (victim, significance, choice.perturb, ratio, attacker, knows, sample)
                for knows in (aware, not aware)[: 2 if significance in (NONE, FULL) else 1]
            ]
            place = next((place for place in places if place in found), None)
            if place is None:
                line.append(_EMPTY)
                continue
            truth, made = found[place]
            row = next((figures[one] for one in places if one in figures), None)
            if original is None and truth is not None:
                whose = _whose(sample, row)
                original = _cell(victim, truth, whose, whose, decode)
            line.append(
                _EMPTY if made is None else _cell(victim, made, _caption(row), f"at {percent(ratio)}", decode)
            )
        if original is not None:
            lines.append([original, *line])
    # References alone, without anything in between, compare nothing.
    inner = slice(1 if choice.perturb or choice.significance == NONE else 2, -1)
    if all(cell is _EMPTY for line in lines for cell in line[inner]):
        return None
    heads = ["original", *(percent(ratio) for _, ratio in columns[:-1]), "all hidden"]
    title = _title(victim, choice, attacker, aware=aware)
    if len(samples) > MOST_ROWS:
        title += f" (the first {len(lines)} of {len(samples)})"
    return Gallery(title=title, columns=heads, rows=lines)


def _title(victim: str, choice: Choice, attacker: str, *, aware: bool) -> str:
    title = shortened(victim, HEADING)
    # Of a run whose updates had no mask the heads say it all.
    if choice.masked or choice.perturb:
        title += f", {shortened(choice.label, HEADING)}"
    title += f": {shortened(attacker, HEADING)}"
    if choice.masked:
        title += f" that {knowledge(aware=aware)}"
    return title


def _renamed(heads: Sequence[str]) -> list[str]:
    return [IN_THE_CLEAR if head == percent(0.0) else head for head in heads]


def _cell(victim: str, sample: Picture, caption: str, alt: str, decode: Decoder | None) -> GalleryCell:
    if decode is not None and sample.dtype.kind in "iu":
        return GalleryCell(text=decode(victim, sample), caption=caption)
    if sample.ndim != 3:
        return GalleryCell(text=" ".join(f"{value:.2f}" for value in sample.reshape(-1)[:8]), caption=caption)
    return GalleryCell(picture=data_uri(sample), caption=caption, alt=alt)


def _whose(sample: int, row: Row | None) -> str:
    """What finds the sample among the rows; of a recorded run also whose it is, and in which round."""
    number = f"sample {sample}"
    if row is None or row.get("client") is None:
        return number
    return f"{shortened(str(row['client']), COLUMN)}, round {row['round']}, {number}"


def _caption(row: Row | None) -> str:
    if row is None:
        return ""
    if row.get("psnr_db") is not None:
        return f"{row['psnr_db']:.1f} dB"
    if row.get("token_accuracy") is not None:
        return f"{100 * row['token_accuracy']:.0f}% of tokens"
    return str(row["status"])
