"""``secagg serve``: a federation's server."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from pathlib import Path

import click

from secagg.errors import Code, ServerError
from secagg.server.app import serve as serve_until_stopped
from secagg.server.observer import Observer

_log = logging.getLogger(__name__)

_LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--listen", help="Address to bind. [the configured host if it is local, else every interface]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to bind instead of the configured one.")
@click.option("--events", is_flag=True, help="Print one JSON line per event on stdout.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what arrives in the clear in this folder, to measure what it gives away. [nothing is kept]",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="warning", show_default=True)
def serve(
    directory: Path,
    listen: str | None,
    port: int | None,
    events: bool,
    record: Path | None,
    log_level: str,
) -> None:
    """Run the server of the federation whose server folder is DIRECTORY, until SIGTERM or Ctrl-C.

    A server that was stopped or killed goes on with the round it was in when it is started again.
    """
    # Imported here: the server itself knows rules only by their protocol.
    from defenses import load_rule

    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    observer = Observer(sys.stdout if events else None)
    if not events:
        click.echo(f"serving {directory}; stop with Ctrl-C", err=True)
    if record is not None:
        click.echo(f"keeping what arrives in the clear in {record}", err=True)
    serving = serve_until_stopped(
        directory, rules=load_rule, observer=observer, listen=listen, port=port, record=record
    )
    try:
        asyncio.run(serving)
    except (OSError, sqlite3.Error) as error:
        # What is wrong with the folder as it was given is a ConfigError; this is the server's own trouble.
        _log.exception("the server can't go on")
        raise ServerError(
            Code.INTERNAL, f"the server can't go on: {error}; the log says where, and it can be started again"
        ) from None
