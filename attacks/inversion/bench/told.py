"""What is told of samples beside what they look like: their labels, and whose they are among candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import mean

from attacks.inversion.bench.chance import beyond_chance
from attacks.inversion.bench.samples import by_round, counted, sample_of, samples_in
from attacks.inversion.bench.verdict import Margins, Row

CANDIDATES = 100
"""Among which samples are to be found, where rows don't say: as by default in a sweep."""
BY_MASK, BY_UPDATE = "which entries are hidden", "what is visible"
_WAYS = {BY_MASK: "label_from_mask", BY_UPDATE: "label_from_update"}


@dataclass(frozen=True, slots=True, order=True)
class _Told:
    """Samples that something tells in one round.

    Args:
        share: hits / tries.
        hits: samples that are told.
        tries: samples that were tried.
        known: different samples of all rounds; as many as ``tries`` where there is but one round.
    """

    share: float
    hits: int
    tries: int
    known: int = field(compare=False)

    def __str__(self) -> str:
        return f"{self.hits} of {self.tries} samples{' of one round' if self.tries < self.known else ''}"


def labels_told(rows: Sequence[Row], margins: Margins) -> str:
    """Says of how many samples the labels are told, and by what; empty if chance explains as many.

    Args:
        rows: of attackers who know the mask, under one protection.
        margins: whose ``chance`` says what luck explains.
    """
    rows = [row for row in rows if row.get("label_chance") is not None]
    asked = [(way, rows, name) for way, name in _WAYS.items()]
    asked += [(attacker, mine, "label_correct") for attacker, mine in _by_attacker(rows)]
    asked = [(way, mine, name) for way, mine, name in asked if _rounds(mine, name)]
    found = {way: _told(mine, name, margins.chance / len(asked)) for way, mine, name in asked}
    most = max((told for told in found.values() if told), default=None)
    if most is None:
        return ""
    best = [way for way, told in found.items() if told == most]
    # Attackers infer labels from the same two: where these say as much, they are the reason.
    ways = [way for way in best if way in _WAYS] or best
    return f"labels are told for {most} by {' and by '.join(ways)}"


def identities_told(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> str:
    """Says so if an attacker tells more samples from the candidates than luck, or its prior, explains.

    Args:
        rows: as ``labels_told`` takes them.
        reference: of updates of the same samples that are hidden whole.
        margins: whose ``chance`` says what luck explains.
    """
    shares = (
        mean(bool(row["identified"]) for row in one)
        for _, mine in _by_attacker(reference)
        for one in _rounds(mine, "identified")
    )
    usual = max(shares, default=0.0)
    chance = max(usual, 1 / min((row.get("candidates") or CANDIDATES for row in rows), default=CANDIDATES))
    attackers = _by_attacker([row for row in rows if row.get("identified") is not None])
    found = {
        attacker: _told(mine, "identified", margins.chance / len(attackers), chance=chance)
        for attacker, mine in attackers
    }
    most = max((told for told in found.values() if told), default=None)
    if most is None:
        return ""
    attacker = max(name for name, told in found.items() if told == most)
    return f"{attacker}, knowing the mask, tells {most} from the candidates"


def labels_counted(rows: Sequence[Row]) -> str:
    """How many labels are told, for a table: by the attack / by the mask; empty if nobody could tell any.

    By attacks that infer labels; where they are given, by what the last layer shows to somebody who knows the
    mask. What the mask tells is left out of rows of attackers who don't know it.

    Args:
        rows: of one attacker under one protection.
    """
    columns = [["label_correct"], ["label_from_mask"]]
    if all(row["aware"] for row in rows):
        columns[0].append("label_from_update")
    else:
        columns.pop()
    counts = [next(filter(None, (counted(rows, field) for field in fields)), "") for fields in columns]
    return " / ".join(count or "–" for count in counts) if any(counts) else ""


def _told(rows: Sequence[Row], name: str, level: float, *, chance: float | None = None) -> _Told | None:
    """The round in which most samples are told; None if luck explains every round.

    A sample counts once in a test. What tells it in one round is likely to in the next, so its rounds are no
    independent trials and are never summed. Each round is tested by itself instead, at its share of the
    level: that luck passes in any of them is no likelier than the level, however they hang together.

    Args:
        name: of a row's field, true of a sample that is told; rows where it is None are left out.
        level: of this attacker or way: a verdict's, shared out among all that are tested for it.
        chance: probability of each hit by luck; None for the mean of rows' ``label_chance``.
    """
    rounds = _rounds(rows, name)
    known, beyond = samples_in(chain(*rounds)), []
    for mine in rounds:
        hits = sum(bool(row[name]) for row in mine)
        usual = mean(float(row["label_chance"]) for row in mine) if chance is None else chance
        if beyond_chance(hits, len(mine), usual, level=level / len(rounds)):
            beyond.append(_Told(hits / len(mine), hits, len(mine), known))
    return max(beyond, default=None)


def _rounds(rows: Sequence[Row], name: str) -> list[list[Row]]:
    """Per round one row of each sample, where the field is known."""
    known = by_round(row for row in rows if row.get(name) is not None)
    return [list({sample_of(row): row for row in mine}.values()) for mine in known]


def _by_attacker(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["attacker"]), []).append(row)
    return list(found.items())
