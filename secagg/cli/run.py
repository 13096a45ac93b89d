"""``secagg run``: one federation on this machine, as real processes over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console


@click.command("run")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--clients", type=int, help="Number of client processes.  [default: 10]")
@click.option("--rounds", type=int, help="Rounds with an aggregate.  [default: 20]")
@click.option(
    "--local-epochs", type=int, help="Passes over its own samples per client and round.  [default: 5]"
)
@click.option("--batch-size", type=int, help="Samples per gradient step.  [default: 32]")
@click.option("--learning-rate", type=float, help="Of local gradient descent.  [default: 0.05]")
@click.option("--momentum", type=float, help="Of local gradient descent.  [default: 0.9]")
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    help="digits, fashion-mnist, cifar10, pneumonia, a folder of IDX files, or an .npz with x and y.  "
    "[default: digits]",
)
@click.option("--data", metavar="DIR", help="Folder with the named data sets.  [default: $SECAGG_DATA]")
@click.option("--samples", type=int, help="Use only so many training samples.  [default: all]")
@click.option("--partition", metavar="iid|dirichlet:β", help="How samples are dealt out.  [default: iid]")
@click.option("--model", metavar="linear|mlp|cnn", help="The network.  [default: mlp]")
@click.option("--protect", metavar="plain|full|selective", help="What is encrypted.  [default: full]")
@click.option("--ratio", type=float, help="Share of encrypted entries, with --protect selective.")
@click.option(
    "--significance",
    metavar="magnitude|random|layers",
    help="How entries are chosen, with --protect selective.",
)
@click.option("--layers", metavar="NAME,…", help="Tensors to encrypt, with --significance layers.")
@click.option(
    "--rule",
    metavar="NAME[:PARAMETER=NUMBER,…]",
    help="mean, ddfed, ddfed-hardened, multi-krum:f=3, nnm+krum and more; a name that is none lists all.  "
    "[default: mean]",
)
@click.option(
    "--profile", metavar="NAME", help="CKKS parameters (secagg overhead --profiles).  [default: auto]"
)
@click.option(
    "--poison",
    metavar="ATTACK:FRACTION[:STRENGTH][@ROUND]",
    help="An attack by so large a share of the clients, from a round on: sign-flip, ipm, alie, min-max, "
    "label-flip, backdoor, adaptive and more; a name that is none lists all.",
)
@click.option("--seed", type=int, help="Of everything that is drawn.  [default: 0]")
@click.option(
    "--record",
    is_flag=True,
    default=None,
    help="Keep what the server receives in the clear, and the true samples: for secagg leak --from DIR.",
)
@click.option(
    "--meter",
    is_flag=True,
    default=None,
    help="Before the first upload with a visible part, have a client say what that would give away.",
)
@click.option("--out", metavar="DIR", help="Folder for result.json, model.npz and logs.  [default: runs/run]")
def run(file: Path | None, layers: str | None, **flags: Any) -> None:
    """Run a federation on this machine as set in FILE (TOML) and flags; flags win.

    \b
    Example: secagg run --rounds 10 --protect full --rule ddfed-hardened --poison sign-flip:0.3
    """
    # Both reach pydantic, the rules and the attacks; `secagg --help` should not wait for them.
    from secagg.config import parse_toml, read_toml
    from secagg.simulation.config import RunConfig
    from secagg.simulation.display import display_for
    from secagg.simulation.launcher import run as launch

    values = read_toml(file) if file is not None else {}
    if file is not None:
        parse_toml(RunConfig, file)  # so that a complaint about the file names it
    values |= {name: value for name, value in flags.items() if value is not None}
    if layers is not None:
        values["layers"] = [name.strip() for name in layers.split(",") if name.strip()]
    config = parse_toml(RunConfig, values)
    console = Console()
    with display_for(console, title(config)) as display:
        result = launch(config, display)
    if result.meter is not None and console.is_terminal:  # elsewhere it stands above the rows
        for line in result.meter["lines"]:
            console.print(f"{result.meter['client']}: {line}", highlight=False)
    accuracy = "unknown" if result.final_accuracy is None else f"{100 * result.final_accuracy:.1f}%"
    console.print(f"accuracy after {config.rounds} rounds: {accuracy}", highlight=False)
    if result.backdoor_success is not None:
        console.print(f"backdoor success: {100 * result.backdoor_success:.1f}%", highlight=False)
    if result.recall is not None:
        precision = "-" if result.precision is None else f"{100 * result.precision:.0f}%"
        console.print(
            f"attackers rejected: {100 * result.recall:.0f}%; of those rejected, attackers: {precision}",
            highlight=False,
        )
    console.print(
        f"wrote {config.out}/result.json and {config.out}/model.npz", highlight=False, soft_wrap=True
    )


def title(config: Any) -> str:
    """One line that says what is run."""
    protect = f"{config.protect} {config.ratio:g}" if config.ratio else config.protect
    parts = [f"{config.clients} clients", config.dataset, config.model, protect, config.rule]
    return ", ".join([*parts, f"poison {config.poison}"] if config.poison else parts)
