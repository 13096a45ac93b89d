"""The journal keeps what it was given, whole, and refuses what it can't read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from secagg.errors import Code, ServerError
from secagg.plan import RoundState
from secagg.rule import Reason, Stage
from secagg.server.events import Acceptance, Confirmation, Round, Vote
from secagg.server.journal import Journal
from secagg.server.records import UploadRecord

FEDERATION = bytes(range(16))

FULL = Round(
    number=1,
    state=RoundState.CLOSED,
    accepted=tuple(
        Acceptance(
            client=c, update_id=c.encode() * 16, sample_count=2**63 - 1, content_sha256=c.encode() * 32
        )
        for c in "ab"
    ),
    screening_sha256=b"x" * 32,
    reasons=(Reason.KEPT, Reason.DUPLICATE),
    statistics_sha256=b"s" * 32,
    votes=(
        Vote(client="b", stage=Stage.SCREENING, weights=(1.0, 0.0), reasons=(0, 1), signature=b"+" * 64),
        Vote(client="a", stage=Stage.SCREENING, weights=(1.0, 1.0), reasons=(0, 0), signature=b"-" * 64),
        Vote(client="b", stage=Stage.STATISTICS, weights=(0.1, 1 / 3), reasons=(0, 0), signature=b"!" * 64),
        Vote(client="a", stage=Stage.STATISTICS, weights=(0.0, 1.0), reasons=(3, 0), signature=b"?" * 64),
    ),
    weights=(65535, 0),
    aggregate_sha256=b"g" * 32,
    confirmations=(
        Confirmation(client="a", next_mask_sha256=b""),
        Confirmation(client="b", next_mask_sha256=b"m" * 32),
    ),
    masks=(b"m" * 32,),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal.open(path, federation_id=FEDERATION)
    yield opened
    opened.close()


def upload(upload_id: str, **changes: object) -> UploadRecord:
    record = UploadRecord(
        upload_id=upload_id,
        round=1,
        client="a",
        kind=1,
        idempotency_key=upload_id.encode(),
        header=b"header",
        signature=b"signature",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def test_a_round_is_read_back_as_it_was_recorded(journal: Journal, path: Path) -> None:
    """Every field, in order, to the last bit of every weight."""
    start = Round(number=1)
    journal.announce(b"plan", start)
    screened = replace(
        FULL,
        state=RoundState.SCREENED,
        reasons=(),
        statistics_sha256=b"",
        votes=FULL.votes[:1],
        confirmations=(),
        masks=(),
        weights=(),
        aggregate_sha256=b"",
    )
    cleared = replace(screened, state=RoundState.CLEARED, votes=FULL.votes[:2], reasons=(0, 1))
    scored = replace(
        cleared, state=RoundState.SCORED, votes=FULL.votes[:3], statistics_sha256=FULL.statistics_sha256
    )
    # The journal keeps nothing but the last commit: what is read between two is the first of them.
    for before, after in pairwise((start, screened, cleared, scored, FULL)):
        journal.record(before, after)
        assert journal.rounds()[0].round == after
    journal.close()
    again = Journal.open(path, federation_id=FEDERATION)
    (entry,) = again.rounds()
    assert entry.plan == b"plan"
    assert entry.round == FULL
    assert [v.signature for v in entry.round.votes] == [v.signature for v in FULL.votes]
    aborted = replace(Round(number=2), state=RoundState.ABORTED, abort_code=Code.NO_DECISION)
    again.announce(b"", Round(number=2))
    again.record(Round(number=2), aborted)
    assert again.rounds()[1].round == aborted
    again.close()


def test_a_step_that_fails_leaves_nothing(journal: Journal) -> None:
    """The same update accepted in another round breaks a constraint: the whole step is undone."""
    journal.announce(b"", Round(number=1))
    journal.record(Round(number=1), replace(FULL, state=RoundState.SEALED))
    journal.announce(b"", Round(number=2))
    wrong = replace(FULL, number=2, state=RoundState.SEALED)
    with pytest.raises(sqlite3.IntegrityError):
        journal.record(Round(number=2), wrong)
    assert journal.rounds()[1].round == Round(number=2)


def test_one_unfinished_upload_per_client_and_kind(journal: Journal) -> None:
    """A new one replaces it; masks and other clients are left alone; accepted ones stay."""
    journal.announce(b"", Round(number=1))
    journal.record(Round(number=1), Round(number=1), opened=upload("one"))
    journal.open_upload(upload("mask", kind=2))
    journal.open_upload(upload("other", client="b"))
    journal.open_upload(upload("two"))
    assert {u.upload_id for u in journal.unfinished_uploads()} == {"two", "mask", "other"}
    journal.record(Round(number=1), Round(number=1), accepted="two")
    journal.open_upload(upload("three"))
    journal.drop_uploads(["two", "three"])
    assert {u.upload_id for u in journal.unfinished_uploads()} == {"mask", "other"}
    kept = journal.upload("two")
    assert kept is not None
    assert kept.accepted
    assert journal.upload_by_key("a", b"two") == kept
    assert journal.upload_by_key("b", b"two") is None


def test_replays_are_found_by_header_and_by_content(journal: Journal) -> None:
    """Whatever was accepted in any round is known for good."""
    journal.announce(b"", Round(number=1))
    journal.record(Round(number=1), FULL)
    found = journal.replays(update_id=b"a" * 16, content_sha256=b"x" * 32)
    assert [(r.round, r.client, r.update_id, r.state) for r in found] == [
        (1, "a", b"a" * 16, RoundState.CLOSED)
    ]
    assert found[0].released
    found = journal.replays(update_id=b"x" * 16, content_sha256=b"b" * 32)
    assert [(r.client, r.update_id) for r in found] == [("b", b"b" * 16)]
    assert journal.replays(update_id=b"x" * 16, content_sha256=b"x" * 32) == []


def test_every_commit_is_synced(journal: Journal) -> None:
    """WAL with synchronous=FULL (2): an acknowledged step survives loss of power."""
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_journal_is_readable_by_its_owner_only(journal: Journal, path: Path) -> None:
    """It tells who took part and when."""
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("fault", ["format", "federation", "garbage"])
def test_a_journal_of_another_kind_is_refused(fault: str, path: Path) -> None:
    """Another version's, another federation's, or no journal: JOURNAL_INCOMPATIBLE, and the file stays."""
    Journal.open(path, federation_id=FEDERATION).close()
    federation = FEDERATION
    if fault == "format":
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
            db.commit()
    elif fault == "federation":
        federation = bytes(16)
    else:
        path.write_bytes(b"this is no database " * 100)
    content = path.read_bytes()
    with pytest.raises(ServerError) as caught:
        Journal.open(path, federation_id=federation)
    assert caught.value.code is Code.JOURNAL_INCOMPATIBLE
    assert path.read_bytes() == content
