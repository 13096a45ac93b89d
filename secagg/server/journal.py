"""What the server may not forget, in SQLite: every commit is on disk before anything is answered or done."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secagg.errors import Code, ServerError
from secagg.plan import RoundState
from secagg.rule import Stage
from secagg.server.events import Acceptance, Confirmation, Round, Vote
from secagg.server.records import JournalledRound, Replay, UploadRecord

FORMAT_VERSION = 3

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE rounds (
    number INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    plan BLOB NOT NULL,
    screening_sha256 BLOB NOT NULL,
    reasons TEXT NOT NULL,
    statistics_sha256 BLOB NOT NULL,
    weights TEXT NOT NULL,
    aggregate_sha256 BLOB NOT NULL,
    abort_code TEXT
);
CREATE TABLE acceptances (
    round INTEGER NOT NULL REFERENCES rounds (number),
    position INTEGER NOT NULL,
    client TEXT NOT NULL,
    update_id BLOB NOT NULL UNIQUE,
    sample_count INTEGER NOT NULL,
    content_sha256 BLOB NOT NULL,
    scales BLOB NOT NULL,
    PRIMARY KEY (round, client),
    UNIQUE (round, position)
) WITHOUT ROWID;
CREATE INDEX acceptances_by_content ON acceptances (content_sha256);
CREATE TABLE ballots (
    round INTEGER NOT NULL REFERENCES rounds (number),
    position INTEGER NOT NULL,
    client TEXT NOT NULL,
    stage INTEGER NOT NULL,
    weights TEXT NOT NULL,
    reasons TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (round, client, stage),
    UNIQUE (round, position)
) WITHOUT ROWID;
CREATE TABLE confirmations (
    round INTEGER NOT NULL REFERENCES rounds (number),
    position INTEGER NOT NULL,
    client TEXT NOT NULL,
    next_mask_sha256 BLOB NOT NULL,
    PRIMARY KEY (round, client),
    UNIQUE (round, position)
) WITHOUT ROWID;
CREATE TABLE masks (
    round INTEGER NOT NULL REFERENCES rounds (number),
    position INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (round, sha256),
    UNIQUE (round, position)
) WITHOUT ROWID;
CREATE TABLE uploads (
    upload_id TEXT PRIMARY KEY,
    round INTEGER NOT NULL REFERENCES rounds (number),
    client TEXT NOT NULL,
    kind INTEGER NOT NULL,
    idempotency_key BLOB NOT NULL,
    header BLOB NOT NULL,
    signature BLOB NOT NULL,
    accepted INTEGER NOT NULL,
    UNIQUE (client, idempotency_key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_unfinished_upload ON uploads (client, kind) WHERE accepted = 0;
"""


