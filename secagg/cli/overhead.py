"""``secagg overhead``: what encryption costs in bytes, seconds and memory."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console


@click.command("overhead")
@click.option("--profiles", is_flag=True, help="Only list the CKKS profiles; measures nothing.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME,…",
    help="lenet, lenet-dlg, cnn, resnet18, bert-base, gpt2.  [default: lenet,cnn]",
)
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    metavar="NAME,…",
    help="plain, a profile, or selective:RATIO[:PROFILE].  [default: all that hold so many clients]",
)
@click.option(
    "--clients",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Updates that the server checks and sums.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes for sealing, summing and opening; 0: one per core.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Times are medians of so many runs; so many different updates are sealed.",
)
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Keep the rows of an interrupted run of the same setting.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/overhead"),
    show_default=True,
    help="Folder for result.json and overhead.png.",
)
def overhead(
    profiles: bool,
    models: tuple[str, ...],
    schemes: tuple[str, ...],
    clients: int,
    workers: int,
    repeat: int,
    seed: int,
    resume: bool,
    out: Path,
) -> None:
    """Measure bytes, seconds and peak memory of a round, per model and scheme.

    Models are shapes with drawn values. A client seals, the server checks and sums all clients' updates, a
    client opens, by a federation's own code, each in processes of its own; the opened mean is checked. Fewer
    different updates are sealed than there are clients: the server gets the same files several times.

    \b
    Example: secagg overhead --model cnn --scheme plain,compact,selective:0.1 --clients 20
    """
    from secagg.overhead.profiles import print_profiles

    console = Console()
    if profiles:
        print_profiles(console)
        return
    # What measuring needs reaches pydantic and the rules; `secagg --help` should not wait for them.
    from defenses import load_rule
    from secagg.overhead.display import Progress, report
    from secagg.overhead.measure import Row, Setting
    from secagg.overhead.models import manifest_of
    from secagg.overhead.schemes import DEFAULT_SCHEMES, Scheme
    from secagg.overhead.sweep import Results, earlier_rows, names_in, out_folder, sweep

    chosen = names_in(models) or ["lenet", "cnn"]
    for name in chosen:
        manifest_of(name)
    parsed = [Scheme.parse(name) for name in names_in(schemes) or DEFAULT_SCHEMES]
    if not schemes:
        parsed = [scheme for scheme in parsed if scheme.has_room(clients)]
    for scheme in parsed:
        scheme.check_clients(clients)
    results = Results(out_folder(out), command=" ".join(["secagg", *sys.argv[1:]]), seed=seed)
    try:
        with (
            Setting.opened(
                out, clients=clients, seed=seed, repeat=repeat, workers=workers, rules=load_rule
            ) as setting,
            Progress(console) as progress,
        ):
            if resume:
                names = {scheme.name for scheme in parsed}
                for row in earlier_rows(out, setting, chosen, names):
                    results.add(row)

            def done(row: Row) -> None:
                results.add(row.flat())
                progress.row(results.rows[-1])

            measured = {(str(row["model"]), str(row["scheme"])) for row in results.rows}
            sweep(chosen, parsed, setting, measured=measured, note=progress.note, done=done)
        results.write(complete=True)
    finally:
        # Also after Ctrl-C or a failure: what was measured so far.
        report(results.rows, out, console)
