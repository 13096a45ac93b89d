"""The page: what stands where, and how it becomes one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

PAGE_FILE = "leak.html"
PICTURE_PX = 84
"""Width of a picture, so that eleven columns fit a laptop's screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a deployment should do.

    Args:
        kind: ``ratio`` (a share suffices), ``none`` (none does), ``whole`` (everything was encrypted) or
            ``inconclusive``.
        text: in one sentence.
        reasons: why, a paragraph each.
    """

    kind: str
    text: str
    reasons: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFigure:
    """A picture with its caption; ``svg`` is an ``<svg>`` element and goes into the page as it is."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryCell:
    """A picture (``data:`` address), or text, and what is said below it."""

    picture: str = ""
    text: str = ""
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Originals beside reconstructions: a row per sample; closed unless ``open``."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[GalleryCell]]
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCell:
    """Text, and how it is marked: ``bad``, ``unsure`` or not."""

    text: str
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under heads; the first ``names`` columns are names, the others numbers."""

    title: str
    note: str
    heads: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    names: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that the page says, from top to bottom."""

    title: str
    facts: Sequence[str]
    answers: Sequence[Answer]
    figures: Sequence[DrawnFigure]
    galleries: Sequence[Gallery]
    tables: Sequence[Table]
    notes: Sequence[str]
    command: str
    made_with: str
    gallery_title: str = "Originals beside reconstructions"
    gallery_note: str = ""
    picture_px: int = PICTURE_PX


def write_page(page: Page, folder: Path) -> Path:
    """Write ``leak.html``; a reader sees the old file or the whole new one.

    Nothing in it is loaded from elsewhere, and it runs no script. All text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("attacks.inversion.report", ""),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("page.html.j2").render(page=page)
    path, temporary = folder / PAGE_FILE, folder / f".{PAGE_FILE}.new"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
