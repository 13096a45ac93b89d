"""The command line: ``secagg COMMAND``; each command's module is loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

import click

from secagg.errors import Code, ConfigError, SecaggError
from secagg.printable import printable

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

_COMMANDS = {
    "run": ("secagg.cli.run:run", "Run one federation on this machine: a server, clients, a live table."),
    "init": ("secagg.cli.custody:init", "Make a federation: its folder, authority, server, settings."),
    "enroll": ("secagg.cli.custody:enroll", "Enrol clients: keys, certificates, the roster."),
    "deal": ("secagg.cli.custody:deal", "Make the encryption key and seal it to every enrolled client."),
    "serve": ("secagg.cli.serve:serve", "Run a federation's server."),
    "join": ("secagg.cli.join:join", "Take part in a federation as an enrolled client."),
    "overhead": ("secagg.cli.overhead:overhead", "Measure what encryption costs: bytes, seconds, memory."),
    "leak": ("secagg.cli.leak:leak", "Attack what selective encryption leaves in the clear."),
}


class _LazyGroup(click.Group):
    """A group that lists its commands without importing what they need."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("", "secagg", "defenses", "attacks"):
                raise
            raise ConfigError(
                Code.DEPENDENCY_MISSING,
                f"secagg {cmd_name} needs {missing}, which is not installed: pip install 'secagg[run]'",
            ) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("secagg"), prog_name="secagg")
def group() -> None:
    """Federated learning whose server never sees a client's update, and still rejects poisoned ones.

    To try it on this machine: secagg run. For a federation of several machines: init, enroll and deal once,
    then serve on the server and join on every client.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; ends the process.

    Exit status: 0; 2 for a refusal or a wrong call, with one line on stderr; 130 after Ctrl-C.
    """
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = group.main(args=arguments, prog_name="secagg", standalone_mode=False)
    except SecaggError as error:
        return _complain(error.code, error.message)
    except click.ClickException as error:
        # click 8.2 raises this one to print the help of a group that was called with nothing.
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
            return EXIT_REFUSED
        return _complain(Code.CONFIG_INVALID, error.format_message())
    except click.exceptions.Abort as error:
        # click turns an end of input into the same exception; that would be a fault, not a wish.
        if isinstance(error.__cause__, EOFError):
            raise
        return EXIT_INTERRUPTED
    except OSError as error:
        # A file or folder that can't be read or written is the caller's to mend; anything else is not.
        if error.filename is None:
            raise
        return _complain(Code.CONFIG_INVALID, f"{error.filename}: {error.strerror}")
    return result if isinstance(result, int) else 0


def _complain(code: Code, message: str) -> int:
    click.echo(f"secagg: {code}: {printable(' '.join(message.split()))}", err=True)
    return EXIT_REFUSED
