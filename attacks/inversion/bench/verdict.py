"""What one row says: that a sample leaked, that this attacker found nothing, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from attacks.inversion.bench.cell import FULL, NONE

Row = Mapping[str, Any]


class Status(StrEnum):
    """A row's; none of them says that a setting is safe."""

    LEAKED = "leaked"
    """Better than what is known without the update, by more than the margin."""
    RESISTED = "resisted"
    """No better, by an attacker that does read this sample in the clear, by ``ABLE``."""
    INCONCLUSIVE = "inconclusive"
    """No better, but this attacker can't read the sample in the clear either: that says nothing."""
    DIVERGED = "diverged"
    """The attack ended in NaN or infinity: that says nothing."""
    UNSUITED = "unsuited"
    """The attacker has no way to begin on this exposure."""
    REFERENCE = "reference"
    """Everything is hidden: what the attacker's prior alone is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """By how much an attack must beat what is known without the update, to count as a leak.

    Args:
        psnr_db: of PSNR, dB.
        ssim: of SSIM: shapes can be seen at the wrong brightness, where PSNR sees nothing.
        tokens: of token and bag accuracy: more than one of sixteen, which chance finds.
        chance: luck explains a number of labels that are told, or of samples that are told from all
            candidates, unless as many have a smaller probability than this.
    """

    psnr_db: float = 1.0
    ssim: float = 0.1
    tokens: float = 0.1
    chance: float = 0.01

    @property
    def fields(self) -> dict[str, float]:
        """Per figure of a row its margin."""
        return {
            "psnr_db": self.psnr_db,
            "ssim": self.ssim,
            "token_accuracy": self.tokens,
            "bag_accuracy": self.tokens,
        }


ABLE = Margins(psnr_db=6.0, ssim=0.3, tokens=0.3)
"""By how much an attack must beat it in the clear, for its failure elsewhere to say anything.

Who gains 2 dB where nothing is hidden hardly reads the sample at all, and would lose these 2 dB under any
protection. 6 dB halve the error of what is known anyway; 0.3 of SSIM are shapes to the eye; 0.3 of tokens are
five words of sixteen. Whoever tells the sample from all candidates reads it as well."""


def judged(rows: Sequence[Row], margins: Margins) -> list[dict[str, Any]]:
    """Rows with a ``status``, and with ``prior_…``: what is known of their sample without the update.

    That is, figure by figure, the larger one of the mean image's and of what attackers make of an update
    that is hidden whole. An attacker counts as able to read a sample if it beats that by ``ABLE`` where
    everything travels in the clear and unperturbed, or identifies the sample there, which nobody does
    without the update.

    Args:
        rows: all of a sweep, with at least ``victim, sample, significance, ratio, perturb, attacker, aware,
            ended`` and the figures of ``Margins.fields``, None where there is none; ``mean_…`` of the mean
            image where there is one.
    """
    priors: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        known = priors.setdefault(_sample(row), {})
        for name in margins.fields:
            for value in _without_update(row, name):
                known[name] = max(value, known.get(name, value))
    known_anyway = {_sample(row) for row in rows if row["significance"] == FULL and row.get("identified")}
    able = {
        (*_sample(row), row["attacker"])
        for row in rows
        if _is_clear(row)
        and row["ended"] == "done"
        and (
            better(row, priors[_sample(row)], _at_least(ABLE, margins))
            or (row.get("identified") and _sample(row) not in known_anyway)
        )
    }
    return [
        {
            **row,
            **{f"prior_{name}": priors[_sample(row)].get(name) for name in margins.fields},
            "status": str(_status(row, priors[_sample(row)], able, margins)),
        }
        for row in rows
    ]


def better(row: Row, prior: Mapping[str, float], margins: Margins) -> bool:
    """Whether any figure beats what is known without the update by more than its margin."""
    return any(
        name in prior and value is not None and value > prior[name] + margin
        for name, margin in margins.fields.items()
        for value in (row.get(name),)
    )


def _without_update(row: Row, name: str) -> Iterator[float]:
    found = [row.get(f"mean_{name}")]
    if row["significance"] == FULL and row["ended"] == "done":
        found.append(row.get(name))
    yield from (float(value) for value in found if value is not None and isfinite(value))


def _status(row: Row, prior: Mapping[str, float], able: set[tuple[Any, ...]], margins: Margins) -> Status:
    if row["ended"] != "done":
        return Status(row["ended"])
    if row["significance"] == FULL:
        return Status.REFERENCE
    if better(row, prior, margins):
        return Status.LEAKED
    if (*_sample(row), row["attacker"]) not in able:
        return Status.INCONCLUSIVE
    # In the clear there is nothing to resist: who is able tells the sample from all candidates.
    return Status.LEAKED if _is_clear(row) else Status.RESISTED


def _is_clear(row: Row) -> bool:
    return bool(row["significance"] == NONE and not row["perturb"])


def _at_least(one: Margins, other: Margins) -> Margins:
    return Margins(
        psnr_db=max(one.psnr_db, other.psnr_db),
        ssim=max(one.ssim, other.ssim),
        tokens=max(one.tokens, other.tokens),
    )


def _sample(row: Row) -> tuple[Any, ...]:
    return row["victim"], row["sample"]
