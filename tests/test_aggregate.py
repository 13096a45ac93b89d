"""The aggregate artifact is the exact weighted mean in every mode, made in memory that no round changes."""

import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from secagg.aggregate import (
    AggregateFile,
    Shares,
    WeightedUpdates,
    aggregate_bytes,
    lay_out,
    mean_error_bound,
    open_aggregate,
    write_aggregate,
    write_sums,
)
from secagg.ckks import KeyPair, Opener, Sealer, generate, profile
from secagg.errors import CiphertextError, Code, ServerError
from secagg.payload import Quantisation, seal_update
from secagg.plan import Protection, Significance
from secagg.scales import Scales
from secagg.selection import Layout, Mask, derive_mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(TensorSpec(name="first", shape=(70, 100)), TensorSpec(name="last", shape=(10, 70)))
)
MODES = {
    "plain": Protection.plain(),
    "full": Protection.full(),
    "selective": Protection.selective(significance=Significance.RANDOM, ratio=0.2),
}


@cache
def pair_of(name: str) -> KeyPair:
    """One key pair per profile."""
    return generate(profile(name))


def layout_of(mode: str, *statistics: str) -> Layout:
    """The layout of one protection mode."""
    groups = (statistics,) if statistics else ()
    return Layout(MANIFEST, derive_mask(MODES[mode], MANIFEST, bytes(16), 1), groups)


UNIT = 20_000
"""The sample count of weight 1 under a quantising profile."""


def scales_of(layout: Layout) -> Scales:
    """One scale per tensor, neighbours different, none so small that a value of 5 deviations saturates."""
    return Scales(exponents=tuple(index % 3 for index in range(len(layout.manifest.tensors))))


def spooled(folder: Path, layout: Layout, name: str, seed: int, count: int = UNIT) -> tuple[Path, np.ndarray]:
    """A sealed update on disk and its vector; ``count`` is what a quantising profile weighs it by."""
    flat = np.random.default_rng(seed).normal(0, 0.1, layout.size).astype(np.float32)
    path = folder / f"update-{seed}"
    quantised = profile(name).quantised
    quantisation = Quantisation(scales=scales_of(layout), weight=count / UNIT) if quantised else None
    path.write_bytes(b"".join(seal_update(flat, layout, Sealer(pair_of(name).secret), quantisation)))
    return path, flat


def weighted(
    layout: Layout, name: str, paths: list[Path], weights: list[int], round: int = 5
) -> WeightedUpdates:
    """What an aggregate is made of."""
    shares = Shares(unit=UNIT, scales=scales_of(layout)) if profile(name).quantised else None
    return WeightedUpdates(
        round=round,
        paths=tuple(paths),
        weights=tuple(weights),
        layout=layout,
        profile=profile(name),
        shares=shares,
    )


