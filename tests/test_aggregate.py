"""The aggregate artifact is the exact weighted mean in every mode, made in memory that no round changes."""

import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from secagg.aggregate import AggregateFile, aggregate_bytes, open_aggregate, write_aggregate
from secagg.ckks import KeyPair, Opener, Sealer, generate, profile
from secagg.errors import CiphertextError, Code, ServerError
from secagg.payload import seal_update
from secagg.plan import Protection, Significance
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
    return Layout(MANIFEST, derive_mask(MODES[mode], MANIFEST, bytes(16), 1), statistics)


def spooled(folder: Path, layout: Layout, name: str, seed: int) -> tuple[Path, np.ndarray]:
    """A sealed update on disk and its vector."""
    flat = np.random.default_rng(seed).normal(0, 0.1, layout.size).astype(np.float32)
    path = folder / f"update-{seed}"
    path.write_bytes(b"".join(seal_update(flat, layout, Sealer(pair_of(name).secret))))
    return path, flat


@pytest.mark.parametrize("name", ["precise", "robust"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("statistics", [(), ("last",)])
def test_opened_aggregate_is_the_weighted_mean_within_the_bound(
    tmp_path: Path, mode: str, name: str, statistics: tuple[str, ...]
) -> None:
    """Hidden entries within the profile's bound, visible ones to float32, all in their places."""
    layout, used = layout_of(mode, *statistics), profile(name)
    updates = [spooled(tmp_path, layout, name, seed) for seed in range(4)]
    weights = [1000, 0, 20_000, 7]
    out = tmp_path / "aggregate"
    paths = [path for path, _ in updates]
    write_aggregate(out, round=5, paths=paths, weights=weights, layout=layout, profile=used)
    assert out.stat().st_size == aggregate_bytes(layout, used)
    opener = Opener(pair_of(name).secret)
    opened = open_aggregate(out, round=5, layout=layout, profile=used, opener=opener)
    vectors = [flat.astype(np.float64) for _, flat in updates]
    exact = sum(w * flat for w, flat in zip(weights, vectors, strict=True)) / sum(weights)
    rounding = float(np.spacing(np.float32(np.abs(exact).max())))
    bound = used.error_bound(layout.size, np.array(weights), 1.0) if mode != "plain" else 0.0
    assert np.abs(opened - exact).max() <= bound + rounding
    assert opened.dtype == np.float32
    again = open_aggregate(out.read_bytes(), round=5, layout=layout, profile=used, opener=opener)
    assert np.array_equal(opened, again)
    if mode == "plain":
        assert np.array_equal(opened, exact.astype(np.float32))


def test_two_runs_over_the_same_spool_give_the_same_bytes(tmp_path: Path) -> None:
    """What lets a restarted server end a round with the aggregate it would have had."""
    layout, used = layout_of("selective"), profile("precise")
    paths = [spooled(tmp_path, layout, "precise", seed)[0] for seed in range(3)]
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        write_aggregate(out, round=1, paths=paths, weights=[1, 2, 3], layout=layout, profile=used)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def written(folder: Path) -> tuple[bytes, Layout]:
    """An honest selective aggregate."""
    layout = layout_of("selective")
    path, _ = spooled(folder, layout, "precise", 0)
    out = folder / "aggregate"
    write_aggregate(out, round=5, paths=[path], weights=[3], layout=layout, profile=profile("precise"))
    return out.read_bytes(), layout


@pytest.mark.parametrize(
    ("at", "new", "code"),
    [
        (0, b"\x02", Code.AGGREGATE_MALFORMED),
        (1, b"\x06", Code.AGGREGATE_MALFORMED),
        (9, struct.pack("<I", 0), Code.AGGREGATE_MALFORMED),
        (9, struct.pack("<I", 65_537), Code.AGGREGATE_MALFORMED),
        (9, struct.pack("<I", 4), Code.AGGREGATE_MALFORMED),
        (13, b"\x09", Code.CIPHERTEXT_MALFORMED),
        (15, b"\x02", Code.PROFILE_MISMATCH),
        (20, b"\xff" * 15, Code.CIPHERTEXT_MALFORMED),
        (-4, np.float32(np.nan).tobytes(), Code.AGGREGATE_MALFORMED),
    ],
    ids=[
        "version",
        "round",
        "total 0",
        "total too large",
        "total differs",
        "vector version",
        "profile",
        "residue",
        "nan",
    ],
)
def test_malformed_aggregate_is_refused(tmp_path: Path, at: int, new: bytes, code: Code) -> None:
    """One fault each, one code each."""
    data, layout = written(tmp_path)
    at %= len(data)
    faulty = data[:at] + new + data[at + len(new) :]
    opener = Opener(pair_of("precise").secret)
    with pytest.raises(CiphertextError) as caught:
        open_aggregate(faulty, round=5, layout=layout, profile=profile("precise"), opener=opener)
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
        write_aggregate(
            tmp_path / "out", round=1, paths=[path], weights=[1], layout=layout, profile=profile("precise")
        )
    assert caught.value.code is Code.SPOOL_CORRUPT
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("weights", [[0], [1, 1], [-1], [65_537]])
def test_weights_that_no_round_has_are_refused(tmp_path: Path, weights: list[int]) -> None:
    """A caller's mistake, before anything is read."""
    with pytest.raises(ValueError, match="weights"):
        write_aggregate(
            tmp_path / "out",
            round=1,
            paths=[tmp_path / "none"],
            weights=weights,
            layout=layout_of("full"),
            profile=profile("precise"),
        )


PEAK = """
import resource, sys
from pathlib import Path
from secagg.aggregate import write_aggregate
from secagg.ckks import profile
from secagg.selection import Layout, Mask
from secagg.update import Manifest, TensorSpec
import numpy as np

manifest = Manifest(tensors=(TensorSpec(name="w", shape=(100_000,)),))
layout = Layout(manifest, Mask(np.arange(100_000) < int(sys.argv[3])))
folder, clients = Path(sys.argv[1]), int(sys.argv[2])
paths = [folder / f"update-{index % 4}" for index in range(clients)]
write_aggregate(
    folder / f"out-{clients}", round=1, paths=paths, weights=[1 + i % 3 for i in range(clients)],
    layout=layout,
    profile=profile("precise"),
)
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
