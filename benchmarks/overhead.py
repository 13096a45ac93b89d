"""What encryption costs, beside what it costs others: models, peers, limits, and the figures asked for.

``--quick`` takes small models and ends within three minutes on two cores; without it, all models up to GPT-2.
The peers' environments are made the first time, which takes longer. What is compared in time is done in turn
within one process (``benchmarks.alternating``), and one process does it unless a line says otherwise; rows of
models are measured role by role, see ``secagg overhead --help``. Everything is written to ``--out`` as it
comes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import engine, requirements
from benchmarks.peers import PEERS, PeerFailedError, run_peer
from benchmarks.peers.roles import in_own_process
from benchmarks.requirements import SEALED_MODEL, Requirement
from defenses import load_rule
from secagg.overhead.display import Progress, report
from secagg.overhead.measure import Row, Setting, measure_sealing
from secagg.overhead.models import MODELS, manifest_of, values_of
from secagg.overhead.schemes import ALL_SCHEMES, PLAIN, Scheme
from secagg.overhead.sweep import Results, out_folder, sweep
from secagg.overhead.table import number, ratio, titled

Flat = Mapping[str, object]

QUICK_MODELS, QUICK_SEALED = ("lenet", "cnn"), "resnet18"
LARGE = 20_000_000
"""From so many values on, a step is timed once, and what nobody deploys is left out."""
PEERS_UP_TO = 12_000_000
"""Peers are measured on models of at most so many values: they hold some 15 to 60 bytes for each."""
FIELDS = ("bytes_up", "bytes_down", "seal_s", "aggregate_s", "open_s", "client_peak_mib", "server_peak_mib")
COMPARED = ("compact", "robust")
COMPARISONS: tuple[tuple[Callable[..., Any], Callable[..., Any] | None], ...] = (
    (engine.sealing, requirements.of_sealing),
    (engine.inner_product, requirements.of_inner_product),
    (engine.gram, requirements.of_gram),
    (engine.parse_and_add, requirements.of_addition),
    (engine.memory_copy, None),
)


def schemes_for(model: str) -> list[Scheme]:
    """What a model is measured under."""
    large = values_of(model) > LARGE
    return [Scheme.parse(name) for name in ALL_SCHEMES if not (large and name == "nvflare")]


def measure_models(
    models: Sequence[str], asked: argparse.Namespace, results: Results, progress: Progress
) -> None:
    """Our rows of each model, and the peers'."""

    def done(row: Row) -> None:
        results.add(row.flat())
        progress.row(results.rows[-1])

    for model in models:
        repeat = asked.repeat if values_of(model) <= LARGE else 1
        with Setting.opened(
            asked.out, clients=asked.clients, seed=asked.seed, repeat=repeat, workers=1, rules=load_rule
        ) as setting:
            sweep([model], schemes_for(model), setting, note=progress.note, done=done)
        if values_of(model) > asked.peers_up_to:
            continue
        for peer in PEERS:
            progress.note(f"{model} {peer}")
            try:
                figures = run_peer(
                    peer,
                    shapes=[shape for _, shape in MODELS[model]],
                    clients=asked.clients,
                    seed=asked.seed,
                    repeat=repeat,
                )
            except PeerFailedError as error:
                print(f"{model} {peer}: not measured: {str(error).splitlines()[-1]}", flush=True)
                continue
            results.add({"model": model, "scheme": peer, **figures})
            progress.row(results.rows[-1])


def ratios(rows: Sequence[Flat]) -> list[dict[str, object]]:
    """How many times as much as each of our schemes the peers take, and our schemes as plain, per model."""
    found: list[dict[str, object]] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        here = [row for row in rows if row["model"] == model]
        ours = {str(row["scheme"]): row for row in here if not row["peer"]}
        others = [row for row in here if row["peer"]]
        for name, row in ours.items():
            if name != PLAIN and PLAIN in ours:
                found.append({"model": model, "of": name, "to": PLAIN, **_quotients(row, ours[PLAIN])})
            for other in others:
                found.append({"model": model, "of": other["peer"], "to": name, **_quotients(other, row)})
    return found


def _quotients(row: Flat, other: Flat) -> dict[str, float]:
    return {name: float(f"{number(row, name) / number(other, name):.4g}") for name in FIELDS}


