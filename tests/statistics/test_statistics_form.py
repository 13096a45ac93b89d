"""A statistics artifact holds what was asked for and nothing else, and is refused whole if anything is
wrong.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from released_statistics import (
    PROFILE,
    ROUND,
    SEED,
    Release,
    layout_of,
    opener,
    spooled,
    vector_of,
)

from secagg.ckks.parameters import HEADER_BYTES
from secagg.ckks.wire import ScalarKind, scalar_bytes
from secagg.errors import CiphertextError, Code
from secagg.rule import Stage, Statistics, StatisticsRequest
from secagg.statistics.draws import WITNESSES
from secagg.statistics.form import Front, Quantity
from secagg.statistics.opening import joined, open_statistics
from secagg.statistics.release import Reference, assemble_statistics

FRONT = Front(
    round=4,
    stage=Stage.STATISTICS,
    update_ids=(b"a" * 16, b"b" * 16),
    sample_counts=(1, 2**63 - 1),
    root=1,
    dropped=3,
    quantities=Quantity.NORM,
    seed=SEED,
    drawn=(1, 2, 3),
)


@cache
def example() -> tuple[bytes, Release]:
    """Two updates in full, with pairs and one reference: every kind of entry."""
    with tempfile.TemporaryDirectory() as name:
        folder, layout, base = Path(name), layout_of("full"), vector_of(9)
        updates = [spooled(folder, layout, vector_of(seed)) for seed in range(2)]
        release = Release(
            updates=updates,
            request=StatisticsRequest(pairs=True, references=1),
            references=[Reference(plain=base)],
            known=[base],
        )
        return release.artifact(folder), release


LINEAR, BILINEAR = (scalar_bytes(kind, PROFILE) for kind in (ScalarKind.LINEAR, ScalarKind.BILINEAR))
IDS_AT = struct.calcsize("<BBQI")
COUNTS_AT = IDS_AT + 2 * 16
TERMS_AT = COUNTS_AT + 2 * 8
DRAWN_AT = TERMS_AT + struct.calcsize("<IIB32sB")
ENTRY_AT = DRAWN_AT + 4
"""The norm of the first update: one bilinear scalar; then ⟨u, g⟩ and the witnesses, a linear one each."""
BASE_AT = ENTRY_AT + 10 + BILINEAR
WITNESS_AT = BASE_AT + 10 + LINEAR
SCALAR_AT = ENTRY_AT + 10


def test_an_artifact_holds_one_scalar_per_entry_and_nothing_else() -> None:
    """Its length is exactly the front's and that of the entries asked for."""
    data, release = example()
    update = 2 * 10 + BILINEAR + LINEAR + WITNESSES * (10 + LINEAR)
    assert len(release.front.to_bytes()) == ENTRY_AT
    assert len(data) == ENTRY_AT + 2 * update + 10 + BILINEAR
    opening = opener()
    open_statistics(data, release.expectation(), opening)
    assert opening.opened == 2 * (2 + WITNESSES) + 1


