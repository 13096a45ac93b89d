"""Differences add up on ciphertexts, round after round, to the model that whoever joins late opens too."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg.aggregate import (
    Additions,
    AggregateFile,
    Onto,
    Shares,
    WeightedUpdates,
    lay_out,
    mean_error_bound,
    open_aggregate,
    write_aggregate,
    write_sums,
)
from secagg.ckks import KeyPair, Opener, Sealer, generate, profile
from secagg.errors import CiphertextError, Code
from secagg.payload import seal_update
from secagg.plan import Protection, Significance
from secagg.scales import Scales
from secagg.selection import Layout, derive_mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(TensorSpec(name="first", shape=(70, 100)), TensorSpec(name="last", shape=(10, 70)))
)
LASTING = {
    "plain": Protection.plain(),
    "full": Protection.full(),
    "layers": Protection.selective(significance=Significance.LAYERS, layers=("first",)),
}
CHANGING = Protection.selective(significance=Significance.RANDOM, ratio=0.2)
PROFILE = profile("robust")
DIVISOR = 512
Flat = NDArray[np.float32]


@cache
def pair() -> KeyPair:
    """One key pair for all tests."""
    return generate(PROFILE)


def layout_of(protection: Protection, round: int, blocks: tuple[tuple[str, ...], ...] = ()) -> Layout:
    """The layout of a round."""
    return Layout(MANIFEST, derive_mask(protection, MANIFEST, bytes(16), round), blocks)


def vector_of(seed: int) -> Flat:
    """A difference."""
    return np.random.default_rng(seed).normal(0, 0.1, MANIFEST.size).astype(np.float32)


INITIAL = vector_of(99)


def sum_of(
    folder: Path, round: int, layout: Layout, weights: dict[int, int], additions: Additions
) -> tuple[AggregateFile, WeightedUpdates]:
    """A round's aggregate of the differences with these seeds, and what it is made of."""
    sealer = Sealer(pair().secret)
    paths = []
    for seed in weights:
        path = folder / f"update-{round}-{seed}"
        path.write_bytes(b"".join(seal_update(vector_of(seed), layout, sealer)))
        paths.append(path)
    made_of = WeightedUpdates(
        round=round,
        paths=tuple(paths),
        weights=tuple(weights.values()),
        layout=layout,
        profile=PROFILE,
        additions=additions,
    )
    out = folder / f"aggregate-{round}"
    write_aggregate(out, made_of)
    return AggregateFile(path=out, round=round, layout=layout, profile=PROFILE), made_of


def opened(file: AggregateFile, onto: Onto | None) -> Flat:
    """The model that an aggregate stands for."""
    return open_aggregate(
        file.path,
        round=file.round,
        layout=file.layout,
        profile=PROFILE,
        opener=Opener(pair().secret),
        onto=onto,
    )


ROUNDS = [{1: 256, 2: 256}, {3: 700, 4: 0, 5: 12}, {6: 1}, {7: 512, 8: 100, 9: 400}]
"""Integer weights by seed; one round takes a shorter step than the mean, one a longer."""


@pytest.mark.parametrize("mode", LASTING)
@pytest.mark.parametrize("blocks", [(), (("last",),), (("last",), ("first",))])
def test_rounds_add_up_exactly_from_the_first_one_on(
    tmp_path: Path, mode: str, blocks: tuple[tuple[str, ...], ...]
) -> None:
    """After four rounds, one of them aborted: g + Σ_t Σ_i W_ti/512·u_ti, within the sum of the rounds'
    bounds.

    Who opens the last aggregate alone has the model bit for bit: it adds to the initial one.
    """
    layout, before, bound = layout_of(LASTING[mode], 1, blocks), None, 0.0
    exact = INITIAL.astype(np.float64)
    for number, weights in enumerate(ROUNDS, start=1):
        if number == 3:
            continue  # aborted: the next one adds to the second
        additions = Additions(divisor=DIVISOR, since=0, before=before)
        before, made_of = sum_of(tmp_path, number, layout, weights, additions)
        assert before.since() == 0 and before.weight_total() == DIVISOR
        exact += sum(w / DIVISOR * vector_of(seed).astype(np.float64) for seed, w in weights.items())
        bound += mean_error_bound(made_of) if mode != "plain" else 0.0
        # Visible sums and the model are rounded to float32 in each round.
        rounding = (number + 1) * float(np.spacing(np.float32(np.abs(exact).max())))
        now = opened(before, Onto(since=0, model=INITIAL, divisor=DIVISOR))
        assert np.abs(now - exact).max() <= bound + rounding
    newcomer = opened(before, Onto(since=0, model=INITIAL.copy()))
    assert np.array_equal(newcomer, now)


def test_where_masks_change_each_aggregate_adds_to_the_model_before(tmp_path: Path) -> None:
    """A chain: a newcomer that opens it from the first round on has the same bits."""
    exact, bound, since = INITIAL.astype(np.float64), 0.0, 0
    files, models = [], {0: INITIAL}
    for number, weights in enumerate(ROUNDS, start=1):
        layout = layout_of(CHANGING, number)
        additions = Additions(divisor=DIVISOR, since=since)
        file, made_of = sum_of(tmp_path, number, layout, weights, additions)
        assert file.since() == since
        exact += sum(w / DIVISOR * vector_of(seed).astype(np.float64) for seed, w in weights.items())
        bound += mean_error_bound(made_of)
        models[number] = opened(file, Onto(since=since, model=models[since], divisor=DIVISOR))
        rounding = (number + 1) * float(np.spacing(np.float32(np.abs(exact).max())))
        assert np.abs(models[number] - exact).max() <= bound + rounding
        files.append(file)
        since = number
    model = INITIAL.copy()
    for file in files:
        model = opened(file, Onto(since=file.since() or 0, model=model))
    assert np.array_equal(model, models[4])


