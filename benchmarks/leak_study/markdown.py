"""Tables of the study, and what its questions come to, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from attacks.inversion.bench.advice import Finding
from attacks.inversion.bench.cell import FULL, NONE
from attacks.inversion.bench.verdict import Status
from benchmarks.leak_study.findings import Factor, Ranking, Reached, reached
from benchmarks.leak_study.outcome import Found
from benchmarks.leak_study.parts import OPTIMISERS


def tables(found: Sequence[Found]) -> str:
    """Per part: what attackers reached under every protection, and the smallest ratios that hold."""
    return "\n".join(line for one in found for line in (*_part(one), ""))


def conclusions(found: Sequence[Found]) -> str:
    """The three questions, answered from rows."""
    lines = ["### Is magnitude best against attackers that optimise?", ""]
    lines += [f"- {text}" for one in found for text in _magnitude(one)]
    lines += [f"- {text}" for text in _counted(found)]
    lines += ["", "### Is there a metric that is best everywhere?", "", *_everywhere(found)]
    lines += ["", "### How much more must be hidden from attackers who know the mask?", "", *_more(found)]
    return "\n".join(lines) + "\n"


def _part(found: Found) -> Iterator[str]:
    text = found.part.text
    what = "words read" if text else "PSNR dB"
    samples = len({row["sample"] for row in found.rows})
    yield f"### {found.part.title}"
    yield ""
    yield f"Attackers: {', '.join(found.part.attackers)}; {samples} sample{'s' if samples > 1 else ''}."
    if any(row["attacker"] in found.part.costly for row in found.rows):
        ratios = ", ".join(f"{ratio:g}" for ratio in found.part.costly_ratios)
        yield (
            f"Of the first sample, at {ratios} of {', '.join(found.part.costly_significances)}, also "
            f"{', '.join(found.part.costly)}, whose figures count below, but in no comparison."
        )
    for name, label in ((NONE, "In the clear"), (FULL, "Hidden whole")):
        here = reached([row for row in found.rows if row["significance"] == name and row["aware"]], text=text)
        yield f"{label}: {_pair(here, text=text)} {what} (median / worst)."
    known = reached(found.rows, text=text).known
    yield f"Known without the update: {_figure(known, text=text)}."
    yield ""
    yield (
        f"| significance | ratio | knows the mask: {what}, median / worst | read | doesn't: {what} | read | "
        "label from mask | the bench's verdict |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for advice in found.advice:
        for judgement in advice.judgements:
            kinds = [
                reached(
                    [
                        row
                        for row in found.rows
                        if (row["significance"], row["ratio"]) == (advice.significance, judgement.ratio)
                        and row["aware"] is aware
                    ],
                    text=text,
                )
                for aware in (True, False)
            ]
            told = [f"{_pair(kind, text=text)} | {kind.leaked}/{kind.samples}" for kind in kinds]
            guessed = found.labels.get((advice.significance, judgement.ratio), ())
            label = f"{sum(guessed)}/{len(guessed)}" if guessed else "–"
            yield (
                f"| {advice.significance} | {judgement.ratio:g} | {told[0]} | {told[1]} | {label} | "
                f"{_verdict(judgement.finding)} |"
            )
    yield ""
    yield "| significance | holds from: doesn't know the mask | knows the mask | advice |"
    yield "|---|---:|---:|---|"
    naive, aware = found.ranking(aware=False), found.ranking(aware=True)
    for advice in found.advice:
        name = advice.significance
        cells = [_ratio(one.smallest.get(name)) if one else "–" for one in (naive, aware)]
        own = f"{advice.ratio:g}" if advice.ratio is not None else f"none ({_verdict(advice.finding)})"
        yield f"| {name} | {' | '.join(cells)} | {own} |"


def _magnitude(found: Found) -> Iterator[str]:
    text = found.part.text
    if not set(found.part.attackers) & set(OPTIMISERS):
        yield f"{found.part.name}: not asked, no attacker that optimises has been played on every protection"
        return
    if not _able(found):
        yield f"{found.part.name}: nothing follows, those that optimise can't read it in the clear either"
        return
    for aware in (False, True):
        one = found.ranking(aware=aware, optimisers=True)
        if one is None or "magnitude" not in one.smallest or len(one.smallest) < 2:
            continue
        kind = "knowing the mask" if aware else "not knowing it"
        if not one.decided:
            yield (
                f"{found.part.name}, {kind}: nothing holds at any ratio tried; least is left by {one.lowest} "
                f"({_figure(one.figure[one.lowest], text=text)} on average over ratios; magnitude "
                f"{_figure(one.figure['magnitude'], text=text)})"
            )
            continue
        least = min(ratio for ratio in one.smallest.values() if ratio is not None)
        answer = "yes" if "magnitude" in one.best else "no"
        others = [name for name in one.best if name != "magnitude"]
        tied = f", as do {', '.join(others)}" if answer == "yes" and others else ""
        yield f"{found.part.name}, {kind}: {answer}; " + (
            f"magnitude holds from {least:g}{tied}"
            if answer == "yes"
            else f"{', '.join(one.best)} from {least:g}, magnitude {_from(one.smallest['magnitude'])}"
        )


def _counted(found: Sequence[Found]) -> Iterator[str]:
    for aware in (False, True):
        decided = [
            one
            for each in found
            if _able(each) and (one := each.ranking(aware=aware, optimisers=True)) is not None and one.decided
        ]
        alone = sum(one.best == ("magnitude",) for one in decided)
        best = sum("magnitude" in one.best for one in decided)
        kind = "who know the mask" if aware else "who don't know the mask"
        yield (
            f"Against those {kind} magnitude is among the best in {best} of {len(decided)} parts, "
            f"and alone in {alone}"
        )


def _able(found: Found) -> bool:
    """Whether an attacker that optimises reads anything in the clear."""
    return any(
        row["attacker"] in OPTIMISERS and row["significance"] == NONE and row["status"] == Status.LEAKED
        for row in found.rows
        if row["attacker"] in found.part.attackers
    )


def _everywhere(found: Sequence[Found]) -> Iterator[str]:
    for aware in (False, True):
        kind = "who know the mask" if aware else "who don't know the mask"
        rankings = [one for each in found if (one := each.ranking(aware=aware)) is not None]
        decided = [one for one in rankings if one.decided]
        for one in rankings:
            yield f"- {one.part}, attackers {kind}: {_best(one)}"
        shared = set.intersection(*(set(one.best) for one in decided)) if decided else set()
        places = ", ".join(one.part for one in decided) or "none"
        if not decided:
            yield f"- Attackers {kind}: no metric holds anywhere, so none is best."
        elif shared:
            yield f"- Attackers {kind}: best wherever any holds ({places}): {', '.join(sorted(shared))}."
        else:
            yield f"- Attackers {kind}: no metric is best everywhere ({places})."
        lowest = {one.part: one.lowest for one in rankings}
        if len(set(lowest.values())) == 1:
            yield f"- By the mean over ratios {next(iter(lowest.values()))} leaves least in every part."
        elif lowest:
            listed = ", ".join(f"{name} ({part})" for part, name in lowest.items())
            yield f"- By the mean over ratios another one leaves least from part to part: {listed}."


def _best(one: Ranking) -> str:
    if not one.decided:
        return f"nothing holds at any ratio tried; least is left by {one.lowest}"
    least = min(ratio for ratio in one.smallest.values() if ratio is not None)
    others = [f"{name} {_from(ratio)}" for name, ratio in one.smallest.items() if name not in one.best]
    return f"{', '.join(one.best)} from {least:g}" + (f"; {', '.join(others)}" if others else "")


def _more(found: Sequence[Found]) -> Iterator[str]:
    every: list[Factor] = []
    for each in found:
        mine = each.factors
        every += mine
        texts = [f"{one.significance} {_times(one)}" for one in mine if one.decided]
        yield f"- {each.part.name}: {', '.join(texts) or 'undecided at every ratio tried'}"
    decided = [(one, one.least) for one in every if one.least is not None]
    if decided:
        values = [value for _, value in decided]
        none = sum(one.aware is None for one, _ in decided)
        yield (
            f"- Over all, {len(decided)} pairs of part and metric are decided: the ratio has to grow by a "
            f"factor of {median(values):.3g} in the median ({min(values):.3g} … {max(values):.3g}); in "
            f"{none} of them no ratio tried holds against attackers who know the mask: everything has to be "
            "hidden."
        )
    # Text has no information measure, so nothing is ever advised there.
    images = [factor for each in found if not each.part.text for factor in each.factors]
    advised = [value for one in images if (value := one.advised_least) is not None]
    if advised:
        yield (
            f"- What the bench advises, which asks the information measure as well, is {median(advised):.3g} "
            "times what holds against attackers who don't know the mask, in the median of "
            f"{len(advised)} pairs of images."
        )


def _times(one: Factor) -> str:
    assert one.naive is not None and one.least is not None
    to = "everything" if one.aware is None else f"{one.aware:g}"
    return f"{'≥ ' if one.bound else ''}{one.least:.3g}x ({one.naive:g} → {to})"


def _pair(one: Reached, *, text: bool) -> str:
    return f"{_figure(one.median, text=text)} / {_figure(one.worst, text=text)}"


def _figure(value: float | None, *, text: bool) -> str:
    if value is None:
        return "–"
    return f"{value:.0%}" if text else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _from(value: float | None) -> str:
    return "at no ratio tried" if value is None else f"from {value:g}"


def _verdict(finding: Finding) -> str:
    return {
        Finding.LEAKS: "leaks",
        Finding.INFORMATION: "not read, but enough is visible",
        Finding.HOLDS: "holds",
        Finding.INCONCLUSIVE: "inconclusive",
    }[finding]
