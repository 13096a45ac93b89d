"""The smallest ratio that hides what attackers look for, or none: a function of a sweep's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median

from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.hidden import hidden_shares, really_hidden
from attacks.inversion.bench.samples import Sample, by_sample, sample_of, samples_in
from attacks.inversion.bench.told import identities_told, labels_told
from attacks.inversion.bench.verdict import Margins, Row, Status, better

NO_MEASURE = "there is no information measure to agree"
NO_TEXT_MEASURE = "there is no measure of information for tokens"


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
        median_psnr_db, worst_psnr_db: over samples, of the mask-aware attacker that did best on each, in
            the round in which it did; None of text.
        prior_psnr_db: median of what is known without the update.
        least_hidden, most_hidden: share of entries that is hidden in any update, 0 … 1; None if rows don't
            say.
        labels: of how many samples the labels are told, and by what; a clause, empty if no more than chance
            explains. Labels decide nothing about the samples themselves.
        unmeasured: True if only an information measure is missing for HOLDS.
    """

    ratio: float
    finding: Finding
    why: str
    median_psnr_db: float | None = None
    worst_psnr_db: float | None = None
    prior_psnr_db: float | None = None
    least_hidden: float | None = None
    most_hidden: float | None = None
    labels: str = ""
    unmeasured: bool = False

    @property
    def really(self) -> str:
        """The share that is hidden, for people; empty where it is the ratio that was asked for."""
        if self.least_hidden is None or self.most_hidden is None:
            return ""
        return really_hidden(self.ratio, (self.least_hidden, self.most_hidden))


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """For one victim and one way to choose and perturb.

    Args:
        victim, significance, perturb: what it is for.
        ratio: encrypt at least so large a share; None: use full. 0 of a perturbation that does without.
        finding: HOLDS with a ratio; without one LEAKS, INFORMATION or INCONCLUSIVE, of the largest ratio.
        text: for people; it begins with the ratio, or with "none: use full".
        judgements: by ascending ratio.
        labels: what is told of labels from that ratio on, or at the largest one; as in ``Judgement``.
    """

    victim: str
    significance: str
    perturb: str
    ratio: float | None
    finding: Finding
    text: str
    judgements: tuple[Judgement, ...]
    labels: str = ""

    @property
    def perturbed_only(self) -> bool:
        """True if nothing is encrypted at all."""
        return self.significance == NONE

    @property
    def really(self) -> str:
        """The share that the advised ratio hides, where it is another one; empty without a ratio."""
        return next((one.really for one in self.judgements if one.ratio == self.ratio), "")

    def flat(self) -> dict[str, object]:
        """As it is written to ``result.json``."""
        return asdict(self)


def advise(rows: Sequence[Row], margins: Margins) -> list[Advice]:
    """Advice for every victim, significance and perturbation, in the order of the rows.

    A ratio holds if (1) no mask-aware attacker beats what is known without the update by more than the
    margins, in any sample, (2) every sample was attacked by a mask-aware attacker that does read it in the
    clear, none of which diverged, (3) no more samples are identified than chance explains, and (4) PSNR_pred,
    the information measure, is no more than the margin above that of an update which is hidden whole. Text
    has no such measure, so no ratio of it holds. The advice is the smallest ratio from which on all ratios
    of the sweep hold. It is about the samples; that their labels are told stands beside it.

    Of samples those count that were attacked under the protection in question at some ratio. In a recorded
    run a sample is in several rounds: it is read if it is read in one, and withstood attacks if it did in
    all. A perturbation without encryption has ratio 0 alone.

    Args:
        rows: as ``judged`` returns them, of all attackers.
        margins: the same.
    """
    found = dict.fromkeys(
        (row["victim"], row["significance"], row["perturb"])
        for row in rows
        if row["significance"] != FULL and (row["significance"] != NONE or row["perturb"])
    )
    return [
        _advice(*names, _judgements(_of(rows, *names), _of(rows, names[0], FULL), margins), margins)
        for names in found
    ]


