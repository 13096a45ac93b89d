"""What the page says of a sweep: rows, advice and stored pictures in, ``Page`` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attacks.inversion.bench.advice import Advice, Finding, Judgement
from attacks.inversion.bench.names import HEADING, shortened
from attacks.inversion.bench.verdict import ABLE, Margins, Row
from attacks.inversion.report.curves import percent
from attacks.inversion.report.drawn import figures
from attacks.inversion.report.galleries import Decoder, Pictures, galleries
from attacks.inversion.report.page import Answer, Page
from attacks.inversion.report.tables import cost_table, leak_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found.

    Args:
        rows: as ``judged`` returns them.
        advice: of ``advise``.
        answer: what to do where no advice says it, as no mask was judged; above the advice.
        unfinished: what is missing of it, in a line above all answers; empty if nothing is.
        hypothetical: True of a run of whose every update something was encrypted: rows of ratio 0 are what
            would have been read.
        margins: what both were made with.
        pictures: every cell with a function that gets a picture of it by kind, None if there is none.
        costs: per ratio flat figures of the CKKS engine: ``ratio, bytes_up, seal_ms, …``.
        facts: what was attacked, a line each.
        command: that makes all of it again.
        made_with: versions and machine.
        decode: words of a victim's token ids, int [tokens]; None if no sample is text.
    """

    rows: Sequence[Row]
    advice: Sequence[Advice]
    margins: Margins
    pictures: Pictures
    costs: Sequence[Mapping[str, object]]
    facts: Sequence[str]
    command: str
    made_with: str
    decode: Decoder | None = None
    answer: Answer | None = None
    unfinished: str = ""
    hypothetical: bool = False
    title: str = field(default="What does encrypting a part of the update leak?")


def page_of(found: Findings) -> Page:
    """The page, from the answer down to the figures it rests on."""
    unfinished = [Answer(kind="inconclusive", text=found.unfinished)] if found.unfinished else []
    return Page(
        title=found.title,
        facts=found.facts,
        answers=[*unfinished, *([found.answer] if found.answer else []), *map(_answer, found.advice)],
        figures=figures(found.rows),
        galleries=galleries(found.rows, found.pictures, found.decode, hypothetical=found.hypothetical),
        gallery_note="Of every sample the original and what one attacker made of it, by the share of "
        "encrypted entries. The attacker chooses among its attempts by its own loss, never by the original.",
        tables=[
            leak_table(found.rows, hypothetical=found.hypothetical),
            *([cost_table(found.costs)] if found.costs else []),
        ],
        notes=_notes(found.margins),
        command=found.command,
        made_with=found.made_with,
    )


def _answer(advice: Advice) -> Answer:
    kind = "none" if advice.ratio is None else "ratio"
    if advice.ratio is None and advice.finding is Finding.INCONCLUSIVE:
        kind = "inconclusive"
    head = {"none": "none, use full", "inconclusive": "inconclusive, use full"}.get(kind, _least(advice))
    if advice.labels:
        head += f"; {advice.labels}"
    reasons = [_reason(advice, one) for one in advice.judgements if one.ratio > 0 or advice.perturbed_only]
    bounds = ["True of these attackers, this model and these samples."] if advice.ratio is not None else []
    title = f"{shortened(advice.victim, HEADING)}, {_chosen(advice)}"
    return Answer(kind=kind, text=f"{title}: {head}", reasons=reasons + bounds)


def _chosen(advice: Advice) -> str:
    if advice.perturbed_only:
        return f"{shortened(advice.perturb, HEADING)} alone"
    name = f"{advice.significance} + {advice.perturb}" if advice.perturb else advice.significance
    return f"chosen by {shortened(name, HEADING)}"


def _least(advice: Advice) -> str:
    if advice.perturbed_only:
        return "holds without encryption"
    least = f"encrypt at least {percent(advice.ratio or 0.0)}"
    return f"{least} (asked; {advice.really} hidden)" if advice.really else least


def _reason(advice: Advice, one: Judgement) -> str:
    share = (
        f"{percent(one.ratio)} asked, {one.really} hidden"
        if one.really
        else f"{percent(one.ratio)} encrypted"
    )
    why = f"{one.why}; {one.labels}" if one.labels else one.why
    return f"Under {advice.perturb}: {why}." if advice.perturbed_only else f"{share}: {why}."


def _notes(margins: Margins) -> list[str]:
    return [
        "A sweep shows what these attackers could read of these samples, under this model. That an attack "
        "failed is no proof that none succeeds: later attacks are at least as good. What is never readable "
        "is what is encrypted: full encryption costs no accuracy.",
        "An attacker that knows the mask compares its gradients with visible entries only; one that takes "
        "hidden entries for zeros is the one behind most published ratios. The mask is no secret: all "
        "clients and the server know it.",
        "The information bound is what a linearised attacker with a Gaussian prior could reach at best, "
        "given the rounding of what is sent. It is local: on networks with kinks or flat parts attackers "
        "stay below it, and a prior better than a Gaussian one can go beyond.",
        "Labels are a matter of their own: the visible entries of the last layer tell them, and under a mask "
        "chosen by magnitude so does the place of the hidden ones. The answers above are about samples; "
        "labels stand beside them where more are told than luck, or the most frequent label, explains "
        f"(probability below {margins.chance:.0%}).",
        "A sample counts as leaked if it is read better than without the update by "
        f"{margins.psnr_db:g} dB, {margins.ssim:g} in SSIM or {margins.tokens:g} in token accuracy, or if "
        "more samples are told from all candidates than luck explains. Figures are per sample, never pooled "
        "over a batch.",
        "That an attack fails says something only of samples that it reads in the clear: there it must beat "
        f"what is known without the update by {ABLE.psnr_db:g} dB, {ABLE.ssim:g} in SSIM or "
        f"{ABLE.tokens:g} in token accuracy, or tell the sample from all candidates.",
    ]
