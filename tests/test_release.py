"""The statistics artifact opens to the augmented Gram matrix; it holds one scalar per entry, nothing else."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from secagg.aggregate import WeightedUpdates, write_aggregate
from secagg.ckks import KeyPair, Opener, Sealer, generate, profile
from secagg.ckks.bounds import product_error_bound
from secagg.ckks.wire import ScalarKind, scalar_bytes
from secagg.errors import CiphertextError, Code, ConfigError
from secagg.payload import seal_update
from secagg.plan import Protection, Significance
from secagg.release import (
    AggregateReference,
    PlainReference,
    Quantity,
    Reference,
    assemble_statistics,
    open_release,
    release_update,
)
from secagg.rule import StatisticsRequest
from secagg.selection import Layout, Mask, derive_mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="first", shape=(70, 70)),
        TensorSpec(name="bias", shape=(70,)),
        TensorSpec(name="last", shape=(10, 70)),
    )
)
SELECTIVE = Protection.selective(significance=Significance.RANDOM, ratio=0.2)
MODES = {"plain": Protection.plain(), "full": Protection.full(), "selective": SELECTIVE}
PROFILE = profile("robust")
IDS = [bytes([index]) * 16 for index in range(1, 4)]


@cache
def pair() -> KeyPair:
    """One key pair for all tests."""
    return generate(PROFILE)


def layout_of(mode: str, *statistics: str, round: int = 1) -> Layout:
    """The layout of one protection mode in one round."""
    return Layout(MANIFEST, derive_mask(MODES[mode], MANIFEST, bytes(16), round), statistics)


def spooled(folder: Path, layout: Layout, name: str, seed: int) -> tuple[Path, np.ndarray]:
    """A sealed update on disk and its vector in float64."""
    flat = np.random.default_rng(seed).normal(0, 0.1, layout.size).astype(np.float32)
    path = folder / name
    path.write_bytes(b"".join(seal_update(flat, layout, Sealer(pair().secret))))
    return path, flat.astype(np.float64)


def released(
    folder: Path, layout: Layout, reference: Reference | None, *, squared_norms: bool = True
) -> tuple[bytes, list[np.ndarray]]:
    """The artifact of three updates, made as the server makes it, and their vectors."""
    updates = [spooled(folder, layout, f"update-{seed}", seed) for seed in range(3)]
    # Each update may go to a worker of its own, and the last may be the first to be done.
    entries = {path: release_entries(path, layout, reference, squared_norms) for path, _ in reversed(updates)}
    wanted = StatisticsRequest(tensors=(), squared_norms=squared_norms, reference_dots=reference is not None)
    assemble_statistics(
        folder / "statistics",
        round=2,
        update_ids=IDS,
        released=(entries[path] for path, _ in updates),
        layout=layout,
        quantities=Quantity.of(wanted),
    )
    return (folder / "statistics").read_bytes(), [flat for _, flat in updates]


def release_entries(path: Path, layout: Layout, reference: Reference | None, squared_norms: bool) -> bytes:
    """One update's entries, as a worker makes them."""
    return release_update(
        path,
        layout=layout,
        profile=PROFILE,
        public_key=pair().public,
        squared_norms=squared_norms,
        reference=reference,
    )


def covered(layout: Layout) -> np.ndarray:
    """Which entries the products run over."""
    chosen = np.zeros(layout.size, dtype=np.bool_)
    for name in layout.statistics_tensors or [spec.name for spec in MANIFEST.tensors]:
        chosen[MANIFEST.slice_of(name)] = True
    return chosen


def check_gram(layout: Layout, data: bytes, vectors: list[np.ndarray], reference: np.ndarray) -> None:
    """Every released entry is right within the bound, every other is NaN."""
    opened = open_release(data, round=2, layout=layout, profile=PROFILE, opener=Opener(pair().secret))
    assert opened.round == 2
    assert opened.update_ids == tuple(item.hex() for item in IDS)
    chosen = covered(layout)
    norms = [float(np.linalg.norm(flat)) for flat in vectors]
    largest, other = max(norms), max(*norms, float(np.linalg.norm(reference)))
    # A visible mean is rounded to float32 before it serves as reference.
    bound = 2.0**-24 * largest * other + 1e-12
    if any(layout.hidden_counts):
        bound += product_error_bound(PROFILE, largest, other, layout.size)
    for row, flat in enumerate(vectors):
        assert abs(opened.squared_norms[row] - flat[chosen] @ flat[chosen]) <= bound
        assert abs(opened.reference_dots[row] - flat[chosen] @ reference[chosen]) <= bound
    known = np.eye(4, dtype=np.bool_)
    known[3, :], known[:, 3] = True, True
    known[3, 3] = False
    assert np.array_equal(np.isnan(opened.gram), ~known)
    assert np.array_equal(opened.gram[3, :3], opened.gram[:3, 3])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("statistics", [(), ("last",), ("bias", "last")])
