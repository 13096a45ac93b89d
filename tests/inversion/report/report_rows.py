"""A small sweep as the bench stores it, with figures that follow a simple law; and a page's elements."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from attacks.inversion.bench.cell import FULL, NONE, Cell, Setting
from attacks.inversion.bench.verdict import Margins, judged

RATIOS = (0.0, 0.1, 0.9)
SAMPLES = 2
SETTING = Setting(dataset="digits")


def cells() -> list[Cell]:
    """One attacker, two significances, both kinds of knowledge; references once."""
    made = []
    for update in range(SAMPLES):
        for aware in (True, False):
            for significance in ("magnitude", "random"):
                made += [_cell(significance, ratio, update, aware) for ratio in RATIOS if ratio]
        made += [_cell(NONE, 0.0, update, True), _cell(FULL, 1.0, update, True)]
    return made


def _cell(significance: str, ratio: float, update: int, aware: bool) -> Cell:
    return Cell(
        setting=SETTING,
        victim="lenet",
        significance=significance,
        ratio=ratio,
        update=update,
        attacker="gauss-newton",
        aware=aware,
    )


def psnr_db(cell: Cell) -> float:
    """High in the clear, falling with the ratio, and low for those who take hidden entries for zeros."""
    if cell.significance == FULL:
        return 9.0
    return 50.0 - 40.0 * cell.ratio - (30.0 if not cell.aware else 0.0) * (cell.ratio > 0)


def rows() -> list[dict[str, object]]:
    """As ``judged`` returns them."""
    raw = [
        {
            "victim": cell.victim,
            "significance": cell.significance,
            "ratio": cell.ratio,
            "perturb": cell.perturb,
            "attacker": cell.attacker,
            "aware": cell.aware,
            "sample": cell.update,
            "ended": "done",
            "psnr_db": psnr_db(cell),
            "ssim": psnr_db(cell) / 60,
            "mse": 10 ** (-psnr_db(cell) / 10),
            "label_correct": True,
            "label_from_mask": cell.update == 0 if cell.significance not in (NONE, FULL) else None,
            "label_from_update": True if cell.significance != FULL else None,
            "label_chance": 0.1,
            "hidden_share": cell.ratio,
            "identified": cell.aware,
            "psnr_pred_db": psnr_db(cell) + 3 if cell.significance != FULL else 9.0,
            "mean_psnr_db": 10.0,
            "mean_ssim": 0.1,
            "token_accuracy": None,
            "bag_accuracy": None,
        }
        for cell in cells()
    ]
    return judged(raw, Margins())


def picture_of(cell: Cell, kind: str) -> NDArray[np.float16]:
    """A grey image per kind."""
    shade = {"original": 1.0, "mean": 0.5}.get(kind, psnr_db(cell) / 60)
    return np.full((1, 1, 8, 8), shade, dtype=np.float16)


class Elements(HTMLParser):
    """All elements with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