def test_parts_written_apart_and_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    """Onto an earlier aggregate, too; and every time the same."""
    layout = layout_of(LASTING["layers"], 1)
    first, _ = sum_of(tmp_path, 1, layout, ROUNDS[0], Additions(divisor=DIVISOR, since=0))
    second, made_of = sum_of(
        tmp_path, 2, layout, ROUNDS[1], Additions(divisor=DIVISOR, since=0, before=first)
    )
    with (tmp_path / "parts").open("w+b") as file:
        lay_out(file, made_of)
    for block, count in enumerate(layout.hidden_counts):
        last = PROFILE.ciphertext_count(count)
        for part in (range(1, last), range(0, min(1, last))):
            with (tmp_path / "parts").open("r+b") as file:
                write_sums(file, made_of, block, part)
    assert (tmp_path / "parts").read_bytes() == second.path.read_bytes()
    assert second.path.read_bytes() != first.path.read_bytes()


def example(folder: Path) -> AggregateFile:
    """Round 3's, which adds to the model of round 2."""
    layout = layout_of(CHANGING, 3)
    return sum_of(folder, 3, layout, {1: 512}, Additions(divisor=DIVISOR, since=2))[0]


@pytest.mark.parametrize(
    ("onto", "complaint"),
    [
        (None, "not what was agreed"),
        (Onto(since=0, model=INITIAL), "model of round 2"),
        (Onto(since=1, model=INITIAL, divisor=DIVISOR), "model of round 2"),
        (Onto(since=2, model=INITIAL, divisor=1024), "divisor is 512; the plan's is 1024"),
        (Onto(since=2, model=INITIAL, divisor=1), "divisor is 512"),
    ],
)
def test_an_aggregate_that_adds_to_something_else_is_refused(
    tmp_path: Path, onto: Onto | None, complaint: str
) -> None:
    """Another round's model, another divisor, or none at all: AGGREGATE_MALFORMED."""
    with pytest.raises(CiphertextError, match=complaint) as caught:
        opened(example(tmp_path), onto)
    assert caught.value.code is Code.AGGREGATE_MALFORMED


def test_a_mean_of_models_is_not_taken_for_differences(tmp_path: Path) -> None:
    """Nor does it say that it adds to anything."""
    layout = layout_of(LASTING["full"], 1)
    path = tmp_path / "update"
    path.write_bytes(b"".join(seal_update(vector_of(1), layout, Sealer(pair().secret))))
    out = tmp_path / "aggregate"
    write_aggregate(
        out, WeightedUpdates(round=1, paths=(path,), weights=(3,), layout=layout, profile=PROFILE)
    )
    file = AggregateFile(path=out, round=1, layout=layout, profile=PROFILE)
    assert file.since() is None
    with pytest.raises(CiphertextError) as caught:
        opened(file, Onto(since=0, model=INITIAL))
    assert caught.value.code is Code.AGGREGATE_MALFORMED


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (0, b"\x02"),
        (1, struct.pack("<Q", 4)),
        (9, b"\0"),
        (9, b"\x02"),
        (10, struct.pack("<Q", 0)),
        (10, struct.pack("<Q", 1)),
        (10, struct.pack("<Q", 3)),
        (10, b"\xff" * 8),
        (18, struct.pack("<Q", 0)),
        (18, struct.pack("<Q", 511)),
        (18, struct.pack("<Q", 1025)),
    ],
    ids=[
        "version",
        "round",
        "models",
        "unknown content",
        "adds to the initial model",
        "adds to another model",
        "adds to itself",
        "adds to the future",
        "divisor 0",
        "another divisor",
        "divisor beyond the headroom",
    ],
)
def test_malformed_fronts_are_refused(tmp_path: Path, at: int, new: bytes) -> None:
    """One fault each, whether or not the divisor is known."""
    file = example(tmp_path)
    data = file.path.read_bytes()
    file.path.write_bytes(data[:at] + new + data[at + len(new) :])
    for divisor in (DIVISOR, None):
        with pytest.raises(CiphertextError) as caught:
            opened(file, Onto(since=2, model=INITIAL, divisor=divisor))
        assert caught.value.code is Code.AGGREGATE_MALFORMED


def test_quantising_profiles_sum_models_only(tmp_path: Path) -> None:
    """A caller's mistake: their sums have no room for rounds on top of each other."""
    layout, scales = layout_of(LASTING["full"], 1), Scales(exponents=(0, 0))
    with pytest.raises(ValueError, match="does not sum differences"):
        WeightedUpdates(
            round=1,
            paths=(tmp_path / "none",),
            weights=(1,),
            layout=layout,
            profile=profile("compact"),
            shares=Shares(unit=1, scales=scales),
            additions=Additions(divisor=1, since=0),
        )
