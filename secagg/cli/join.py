"""``secagg join``: take part in a federation with a training function of one's own."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from pathlib import Path
from typing import cast

import click

from secagg.client.result import RoundResult, Trainer
from secagg.client.round import Round
from secagg.client.session import DEFAULT_PATIENCE_S, Client
from secagg.errors import Code, ConfigError, RoundError

MIB = 2**20


@click.command("join")
@click.argument("identity", type=click.Path(path_type=Path))
@click.option(
    "--server", required=True, metavar="HOST:PORT", help="The aggregator; HOST as in its certificate."
)
@click.option(
    "--trainer",
    "trainer_name",
    required=True,
    metavar="MODULE:CALLABLE",
    help="train(model, round) -> (tensors, sample_count); MODULE is looked for here first.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Where a sealed update is kept until its round is over.  [default: IDENTITY/state]",
)
@click.option("--rounds", type=click.IntRange(min=1), default=None, help="Leave after so many rounds.")
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long without progress.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Processes that seal and open long vectors; 0: one per core.  [default: 0]",
)
@click.option("--events", is_flag=True, help="Print one JSON line per event instead of one line per round.")
def join(
    identity: Path,
    server: str,
    trainer_name: str,
    state: Path | None,
    rounds: int | None,
    patience_s: float,
    workers: int,
    events: bool,
) -> None:
    """Take part in a federation as the client whose identity folder is IDENTITY."""
    # The command line is one of the programs that put the packages together.
    from defenses import load_rule

    trainer = load_trainer(trainer_name)
    report = _EventPrinter() if events else _Narrator()
    with Client.load(
        identity,
        server=server,
        rules=load_rule,
        state=state,
        patience_s=patience_s,
        workers=workers,
        on_event=report.event,
    ) as client:
        for upcoming in client.rounds(limit=rounds):
            _take_part(upcoming, trainer, report)
        if client.end is not None and client.end.reason:
            raise RoundError(
                Code.ROUND_ABORTED,
                f"the federation ended early: {client.end.reason}",
                reason=client.end.reason,
            )


def load_trainer(name: str) -> Trainer:
    """The callable a ``module:callable`` names; the working folder is searched first.

    Raises:
        ConfigError: CONFIG_INVALID if there is no such module or callable.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(Code.CONFIG_INVALID, f"trainer is {name!r}; give module:callable")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(Code.CONFIG_INVALID, f"trainer {name!r} can't be loaded: {error}") from None
    if not callable(found):
        raise ConfigError(
            Code.CONFIG_INVALID, f"trainer {name!r} is a {type(found).__name__}, not a callable"
        )
    return cast(Trainer, found)


def _take_part(upcoming: Round, trainer: Trainer, report: _EventPrinter | _Narrator) -> None:
    """One round; being too late for it or its being aborted is no reason to leave the federation."""
    try:
        result = upcoming.run(trainer)
    except RoundError as error:
        if error.code not in (Code.ROUND_CLOSED, Code.ROUND_ABORTED):
            raise
        report.missed(upcoming.number, error)
    else:
        report.done(result)


class _EventPrinter:
    """JSON lines, for programs."""

    def __init__(self) -> None:
        # Chunks are reported from gRPC's thread; a line must not be torn.
        self._lock = threading.Lock()

    def event(self, name: str, fields: dict[str, object]) -> None:
        with self._lock:
            click.echo(json.dumps({"event": name, **fields}))

    def done(self, result: RoundResult) -> None:
        names = ("round", "own_weight", "seal_s", "open_s", "bytes_up", "bytes_down", "resumed_at")
        self.event("round_done", {name: getattr(result, name) for name in names})

    def missed(self, number: int, error: RoundError) -> None:
        self.event("round_missed", {"round": number, "code": error.code, "reason": error.message})


class _Narrator:
    """One line per round, for people."""

    def event(self, name: str, fields: dict[str, object]) -> None:
        if name == "retrying" and fields["attempt"] == 3:
            click.echo(f"waiting for the server: {fields['reason']}", err=True)
        elif name == "upload_started" and fields["offset"]:
            click.echo(
                f"round {fields['round']}: upload goes on at byte {fields['offset']} of {fields['size']}"
            )

    def done(self, result: RoundResult) -> None:
        up, down = result.bytes_up / MIB, result.bytes_down / MIB
        own = "" if result.own_weight is None else f", own vote {result.own_weight:g}"
        click.echo(
            f"round {result.round}: {up:.2f} MiB up, {down:.2f} MiB down, "
            f"sealed in {result.seal_s:.2f} s, opened in {result.open_s:.2f} s{own}"
        )

    def missed(self, number: int, error: RoundError) -> None:
        click.echo(f"round {number}: {error}", err=True)
