"""What a person sees of a run: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from secagg.simulation.rows import Row

COLUMNS = ("round", "accuracy", "loss", "rejected", "up", "down", "seal s", "server s", "open s", "wall s")
"""``server s`` is what ``result.json`` calls ``aggregate_s``."""
VISIBLE_ROWS = 25


class Display(Protocol):
    """Where progress goes; a context manager."""

    def note(self, text: str) -> None:
        """Something besides a row: what is being prepared, a round that was aborted."""
        ...

    def row(self, row: Row) -> None:
        """A round has ended."""
        ...

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainLines:
    """One line per round, flushed, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths = (5, 8, 8, 18, 8, 8, 6, 8, 6, 6)
        self._headed = False

    def note(self, text: str) -> None:
        self._print(text)

    def row(self, row: Row) -> None:
        if not self._headed:
            self._line(COLUMNS)
            self._headed = True
        self._line(cells(row))

    def _line(self, texts: tuple[str, ...]) -> None:
        self._print("  ".join(text.rjust(width) for text, width in zip(texts, self._widths, strict=True)))

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)
        self._console.file.flush()

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class LiveTable:
    """A table that grows by a row per round; only the last ones stay on the screen while it runs."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._rows: list[Row] = []
        self._note = ""
        self._live = Live(self._table(), console=console, auto_refresh=False)

    def note(self, text: str) -> None:
        self._note = text
        self._refresh()

    def row(self, row: Row) -> None:
        self._rows.append(row)
        self._note = ""
        self._refresh()

    def _refresh(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self, *, whole: bool = False) -> Table:
        table = Table(
            title=self._title, caption=self._note or None, box=None, pad_edge=False, collapse_padding=True
        )
        for name in COLUMNS:
            table.add_column(name, justify="right", no_wrap=name != "rejected")
        for row in self._rows if whole else self._rows[-VISIBLE_ROWS:]:
            table.add_row(*cells(row))
        return table

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._table(whole=True), refresh=True)
        self._live.__exit__(kind, error, trace)


def display_for(console: Console, title: str) -> Display:
    """A live table if the console is a terminal, plain lines otherwise."""
    return LiveTable(console, title) if console.is_terminal else PlainLines(console)


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of ``COLUMNS``; byte counts and seconds are per client.

    Beside the accuracy stands a backdoor's success in brackets, where one is attempted.
    """
    return (
        str(row.round),
        _quality(row),
        "-" if row.loss is None else f"{row.loss:.3g}",
        _rejected(row),
        binary_size(row.bytes_up),
        binary_size(row.bytes_down),
        f"{row.seal_s:.3f}",
        f"{row.aggregate_s:.3f}",
        f"{row.open_s:.3f}",
        f"{row.wall_s:.2f}",
    )


def _rejected(row: Row) -> str:
    """The rejected clients' numbers behind the reason they share, as in ``norm 03, 07; unlike 01``."""
    groups: dict[str, list[str]] = {}
    for name, reason in zip(row.rejected_clients.split(), row.reasons.split(), strict=True):
        groups.setdefault(reason, []).append(name.removeprefix("client-"))
    return "; ".join(f"{reason} {', '.join(names)}" for reason, names in groups.items()) or "-"


def _quality(row: Row) -> str:
    """Accuracy, and where a backdoor is attempted its success."""
    accuracy = "-" if row.accuracy is None else f"{100 * row.accuracy:.1f}%"
    success = "" if row.backdoor_success is None else f" [{100 * row.backdoor_success:.0f}%]"
    return accuracy + success


def binary_size(count: float) -> str:
    """A byte count with its binary unit.

    >>> binary_size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
