"""Rows of overhead as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secagg.simulation.display import binary_size

Flat = Mapping[str, object]

COLUMNS = (
    "scheme",
    "up",
    "x\nplain",
    "down",
    "x\nplain",
    "seal\ns",
    "server\ns",
    "open\ns",
    "client\nMiB",
    "server\nMiB",
)

NOTES = """
up, down: per client and round. server s: checking and summing all clients' updates. MiB: largest
resident set of the role, interpreter and all its processes included."""


def tables(rows: Iterable[Flat]) -> list[Table]:
    """One table per model, in the order in which models first appear."""
    found: dict[str, Table] = {}
    for row in rows:
        model = str(row["model"])
        if model not in found:
            title = f"{model}: {row['values']:,} values, {row['clients']} clients"
            found[model] = _table(title, COLUMNS)
        found[model].add_row(*cells(row))
    return list(found.values())


def cells(row: Flat) -> tuple[str, ...]:
    """A row as text, in the order of ``COLUMNS``; bytes and peaks are one client's or the server's."""
    plain = 4 * number(row, "values")
    return (
        str(row["peer"] or row["scheme"]),
        binary_size(number(row, "bytes_up")),
        ratio(number(row, "bytes_up") / plain),
        binary_size(number(row, "bytes_down")),
        ratio(number(row, "bytes_down") / plain),
        seconds(number(row, "seal_s")),
        seconds(number(row, "aggregate_s")),
        seconds(number(row, "open_s")),
        f"{number(row, 'client_peak_mib'):.0f}",
        f"{number(row, 'server_peak_mib'):.0f}",
    )


def print_tables(rows: Iterable[Flat], console: Console) -> None:
    """All tables, and what their columns say."""
    for table in tables(rows):
        console.print()
        console.print(table)
    console.print(NOTES, highlight=False, soft_wrap=True)


def number(row: Flat, name: str) -> float:
    """A field as a number."""
    return float(str(row[name]))


def ratio(value: float) -> str:
    """Three digits at most, and no exponent.

    >>> ratio(0.95758), ratio(62.6)
    ('0.96', '62.6')
    """
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def seconds(value: float) -> str:
    """Seconds, three digits of them.

    >>> seconds(0.00123), seconds(12.345)
    ('0.0012', '12.3')
    """
    for limit, digits in ((0.01, 4), (1.0, 3), (10.0, 2), (100.0, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def titled(title: str) -> Table:
    """A table without lines; nothing in its title is markup."""
    shown = Text(title, style="table.title")
    return Table(title=shown, title_justify="left", box=None, pad_edge=False, collapse_padding=True)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = titled(title)
    for place, name in enumerate(columns):
        # A long name is folded rather than a number cut.
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    return table
