"""What a statistics artifact says of itself, and which entries follow in which order."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st
from released_statistics import (
    SEED,
)

from secagg.errors import CiphertextError, Code
from secagg.rule import Stage, StatisticsRequest
from secagg.statistics.form import Front, Quantity, Reader, pairs_in

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


@st.composite
def fronts(draw: st.DrawFn) -> Front:
    """Any front that an artifact can have."""
    size = draw(st.integers(1, 9))
    ids = draw(st.lists(st.binary(min_size=16, max_size=16), min_size=size, max_size=size, unique=True))
    counts = draw(st.lists(st.integers(1, 2**63 - 1), min_size=size, max_size=size))
    return Front(
        round=draw(st.integers(0, 2**64 - 1)),
        stage=draw(st.sampled_from(Stage)),
        update_ids=tuple(ids),
        sample_counts=tuple(counts),
        root=draw(st.none() | st.integers(0, size - 1)),
        dropped=draw(st.integers(0, 2**16 - 1)),
        quantities=Quantity(draw(st.integers(1, 127))),
        seed=draw(st.binary(min_size=32, max_size=32)),
        drawn=tuple(draw(st.lists(st.integers(0, 2**32 - 1), max_size=5))),
    )


@given(fronts())
def test_a_front_survives_its_bytes(front: Front) -> None:
    """Parsing inverts writing, and takes what belongs to it, no more."""
    reader = Reader(front.to_bytes() + b"rest")
    assert Front.read(reader) == front
    assert bytes(reader.take(4)) == b"rest"
    reader.end()


@given(fronts(), st.data())
def test_a_changed_front_is_refused_or_is_another_front(front: Front, data: st.DataObject) -> None:
    """Nothing but the typed refusal comes out of the parser, and no byte is without a meaning."""
    original = front.to_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        reader = Reader(bytes(changed))
        parsed = Front.read(reader)
        reader.end()
    except CiphertextError as error:
        assert error.code is Code.STATISTICS_MALFORMED
    else:
        assert parsed != front
        assert parsed.to_bytes() == changed


@pytest.mark.parametrize(
    "changes",
    [
        {"update_ids": (), "sample_counts": ()},
        {"update_ids": (b"a" * 16, b"a" * 16)},
        {"update_ids": (b"a" * 16, b"short")},
        {"sample_counts": (1,)},
        {"seed": b"short"},
        {"quantities": Quantity(0)},
        {"root": 2},
        {"root": -1},
    ],
)
def test_fronts_that_no_artifact_has_are_not_made(changes: dict[str, object]) -> None:
    """A caller's mistake."""
    with pytest.raises(ValueError, match=r"updates|one count"):
        replace(FRONT, **changes)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("quantity", [Quantity.PAIR, Quantity.HISTORY])
def test_tiles_cover_each_pair_once(size: int, sampled: bool, quantity: Quantity) -> None:
    """In squares of at most 16 rows and 16 columns; with the diagonal where norms go with the pairs."""
    front = replace(
        FRONT, update_ids=tuple(bytes([i]) * 16 for i in range(size)), sample_counts=(1,) * size, root=None
    )
    summed = quantity is Quantity.HISTORY
    tiles = [pairs_in(tile, summed=summed, sampled=sampled) for tile in front.tiles(quantity)]
    pairs = [pair for tile in tiles for pair in tile]
    with_norms = sampled or summed
    wanted = combinations_with_replacement(range(size), 2) if with_norms else combinations(range(size), 2)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set(wanted)
    for tile in tiles:
        for column in zip(*tile, strict=True):
            assert len({place // 16 for place in column}) == 1


@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_tiles_of_the_root_pair_it_with_everybody_else(size: int) -> None:
    """Wherever it stands."""
    ids = tuple(i.to_bytes(16) for i in range(size))
    for root in {0, size // 2, size - 1}:
        front = replace(FRONT, update_ids=ids, sample_counts=(1,) * size, root=root)
        tiles = list(front.tiles(Quantity.ROOT))
        assert [pair for tile in tiles for pair in tile] == [(i, root) for i in range(size) if i != root]
        assert all(0 < len(tile) <= 256 for tile in tiles)


@pytest.mark.parametrize(
    ("request_", "screening", "rest"),
    [
        (StatisticsRequest(), "NW", "NW"),
        (StatisticsRequest(pairs=True), "NWP", "NWP"),
        (StatisticsRequest(references=1), "NWB", "NWB"),
        (StatisticsRequest(references=2, root=True), "NWBER", "NWBER"),
        (StatisticsRequest(references=2, screened=True, pairs=True), "NWBE", "P"),
        (StatisticsRequest(screened=True, root=True, history=True), "NW", "RH"),
        (StatisticsRequest(screened=True, root=True, pairs=True), "NW", "P"),
    ],
)
def test_what_is_released_follows_from_the_request(
    request_: StatisticsRequest, screening: str, rest: str
) -> None:
    """Norms and witnesses always; with screening nothing of a pair before it, and nothing twice."""
    letters = dict(zip("NBEWPRH", Quantity, strict=True))
    for stage, wanted in ((Stage.SCREENING, screening), (Stage.STATISTICS, rest)):
        found = Quantity.of(request_, stage)
        assert set(found) == {letters[letter] for letter in wanted}, stage


def test_the_model_before_is_not_compared_with_where_it_is_the_base() -> None:
    """As in the first round: the same number would be released twice, with other noise."""
    request = StatisticsRequest(references=2)
    one = Quantity.of(request, Stage.STATISTICS, same_models=True)
    assert one == Quantity.of(replace(request, references=1), Stage.STATISTICS)
