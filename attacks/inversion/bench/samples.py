"""Which sample a row is of: a recorded run has one and the same in the updates of several rounds."""

from __future__ import annotations

from collections.abc import Iterable

from attacks.inversion.bench.verdict import Row, Status

Sample = tuple[str, int]
"""A client and the place among its samples; of a sweep no client and the row's number."""
_SAYING_MOST = (
    Status.LEAKED,
    Status.DIVERGED,
    Status.INCONCLUSIVE,
    Status.UNSUITED,
    Status.RESISTED,
    Status.REFERENCE,
)
"""What is said of a sample whose rounds differ: read once is read, and to resist is to do so always."""


def sample_of(row: Row) -> Sample:
    """The same for all rows of a victim that are of one sample, whatever the round.

    A row's ``sample`` numbers it within its update, so that it has another number in every round.
    """
    if row.get("client") is None:
        return "", int(row["sample"])
    return str(row["client"]), int(row["client_sample"])


def samples_in(rows: Iterable[Row]) -> int:
    """How many different samples the rows are of."""
    return len({sample_of(row) for row in rows})


def by_sample(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one sample together."""
    found: dict[Sample, list[Row]] = {}
    for row in rows:
        found.setdefault(sample_of(row), []).append(row)
    return list(found.values())


def by_round(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one round together; all of a sweep's."""
    found: dict[int | None, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get("round"), []).append(row)
    return list(found.values())


def statuses(rows: Iterable[Row]) -> list[Status]:
    """One per sample, of an attacker under one protection."""
    return [min((Status(row["status"]) for row in mine), key=_SAYING_MOST.index) for mine in by_sample(rows)]


def counted(rows: Iterable[Row], field: str) -> str:
    """Of how many samples a field is true, in any round, and of how many it is known; empty if of none.

    >>> counted([{"sample": 0, "told": True}, {"sample": 1, "told": False}, {"sample": 2}], "told")
    '1/2'
    """
    known = by_sample(row for row in rows if row.get(field) is not None)
    return f"{sum(any(row[field] for row in mine) for mine in known)}/{len(known)}" if known else ""
