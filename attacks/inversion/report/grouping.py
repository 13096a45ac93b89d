"""Rows of a sweep by what a reader compares: a protection's curve over ratios, an attacker's panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import median

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Row

AWARE, NAIVE = "knows the mask", "takes hidden for zero"
IN_THE_CLEAR = "had it been sent in the clear"
"""What ratio 0 is of a run that encrypted something: nothing travelled so."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How entries are chosen, and what is done to the others."""

    significance: str
    perturb: str

    @property
    def label(self) -> str:
        """For people."""
        if self.significance == NONE:
            return f"{self.perturb} alone" if self.perturb else "nothing encrypted"
        if self.significance == FULL:
            return "everything encrypted"
        return f"{self.significance} + {self.perturb}" if self.perturb else self.significance

    @property
    def masked(self) -> bool:
        """True if there is a mask to know: some entries are hidden, and others aren't."""
        return self.significance not in (NONE, FULL)

    def holds(self, row: Row) -> bool:
        """True of its own rows, and for a mask of those where nothing is hidden: its ratio 0."""
        own = (row["significance"], row["perturb"]) == (self.significance, self.perturb)
        return own or (self.masked and (row["significance"], row["perturb"]) == (NONE, self.perturb))


def names(rows: Sequence[Row], field: str) -> list[str]:
    """Different values of a field, in the order of the rows."""
    return list(dict.fromkeys(str(row[field]) for row in rows))


def choices(rows: Sequence[Row]) -> list[Choice]:
    """Those of the rows, without the references at ratio 0 and 1.

    A perturbation without encryption is a choice of its own unless it is another one's ratio 0. Where no mask
    was tried at all, what was read in the clear is all there is to show.
    """
    found = dict.fromkeys(Choice(str(row["significance"]), str(row["perturb"])) for row in rows)
    masked = [one for one in found if one.significance not in (NONE, FULL)]
    perturbed = {one.perturb for one in masked} | {""}
    alone = [one for one in found if one.significance == NONE and one.perturb not in perturbed]
    return masked + alone or [Choice(NONE, "")]


def ratios(rows: Sequence[Row]) -> list[float]:
    """All that occur besides the reference at 1, ascending."""
    return sorted({float(row["ratio"]) for row in rows if row["significance"] != FULL})


def values(rows: Iterable[Row], field: str) -> list[float]:
    """A field's numbers; rows that have none are left out."""
    found = (row.get(field) for row in rows)
    return [float(value) for value in found if value is not None and isfinite(float(value))]


def middle(rows: Iterable[Row], field: str) -> float:
    """A field's median; NaN if no row has a number there."""
    found = values(rows, field)
    return median(found) if found else nan


def by_knowledge(rows: Sequence[Row]) -> list[tuple[bool | None, list[Row]]]:
    """Rows by whether their attacker knows the mask: those that do first; nobody's are left out.

    Where nothing is hidden, or everything, there is no mask, and what was played once may stand in rows of
    both kinds: it is there once, under None.
    """
    kinds = [(aware, [row for row in rows if bool(row["aware"]) is aware]) for aware in (True, False)]
    found: list[tuple[bool | None, list[Row]]] = [(aware, mine) for aware, mine in kinds if mine]
    if all(row["significance"] in (NONE, FULL) for row in rows):
        return [(None, mine) for _, mine in found[:1]]
    return found


def knowledge(*, aware: bool) -> str:
    """For legends."""
    return AWARE if aware else NAIVE
