"""Finished cells in one SQLite file: each is there as a whole or not at all."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.robust.cell import Cell, cell_of

STORE_FILE = "cells.sqlite3"
_TABLE = """CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY, cell TEXT NOT NULL, row TEXT NOT NULL, curve TEXT NOT NULL,
    seconds REAL NOT NULL, ended REAL NOT NULL)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a cell came to.

    Args:
        row: flat figures, a row of ``result.json``.
        curve: per evaluated round: ``round``, ``accuracy``, ``loss``, and ``attack_success`` of a backdoor.
        seconds: what it took.
    """

    row: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    seconds: float


class Store:
    """The file. One process writes it, in one transaction per cell; others may read it meanwhile."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / STORE_FILE)
        self._database.execute("PRAGMA journal_mode = WAL")
        with self._database:
            self._database.execute(_TABLE)

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """Keep a finished cell; on disk when this returns."""
        texts = (json.dumps(item) for item in (asdict(cell), dict(outcome.row), list(outcome.curve)))
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)",
                (cell.key, *texts, outcome.seconds, time.time()),
            )

    def keys(self) -> set[str]:
        """Of all cells that are there."""
        return {key for (key,) in self._database.execute("SELECT key FROM cells")}

    def outcomes(self, cells: Sequence[Cell]) -> list[tuple[Cell, Outcome]]:
        """Those of the cells that are there, in the order asked for."""
        found = {key: (cell, outcome) for key, cell, outcome in self._all()}
        return [found[cell.key] for cell in cells if cell.key in found]

    def others(self, cells: Sequence[Cell]) -> list[tuple[Cell, Outcome]]:
        """All that are there besides these cells, in the order in which they ended."""
        asked = {cell.key for cell in cells}
        return [(cell, outcome) for key, cell, outcome in self._all() if key not in asked]

    def _all(self) -> list[tuple[str, Cell, Outcome]]:
        rows = self._database.execute("SELECT key, cell, row, curve, seconds FROM cells ORDER BY ended")
        return [
            (
                key,
                cell_of(json.loads(cell)),
                Outcome(row=json.loads(row), curve=json.loads(curve), seconds=seconds),
            )
            for key, cell, row, curve, seconds in rows
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
