"""What is told of samples beside what they look like: their labels, and whose they are among candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from attacks.inversion.bench.chance import beyond_chance
from attacks.inversion.bench.verdict import Margins, Row

CANDIDATES = 100
"""Among which samples are to be found, where rows don't say: as by default in a sweep."""
BY_MASK, BY_UPDATE = "which entries are hidden", "what is visible"
_WAYS = {BY_MASK: "label_from_mask", BY_UPDATE: "label_from_update"}


def labels_told(rows: Sequence[Row], margins: Margins) -> str:
    """Says of how many samples the labels are told, and by what; empty if chance explains as many.

    Args:
        rows: of attackers who know the mask, under one protection.
        margins: whose ``chance`` says what luck explains.
    """
    counted = [(way, *_labels(rows, field)) for way, field in _WAYS.items()]
    for attacker in dict.fromkeys(str(row["attacker"]) for row in rows):
        mine = [row for row in rows if row["attacker"] == attacker]
        counted.append((attacker, *_labels(mine, "label_correct")))
    told = [
        (way, hits, tries)
        for way, hits, tries, chance in counted
        if tries and beyond_chance(hits, tries, chance, level=margins.chance)
    ]
    if not told:
        return ""
    most = max(hits / tries for _, hits, tries in told)
    best = [one for one in told if one[1] / one[2] == most]
    # Attackers infer labels from the same two: where these say as much, they are the reason.
    ways = [way for way, _, _ in best if way in _WAYS] or [way for way, _, _ in best]
    _, hits, tries = best[0]
    return f"labels are told for {hits} of {tries} samples by {' and by '.join(ways)}"


def identities_told(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> str:
    """Says so if an attacker tells more samples from the candidates than luck, or its prior, explains.

    Args:
        rows: as ``labels_told`` takes them.
        reference: of updates of the same samples that are hidden whole.
        margins: whose ``chance`` says what luck explains.
    """
    usual = max((hits / tries for _, hits, tries in _identified(reference)), default=0.0)
    chance = max(usual, 1 / min((row.get("candidates") or CANDIDATES for row in rows), default=CANDIDATES))
    told = [
        (hits / tries, attacker, hits, tries)
        for attacker, hits, tries in _identified(rows)
        if beyond_chance(hits, tries, chance, level=margins.chance)
    ]
    if not told:
        return ""
    _, attacker, hits, tries = max(told)
    return f"{attacker}, knowing the mask, tells {hits} of {tries} samples from the candidates"


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
    counts = [next(filter(None, (_share(rows, field) for field in fields)), "") for fields in columns]
    return " / ".join(count or "–" for count in counts) if any(counts) else ""


def _share(rows: Sequence[Row], field: str) -> str:
    found = {row["sample"]: bool(row[field]) for row in rows if row.get(field) is not None}
    return f"{sum(found.values())}/{len(found)}" if found else ""


def _labels(rows: Sequence[Row], field: str) -> tuple[int, int, float]:
    """How many were right, of how many samples, and what is right by chance."""
    found = {
        row["sample"]: (bool(row[field]), float(row["label_chance"]))
        for row in rows
        if row.get(field) is not None and row.get("label_chance") is not None
    }
    hits = sum(hit for hit, _ in found.values())
    return hits, len(found), mean(chance for _, chance in found.values()) if found else 1.0


def _identified(rows: Sequence[Row]) -> Iterator[tuple[str, int, int]]:
    found: dict[str, list[bool]] = {}
    for row in rows:
        if row.get("identified") is not None:
            found.setdefault(str(row["attacker"]), []).append(bool(row["identified"]))
    for attacker, hits in found.items():
        yield attacker, sum(hits), len(hits)
