"""Cells that have ended, in one SQLite file: each is there as a whole or not at all."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.inversion.bench.cell import Cell, cell_of
from secagg.errors import Code, ConfigError

STORE_FILE = "cells.sqlite3"
STORE_VERSION = 1
"""Of the file's form."""
PRIVATE = 0o700
"""Permissions of a folder that is made for cells."""
ORIGINAL, MEAN, RECONSTRUCTION = "original", "mean", "reconstruction"
"""Kinds of pictures."""
_TABLES = (
    """CREATE TABLE IF NOT EXISTS cells (
        key TEXT PRIMARY KEY, cell TEXT NOT NULL, rows TEXT NOT NULL, seconds REAL NOT NULL,
        ended REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS pictures (
        key TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (key, kind))""",
    "CREATE TABLE IF NOT EXISTS costs (key TEXT PRIMARY KEY, row TEXT NOT NULL)",
)
Picture = NDArray[np.floating] | NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a cell came to.

    Args:
        rows: flat figures, one row per sample.
        seconds: what it took.
        pictures: by kind, float16 [B, *shape] of images, int32 [B, tokens] of text.
    """

    rows: Sequence[Mapping[str, Any]]
    seconds: float
    pictures: Mapping[str, Picture] = field(default_factory=dict)


class Store:
    """The file. One process writes it, in one transaction per cell; others may read it meanwhile.

    Args:
        folder: where it is; made if it is missing, for its owner alone: it holds the samples themselves.

    Raises:
        ConfigError: DATA_MALFORMED if what is there under its name is no such file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        path = folder / STORE_FILE
        try:
            # Another sweep may be writing to it.
            self._database = sqlite3.connect(path, timeout=60)
        except sqlite3.Error as error:
            raise _foreign(path, error) from None
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            with self._database:
                # Or another process could see tables that have no version yet.
                self._database.execute("BEGIN IMMEDIATE")
                (version,) = self._database.execute("PRAGMA user_version").fetchone()
                (tables,) = self._database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                if version != (STORE_VERSION if tables else 0):
                    raise _foreign(path, f"version {version}, not {STORE_VERSION}")
                for table in _TABLES:
                    self._database.execute(table)
                self._database.execute(f"PRAGMA user_version = {STORE_VERSION}")
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise _foreign(path, error) from None
        except ConfigError:
            self._database.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """Keep a cell that has ended; on disk when this returns."""
        rows = json.dumps([dict(row) for row in outcome.rows])
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)",
                (cell.key, json.dumps(asdict(cell)), rows, outcome.seconds, time.time()),
            )
            for kind, picture in outcome.pictures.items():
                self._database.execute(
                    "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", (cell.key, kind, _packed(picture))
                )

    def keys(self) -> set[str]:
        """Of all cells that are there."""
        return {key for (key,) in self._database.execute("SELECT key FROM cells")}

    def outcomes(self, cells: Sequence[Cell]) -> list[tuple[Cell, Outcome]]:
        """Those of the cells that are there, in the order asked for, without their pictures."""
        found = {cell.key: (cell, outcome) for cell, outcome in self.all()}
        return [found[cell.key] for cell in cells if cell.key in found]

    def all(self) -> list[tuple[Cell, Outcome]]:
        """All cells that are there, in the order in which they ended, without their pictures."""
        found = self._database.execute("SELECT cell, rows, seconds FROM cells ORDER BY ended")
        return [
            (cell_of(json.loads(cell)), Outcome(rows=json.loads(rows), seconds=seconds))
            for cell, rows, seconds in found
        ]

    def picture(self, cell: Cell, kind: str) -> Picture | None:
        """A cell's picture of this kind; None if it has none."""
        found = self._database.execute(
            "SELECT data FROM pictures WHERE key = ? AND kind = ?", (cell.key, kind)
        ).fetchone()
        return None if found is None else _unpacked(found[0])

    def add_cost(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep what encryption costs in one setting."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO costs VALUES (?, ?)", (key, json.dumps(dict(row))))

    def cost(self, key: str) -> dict[str, Any] | None:
        """What was kept of it; None if nothing was."""
        found = self._database.execute("SELECT row FROM costs WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        row: dict[str, Any] = json.loads(found[0])
        return row


def _packed(picture: Picture) -> bytes:
    with io.BytesIO() as file:
        np.save(file, picture, allow_pickle=False)
        return file.getvalue()


def _unpacked(data: bytes) -> Picture:
    picture: Picture = np.load(io.BytesIO(data), allow_pickle=False)
    return picture


def _foreign(path: Path, why: object) -> ConfigError:
    return ConfigError(Code.DATA_MALFORMED, f"{path} holds no cells of a sweep ({why}); give another --out")
