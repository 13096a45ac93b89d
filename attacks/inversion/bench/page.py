"""The page of a sweep, or of a run that was attacked: what it is told, from what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from attacks.inversion.bench.advice import Advice
from attacks.inversion.bench.campaign import Played
from attacks.inversion.bench.cell import Setting
from attacks.inversion.bench.names import HEADING, shortened
from attacks.inversion.bench.scene import tokenizer_of
from attacks.inversion.bench.store import Picture, Store
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.bench.verdict import Margins, Row
from attacks.inversion.data import TEXTS, load_source
from attacks.inversion.report.content import Findings, page_of
from attacks.inversion.report.galleries import Decoder, Pictures
from attacks.inversion.report.page import Answer, write_page
from secagg.simulation.result import machine, versions

MOST_SAID = 160
"""Characters of a failure that the page quotes, at most; ``result.json`` has all of it."""


def write_sweep_page(
    sweep: Sweep,
    store: Store,
    *,
    unfinished: str,
    rows: Sequence[Row],
    advice: Sequence[Advice],
    margins: Margins,
    costs: Sequence[Mapping[str, Any]],
    out: Path,
    command: str,
) -> Path:
    """Write ``leak.html`` of what a sweep found so far.

    Args:
        sweep: whose cells are shown.
        store: that has their pictures.
        unfinished: of ``unfinished_text``.
        rows, advice, margins, costs: as in ``result.json``.
        out: folder.
        command: as called.
    """
    names = [shortened(name, HEADING) for name in sweep.manifests]
    return write_page(
        page_of(
            Findings(
                title=f"What does encrypting a part of {_listed(names)} leak?",
                unfinished=unfinished,
                rows=rows,
                advice=advice,
                margins=margins,
                pictures=[(cell, partial(store.picture, cell)) for cell in sweep.cells],
                costs=costs,
                facts=[*_facts(sweep), *sweep.notes],
                command=command,
                made_with=made_with(),
                decode=_decoder(sweep),
            )
        ),
        out,
    )


def write_run_page(
    run: Path,
    *,
    unfinished: str,
    hypothetical: bool,
    rows: Sequence[Row],
    advice: Sequence[Advice],
    margins: Margins,
    pictures: Pictures = (),
    facts: Sequence[str],
    answer: Answer | None = None,
    out: Path,
    command: str,
) -> Path:
    """Write ``leak.html`` of a recorded run that was attacked.

    Args:
        run: its folder.
        unfinished: of ``unfinished_text``.
        hypothetical: as in ``Findings``.
        rows, advice, margins: as in ``result.json``.
        pictures: each of one sample, whose number is its cell's update.
        facts: what was attacked, a line each.
        answer: what follows where no mask was judged, and there is no advice.
        out: folder.
        command: as called.
    """
    return write_page(
        page_of(
            Findings(
                title=f"What did the run in '{shortened(run.absolute().name, HEADING)}' leak?",
                unfinished=unfinished,
                hypothetical=hypothetical,
                rows=rows,
                advice=advice,
                margins=margins,
                pictures=pictures,
                costs=(),
                facts=facts,
                answer=answer,
                command=command,
                made_with=made_with(),
            )
        ),
        out,
    )


def unfinished_text(played: Played, *, ended: int, cells: int) -> str:
    """What is missing, in a line; empty if every cell ended.

    Args:
        played: how it went.
        ended: cells that are stored.
        cells: all that are to end.
    """
    if played.complete:
        return ""
    text = f"{'interrupted: ' if played.interrupted else ''}{ended} of {cells} cells ended"
    if played.failures:
        first = played.failures[0].strip().partition("\n")[0]
        text += f", {len(played.failures)} failed: {shortened(first, MOST_SAID)}"
    return f"{text}; the same command goes on"


def made_with() -> str:
    """Versions and machine, in a line."""
    found, here = versions(), machine()
    packages = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"{packages}; {here['processor']}, {here['cores']} cores"


def _facts(sweep: Sweep) -> list[str]:
    setting, config = sweep.setting, sweep.config
    sizes = [f"{name}: {manifest.size:,} parameters" for name, manifest in sweep.manifests.items()]
    samples = f"{config.samples * setting.batch} samples of {setting.dataset}, {setting.batch} per update"
    return [
        "; ".join(sizes),
        f"{samples}; an update is {_update(setting)}",
        f"labels are {'known to' if setting.labels == 'known' else 'inferred by'} attackers; "
        f"seed {setting.seed}",
    ]


def _update(setting: Setting) -> str:
    steps = setting.epochs * setting.steps
    kind = "one gradient" if steps == 1 else f"{steps} gradient steps of size {setting.learning_rate:g}"
    sent = "float64 as computed" if setting.precision == "float64" else "sent as float32"
    seen = f", {setting.rounds} rounds seen together" if setting.rounds > 1 else ""
    return f"{kind}, {sent}{seen}"


def _decoder(sweep: Sweep) -> Decoder | None:
    if sweep.setting.dataset not in TEXTS:
        return None
    data = Path(sweep.config.data).expanduser() if sweep.config.data else None

    @cache
    def source(tokenizer: str) -> Any:
        return load_source(sweep.setting.dataset, data, tokenizer=tokenizer, tokens=sweep.setting.tokens)

    def decode(victim: str, tokens: Picture) -> str:
        text = source(tokenizer_of(victim)).text(torch.from_numpy(tokens.astype("int64")))
        return str(text)

    return decode


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
