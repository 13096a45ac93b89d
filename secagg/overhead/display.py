"""What a person sees of a measurement: where it is, and at the end tables, files, a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console

from secagg.errors import ConfigError
from secagg.overhead.plot import write_plot
from secagg.overhead.table import number, print_tables, seconds
from secagg.simulation.result import RESULT_FILE

Flat = Mapping[str, object]


class Progress:
    """On a terminal, a line that says what is being measured; anywhere else, a line per finished row.

    Within the block.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._status = console, console.status("starting")

    def note(self, text: str) -> None:
        """This happens now."""
        if self._console.is_terminal:
            self._status.update(text)

    def row(self, row: Flat) -> None:
        """A row is there."""
        if not self._console.is_terminal:
            parts = (
                f"{name} {seconds(number(row, f'{name}_s'))} s" for name in ("seal", "aggregate", "open")
            )
            text = f"{row['model']} {row['peer'] or row['scheme']}: {', '.join(parts)}"
            self._console.print(text, highlight=False, soft_wrap=True)
            self._console.file.flush()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()


def report(rows: Sequence[Flat], out: Path, console: Console) -> None:
    """Tables of what was measured, the plot if it can be drawn, where files are; nothing for no rows."""
    if not rows:
        return
    print_tables(rows, console)
    written = [str(out / RESULT_FILE)]
    try:
        written.append(str(write_plot(rows, out)))
    except ConfigError as error:
        console.print(f"no plot: {error.message}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"wrote {' and '.join(written)}", highlight=False, soft_wrap=True, markup=False)