FAULTS = {
    "version": (0, b"\x01"),
    "stage of the screening": (1, b"\x01"),
    "unknown stage": (1, b"\x03"),
    "round": (2, b"\x05"),
    "no update": (10, struct.pack("<I", 0)),
    "one update": (10, struct.pack("<I", 1)),
    "more updates than there are": (10, struct.pack("<I", 3)),
    "updates beyond all bounds": (10, struct.pack("<I", 2**16 + 1)),
    "the most updates": (10, b"\xff" * 4),
    "repeated id": (IDS_AT, b"\x02" * 16),
    "sample count 0": (COUNTS_AT, bytes(8)),
    "sample count too large": (COUNTS_AT + 8, struct.pack("<Q", 2**63)),
    "root": (TERMS_AT, struct.pack("<I", 0)),
    "root beyond the updates": (TERMS_AT, struct.pack("<I", 2)),
    "dropped beyond all bounds": (TERMS_AT + 4, struct.pack("<I", 2**16)),
    "no quantity": (TERMS_AT + 8, b"\0"),
    "fewer quantities": (TERMS_AT + 8, bytes((Quantity.NORM | Quantity.BASE | Quantity.WITNESS,))),
    "more quantities": (
        TERMS_AT + 8,
        bytes((Quantity.of(StatisticsRequest(pairs=True, references=2), Stage(2)),)),
    ),
    "unknown quantity": (TERMS_AT + 8, b"\x9b"),
    "no block": (DRAWN_AT - 1, b"\0"),
    "two blocks": (DRAWN_AT - 1, b"\x02"),
    "fewer sampled ciphertexts": (DRAWN_AT, struct.pack("<I", 1)),
    "more sampled ciphertexts": (DRAWN_AT, struct.pack("<I", 3)),
    "visible part infinite": (ENTRY_AT, np.float64(np.inf).tobytes()),
    "visible part not a number": (BASE_AT, np.float64(np.nan).tobytes()),
    "no scalar": (ENTRY_AT + 8, b"\0"),
    "two scalars": (ENTRY_AT + 8, b"\x02"),
    "255 scalars": (ENTRY_AT + 8, b"\xff"),
    "kind 0": (ENTRY_AT + 9, b"\0"),
    "unknown kind": (ENTRY_AT + 9, b"\x07"),
    "linear where bilinear belongs": (ENTRY_AT + 9, bytes((ScalarKind.LINEAR,))),
    "bilinear where linear belongs": (WITNESS_AT + 9, bytes((ScalarKind.BILINEAR,))),
}


@pytest.mark.parametrize(("at", "new"), FAULTS.values(), ids=FAULTS)
def test_malformed_statistics_are_refused_and_nothing_is_opened(at: int, new: bytes) -> None:
    """One fault each."""
    data, release = example()
    faulty = data[:at] + new + data[at + len(new) :]
    assert faulty != data
    opening = opener()
    with pytest.raises(CiphertextError) as caught:
        open_statistics(faulty, release.expectation(), opening)
    assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opening.opened == 0


def test_entries_of_other_scalars_than_their_quantity_has_are_refused_and_not_opened() -> None:
    """Each is an honest entry, of another quantity: a norm that a plain vector gives, a witness of two
    updates, a
    product with g of none or of two plain vectors.
    """
    data, release = example()
    norm, linear = data[ENTRY_AT:BASE_AT], data[BASE_AT:WITNESS_AT]
    rest, none = data[WITNESS_AT:], data[BASE_AT : BASE_AT + 8] + b"\0"
    two = data[BASE_AT : BASE_AT + 8] + b"\2" + linear[9:] + linear[9:]
    opening = opener()
    for entries in ((linear, linear), (none, linear), (norm, none), (norm, two), (norm, linear, norm)):
        following = rest[10 + LINEAR :] if len(entries) == 3 else rest
        with pytest.raises(CiphertextError, match="an entry of scalars") as caught:
            open_statistics(data[:ENTRY_AT] + b"".join(entries) + following, release.expectation(), opening)
        assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opening.opened == 0


@pytest.mark.parametrize(
    ("at", "new", "code"),
    [
        (SCALAR_AT, b"\x05", Code.CIPHERTEXT_MALFORMED),
        (SCALAR_AT + 2, b"\x06", Code.PROFILE_MISMATCH),
        (SCALAR_AT + HEADER_BYTES, bytes((ScalarKind.LINEAR,)), Code.CIPHERTEXT_MALFORMED),
        (SCALAR_AT + 16, b"\xff" * 9, Code.CIPHERTEXT_MALFORMED),
        (-9, b"\xff" * 9, Code.CIPHERTEXT_MALFORMED),
    ],
    ids=["version", "profile", "kind", "residue", "last residue"],
)
def test_malformed_scalars_are_refused(at: int, new: bytes, code: Code) -> None:
    """With the codes of their own bytes."""
    data, release = example()
    at %= len(data)
    faulty = data[:at] + new + data[at + len(new) :]
    with pytest.raises(CiphertextError) as caught:
        open_statistics(faulty, release.expectation(), opener())
    assert caught.value.code is code


