"""``secagg leak``: what can be read of clients' samples in what travels in the clear."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from secagg.cli import EXIT_INTERRUPTED
from secagg.errors import Code, ConfigError


@click.command("leak")
@click.argument("sweep", type=click.Path(path_type=Path), required=False)
@click.option(
    "--victim",
    multiple=True,
    metavar="NAME,…",
    help="lenet, lenet-sigmoid, convnet, resnet18, resnet18-training, mlp, bert, gpt2, or your own as "
    "module:callable, a function of (shape, classes).  [default: lenet]",
)
@click.option(
    "--significance",
    multiple=True,
    metavar="NAME,…",
    help="What decides which entries are encrypted: magnitude, sensitivity, product, weighted, maskcrypt, "
    "random, first, last, layers=TENSOR,…, file=MASK (as sent, or a .npy of bool).  "
    "[default: magnitude,sensitivity,random]",
)
@click.option(
    "--mask",
    metavar="FILE",
    help="The same as --significance file=FILE: exactly these entries are encrypted.",
)
@click.option(
    "--ratio",
    multiple=True,
    metavar="R,…",
    help="Encrypted entries / all.  [default: 0,0.01,0.1,0.3,0.6,0.9]",
)
@click.option(
    "--attacker",
    multiple=True,
    metavar="NAME[:OPTION=NUMBER],…",
    help="gauss-newton, inverting-gradients, dlg, idlg, analytic, rank-completion, sme, imprint, tag, dager "
    "and more; a name that is none lists all.  [default: gauss-newton,inverting-gradients]",
)
@click.option(
    "--from",
    "run",
    metavar="RUN_DIR",
    help="Attack what a secagg run --record put on the wire in the clear, instead of a sweep.",
)
@click.option("--from-client", multiple=True, metavar="NAME,…", help="Only these clients of it.")
@click.option("--from-round", multiple=True, metavar="N,…", help="Only these rounds of it.")
@click.option("--naive", is_flag=True, help="Only attackers that take hidden entries for zeros.")
@click.option("--aware", is_flag=True, help="Only attackers that know which entries are hidden.")
@click.option(
    "--perturb",
    multiple=True,
    metavar="STEP:VALUE,…",
    help="What is done to visible entries, each tried: plain, noise:STD, clip:NORM, prune:SHARE, "
    "quantise:BITS; joined by +.  [default: plain]",
)
@click.option(
    "--granularity", metavar="entry|layer", help="What one decision to encrypt is about.  [default: entry]"
)
@click.option(
    "--scores",
    metavar="common|own",
    help="Whose scores decide: those of other clients in sum, one mask for all, as on secagg's wire; or the "
    "attacked client's own, as in most publications.  [default: common]",
)
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    help="digits, fashion-mnist, cifar10, pneumonia, sst2 (text, for bert and gpt2), a folder of IDX files "
    "or an .npz file; its images hold bytes, or values from 0 to 1.  "
    "[default: fashion-mnist where it is found, else digits; sst2 for bert and gpt2]",
)
@click.option("--data", metavar="DIR", help="Folder with the named data sets.  [default: $SECAGG_DATA]")
@click.option("--batch", type=int, help="Samples per update.  [default: 1]")
@click.option("--samples", type=int, help="Updates that are attacked.  [default: 8]")
@click.option(
    "--candidates", type=int, help="Samples among which an attacked one is to be told.  [default: 100]"
)
@click.option(
    "--rounds", type=int, help="Updates of the same samples that are attacked together.  [default: 1]"
)
@click.option("--epochs", type=int, help="Passes over a client's samples per update.  [default: 1]")
@click.option("--steps", type=int, help="Gradient steps per pass.  [default: 1]")
@click.option("--learning-rate", type=float, help="Of these steps.  [default: 0.01]")
@click.option("--pretrain", type=int, help="Passes over other samples before the attack.  [default: 0]")
@click.option("--tokens", type=int, help="Length of a sample of text.  [default: 16]")
@click.option("--labels", metavar="known|inferred", help="What attackers know of labels.  [default: known]")
@click.option(
    "--precision",
    metavar="wire|float32|float64",
    help="wire computes in float64 and sends float32.  [default: wire]",
)
@click.option("--effort", type=float, help="Multiplies an attacker's own iterations.  [default: 1]")
@click.option("--restarts", type=int, help="Starting points per attack.  [default: 1]")
@click.option("--clients", type=int, help="Of the table of costs; 0 leaves that out.  [default: 10]")
@click.option("--seed", type=int, help="Of everything that is drawn.  [default: 0]")
@click.option("--device", metavar="cpu|cuda", help="Where attacks are computed.  [default: cpu]")
@click.option("--processes", type=int, help="That play attacks; 0: one per core.  [default: 0]")
@click.option("--ray", metavar="ADDRESS", help="Play over a Ray cluster instead; local starts one here.")
@click.option(
    "--out",
    metavar="DIR",
    help="Folder for leak.html, result.json, finished cells.  [default: runs/leak; RUN_DIR/leak with --from]",
)
def leak(
    sweep: Path | None,
    run: str | None,
    from_client: tuple[str, ...],
    from_round: tuple[str, ...],
    out: str | None,
    **flags: Any,
) -> int:
    """Attack what selective encryption leaves in the clear, by attackers who know the mask and who don't.

    A sweep plays every victim, protection, attacker and sample that flags, or a file SWEEP (TOML, with the
    flags' names and lists of values), ask for; flags win. It may be interrupted: the same command goes on.

    \b
    Example: secagg leak --victim lenet-sigmoid --significance magnitude --ratio 0,0.1,0.5,0.9
    Example: secagg leak --from runs/run --attacker gauss-newton
    """
    # Nothing in a user's names is markup, nor the name of a picture.
    console = Console(emoji=False)
    try:
        start = _prepared(sweep, run, flags, clients=from_client, rounds=from_round, out=out, console=console)
    except KeyboardInterrupt:
        console.print("interrupted before the first attack: nothing is written")
        return EXIT_INTERRUPTED
    try:
        return start()
    except KeyboardInterrupt:
        from attacks.inversion.bench.campaign import INTERRUPTED

        console.print(INTERRUPTED)
        return EXIT_INTERRUPTED


def _prepared(
    sweep: Path | None,
    run: str | None,
    flags: dict[str, Any],
    *,
    clients: tuple[str, ...],
    rounds: tuple[str, ...],
    out: str | None,
    console: Console,
) -> Callable[[], int]:
    """What was asked for, checked, and ready to be played."""
    # All of these reach torch; `secagg --help` should not wait for it.
    try:
        from attacks.inversion.bench.asked import sweep_config, trial_of
        from attacks.inversion.bench.command import run_sweep
        from attacks.inversion.bench.from_command import attack_run
        from attacks.inversion.bench.sweep import Sweep
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "secagg", "defenses", "attacks"):
            raise
        raise ConfigError(
            Code.DEPENDENCY_MISSING,
            f"secagg leak needs {missing}, which is not installed: pip install 'secagg[leak]'",
        ) from error

    command = " ".join(["secagg", *sys.argv[1:]])
    if out == "":
        raise ConfigError(Code.CONFIG_INVALID, "--out is ''; name a folder, or leave it out")
    if run == "":
        raise ConfigError(
            Code.CONFIG_INVALID, "--from is ''; name the folder that was --out of a secagg run --record"
        )
    if run is not None:
        if sweep is not None:
            raise ConfigError(Code.CONFIG_INVALID, f"give a sweep file ({sweep}) or --from {run}, not both")
        trial = trial_of(flags, clients=clients, rounds=rounds)
        recorded = Path(run).expanduser()
        folder = Path(out).expanduser() if out else recorded / "leak"
        return partial(attack_run, recorded, trial, out=folder, command=command, console=console)
    if clients or rounds:
        raise ConfigError(Code.CONFIG_INVALID, "--from-client and --from-round choose of --from RUN_DIR")
    config, folder = sweep_config(sweep, flags, out=out)
    planned = Sweep.planned(config)
    return partial(run_sweep, planned, out=folder, command=command, console=console)
