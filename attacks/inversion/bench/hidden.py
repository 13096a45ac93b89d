"""The share of entries that is really hidden, where it isn't the ratio that was asked for."""

from __future__ import annotations

from collections.abc import Iterable

from attacks.inversion.bench.verdict import Row

LEAST_GAP = 0.01
"""A share that differs by more is worth saying: whole layers are hidden, so 10% asked may hide half."""


def hidden_shares(rows: Iterable[Row]) -> tuple[float, float] | None:
    """The least and the largest share that is hidden in any of the updates; None if rows don't say."""
    found = [float(row["hidden_share"]) for row in rows if row.get("hidden_share") is not None]
    return (min(found), max(found)) if found else None


def really_hidden(ratio: float, shares: tuple[float, float] | None) -> str:
    """What is hidden instead of the ratio, for people; empty if they agree.

    >>> really_hidden(0.1, (0.46, 0.46)), really_hidden(0.1, (0.2, 0.46)), really_hidden(0.1, (0.1, 0.105))
    ('46%', '20% to 46%', '')
    """
    if shares is None or max(abs(share - ratio) for share in shares) <= LEAST_GAP:
        return ""
    least, most = (f"{100 * share:.3g}%" for share in shares)
    return most if shares[1] - shares[0] <= LEAST_GAP else f"{least} to {most}"
