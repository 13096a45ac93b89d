"""What a client keeps on disk between processes."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.client.outbox import Digests, Entry, SealedPayload, StateFolder, new_idempotency_key
from secagg.errors import Code, ConfigError, UpdateError
from secagg.selection import Mask

CHUNK_BYTES = 4


@pytest.fixture
def folder(tmp_path):
    opened = StateFolder(tmp_path / "state")
    yield opened
    opened.close()


def sealed(folder: StateFolder, pieces: list[bytes]) -> Entry:
    payload = folder.write_payload(iter(pieces), CHUNK_BYTES)
    assert payload.sha256 == hashlib.sha256(b"".join(pieces)).digest()
    return folder.commit(
        Entry(
            round=3,
            plan=b"plan",
            header=b"header",
            signature=b"s" * 64,
            idempotency_key=new_idempotency_key(),
            size=payload.size,
            chunk_digests=payload.chunk_digests,
            seal_s=0.5,
        )
    )


def reopened(folder: StateFolder) -> StateFolder:
    folder.close()
    return StateFolder(folder.path)


def test_sealed_update_survives_the_process(folder):
    """What was committed is there after a restart, with the same idempotency key and payload."""
    entry = sealed(folder, [b"ab", b"cde"])
    after = reopened(folder)
    try:
        assert after.pending() == entry
        assert after.payload_path.read_bytes() == b"abcde"
        assert not entry.accepted
    finally:
        after.close()


@given(st.lists(st.binary(max_size=20), max_size=12), st.integers(1, 16))
def test_chunk_digests_do_not_depend_on_how_the_payload_came(pieces, chunk_bytes):
    """Each chunk of the joined payload has the digest that was taken while pieces went by."""
    digests = Digests(chunk_bytes)
    for piece in pieces:
        digests.update(piece)
    payload = b"".join(pieces)
    chunks = [payload[at : at + chunk_bytes] for at in range(0, len(payload), chunk_bytes)]
    assert digests.sealed() == SealedPayload(
        size=len(payload),
        sha256=hashlib.sha256(payload).digest(),
        chunk_digests=tuple(hashlib.sha256(chunk).digest() for chunk in chunks),
    )


def test_note_on_the_next_mask_is_kept_for_its_round_alone(folder):
    """It survives the round's outbox and the process, and says nothing about another round."""
    mask = Mask(np.array([True, False, True]))
    folder.keep_required_mask(4, mask)
    folder.discard()
    after = reopened(folder)
    try:
        assert after.required_mask(4) == mask
        assert after.required_mask(5) is None
    finally:
        after.close()


def test_payload_without_commit_is_nothing_to_resume(folder):
    """A crash while sealing leaves a file, but no update."""
    folder.write_payload([b"half"], CHUNK_BYTES)
    assert folder.pending() is None


def test_shortened_payload_is_discarded(folder):
    """An entry whose payload isn't whole would only be refused; it is removed instead."""
    sealed(folder, [b"abcdef"])
    folder.payload_path.write_bytes(b"abc")
    assert folder.pending() is None
    assert not folder.payload_path.exists()


@pytest.mark.parametrize("change", [{"version": 99}, {"header": "xyz"}, {"size": None}])
def test_unreadable_entry_is_discarded(folder, change):
    """An entry of another version or with damaged fields means: train again."""
    sealed(folder, [b"abcdef"])
    path = folder.path / "outbox" / "update.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert folder.pending() is None


def test_accepted_update_lets_its_payload_go(folder):
    """After the receipt only the header is needed; the receipt itself survives."""
    entry = folder.mark_accepted(sealed(folder, [b"abcdef"]), b"u" * 16)
    assert not folder.payload_path.exists()
    assert folder.pending() == entry == replace(entry, update_id=b"u" * 16)
    assert entry.accepted


def test_receipt_of_the_wrong_length_is_refused(folder):
    """An update id is 16 bytes, and a server that answers otherwise is not believed."""
    with pytest.raises(UpdateError) as caught:
        folder.mark_accepted(sealed(folder, [b"abcdef"]), b"")
    assert caught.value.code is Code.ENVELOPE_MALFORMED


def test_state_is_readable_by_its_owner_only(folder):
    """Visible parts and signatures are nobody else's business."""
    sealed(folder, [b"abcdef"])
    assert (folder.path / "outbox").stat().st_mode & 0o077 == 0
    for path in (folder.path / "outbox").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_second_process_is_refused_while_the_first_lives(folder):
    """Two clients in one folder would overwrite each other's update."""
    program = (
        "import sys, pathlib, secagg.client.outbox as o\n"
        "from secagg.errors import ConfigError\n"
        "try: o.StateFolder(pathlib.Path(sys.argv[1])).close()\n"
        "except ConfigError as error: print(error.code)"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(folder.path)], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert other() == "CONFIG_INVALID"
    folder.close()
    assert other() == ""


def test_folder_that_cannot_be_made_is_named(tmp_path):
    """One line with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=str(tmp_path / "file" / "state")) as caught:
        StateFolder(Path(tmp_path / "file" / "state"))
    assert caught.value.code is Code.CONFIG_INVALID
