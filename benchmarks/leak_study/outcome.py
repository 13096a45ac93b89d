"""A part's rows from what is stored, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attacks.inversion.bench.advice import Advice, advise
from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.config import Knowledge
from attacks.inversion.bench.rows import rows_of
from attacks.inversion.bench.store import Outcome
from attacks.inversion.bench.verdict import Margins, judged
from benchmarks.leak_study.findings import Factor, Ranking, factors, ranking
from benchmarks.leak_study.parts import OPTIMISERS, Part, Planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of one part.

    Args:
        part: which.
        rows: judged.
        advice: per significance, of the bench.
        labels: per significance and ratio, whether each label was guessed from the mask.
    """

    part: Part
    rows: Sequence[Mapping[str, Any]]
    advice: Sequence[Advice]
    labels: Mapping[tuple[str, float], Sequence[bool]] = field(default_factory=dict)

    def ranking(self, *, aware: bool, optimisers: bool = False) -> Ranking | None:
        """How significances compare, against attackers that were tried under every protection.

        Args:
            aware: whether they know the mask.
            optimisers: only those that fit an update by descent.
        """
        names = [name for name in self.part.attackers if not optimisers or name in OPTIMISERS]
        rows = [row for row in self.rows if row["attacker"] in names]
        return ranking(self.part.name, rows, aware=aware, text=self.part.text)

    @property
    def factors(self) -> list[Factor]:
        """Of every significance."""
        naive, aware = self.ranking(aware=False), self.ranking(aware=True)
        advised = {one.significance: one.ratio for one in self.advice}
        return [] if naive is None or aware is None else list(factors(naive, aware, advised))


def found_of(planned: Planned, ended: Mapping[str, tuple[Cell, Outcome]], margins: Margins) -> Found | None:
    """Of a part; samples whose cells have not all ended are left out. None if no sample's have.

    Args:
        ended: by key, what is stored.
    """
    cells: dict[Cell, None] = {}
    for sweep in planned.sweeps:
        for update in range(sweep.config.samples):
            mine = [cell for cell in sweep.cells if cell.update == update]
            if all(cell.key in ended for cell in mine):
                cells.update(dict.fromkeys(mine))
    if not cells:
        return None
    rows = judged(rows_of([ended[cell.key] for cell in cells], Knowledge.BOTH), margins)
    labels: dict[tuple[str, float], list[bool]] = {}
    for cell in planned.labels:
        for row in ended[cell.key][1].rows if cell.key in ended else ():
            if row["label_correct"] is not None:
                labels.setdefault((cell.significance, cell.ratio), []).append(row["label_correct"])
    return Found(part=planned.part, rows=rows, advice=advise(rows, margins), labels=labels)