def test_statistics_of_another_length_are_refused_and_nothing_is_opened() -> None:
    """Empty, cut in the front, in an entry, before the last byte; extended."""
    data, release = example()
    opening = opener()
    cuts = (*range(ENTRY_AT + 12), BASE_AT - 1, BASE_AT, WITNESS_AT + 3, len(data) - 1)
    for faulty in (*(data[:end] for end in cuts), data + b"\0", data + data[ENTRY_AT:]):
        with pytest.raises(CiphertextError) as caught:
            open_statistics(faulty, release.expectation(), opening)
        assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opening.opened == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"round": ROUND + 1},
        {"stage": Stage.SCREENING},
        {"min_updates": 3},
        {"max_updates": 1},
        {"request": StatisticsRequest(pairs=True, references=2), "same_models": False},
        {"layout": layout_of("full", (("last",),))},
        {"layout": layout_of("plain")},
        {"request": StatisticsRequest(references=1)},
        {"request": StatisticsRequest(pairs=True)},
        {"request": StatisticsRequest(pairs=True, references=2)},
        {"request": StatisticsRequest(pairs=True, references=1, history=True)},
        {"request": StatisticsRequest(pairs=True, references=1, root=True)},
        {"request": StatisticsRequest(pairs=True, references=1, sample=0.5)},
        {"request": StatisticsRequest(pairs=True, references=1, screened=True)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_statistics_that_were_not_asked_for_are_not_opened(changes: dict[str, object]) -> None:
    """Neither more nor less than the rule's request, of this round and stage, and of as many as are
    promised.
    """
    data, release = example()
    opening = opener()
    with pytest.raises(CiphertextError) as caught:
        open_statistics(data, release.expectation(**changes), opening)
    assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opening.opened == 0


def test_dropped_updates_count_as_promised_ones(tmp_path: Path) -> None:
    """Who was screened out had come."""
    update = spooled(tmp_path, layout_of("plain"), vector_of(1))
    release = Release(updates=[update], request=StatisticsRequest(), dropped=2)
    data = release.artifact(tmp_path)
    assert open_statistics(data, release.expectation(min_updates=3), None).dropped == 2
    with pytest.raises(CiphertextError, match="at least 4"):
        open_statistics(data, release.expectation(min_updates=4), None)


def screening_of(*letters: str, counts: tuple[int, ...] | None = None) -> Statistics:
    """Statistics of these updates, told apart by their norms."""
    size = len(letters)
    blocks = np.full((1, size + 2, size + 2), np.nan)
    for place, letter in enumerate(letters):
        blocks[0, place, place] = ord(letter)
    return Statistics(
        round=ROUND,
        update_ids=letters,
        blocks=blocks,
        sample_counts=np.array(counts or [ord(letter) for letter in letters]),
        witnesses=np.array([ord(letter) / 1000 for letter in letters]),
    )


def test_both_stages_must_speak_of_the_same_updates() -> None:
    """In the same order, with the same counts; and what is dropped must be what is missing."""
    first = screening_of("a", "b", "c")
    good = replace(screening_of("a", "c"), dropped=1, witnesses=None)
    both = joined(first, good)
    assert np.diagonal(both.blocks[0])[:2].tolist() == [97, 99]
    assert both.witnesses is not None and both.witnesses.tolist() == [0.097, 0.099]
    for faulty in (
        replace(screening_of("c", "a"), dropped=1),
        replace(screening_of("c", "a", counts=(97, 99)), dropped=1),
        replace(screening_of("a", "d", counts=(97, 99)), dropped=1),
        replace(screening_of("a", "d"), dropped=1),
        replace(screening_of("a", "c"), dropped=0),
        replace(screening_of("a", "c"), dropped=2),
        replace(screening_of("a", "c", counts=(97, 98)), dropped=1),
        screening_of("a", "b", "c", "d"),
    ):
        with pytest.raises(CiphertextError) as caught:
            joined(first, faulty)
        assert caught.value.code is Code.STATISTICS_MALFORMED


def test_an_artifact_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A piece that can't be had leaves no file."""

    def pieces() -> list[bytes]:
        raise OSError("gone")
        yield b""

    with pytest.raises(OSError, match="gone"):
        assemble_statistics(tmp_path / "statistics", FRONT, pieces())
    assert list(tmp_path.iterdir()) == []


def test_hidden_entries_need_an_opener() -> None:
    """A caller's mistake, told before anything is opened."""
    data, release = example()
    with pytest.raises(ValueError, match="needs an opener"):
        open_statistics(data, release.expectation(), None)
