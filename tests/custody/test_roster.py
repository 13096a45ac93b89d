"""What must hold of the roster: only who is on it now gets in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secagg.custody.roster import Roster, write_roster
from secagg.errors import Code, CustodyError

ALICE, BOB = "a" * 64, "b" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_roster(tmp_path / "roster.json", {"bob": BOB, "alice": ALICE})
    return tmp_path / "roster.json"


def test_enrolled_clients_pass(path: Path) -> None:
    """Name and certificate together."""
    roster = Roster(path)
    roster.require(ALICE, "alice")
    roster.require(BOB, "bob")
    assert roster.names == ("alice", "bob")
    assert roster.entries == {"alice": ALICE, "bob": BOB}
    assert len(roster) == 2
    assert "alice" in roster


@pytest.mark.parametrize(
    ("fingerprint", "name"), [(ALICE, "carol"), (BOB, "alice"), ("", "alice"), (ALICE.upper(), "alice")]
)
def test_anyone_else_is_not_enrolled(path: Path, fingerprint: str, name: str) -> None:
    """An unknown name, and a known one with another certificate."""
    with pytest.raises(CustodyError) as refusal:
        Roster(path).require(fingerprint, name)
    assert refusal.value.code is Code.NOT_ENROLLED
    assert refusal.value.ids == {"client": name}


def test_a_change_of_the_file_is_seen_at_once(path: Path) -> None:
    """Revoking needs no restart, even within one tick of the clock and with the same size."""
    roster = Roster(path)
    roster.require(ALICE, "alice")
    for fingerprint in ("1" * 64, "2" * 64, "3" * 64):
        write_roster(path, {"bob": BOB, "alice": fingerprint})
        roster.require(fingerprint, "alice")
        with pytest.raises(CustodyError, match=Code.NOT_ENROLLED):
            roster.require(ALICE, "alice")
    write_roster(path, {"bob": BOB})
    with pytest.raises(CustodyError, match=Code.NOT_ENROLLED):
        roster.require("3" * 64, "alice")


def test_what_is_handed_out_does_not_change_the_roster(path: Path) -> None:
    """A copy is a copy."""
    roster = Roster(path)
    roster.entries["mallory"] = ALICE
    with pytest.raises(CustodyError, match=Code.NOT_ENROLLED):
        roster.require(ALICE, "mallory")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"version": 2, "clients": {}}).encode(),
        json.dumps({"version": 1, "clients": []}).encode(),
        json.dumps({"version": 1, "clients": {}, "more": 1}).encode(),
        json.dumps({"version": 1, "clients": {"alice": "abc"}}).encode(),
        json.dumps({"version": 1, "clients": {"alice": 1}}).encode(),
        json.dumps({"version": 1, "clients": {"../x": ALICE}}).encode(),
        None,
    ],
)
def test_a_damaged_or_missing_roster_lets_nobody_in(path: Path, content: bytes | None) -> None:
    """Also not those who were on it before."""
    roster = Roster(path)
    roster.require(ALICE, "alice")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CustodyError) as refusal:
        roster.require(ALICE, "alice")
    assert refusal.value.code is Code.IDENTITY_INVALID
    with pytest.raises(CustodyError):
        _ = roster.names
