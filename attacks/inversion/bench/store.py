"""Cells that have ended, in one SQLite file: each is there as a whole or not at all."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.inversion.bench.cell import Cell, cell_of
from attacks.inversion.bench.npy import array_of, bytes_of
from secagg.errors import Code, ConfigError

STORE_FILE = "cells.sqlite3"
STORE_VERSION = 1
"""Of the file's form."""
PRIVATE, PRIVATE_FILE = 0o700, 0o600
"""Permissions of a folder that is made for cells, and of files."""
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

    Whatever reads it raises ConfigError, DATA_MALFORMED, for what is damaged, naming the file and the cell.

    Args:
        folder: where it is; made if it is missing. Folder and file are for their owner alone: the file holds
            the samples themselves.

    Raises:
        ConfigError: DATA_MALFORMED if what is there under its name is no such file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        path = self._path = folder / STORE_FILE
        if path.exists() and not path.is_file():
            raise _foreign(path, "it is no regular file")
        try:
            # What SQLite puts beside the file gets the file's permissions.
            path.touch(mode=PRIVATE_FILE)
            path.chmod(PRIVATE_FILE)
            # Another sweep may be writing to it.
            self._database = sqlite3.connect(path, timeout=60)
        except (sqlite3.Error, OSError) as error:
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
        """Keep a cell that has ended; on disk when this returns.

        Raises:
            ConfigError: CONFIG_INVALID if the file is gone or the disk is full.
        """
        rows = json.dumps([dict(row) for row in outcome.rows])
        with self._written():
            self._database.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)",
                (cell.key, json.dumps(asdict(cell)), rows, outcome.seconds, time.time()),
            )
            for kind, picture in outcome.pictures.items():
                self._database.execute(
                    "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", (cell.key, kind, bytes_of(picture))
                )

    def keys(self) -> set[str]:
        """Of all cells that are there."""
        return {key for (key,) in self._found("SELECT key FROM cells")}

    def check(self) -> None:
        """Read everything once, so that what is damaged shows before anything is played."""
        self.all()
        for key, data in self._found("SELECT key, data FROM pictures"):
            self._picture(key, data)
        for key, row in self._found("SELECT key, row FROM costs"):
            self._cost(key, row)

    def outcomes(self, cells: Sequence[Cell]) -> list[tuple[Cell, Outcome]]:
        """Those of the cells that are there, in the order asked for, without their pictures."""
        found = {cell.key: (cell, outcome) for cell, outcome in self.all()}
        return [found[cell.key] for cell in cells if cell.key in found]

    def all(self) -> list[tuple[Cell, Outcome]]:
        """All cells that are there, in the order in which they ended, without their pictures."""
        ended = []
        for key, cell, rows, seconds in self._found(
            "SELECT key, cell, rows, seconds FROM cells ORDER BY ended"
        ):
            with self.whole(f"cell {key}"):
                outcome = Outcome(rows=[_object(row) for row in _list(rows)], seconds=float(seconds))
                ended.append((cell_of(_object(json.loads(cell))), outcome))
        return ended

    def picture(self, cell: Cell, kind: str) -> Picture | None:
        """A cell's picture of this kind; None if it has none."""
        found = self._found("SELECT data FROM pictures WHERE key = ? AND kind = ?", cell.key, kind)
        return next((self._picture(cell.key, data) for (data,) in found), None)

    def add_cost(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep what encryption costs in one setting; raises as ``add``."""
        with self._written():
            self._database.execute("INSERT OR REPLACE INTO costs VALUES (?, ?)", (key, json.dumps(dict(row))))

    def cost(self, key: str) -> dict[str, Any] | None:
        """What was kept of it; None if nothing was."""
        found = self._found("SELECT row FROM costs WHERE key = ?", key)
        return next((self._cost(key, row) for (row,) in found), None)

    def _found(self, query: str, *values: str) -> Iterator[tuple[Any, ...]]:
        with self.whole("a table"):
            # Not by ``yield from``, which would close the cursor, perhaps after the file.
            for row in self._database.execute(query, values):  # noqa: UP028
                yield row

    def _picture(self, key: str, data: bytes) -> Picture:
        with self.whole(f"a picture of cell {key}"):
            picture = array_of(data)
            if picture.dtype.kind not in "fiu":
                raise ValueError(f"it holds {picture.dtype}")
        return picture

    def _cost(self, key: str, row: str) -> dict[str, Any]:
        with self.whole(f"the cost of {key!r}"):
            return _object(json.loads(row))

    @contextmanager
    def _written(self) -> Iterator[None]:
        """One transaction."""
        if not self._path.exists():  # SQLite would go on in a file that has no name any more
            raise self._unwritable("somebody has removed it")
        try:
            with self._database:
                yield
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    def _unwritable(self, why: object) -> ConfigError:
        return ConfigError(
            Code.CONFIG_INVALID,
            f"{self._path} can't be written to: {why}; what is in it stays, and the same command goes on "
            "from there",
        )

    @contextmanager
    def whole(self, what: str) -> Iterator[None]:
        """What is read within must be what was written; ``what`` names it where it isn't."""
        try:
            yield
        except (
            ValueError,
            TypeError,
            KeyError,
            OverflowError,
            RecursionError,
            sqlite3.DatabaseError,
        ) as error:
            raise ConfigError(
                Code.DATA_MALFORMED,
                f"{self._path}: {what} is damaged ({error}); give another --out, or delete this folder",
            ) from None


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} is no object")
    return value


def _list(text: str) -> list[object]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"{found!r:.40} is no list")
    return found


def _foreign(path: Path, why: object) -> ConfigError:
    return ConfigError(Code.DATA_MALFORMED, f"{path} holds no cells of a sweep ({why}); give another --out")