WEIGHTS = {
    "precise": [1000, 0, 20_000, 7],
    "robust": [100, 0, 900, 7],
    "compact": [1000, 0, 20_000, 700],
    "compact-10": [1000, 0, 20_000, 700],
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("statistics", [(), ("last",)])
def test_opened_aggregate_is_the_weighted_mean_within_the_bound(
    tmp_path: Path, mode: str, name: str, statistics: tuple[str, ...]
) -> None:
    """Hidden entries within the profile's bound, visible ones to float32, all in their places."""
    layout, used, weights = layout_of(mode, *statistics), profile(name), WEIGHTS[name]
    updates = [spooled(tmp_path, layout, name, seed, count) for seed, count in enumerate(weights) if count]
    weights = [weight for weight in weights if weight]
    out = tmp_path / "aggregate"
    made_of = weighted(layout, name, [path for path, _ in updates], weights)
    write_aggregate(out, made_of)
    assert out.stat().st_size == aggregate_bytes(layout, used)
    opener = Opener(pair_of(name).secret)
    opened = open_aggregate(out, round=5, layout=layout, profile=used, opener=opener)
    vectors = [flat.astype(np.float64) for _, flat in updates]
    exact = sum(w * flat for w, flat in zip(weights, vectors, strict=True)) / sum(weights)
    rounding = float(np.spacing(np.float32(np.abs(exact).max())))
    bound = mean_error_bound(made_of) if mode != "plain" else 0.0
    assert np.abs(opened - exact).max() <= bound + rounding
    assert opened.dtype == np.float32
    again = open_aggregate(out.read_bytes(), round=5, layout=layout, profile=used, opener=opener)
    assert np.array_equal(opened, again)
    if mode == "plain":
        assert np.array_equal(opened, exact.astype(np.float32))


def test_updates_of_weight_zero_are_not_read(tmp_path: Path) -> None:
    """Not even opened: their file may be gone."""
    layout = layout_of("full")
    path, flat = spooled(tmp_path, layout, "precise", 0)
    out = tmp_path / "aggregate"
    write_aggregate(out, weighted(layout, "precise", [tmp_path / "gone", path], [0, 3]))
    opener = Opener(pair_of("precise").secret)
    opened = open_aggregate(out, round=5, layout=layout, profile=profile("precise"), opener=opener)
    assert (
        np.abs(opened - flat).max() <= mean_error_bound(weighted(layout, "precise", [path], [3])) + 2.0**-23
    )


def test_first_rounds_small_integers_weigh_quantised_updates(tmp_path: Path) -> None:
    """Unit 0: values are sealed as they are and the aggregator multiplies, up to the profile's weight
    total.
    """
    layout = layout_of("full")
    updates = [spooled(tmp_path, layout, "compact", seed) for seed in range(2)]
    made_of = WeightedUpdates(
        round=5,
        paths=tuple(path for path, _ in updates),
        weights=(135, 45),
        layout=layout,
        profile=profile("compact"),
        shares=Shares(unit=0, scales=scales_of(layout)),
    )
    write_aggregate(tmp_path / "out", made_of)
    opener = Opener(pair_of("compact").secret)
    opened = open_aggregate(
        tmp_path / "out", round=5, layout=layout, profile=profile("compact"), opener=opener
    )
    exact = 0.75 * updates[0][1].astype(np.float64) + 0.25 * updates[1][1]
    assert np.abs(opened - exact).max() <= mean_error_bound(made_of) + 2.0**-24


@pytest.mark.parametrize("name", ["precise", "compact"])
def test_parts_written_apart_and_in_any_order_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    """As several worker processes do it; each range goes to its own place."""
    layout = layout_of("selective", "first")
    paths = [spooled(tmp_path, layout, name, seed)[0] for seed in range(2)]
    updates = weighted(layout, name, paths, [5, 7])
    write_aggregate(tmp_path / "whole", updates)
    with (tmp_path / "parts").open("w+b") as file:
        lay_out(file, updates)
    for block, count in enumerate(layout.hidden_counts):
        last = profile(name).ciphertext_count(count)
        for part in (range(1, last), range(0, min(1, last))):
            with (tmp_path / "parts").open("r+b") as file:
                write_sums(file, updates, block, part)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_aggregate_in_other_scales_than_expected_is_refused(tmp_path: Path) -> None:
    """A client that knows the round's base model knows its scales; a server can't have it open others."""
    layout = layout_of("full")
    path, _ = spooled(tmp_path, layout, "compact", 0)
    out = tmp_path / "aggregate"
    write_aggregate(out, weighted(layout, "compact", [path], [5]))
    opener, right = Opener(pair_of("compact").secret), scales_of(layout)
    wrong = Scales(exponents=tuple(exponent + 1 for exponent in right.exponents))
    common = {"round": 5, "layout": layout, "profile": profile("compact"), "opener": opener}
    open_aggregate(out, **common, shares=Shares(unit=UNIT, scales=right))
    for shares in (Shares(unit=UNIT, scales=wrong), Shares(unit=UNIT + 1, scales=right)):
        with pytest.raises(CiphertextError, match="scales or its count unit") as caught:
            open_aggregate(out, **common, shares=shares)
        assert caught.value.code is Code.AGGREGATE_MALFORMED


def test_two_runs_over_the_same_spool_give_the_same_bytes(tmp_path: Path) -> None:
    """What lets a restarted server end a round with the aggregate it would have had."""
    layout = layout_of("selective")
    paths = [spooled(tmp_path, layout, "precise", seed)[0] for seed in range(3)]
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        write_aggregate(out, weighted(layout, "precise", paths, [1, 2, 3]))
    assert outs[0].read_bytes() == outs[1].read_bytes()


def written(folder: Path, name: str = "precise") -> tuple[bytes, Layout]:
    """An honest selective aggregate."""
    layout = layout_of("selective")
    path, _ = spooled(folder, layout, name, 0)
    out = folder / "aggregate"
    write_aggregate(out, weighted(layout, name, [path], [3]))
    return out.read_bytes(), layout


@pytest.mark.parametrize(
    ("name", "at", "new", "code"),
    [
        ("precise", 0, b"\x02", Code.AGGREGATE_MALFORMED),
        ("precise", 1, b"\x06", Code.AGGREGATE_MALFORMED),
        ("precise", 9, b"\x01", Code.AGGREGATE_MALFORMED),
        ("precise", 9, b"\x02", Code.AGGREGATE_MALFORMED),
        ("precise", 10, struct.pack("<Q", 1), Code.AGGREGATE_MALFORMED),
        ("precise", 18, struct.pack("<Q", 0), Code.AGGREGATE_MALFORMED),
        ("precise", 18, struct.pack("<Q", 65_537), Code.AGGREGATE_MALFORMED),
        ("precise", 18, struct.pack("<Q", 4), Code.AGGREGATE_MALFORMED),
        ("precise", 26, b"\x09", Code.CIPHERTEXT_MALFORMED),
        ("precise", 28, b"\x03", Code.PROFILE_MISMATCH),
        ("precise", 33, b"\xff" * 15, Code.CIPHERTEXT_MALFORMED),
        ("precise", -4, np.float32(np.nan).tobytes(), Code.AGGREGATE_MALFORMED),
        ("compact", 18, struct.pack("<Q", 0), Code.AGGREGATE_MALFORMED),
        ("compact", 18, struct.pack("<Q", UNIT * 180 + 1), Code.AGGREGATE_MALFORMED),
        ("compact", 26, struct.pack("<Q", 0), Code.AGGREGATE_MALFORMED),
        ("compact", 34, b"\x7f", Code.AGGREGATE_MALFORMED),
        ("compact", 39, struct.pack("<I", 181), Code.CIPHERTEXT_MALFORMED),
    ],
    ids=[
        "version",
        "round",
        "differences where models are agreed",
        "unknown content",
        "models that add to a round",
        "total 0",
        "total too large",
        "total differs",
        "vector version",
        "profile",
        "residue",
        "nan",
        "total of counts 0",
        "total of counts too large",
        "unit 0",
        "scale",
        "more clients than headroom",
    ],
)
def test_malformed_aggregate_is_refused(tmp_path: Path, name: str, at: int, new: bytes, code: Code) -> None:
    """One fault each, one code each."""
    data, layout = written(tmp_path, name)
    at %= len(data)
    faulty = data[:at] + new + data[at + len(new) :]
    opener = Opener(pair_of(name).secret)
    with pytest.raises(CiphertextError) as caught:
        open_aggregate(faulty, round=5, layout=layout, profile=profile(name), opener=opener)
    assert caught.value.code is code


def test_aggregate_of_another_length_is_refused(tmp_path: Path) -> None:
    """Empty, cut and extended, from memory and from a file."""
    data, layout = written(tmp_path)
    opener, path = Opener(pair_of("precise").secret), tmp_path / "faulty"
    for faulty in (b"", data[:12], data[:-1], data + b"\0"):
        path.write_bytes(faulty)
        for source in (faulty, path):
            with pytest.raises(CiphertextError) as caught:
                open_aggregate(source, round=5, layout=layout, profile=profile("precise"), opener=opener)
            assert caught.value.code is Code.AGGREGATE_MALFORMED
        with pytest.raises(CiphertextError):
            AggregateFile(path=path, round=5, layout=layout, profile=profile("precise")).weight_total()


def test_failed_aggregation_leaves_no_file(tmp_path: Path) -> None:
    """Neither the artifact nor its partial form."""
    layout = layout_of("full")
    path, _ = spooled(tmp_path, layout, "precise", 0)
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(ServerError) as caught:
        write_aggregate(tmp_path / "out", weighted(layout, "precise", [path], [1]))
    assert caught.value.code is Code.SPOOL_CORRUPT
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("precise", [0], "weights"),
        ("precise", [1, 1], "weights"),
        ("precise", [-1], "weights"),
        ("precise", [65_537], "headroom"),
    ],
)
def test_weights_that_no_round_has_are_refused(
    tmp_path: Path, name: str, weights: list[int], complaint: str
) -> None:
    """A caller's mistake, before anything is read."""
    with pytest.raises(ValueError, match=complaint):
        weighted(layout_of("full"), name, [tmp_path / "none"], weights)