def test_products_with_the_initial_model_are_right(
    tmp_path: Path, mode: str, statistics: tuple[str, ...]
) -> None:
    """A plain reference, over one layer or all, in every mode."""
    reference = np.random.default_rng(9).normal(0, 0.1, MANIFEST.size).astype(np.float32)
    layout = layout_of(mode, *statistics)
    data, vectors = released(tmp_path, layout, PlainReference(flat=reference))
    check_gram(layout, data, vectors, reference.astype(np.float64))


def previous_aggregate(folder: Path, layout: Layout) -> tuple[AggregateReference, np.ndarray]:
    """The aggregate of round 1, and the exact mean."""
    updates = [spooled(folder, layout, f"previous-{seed}", seed) for seed in (20, 21)]
    weights, out = (900, 100), folder / "previous"
    paths = tuple(path for path, _ in updates)
    write_aggregate(
        out, WeightedUpdates(round=1, paths=paths, weights=weights, layout=layout, profile=PROFILE)
    )
    mean = sum(w * flat for w, (_, flat) in zip(weights, updates, strict=True)) / sum(weights)
    return AggregateReference(path=out, round=1, layout=layout), mean


@pytest.mark.parametrize("mode", MODES)
def test_products_with_the_previous_aggregate_are_right(tmp_path: Path, mode: str) -> None:
    """The last layer's, although a selective round's mask differs from the one before."""
    reference, mean = previous_aggregate(tmp_path, layout_of(mode, "last", round=1))
    layout = layout_of(mode, "last", round=2)
    data, vectors = released(tmp_path, layout, reference)
    check_gram(layout, data, vectors, mean)


def test_products_over_everything_work_while_the_mask_stays(tmp_path: Path) -> None:
    """Selective, all tensors, the same mask in both rounds: hidden and visible parts add up."""
    layout = layout_of("selective")
    reference, mean = previous_aggregate(tmp_path, layout)
    data, vectors = released(tmp_path, layout, reference)
    check_gram(layout, data, vectors, mean)


def test_products_over_everything_are_refused_when_the_mask_changed(tmp_path: Path) -> None:
    """Hidden entries in other slots can't be multiplied: RULE_UNSUPPORTED, and no file is left."""
    reference, _ = previous_aggregate(tmp_path, layout_of("selective", round=1))
    with pytest.raises(ConfigError, match="names its tensors") as caught:
        released(tmp_path, layout_of("selective", round=2), reference)
    assert caught.value.code is Code.RULE_UNSUPPORTED
    assert not (tmp_path / "statistics").exists()


@pytest.mark.parametrize(("norms", "dots"), [(True, False), (False, True), (True, True)])
def test_artifact_holds_one_scalar_per_released_entry_and_nothing_else(
    tmp_path: Path, norms: bool, dots: bool
) -> None:
    """Its length is exactly front, ids, block name and the entries asked for."""
    layout = layout_of("full", "last")
    reference = PlainReference(flat=np.ones(MANIFEST.size, np.float32)) if dots else None
    data, _ = released(tmp_path, layout, reference, squared_norms=norms)
    entry = norms * (9 + scalar_bytes(ScalarKind.BILINEAR, PROFILE))
    entry += dots * (9 + scalar_bytes(ScalarKind.LINEAR, PROFILE))
    assert len(data) == 13 + 3 * 16 + 2 + len(b"statistics") + 3 * entry
    opened = open_release(data, round=2, layout=layout, profile=PROFILE, opener=Opener(pair().secret))
    assert np.isnan(opened.squared_norms).all() == (not norms)
    assert np.isnan(opened.reference_dots).all() == (not dots)


ENTRY_AT = 13 + 48 + 2 + len(b"statistics")


@pytest.mark.parametrize(
    ("at", "new", "code"),
    [
        (0, b"\x02", Code.STATISTICS_MALFORMED),
        (1, b"\x09", Code.STATISTICS_MALFORMED),
        (9, b"\0\0\0\0", Code.STATISTICS_MALFORMED),
        (9, b"\xff\xff\xff\xff", Code.STATISTICS_MALFORMED),
        (13, b"\x02" * 16, Code.STATISTICS_MALFORMED),
        (61, b"\0", Code.STATISTICS_MALFORMED),
        (61, b"\x04", Code.STATISTICS_MALFORMED),
        (61, b"\x03", Code.STATISTICS_MALFORMED),
        (62, b"\x09", Code.STATISTICS_MALFORMED),
        (63, b"S", Code.STATISTICS_MALFORMED),
        (ENTRY_AT, np.float64(np.inf).tobytes(), Code.STATISTICS_MALFORMED),
        (ENTRY_AT + 8, b"\0", Code.STATISTICS_MALFORMED),
        (ENTRY_AT + 8, b"\x01", Code.STATISTICS_MALFORMED),
        (ENTRY_AT + 9, b"\x05", Code.CIPHERTEXT_MALFORMED),
        (ENTRY_AT + 11, b"\x06", Code.PROFILE_MISMATCH),
        (ENTRY_AT + 9 + 16, b"\xff" * 9, Code.CIPHERTEXT_MALFORMED),
    ],
)
def test_malformed_statistics_are_refused(tmp_path: Path, at: int, new: bytes, code: Code) -> None:
    """One fault each, one code each."""
    layout = layout_of("full", "last")
    data, _ = released(tmp_path, layout, None)
    faulty = data[:at] + new + data[at + len(new) :]
    with pytest.raises(CiphertextError) as caught:
        open_release(faulty, round=2, layout=layout, profile=PROFILE, opener=Opener(pair().secret))
    assert caught.value.code is code