def _advice(
    victim: str, significance: str, perturb: str, judgements: tuple[Judgement, ...], margins: Margins
) -> Advice:
    holding = _from([one.finding is Finding.HOLDS for one in judgements])
    labels = _labels(judgements[-1:] if holding is None else judgements[holding:])
    advised = None if holding is None else judgements[holding]
    text = _none(judgements, perturb) if advised is None else _holds(advised, perturb, margins)
    return Advice(
        victim=victim,
        significance=significance,
        perturb=perturb,
        ratio=None if advised is None else advised.ratio,
        finding=judgements[-1].finding,
        text=f"{text}; {labels}" if labels else text,
        judgements=judgements,
        labels=labels,
    )


def _from(holds: Sequence[bool]) -> int | None:
    """The first place from which on all are true; None if the last one isn't."""
    first = len(holds)
    while first and holds[first - 1]:
        first -= 1
    return first if first < len(holds) else None


def _holds(advised: Judgement, perturb: str, margins: Margins) -> str:
    asked = f"{advised.ratio:g} asked, {advised.really} hidden" if advised.really else f"{advised.ratio:g}"
    where = "from there on" if advised.ratio else f"under {perturb} alone"
    return (
        f"{asked}: {where} {advised.why}; true of these attackers, this model and these samples, within "
        f"{margins.psnr_db:g} dB"
    )


def _none(judgements: Sequence[Judgement], perturb: str) -> str:
    last, unread = judgements[-1], _from([one.unmeasured for one in judgements])
    if unread is not None:
        return f"none: use full; {_unread(judgements[unread], perturb)}, but {last.why}"
    at = f"under {perturb} alone"
    if last.ratio:
        at = f"at {last.ratio:g}{f' ({last.really} hidden)' if last.really else ''}, the largest ratio tried"
    if last.finding is Finding.INCONCLUSIVE:
        return f"none: use full; inconclusive {at}: {last.why}"
    return f"none: use full; {at}, {last.why}"


def _unread(first: Judgement, perturb: str) -> str:
    if not first.ratio:
        return f"no attacker reads anything under {perturb} alone"
    really = f" ({first.really} hidden)" if first.really else ""
    return f"no attacker reads anything from {first.ratio:g}{really} on"


def _labels(judgements: Sequence[Judgement]) -> str:
    """The first one's, or the next one's that has something to say."""
    for place, one in enumerate(judgements):
        if one.labels:
            return f"{one.labels} at {one.ratio:g}" if place else one.labels
    return ""


def _judgements(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> tuple[Judgement, ...]:
    """One per ratio of a protection; ``reference`` are the victim's rows where everything is hidden."""
    samples = {int(row["sample"]): sample_of(row) for row in rows}
    reference = [row for row in reference if row["sample"] in samples]
    ratios = sorted({float(row["ratio"]) for row in rows})
    return tuple(
        _judgement(ratio, [row for row in rows if row["ratio"] == ratio], samples, reference, margins)
        for ratio in ratios
    )


def _judgement(
    ratio: float,
    rows: Sequence[Row],
    samples: Mapping[int, Sample],
    reference: Sequence[Row],
    margins: Margins,
) -> Judgement:
    shares = hidden_shares(rows) or (None, None)
    rows = [row for row in rows if row["aware"]]
    finding, why = _finding(rows, samples, reference, margins)
    best = [max(values) for values in _per_sample(rows, "psnr_db")]
    known = [max(values) for values in _per_sample(rows, "prior_psnr_db")]
    return Judgement(
        ratio=ratio,
        finding=finding,
        why=why,
        median_psnr_db=median(best) if best else None,
        worst_psnr_db=max(best, default=None),
        prior_psnr_db=median(known) if known else None,
        least_hidden=shares[0],
        most_hidden=shares[1],
        labels=labels_told(rows, margins),
        unmeasured=why in (NO_MEASURE, NO_TEXT_MEASURE),
    )


def _finding(
    rows: Sequence[Row], samples: Mapping[int, Sample], reference: Sequence[Row], margins: Margins
) -> tuple[Finding, str]:
    leaked = [row for row in rows if row["status"] == Status.LEAKED]
    if leaked:
        return Finding.LEAKS, _leak(leaked, len(set(samples.values())), margins)
    told = identities_told(rows, reference, margins)
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
        "and the information measure agrees"
    )


