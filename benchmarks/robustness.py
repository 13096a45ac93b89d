"""Rules against attacks: accuracy, who is rejected, what the server takes; in the clear and on ciphertexts.

Every combination of data set, rule, attack, share of malicious clients, domain and start is a cell, and a
cell is one federation: of 100 clients 10 are chosen per round, of whom exactly the share is malicious,
knows the honest updates of the round, and sends last. Rounds before the attack are played once per rule.
Domains: plain (the rule sees the updates), cipher (the updates are sealed; the rule sees released
statistics), byzfl (byzfl's own code on the same updates; it is unpacked into .venv-peers the first time).

Cells are stored in --out as they end: the same command goes on where it was interrupted, and what other
commands with the same training have stored there is reported with it. By default a small grid, some ten
minutes on two cores; --campaign takes the grids of docs, an hour; --full those under the paper's local
training, a day. Any of --datasets, --rules, --attacks, --fractions, --domains, --start-rounds makes it one
grid of these.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from benchmarks.robust.campaign import play, report
from benchmarks.robust.cell import Cell, Setting
from benchmarks.robust.federation import Federation
from benchmarks.robust.grids import CAMPAIGN, COLD, LONG_ROUNDS, SHORT, SHORT_ROUNDS
from benchmarks.robust.plan import Grid, cells_of
from secagg.errors import Code, ConfigError, SecaggError

PAPER = {"samples": 0, "batch_size": 64, "learning_rate": 0.01, "rounds": 100, "test_samples": 0}
"""DDFed's local training."""
PAPER_START = 50
"""The round in which its attacks start, where they don't from the first one on."""
_AXES = ("datasets", "rules", "attacks", "fractions", "domains", "starts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Play, print, write; 0, 1 if a cell failed, 2 for what can't be asked, 130 after Ctrl-C."""
    asked = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        setting, grids = chosen(asked)
        for grid in grids:
            grid.check()
        cells, left_out = cells_of(grids, setting)
        check_federations(cells, asked.data)
    except (SecaggError, OSError) as error:
        print(f"robustness: {error}", file=sys.stderr)
        return 2
    for line in left_out:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    out = asked.out
    failures, interrupted = play(cells, out=out, data=asked.data, processes=asked.processes, console=console)
    command = " ".join(sys.argv)
    done = not (failures or interrupted)
    report(cells, out=out, command=command, complete=done, failures=failures, console=console)
    for line in failures:
        print(line, file=sys.stderr)
    return 130 if interrupted else int(bool(failures))


def chosen(asked: argparse.Namespace) -> tuple[Setting, tuple[Grid, ...]]:
    """The setting and the grids that the command line asks for.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    whole = asked.full or asked.campaign
    setting = Setting(dataset="", rounds=LONG_ROUNDS if whole else SHORT_ROUNDS)
    setting = replace(setting, **(PAPER if asked.full else {}))
    given = {field.name: getattr(asked, field.name, None) for field in fields(Setting)}
    setting = replace(setting, **{name: value for name, value in given.items() if value is not None})
    grids = CAMPAIGN if whole else SHORT
    if asked.full:
        late = {start: start if start == COLD else PAPER_START for grid in grids for start in grid.starts}
        grids = tuple(replace(grid, starts=tuple(late[start] for start in grid.starts)) for grid in grids)
    axes = {name: tuple(getattr(asked, name)) for name in _AXES if getattr(asked, name)}
    if axes:
        grids = (replace(grids[0], **axes),)
    for start in {start for grid in grids for start in grid.starts}:
        if not 1 <= start <= setting.rounds:
            raise ConfigError(Code.CONFIG_INVALID, f"start round {start} must be 1 to {setting.rounds}")
    return setting, grids


def check_federations(cells: Sequence[Cell], data: Path | None) -> None:
    """See that every setting can be had: its data is there and its model fits.

    Raises:
        ConfigError: as ``Federation``.
    """
    for setting in dict.fromkeys(replace(cell.setting, start_round=1) for cell in cells):
        Federation(setting, data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--campaign", action="store_true", help="the grids of docs/BENCHMARKS.md: about an hour"
    )
    parser.add_argument("--full", action="store_true", help="the same under the paper's local training")
    lists = parser.add_argument_group("one grid; each takes several, separated by spaces")
    lists.add_argument("--datasets", "--dataset", nargs="+", help="names, folders of IDX files, .npz files")
    lists.add_argument(
        "--rules", nargs="+", help="as rule = takes them; {f} stands for the number of attackers"
    )
    lists.add_argument("--attacks", nargs="+", help="NAME or NAME:STRENGTH; none always comes with them")
    lists.add_argument(
        "--fractions", nargs="+", type=float, help="shares of malicious clients in every round"
    )
    lists.add_argument("--domains", nargs="+", help="plain, cipher, byzfl")
    lists.add_argument("--start-rounds", "--start-round", nargs="+", type=int, dest="starts", metavar="ROUND")
    training = parser.add_argument_group("the federation")
    for field in fields(Setting):
        if field.name not in ("dataset", "start_round"):
            flag, kind = f"--{field.name.replace('_', '-')}", type(field.default)
            training.add_argument(flag, type=kind, help=f"({field.default})")
    parser.add_argument("--data", type=Path, help="folder with the named data sets ($SECAGG_DATA)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="(one per core)")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"), help="folder (runs/robustness)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