def test_more_clients_than_headroom_are_refused(tmp_path: Path) -> None:
    """Whatever their sample counts: each adds its rounded values once."""
    with pytest.raises(ValueError, match="headroom for 180"):
        weighted(layout_of("full"), "compact", [tmp_path / "none"] * 181, [1] * 181)
    weighted(layout_of("full"), "compact", [tmp_path / "none"] * 180, [20_000] * 180)


PEAK = """
import resource, sys
from pathlib import Path
from secagg.aggregate import WeightedUpdates, write_aggregate
from secagg.ckks import profile
from secagg.selection import Layout, Mask
from secagg.update import Manifest, TensorSpec
import numpy as np

manifest = Manifest(tensors=(TensorSpec(name="w", shape=(100_000,)),))
layout = Layout(manifest, Mask(np.arange(100_000) < int(sys.argv[3])))
folder, clients = Path(sys.argv[1]), int(sys.argv[2])
paths = [folder / f"update-{index % 4}" for index in range(clients)]
updates = WeightedUpdates(
    round=1, paths=tuple(paths), weights=tuple(1 + i % 3 for i in range(clients)),
    layout=layout,
    profile=profile("precise"),
)
write_aggregate(folder / f"out-{clients}", updates)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("hidden", [100_000, 30_000])
def test_peak_memory_does_not_grow_with_the_number_of_clients(tmp_path: Path, hidden: int) -> None:
    """200 clients of 100,000 values take at most 1.3 times the memory of 20, hidden whole or in part."""
    manifest = Manifest(tensors=(TensorSpec(name="w", shape=(100_000,)),))
    layout = Layout(manifest, Mask(np.arange(100_000) < hidden))
    for seed in range(4):
        spooled(tmp_path, layout, "precise", seed)
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(tmp_path), str(clients), str(hidden)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for clients in (20, 200)
    ]
    assert peaks[1] <= 1.3 * peaks[0]
