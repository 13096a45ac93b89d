"""Which entries to encrypt, asked again with attackers who know the mask.

Gu, Yao, Wang, Joe-Wong ("Evaluating Selective Encryption Against Gradient Inversion Attacks", arXiv
2508.04155) ask which significance hides most at a given ratio, and find magnitude good against attacks that
optimise and no metric best everywhere. Here the same is asked of LeNet, a CNN, an MLP, BERT and GPT-2 by
attackers who take hidden entries for zeros and by those who leave them out: what is reached at every ratio,
from which ratio on nothing is read, what the mask alone gives away, and what follows for those conclusions.

The study is a sweep of the attack bench: every cell is stored as it ends, and the same command goes on from
there, sample after sample of all parts. Ctrl-C writes what follows from the samples that have ended:
result.json, tables.md, conclusions.md. --short takes minutes and is of one sample.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from attacks.inversion.bench.campaign import Played, crew_of, play
from attacks.inversion.bench.rows import ordered
from attacks.inversion.bench.store import Store
from attacks.inversion.bench.sweep import Sweep
from attacks.inversion.bench.verdict import Margins
from benchmarks.leak_study.labels import LabelStage
from benchmarks.leak_study.markdown import conclusions, tables
from benchmarks.leak_study.outcome import Found, found_of
from benchmarks.leak_study.parts import FULL_GRID, PARTS, SHORT_GRID, Grid, Planned, planned
from secagg.errors import Code, ConfigError, SecaggError
from secagg.overhead.sweep import out_folder
from secagg.simulation.result import write_result

FAILED, UNASKABLE, INTERRUPTED = 1, 2, 130


def combined(parts: Sequence[Planned], grid: Grid) -> Sweep:
    """All parts as one sweep, first things first, so that one that is cut short says something of all parts.

    That is, a sample of every part, labels, costly attackers on images, the other samples, and costly
    attackers on text, which take longest.
    """
    first = parts[0].sweeps[0]
    groups = [part.cells(0) for part in parts]
    groups += [list(part.labels) for part in parts]
    groups += [part.costly for part in parts if not part.part.text]
    groups += [part.cells(update) for update in range(1, grid.samples) for part in parts]
    groups += [part.costly for part in parts if part.part.text]
    cells = dict.fromkeys(cell for group in groups for cell in group)
    notes = dict.fromkeys(note for part in parts for sweep in part.sweeps for note in sweep.notes)
    most = max(cell.update for cell in cells) + 1
    return replace(
        first,
        config=first.config.model_copy(update={"samples": most}),
        cells=tuple(cells),
        notes=tuple(notes),
    )


def write(
    parts: Sequence[Planned], grid: Grid, played: Played, *, out: Path, command: str, margins: Margins
) -> list[Found]:
    """What follows from what is stored: ``result.json``, ``tables.md``, ``conclusions.md``."""
    with Store(out) as store:
        ended = {cell.key: (cell, outcome) for cell, outcome in store.all()}
    found = [one for part in parts if (one := found_of(part, ended, margins)) is not None]
    shown, answers = tables(found), conclusions(found)
    (out / "tables.md").write_text(shown, encoding="utf-8")
    (out / "conclusions.md").write_text(answers, encoding="utf-8")
    write_result(
        out,
        command=command,
        seed=grid.seed,
        rows=[ordered(dict(row)) for one in found for row in one.rows],
        more={
            "complete": played.complete,
            "grid": asdict(grid),
            "margins": asdict(margins),
            "advice": [advice.flat() for one in found for advice in one.advice],
            "factors": [
                asdict(factor) | {"least": factor.least, "bound": factor.bound}
                for one in found
                for factor in one.factors
            ],
            "labels_from_mask": [
                {
                    "victim": one.part.name,
                    "significance": name,
                    "ratio": ratio,
                    "correct": sum(hits),
                    "of": len(hits),
                }
                for one in found
                for (name, ratio), hits in one.labels.items()
            ],
            "conclusions": answers.splitlines(),
            "failures": list(played.failures),
        },
    )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Play, print, write; 1 if cells failed, 2 for what can't be asked, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--short", action="store_true", help="one sample, three metrics, two ratios")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="(all)")
    parser.add_argument("--significances", nargs="+", help="ways to choose entries (all eight)")
    parser.add_argument("--ratios", nargs="+", type=float, help="encrypted entries / all (each part's own)")
    parser.add_argument("--samples", type=int, help="attacked samples per part (3)")
    parser.add_argument("--effort", type=float, help="multiplies attackers' own iterations (1)")
    parser.add_argument("--processes", type=int, default=1, help="that play; 0: one per core (1)")
    parser.add_argument("--report", action="store_true", help="play nothing, write what is stored so far")
    parser.add_argument("--data", help="folder with data sets ($SECAGG_DATA)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder (runs/study, with --short runs/study-short)")
    asked = parser.parse_args(argv)
    console = Console()
    grid = SHORT_GRID if asked.short else FULL_GRID
    given = {name: getattr(asked, name) for name in ("samples", "effort") if getattr(asked, name) is not None}
    given |= {
        name: tuple(getattr(asked, name)) for name in ("significances", "ratios") if getattr(asked, name)
    }
    grid = replace(grid, seed=asked.seed, processes=asked.processes, **given)
    out = asked.out or Path("runs/study-short" if asked.short else "runs/study")
    try:
        if grid.samples < 1:
            raise ConfigError(Code.CONFIG_INVALID, f"--samples is {grid.samples}; it must be 1 or more")
        parts = [planned(part, grid, data=asked.data) for part in PARTS if part.name in asked.parts]
        sweep = combined(parts, grid)
        for note in sweep.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        out_folder(out)
        if asked.report:
            played = Played(interrupted=True)
        else:
            crew = crew_of(sweep.config, LabelStage(stage=sweep.stage))
            played = play(sweep, crew, out=out, console=console)
        command = " ".join(
            ["python -m benchmarks.selective_study", *(sys.argv[1:] if argv is None else argv)]
        )
        write(parts, grid, played, out=out, command=command, margins=Margins())
    except SecaggError as error:
        print(f"selective_study: {error}", file=sys.stderr)
        return UNASKABLE
    for name in ("tables.md", "conclusions.md"):
        console.print((out / name).read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    console.print(f"result.json, tables.md and conclusions.md are in {out}", highlight=False, soft_wrap=True)
    if played.interrupted and not asked.report:
        return INTERRUPTED
    return FAILED if played.failures else 0


if __name__ == "__main__":
    sys.exit(main())