class Journal:
    """The journal of one federation's server; one per server folder, used from one thread at a time.

    SQLite runs in WAL mode with ``synchronous=FULL``: a commit is synced before the call returns, and
    one that a crash interrupts is absent as a whole.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @classmethod
    def open(cls, path: Path, *, federation_id: bytes) -> Journal:
        """Opens the journal, or makes it.

        Raises:
            ServerError: JOURNAL_INCOMPATIBLE if it is of another format version or federation, or not
                a journal at all.
        """
        # The server uses the journal from one thread of its own, which is not the one that opens it.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            journal = cls(db)
            with journal._transaction():
                journal._prepare(path, federation_id)
        except sqlite3.DatabaseError as error:
            db.close()
            raise ServerError(
                Code.JOURNAL_INCOMPATIBLE, f"{path} is not a journal this version can read: {error}"
            ) from None
        except ServerError:
            db.close()
            raise
        return journal

    def close(self) -> None:
        """Closes the file; nothing uncommitted exists."""
        self._db.close()

    def _prepare(self, path: Path, federation_id: bytes) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            values = {"format": str(FORMAT_VERSION).encode(), "federation_id": federation_id}
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("format") != str(FORMAT_VERSION).encode():
            raise ServerError(
                Code.JOURNAL_INCOMPATIBLE,
                f"{path} has format {meta.get('format')!r}; this version reads {FORMAT_VERSION}",
            )
        if meta.get("federation_id") != federation_id:
            raise ServerError(Code.JOURNAL_INCOMPATIBLE, f"{path} belongs to another federation")

    def announce(self, plan: bytes, round_: Round) -> None:
        """Commits a new round."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO rounds VALUES (?, ?, ?, ?, '[]', ?, '[]', ?, NULL)",
                (round_.number, int(round_.state), plan, b"", b"", b""),
            )

    def record(
        self, before: Round, after: Round, *, accepted: str | None = None, opened: UploadRecord | None = None
    ) -> None:
        """Commits one step of a round, whole: its state, and what ``after`` has more than ``before``.

        Args:
            accepted: id of the upload that this step accepts.
            opened: an upload that this step begins; it replaces the client's unfinished one of its kind.
        """
        with self._transaction():
            if opened is not None:
                self._open_upload(opened)
            if accepted is not None:
                self._db.execute("UPDATE uploads SET accepted = 1 WHERE upload_id = ?", (accepted,))
            self._append("acceptances", before.accepted, after.accepted, after.number)
            self._append("ballots", before.votes, after.votes, after.number)
            self._append("confirmations", before.confirmations, after.confirmations, after.number)
            self._append("masks", before.masks, after.masks, after.number)
            self._db.execute(
                "UPDATE rounds SET state = ?, screening_sha256 = ?, reasons = ?, statistics_sha256 = ?,"
                " weights = ?, aggregate_sha256 = ?, abort_code = ? WHERE number = ?",
                (
                    int(after.state),
                    after.screening_sha256,
                    json.dumps(after.reasons),
                    after.statistics_sha256,
                    json.dumps(after.weights),
                    after.aggregate_sha256,
                    after.abort_code,
                    after.number,
                ),
            )

    def rounds(self) -> list[JournalledRound]:
        """All rounds ever held, in order."""
        rows = self._db.execute(
            "SELECT number, state, plan, screening_sha256, reasons, statistics_sha256, weights,"
            " aggregate_sha256, abort_code FROM rounds ORDER BY number"
        ).fetchall()
        return [JournalledRound(plan=row[2], round=self._round(row)) for row in rows]

    def unfinished_uploads(self) -> list[UploadRecord]:
        """Announced uploads that have been neither accepted nor dropped."""
        return self._uploads("accepted = 0")

    def upload(self, upload_id: str) -> UploadRecord | None:
        """An announced or accepted upload by its id."""
        return next(iter(self._uploads("upload_id = ?", upload_id)), None)

    def upload_by_key(self, client: str, idempotency_key: bytes) -> UploadRecord | None:
        """A client's upload by the key it chose."""
        return next(iter(self._uploads("client = ? AND idempotency_key = ?", client, idempotency_key)), None)

    def open_upload(self, upload: UploadRecord) -> None:
        """Commits an announced upload; it replaces the client's unfinished one of its kind."""
        with self._transaction():
            self._open_upload(upload)

    def drop_uploads(self, upload_ids: Iterable[str]) -> None:
        """Forgets unfinished uploads; accepted ones stay."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM uploads WHERE upload_id = ? AND accepted = 0", [(i,) for i in upload_ids]
            )

    def replays(self, *, update_id: bytes, content_sha256: bytes) -> list[Replay]:
        """Accepted updates with this header or this content, by round."""
        rows = self._db.execute(
            "SELECT a.round, a.client, a.update_id, r.state,"
            " length(r.screening_sha256) + length(r.statistics_sha256) > 0"
            " FROM acceptances a JOIN rounds r ON r.number = a.round"
            " WHERE a.update_id = ? OR a.content_sha256 = ? ORDER BY a.round",
            (update_id, content_sha256),
        )
        return [
            Replay(
                round=number, client=client, update_id=found, state=RoundState(state), released=bool(released)
            )
            for number, client, found, state, released in rows
        ]

    def _open_upload(self, upload: UploadRecord) -> None:
        self._db.execute(
            "DELETE FROM uploads WHERE client = ? AND kind = ? AND accepted = 0", (upload.client, upload.kind)
        )
        self._db.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (
                upload.upload_id,
                upload.round,
                upload.client,
                upload.kind,
                upload.idempotency_key,
                upload.header,
                upload.signature,
            ),
        )

    def _uploads(self, where: str, *values: object) -> list[UploadRecord]:
        # `where` is one of this file's literals.
        columns = "upload_id, round, client, kind, idempotency_key, header, signature, accepted"
        rows = self._db.execute(f"SELECT {columns} FROM uploads WHERE {where}", values)  # noqa: S608
        return [
            UploadRecord(
                upload_id=row[0],
                round=row[1],
                client=row[2],
                kind=row[3],
                idempotency_key=row[4],
                header=row[5],
                signature=row[6],
                accepted=bool(row[7]),
            )
            for row in rows
        ]

    def _append(
        self,
        table: str,
        before: tuple[Acceptance | Vote | Confirmation | bytes, ...],
        after: tuple[Acceptance | Vote | Confirmation | bytes, ...],
        number: int,
    ) -> None:
        for position, entry in enumerate(after[len(before) :], start=len(before)):
            columns = _columns(entry)
            marks = ", ".join("?" * (2 + len(columns)))
            self._db.execute(f"INSERT INTO {table} VALUES ({marks})", (number, position, *columns))  # noqa: S608

    def _round(self, row: tuple[int, int, bytes, bytes, str, bytes, str, bytes, str | None]) -> Round:
        number, state, _, screening, reasons, statistics, weights, aggregate, abort_code = row
        return Round(
            number=number,
            state=RoundState(state),
            accepted=tuple(
                Acceptance(
                    client=client,
                    update_id=update_id,
                    sample_count=count,
                    content_sha256=content,
                    scales=scales,
                )
                for client, update_id, count, content, scales in self._entries(
                    "SELECT client, update_id, sample_count, content_sha256, scales FROM acceptances", number
                )
            ),
            screening_sha256=screening,
            reasons=tuple(json.loads(reasons)),
            statistics_sha256=statistics,
            votes=tuple(
                Vote(
                    client=client,
                    stage=Stage(stage),
                    weights=tuple(json.loads(cast)),
                    reasons=tuple(json.loads(why)),
                    signature=signature,
                )
                for client, stage, cast, why, signature in self._entries(
                    "SELECT client, stage, weights, reasons, signature FROM ballots", number
                )
            ),
            weights=tuple(json.loads(weights)),
            aggregate_sha256=aggregate,
            confirmations=tuple(
                Confirmation(client=client, next_mask_sha256=digest)
                for client, digest in self._entries(
                    "SELECT client, next_mask_sha256 FROM confirmations", number
                )
            ),
            masks=tuple(digest for (digest,) in self._entries("SELECT sha256 FROM masks", number)),
            abort_code=Code(abort_code) if abort_code else None,
        )

    def _entries(self, select: str, number: int) -> list[tuple]:  # type: ignore[type-arg]
        return self._db.execute(f"{select} WHERE round = ? ORDER BY position", (number,)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE … COMMIT; rolled back if the block or the commit fails."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _columns(entry: Acceptance | Vote | Confirmation | bytes) -> tuple[object, ...]:
    """A row's columns after round and position, in the order of its table."""
    match entry:
        case Acceptance():
            return (
                entry.client,
                entry.update_id,
                entry.sample_count,
                entry.content_sha256,
                entry.scales,
            )
        case Vote():
            # JSON keeps a double's shortest exact form, so what is read back is the same number.
            return (
                entry.client,
                int(entry.stage),
                json.dumps(entry.weights),
                json.dumps(entry.reasons),
                entry.signature,
            )
        case Confirmation():
            return (entry.client, entry.next_mask_sha256)
        case bytes():
            return (entry,)