def test_statistics_of_another_length_are_refused(tmp_path: Path) -> None:
    """Empty, cut anywhere, extended."""
    layout = layout_of("full", "last")
    data, _ = released(tmp_path, layout, None)
    opener = Opener(pair().secret)
    for faulty in (b"", data[:12], data[:40], data[: ENTRY_AT + 3], data[:-1], data + b"\0"):
        with pytest.raises(CiphertextError) as caught:
            open_release(faulty, round=2, layout=layout, profile=PROFILE, opener=opener)
        assert caught.value.code is Code.STATISTICS_MALFORMED


@pytest.mark.parametrize(("norms", "dots"), [(True, False), (False, True), (True, True)])
def test_statistics_of_other_quantities_than_asked_for_are_not_opened(
    tmp_path: Path, norms: bool, dots: bool
) -> None:
    """Neither more nor less than the rule's request: STATISTICS_MALFORMED before anything is opened."""
    layout = layout_of("full", "last")
    reference = PlainReference(flat=np.ones(MANIFEST.size, np.float32)) if dots else None
    data, _ = released(tmp_path, layout, reference, squared_norms=norms)
    own = Quantity.of(StatisticsRequest(tensors=(), squared_norms=norms, reference_dots=dots))
    opener = CountingOpener(pair().secret)
    for asked in (Quantity.SQUARED_NORM, Quantity.REFERENCE_DOT, Quantity(3)):
        if asked == own:
            continue
        with pytest.raises(CiphertextError, match="asked for") as caught:
            open_release(data, round=2, layout=layout, profile=PROFILE, opener=opener, quantities=asked)
        assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opener.opened == 0
    open_release(data, round=2, layout=layout, profile=PROFILE, opener=opener, quantities=own)
    assert opener.opened == 3 * (norms + dots)


def test_statistics_of_fewer_updates_than_promised_are_not_opened(tmp_path: Path) -> None:
    """Three are in: enough where three are promised, too few where four are."""
    layout = layout_of("full", "last")
    data, _ = released(tmp_path, layout, None)
    opener = CountingOpener(pair().secret)
    with pytest.raises(CiphertextError, match="at least 4") as caught:
        open_release(data, round=2, layout=layout, profile=PROFILE, opener=opener, min_updates=4)
    assert caught.value.code is Code.STATISTICS_MALFORMED
    assert opener.opened == 0
    open_release(data, round=2, layout=layout, profile=PROFILE, opener=opener, min_updates=3)
    assert opener.opened == 3


class CountingOpener(Opener):
    """Opens, and counts how often."""

    opened = 0

    def open_scalar(self, data: bytes | memoryview) -> float:
        self.opened += 1
        return super().open_scalar(data)


def test_callers_mistakes_are_not_written(tmp_path: Path) -> None:
    """No update, no quantity, repeated or short ids: no file."""
    out, good = tmp_path / "statistics", {"update_ids": IDS, "quantities": Quantity.SQUARED_NORM}
    for fault in (
        {"update_ids": []},
        {"quantities": Quantity(0)},
        {"update_ids": [IDS[0], IDS[0]]},
        {"update_ids": [b"short"]},
    ):
        with pytest.raises(ValueError, match=r"updates and quantities|distinct"):
            assemble_statistics(out, round=1, released=[], layout=layout_of("full"), **(good | fault))
        assert not out.exists()


def test_hidden_entries_are_not_released_without_the_key_that_masks_them(tmp_path: Path) -> None:
    """A caller's mistake."""
    layout = layout_of("full", "last")
    path, _ = spooled(tmp_path, layout, "update", 0)
    with pytest.raises(ValueError, match="public key"):
        release_update(
            path, layout=layout, profile=PROFILE, public_key=None, squared_norms=True, reference=None
        )


def test_mask_without_statistics_tensors_keeps_one_block(tmp_path: Path) -> None:
    """Hidden and visible halves of one block add up to the whole product."""
    layout = Layout(MANIFEST, Mask(np.arange(MANIFEST.size) % 2 == 0))
    reference = np.random.default_rng(5).normal(0, 0.1, MANIFEST.size).astype(np.float32)
    data, vectors = released(tmp_path, layout, PlainReference(flat=reference))
    check_gram(layout, data, vectors, reference.astype(np.float64))