def _leak(leaked: Sequence[Row], tried: int, margins: Margins) -> str:
    """Of how many samples something was read, and what of the worst: the largest figure, as in tables.

    In PSNR, if that shows a leak of any; shapes at the wrong brightness, and words without their order, are
    one, too.
    """
    name, shown = next(
        (name, mine)
        for name in margins.fields
        if (mine := [row for row in leaked if _by(row, name, margins)])
    )
    worst = max(shown, key=lambda row: float(row[name]))
    attacker, several = worst["attacker"], len({row["attacker"] for row in leaked}) > 1
    who = "attackers that know the mask read" if several else f"{attacker}, knowing the mask, reads"
    by, whose = (f" by {attacker}", f"{attacker} ") if several else ("", "")
    value, prior = float(worst[name]), float(worst[f"prior_{name}"])
    said, known = {
        "psnr_db": (f"the worst{by} at {value:.1f} dB", f"{prior:.1f} dB"),
        "ssim": (f"the worst{by} at {value:.2f} of SSIM", f"{prior:.2f}"),
        "token_accuracy": (f"{whose}{value:.0%} of the worst one's words at their places", f"{prior:.0%}"),
        "bag_accuracy": (f"{whose}{value:.0%} of the worst one's words, in any order", f"{prior:.0%}"),
    }[name]
    return f"{who} {samples_in(leaked)} of {tried} samples, {said} (known without the update: {known})"


def _by(row: Row, name: str, margins: Margins) -> bool:
    """Whether this figure alone shows that the row leaked."""
    known = row.get(f"prior_{name}")
    return known is not None and better(row, {name: known}, margins)


def _is_text(rows: Sequence[Row]) -> bool:
    """True if what was found is words."""
    return any(row.get("token_accuracy") is not None for row in rows)


def _informed(rows: Sequence[Row], reference: Sequence[Row], margins: Margins) -> Iterator[Row]:
    """Rows whose visible part holds more than the prior."""
    prior = _information(reference)
    for row in rows:
        value, known = row.get("psnr_pred_db"), prior.get(row["sample"])
        if value is not None and known is not None and value > known + margins.psnr_db:
            yield row


def _doubt(rows: Sequence[Row], samples: Mapping[int, Sample], reference: Sequence[Row]) -> str:
    """Why nothing follows from the fact that nothing leaked; empty if something does."""
    tried = len(set(samples.values()))
    diverged = [row for row in rows if row["status"] == Status.DIVERGED]
    if diverged:
        attacker = diverged[0]["attacker"]
        count = samples_in(row for row in diverged if row["attacker"] == attacker)
        return f"{attacker} diverged on {count} of {tried} samples"
    able = {row["sample"] for row in rows if row["status"] == Status.RESISTED}
    missing = {sample for number, sample in samples.items() if number not in able}
    if missing:
        return f"no attacker that read them in the clear was tried on {len(missing)} of {tried} samples"
    if _is_text(rows):
        return NO_TEXT_MEASURE
    known, prior = _information(rows), _information(reference)
    return "" if all(sample in known and sample in prior for sample in samples) else NO_MEASURE


def _information(rows: Sequence[Row]) -> dict[int, float]:
    return {row["sample"]: row["psnr_pred_db"] for row in rows if row.get("psnr_pred_db") is not None}


def _per_sample(rows: Sequence[Row], name: str) -> list[list[float]]:
    known = by_sample(row for row in rows if row.get(name) is not None)
    return [[float(row[name]) for row in mine] for mine in known]


def _of(rows: Sequence[Row], victim: str, significance: str, perturb: str = "") -> list[Row]:
    wanted = (victim, significance, perturb)
    return [row for row in rows if (row["victim"], row["significance"], row["perturb"]) == wanted]