def print_ratios(found: Sequence[Flat], console: Console) -> None:
    """The peers against ``COMPARED``."""
    table = titled("Peers: how many times as much")
    for name in ("model", "peer", "as ours under"):
        table.add_column(name, no_wrap=True)
    for name in ("up", "down", "seal", "server", "open", "client\nMiB", "server\nMiB"):
        table.add_column(name, justify="right")
    for row in found:
        if row["to"] in COMPARED:
            numbers = (ratio(number(row, name)) for name in FIELDS)
            table.add_row(str(row["model"]), str(row["of"]), str(row["to"]), *numbers)
    if table.row_count:
        console.print()
        console.print(table)


def print_primitives(primitives: Sequence[Flat], console: Console) -> None:
    """Medians of everything that was done in turn."""
    table = titled("Primitives")
    for name in ("", "under", "by", "values", "ms"):
        number_of = name in ("values", "ms")
        table.add_column(name, justify="right" if number_of else "left", no_wrap=number_of)
    for row in primitives:
        by = str(row["peer"] or "ours")
        milliseconds = f"{1e3 * number(row, 'seconds'):.3g}"
        table.add_row(str(row["primitive"]), str(row["scheme"]), by, f"{row['values']:,}", milliseconds)
    if primitives:
        console.print()
        console.print(table)


def sealing_memory(asked: argparse.Namespace, results: Results, progress: Progress) -> tuple[str, Flat]:
    """The model whose sealing is looked at, and its row; a smaller one in a quick run, for this only."""
    rows = {(row["model"], row["scheme"]): row for row in results.rows}
    if (SEALED_MODEL, "compact") in rows:
        return SEALED_MODEL, rows[SEALED_MODEL, "compact"]
    progress.note(f"{QUICK_SEALED} compact: a client seals")
    one = {"clients": 1, "repeat": 1, "workers": 1}
    with Setting.opened(asked.out, seed=asked.seed, rules=load_rule, **one) as setting:
        return QUICK_SEALED, measure_sealing(manifest_of(QUICK_SEALED), Scheme.parse("compact"), setting)


def main() -> None:
    """Measure, print, write ``result.json`` and ``overhead.png``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small models only")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), help="instead of all, or the quick ones")
    parser.add_argument("--clients", type=int, default=5, help="updates that servers sum (5)")
    parser.add_argument("--repeat", type=int, default=3, help="runs whose median a row's times are (3)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each primitive (5)")
    parser.add_argument("--peers-up-to", type=int, help=f"largest model for peers, values ({PEERS_UP_TO:,})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/overhead"), help="folder (runs/overhead)")
    asked = parser.parse_args()
    models = asked.models or (QUICK_MODELS if asked.quick else tuple(MODELS))
    if asked.peers_up_to is None:
        asked.peers_up_to = PEERS_UP_TO
    if requirements.REFERENCE not in models:
        parser.error(f"--models must name {requirements.REFERENCE}: what is asked for is measured on it")
    console = Console()
    results = Results(out_folder(asked.out), command=" ".join(sys.argv), seed=asked.seed)
    wanted: list[Requirement] = []
    complete = False

    try:
        with Progress(console) as progress:
            for compare, judge in COMPARISONS:
                progress.note(f"in turn: {compare.__name__.replace('_', ' ')}")
                seconds, found = in_own_process(compare, asked.rounds, asked.seed)
                results.primitives.extend(asdict(primitive) for primitive in found)
                results.write(complete=False)
                wanted.extend(judge(seconds) if judge else ())
            measure_models(models, asked, results, progress)
            wanted[:0] = requirements.of_bytes(results.rows)
            wanted.extend(requirements.of_memory(*sealing_memory(asked, results, progress), results.rows))
        complete = True
    finally:
        # Also after Ctrl-C or a failure: what was measured so far.
        compared = ratios(results.rows)
        results.write(complete=complete, ratios=compared, requirements=[item.flat() for item in wanted])
        print_primitives(results.primitives, console)
        report(results.rows, asked.out, console)
        print_ratios(compared, console)
        if wanted:
            requirements.print_requirements(wanted, console)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
