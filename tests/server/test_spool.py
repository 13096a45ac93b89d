"""The spool: what is written is read back, torn tails go, names stand for whole files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import Code, ServerError, TransferError
from secagg.server.disk import BLOCK_BYTES, write_at
from secagg.server.spool import Spool, digest_of

CHUNK = 4 * BLOCK_BYTES


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@settings(deadline=None, max_examples=60)
@given(
    writes=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3 * BLOCK_BYTES), st.sampled_from([0, BLOCK_BYTES, 2 * BLOCK_BYTES])),
            st.one_of(
                st.integers(0, 3 * BLOCK_BYTES),
                st.sampled_from([BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES]),
            ),
        ),
        max_size=8,
    )
)
def test_bytes_are_written_where_they_belong(
    writes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Aligned or not, past the page cache or through it: the file is what a plain write would make it."""
    path = tmp_path_factory.mktemp("disk") / "file"
    path.touch()
    expected = bytearray()
    for offset, length in writes:
        data = os.urandom(length)
        write_at(path, data, offset)
        if length:
            expected.extend(bytes(max(0, offset + length - len(expected))))
            expected[offset : offset + length] = data
    assert path.read_bytes() == bytes(expected)


def test_nothing_is_written_to_a_file_that_is_gone(tmp_path: Path) -> None:
    """A dropped upload's late chunk makes no new file."""
    with pytest.raises(FileNotFoundError):
        write_at(tmp_path / "gone", bytes(BLOCK_BYTES), 0)
    assert not (tmp_path / "gone").exists()


def test_a_chunk_that_is_corrupt_or_late_changes_nothing(spool: Spool) -> None:
    """Its digest is checked before a byte is written; after the upload was dropped it makes no new file."""
    spool.begin("a")
    spool.write_chunk("a", 0, b"good", hashlib.sha256(b"good").digest())
    with pytest.raises(TransferError) as caught:
        spool.write_chunk("a", 0, b"evil", bytes(32))
    assert caught.value.code is Code.CHUNK_CORRUPT
    assert spool.partial("a").read_bytes() == b"good"
    spool.drop(spool.partial("a"))
    with pytest.raises(TransferError) as caught:
        spool.write_chunk("a", 4, b"late", hashlib.sha256(b"late").digest())
    assert caught.value.code is Code.UPLOAD_UNKNOWN
    assert not spool.partial("a").exists()


@pytest.mark.parametrize(
    "size, whole",
    [
        (0, 0),
        (CHUNK - 1, 0),
        (CHUNK, CHUNK),
        (CHUNK + 5, CHUNK),
        (2 * CHUNK + 7, 2 * CHUNK + 7),
        (2 * CHUNK + 8, 2 * CHUNK),
    ],
)
def test_only_whole_chunks_survive_a_restart(size: int, whole: int, spool: Spool) -> None:
    """A chunk torn by the crash is cut off; a complete payload stays complete."""
    spool.partial("a").write_bytes(bytes(size))
    assert spool.committed("a", 2 * CHUNK + 7, CHUNK) == whole
    assert spool.partial("a").stat().st_size == whole


def test_strays_are_reported_and_leftovers_removed(spool: Spool) -> None:
    """What the journal does not know is removed, or given back to the caller for the current round."""
    for path in (
        spool.partial("known"),
        spool.partial("unknown"),
        spool.scratch(),
        spool.update(1, b"o" * 16),
        spool.update(2, b"a" * 16),
        spool.update(2, b"s" * 16),
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    strays = spool.reconcile({"known"}, 2, [b"a" * 16])
    assert strays == [spool.update(2, b"s" * 16)]
    left = {path.relative_to(spool.root).parts[0] for path in spool.root.rglob("*") if path.is_file()}
    assert left == {"partial", "updates"}
    assert not spool.update(1, b"o" * 16).exists()
    assert not spool.partial("unknown").exists()


def test_a_missing_file_is_the_spools_fault(tmp_path: Path) -> None:
    """SPOOL_CORRUPT, not a traceback about a path."""
    with pytest.raises(ServerError) as caught:
        digest_of(tmp_path / "gone")
    assert caught.value.code is Code.SPOOL_CORRUPT
