"""The smallest ratio that hides what attackers look for, or none: a function of a sweep's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Margins, Row, Status

ATTACKERS_ALONE = "which rests on these attackers alone: text has no information measure"
"""Of text."""


class Finding(StrEnum):
    """What a sweep says of one protection at one ratio."""

    LEAKS = "leaks"
    """A mask-aware attacker beats what is known without the update, in at least one sample."""
    INFORMATION = "information"
    """No attacker does, but the visible part holds more than that."""
    HOLDS = "holds"
    """No attacker that could does, in no sample, and the visible part holds no more."""
    INCONCLUSIVE = "inconclusive"
    """Nothing leaked, and nothing follows from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is said of one ratio.

    Args:
        ratio: hidden entries / all.
        finding: what follows.
        why: one clause, without a full stop.
        median_psnr_db, worst_psnr_db: over samples, of the mask-aware attacker that did best on each;
            None of text.
        prior_psnr_db: median of what is known without the update.
    """

    ratio: float
    finding: Finding
    why: str
    median_psnr_db: float | None = None
    worst_psnr_db: float | None = None
    prior_psnr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """For one victim and one way to choose and perturb.

    Args:
        victim, significance, perturb: what it is for.
        ratio: encrypt at least so large a share; None: use full.
        finding: HOLDS with a ratio; without one LEAKS, INFORMATION or INCONCLUSIVE, of the largest ratio.
        text: for people; it begins with the ratio, or with "none: use full".
        judgements: by ascending ratio.
    """

    victim: str
    significance: str
    perturb: str
    ratio: float | None
    finding: Finding
    text: str
    judgements: tuple[Judgement, ...]

    def flat(self) -> dict[str, object]:
        """As it is written to ``result.json``."""
        return asdict(self)


def advise(rows: Sequence[Row], margins: Margins) -> list[Advice]:
    """Advice for every victim, significance and perturbation, in the order of the rows.

    A ratio holds if (1) no mask-aware attacker beats what is known without the update by more than the
    margins, in any sample, (2) every sample was attacked by a mask-aware attacker that does read it in the
    clear, none of which diverged, (3) no larger share of samples is identified, and (4) PSNR_pred, the
    information measure, is no more than the margin above that of an update which is hidden whole; text has
    no such measure, so what is said of it rests on attackers alone. The advice is the smallest ratio from
    which on all ratios of the sweep hold.

    Args:
        rows: as ``judged`` returns them, of all attackers.
        margins: the same.
    """
    found = dict.fromkeys(
        (row["victim"], row["significance"], row["perturb"])
        for row in rows
        if row["significance"] not in (NONE, FULL) or row["perturb"]
    )
    return [
        _advice(*names, _judgements(_of(rows, *names), _of(rows, names[0]), margins), margins)
        for names in found
        if names[1] not in (NONE, FULL)
    ]


def _advice(
    victim: str, significance: str, perturb: str, judgements: tuple[Judgement, ...], margins: Margins
) -> Advice:
    holding: Judgement | None = None
    for judgement in reversed(judgements):
        if judgement.finding is not Finding.HOLDS:
            break
        holding = judgement
    last = judgements[-1]
    if holding is not None:
        within = f"{margins.psnr_db:g} dB" if holding.prior_psnr_db is not None else f"{margins.tokens:.0%}"
        text = (
            f"{holding.ratio:g}: from there on {holding.why}; true of these attackers, this model and these "
            f"samples, within {within}"
        )
    else:
        text = f"none: use full; at {last.ratio:g}, the largest ratio tried, {last.why}"
        if last.finding is Finding.INCONCLUSIVE:
            text = f"none: use full; inconclusive at {last.ratio:g}, the largest ratio tried: {last.why}"
    return Advice(
        victim=victim,
        significance=significance,
        perturb=perturb,
        ratio=None if holding is None else holding.ratio,
        finding=last.finding,
        text=text,
        judgements=judgements,
    )


def _judgements(rows: Sequence[Row], victims: Sequence[Row], margins: Margins) -> tuple[Judgement, ...]:
    """One per ratio; ``victims`` are all rows of the victim, the references among them."""
    aware = [row for row in rows if row["aware"]]
    samples = sorted({row["sample"] for row in victims})
    reference = [row for row in victims if row["significance"] == FULL]
    ratios = sorted({float(row["ratio"]) for row in rows})
    return tuple(
        _judgement(ratio, [row for row in aware if row["ratio"] == ratio], samples, reference, margins)
        for ratio in ratios
    )


def _judgement(
    ratio: float, rows: Sequence[Row], samples: Sequence[int], reference: Sequence[Row], margins: Margins
) -> Judgement:
    finding, why = _finding(rows, samples, reference, margins)
    best = [max(values) for values in _per_sample(rows, samples, "psnr_db")]
    known = [max(values) for values in _per_sample(rows, samples, "prior_psnr_db")]
    return Judgement(
        ratio=ratio,
        finding=finding,
        why=why,
        median_psnr_db=median(best) if best else None,
        worst_psnr_db=max(best, default=None),
        prior_psnr_db=median(known) if known else None,
    )


def _finding(
    rows: Sequence[Row], samples: Sequence[int], reference: Sequence[Row], margins: Margins
) -> tuple[Finding, str]:
    leaked = [row for row in rows if row["status"] == Status.LEAKED]
    if leaked:
        return Finding.LEAKS, _leak(leaked, samples)
    told = _identified(rows, reference, margins)
    if told:
        return Finding.LEAKS, told
    held = list(_informed(rows, reference, margins))
    if held:
        row = max(held, key=lambda row: float(row["psnr_pred_db"]))
        return Finding.INFORMATION, (
            f"no attacker of this sweep reads the samples, but the visible part holds enough for "
            f"{row['psnr_pred_db']:.1f} dB (PSNR_pred)"
        )
    doubt = _doubt(rows, samples, reference)
    if doubt:
        return Finding.INCONCLUSIVE, doubt
    return Finding.HOLDS, (
        "the best mask-aware attacker does no better on any sample than what is known without the update, "
        + (ATTACKERS_ALONE if _is_text(rows) else "and the information measure agrees")
    )


def _leak(leaked: Sequence[Row], samples: Sequence[int]) -> str:
    fields = ("token_accuracy", "bag_accuracy") if _is_text(leaked) else ("psnr_db",)

    def gain(row: Row, name: str) -> float:
        return float(row.get(name) or 0) - float(row.get(f"prior_{name}") or 0)

    worst, name = max(((row, name) for row in leaked for name in fields), key=lambda pair: gain(*pair))
    count = len({row["sample"] for row in leaked})
    text = f"{worst['attacker']}, knowing the mask, reads {count} of {len(samples)} samples"
    if name != "psnr_db":
        # Words without their order are a leak, too.
        what = "words, in any order" if name == "bag_accuracy" else "words at their places"
        text += f", {float(worst[name] or 0):.0%} of the worst one's {what} "
        text += f"(known without the update: {float(worst.get(f'prior_{name}') or 0):.0%})"
    elif worst["psnr_db"] is not None:
        text += f", the worst at {worst['psnr_db']:.1f} dB (known without the update: "
        text += f"{worst['prior_psnr_db']:.1f} dB)"
    return text


def _is_text(rows: Sequence[Row]) -> bool:
    """True if what was found is words."""
    return any(row.get("token_accuracy") is not None for row in rows)


def _identified(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> str:
    """Says so if some attacker tells more samples from the candidates than are told without the update."""
    usual = max((share for _, share in _shares(reference)), default=0.0)
    for attacker, share in _shares(rows):
        if share > usual + margins.identified:
            return (
                f"{attacker}, knowing the mask, tells {100 * share:.0f}% of the samples from the candidates"
            )
    return ""


def _shares(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    hits: dict[str, list[bool]] = {}
    for row in rows:
        if row.get("identified") is not None:
            hits.setdefault(row["attacker"], []).append(bool(row["identified"]))
    for attacker, found in hits.items():
        yield attacker, sum(found) / len(found)


def _informed(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> Iterator[Row]:
    """Rows whose visible part holds more than the prior."""
    prior = _information(reference)
    for row in rows:
        value, known = row.get("psnr_pred_db"), prior.get(row["sample"])
        if value is not None and known is not None and value > known + margins.psnr_db:
            yield row


def _doubt(rows: Sequence[Row], samples: Sequence[int], reference: Sequence[Row]) -> str:
    """Why nothing follows from the fact that nothing leaked; empty if something does."""
    diverged = [row for row in rows if row["status"] == Status.DIVERGED]
    if diverged:
        return f"{diverged[0]['attacker']} diverged on {len(diverged)} samples"
    able = {row["sample"] for row in rows if row["status"] == Status.RESISTED}
    if not able.issuperset(samples):
        missing = len(set(samples) - able)
        return f"no attacker that read them in the clear was tried on {missing} of {len(samples)} samples"
    known, prior = _information(rows), _information(reference)
    if _is_text(rows):
        return ""
    if not all(sample in known and sample in prior for sample in samples):
        return "there is no information measure to agree"
    return ""


def _information(rows: Sequence[Row]) -> dict[int, float]:
    return {row["sample"]: row["psnr_pred_db"] for row in rows if row.get("psnr_pred_db") is not None}


def _per_sample(rows: Sequence[Row], samples: Sequence[int], name: str) -> Iterator[list[float]]:
    for sample in samples:
        values = [row[name] for row in rows if row["sample"] == sample and row.get(name) is not None]
        if values:
            yield values


def _of(
    rows: Sequence[Row], victim: str, significance: str | None = None, perturb: str | None = None
) -> list[Row]:
    return [
        row
        for row in rows
        if row["victim"] == victim
        and significance in (None, row["significance"])
        and perturb in (None, row["perturb"])
    ]
