"""A payload holds exactly what its plan asks for; the server finds every fault before it counts an update."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from secagg.ckks import KeyPair, Sealer, generate, profile
from secagg.errors import CiphertextError, Code, SecaggError, ServerError, UpdateError
from secagg.payload import UpdateFile, seal_update
from secagg.plan import Protection, Significance
from secagg.selection import Layout, derive_mask
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="first", shape=(70, 100)),
        TensorSpec(name="last", shape=(10, 70)),
        TensorSpec(name="bias", shape=(10,)),
    )
)
MODES = {
    "plain": Protection.plain(),
    "full": Protection.full(),
    "selective": Protection.selective(significance=Significance.RANDOM, ratio=0.2),
    "layers": Protection.selective(significance=Significance.LAYERS, layers=("last",)),
}


@cache
def pair_of(name: str) -> KeyPair:
    """One key pair per profile."""
    return generate(profile(name))


def layout_of(mode: str, *statistics: str) -> Layout:
    """The layout of one protection mode."""
    groups = (statistics,) if statistics else ()
    return Layout(MANIFEST, derive_mask(MODES[mode], MANIFEST, bytes(16), 1), groups)


def spooled(folder: Path, layout: Layout, name: str = "robust", seed: int = 0) -> UpdateFile:
    """A sealed update on disk."""
    flat = np.random.default_rng(seed).normal(0, 0.1, MANIFEST.size).astype(np.float32)
    sealer = Sealer(pair_of(name).secret)
    path = folder / f"update-{seed}"
    path.write_bytes(b"".join(seal_update(flat, layout, sealer)))
    return UpdateFile(path=path, layout=layout, profile=sealer.profile)


@pytest.mark.parametrize("name", ["precise", "robust"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("statistics", [(), ("last",), ("first", "last", "bias")])
def test_payload_has_the_length_the_layout_says(
    tmp_path: Path, mode: str, name: str, statistics: tuple[str, ...]
) -> None:
    """And passes the server's check, in every mode."""
    layout = layout_of(mode, *statistics)
    update = spooled(tmp_path, layout, name)
    assert update.path.stat().st_size == layout.payload_bytes(profile(name))
    update.check()


def test_plain_payload_is_the_vector_itself() -> None:
    """No sealer is needed, and with one block the bytes are little-endian float32."""
    flat = np.arange(MANIFEST.size, dtype=np.float32)
    assert b"".join(seal_update(flat, layout_of("plain"), None)) == flat.tobytes()


def test_visible_values_of_hidden_entries_are_nowhere_in_the_payload(tmp_path: Path) -> None:
    """A full update holds no four consecutive values of its vector."""
    update = spooled(tmp_path, layout_of("full"))
    flat = np.random.default_rng(0).normal(0, 0.1, MANIFEST.size).astype(np.float32)
    data = update.path.read_bytes()
    assert not any(flat[at : at + 4].tobytes() in data for at in range(0, MANIFEST.size, 97))


@pytest.mark.parametrize(
    ("flat", "code"),
    [
        (np.zeros(3, np.float32), Code.UPDATE_SHAPE),
        (np.zeros(MANIFEST.size, np.float64), Code.UPDATE_DTYPE),
        (np.full(MANIFEST.size, np.nan, np.float32), Code.UPDATE_NOT_FINITE),
        (np.full(MANIFEST.size, 300.0, np.float32), Code.UPDATE_OUT_OF_RANGE),
        (np.full(MANIFEST.size, 100.0, np.float32), Code.UPDATE_OUT_OF_RANGE),
    ],
    ids=["shape", "dtype", "nan", "value", "norm"],
)
def test_update_that_can_not_be_sealed_is_refused_before_anything_is_sent(
    flat: np.ndarray, code: Code
) -> None:
    """The error comes from the call itself."""
    with pytest.raises(UpdateError) as caught:
        seal_update(flat, layout_of("full"), Sealer(pair_of("robust").secret))
    assert caught.value.code is code


def test_norm_limit_binds_only_the_block_of_the_products() -> None:
    """A model with a large norm elsewhere is sealed."""
    flat = np.full(MANIFEST.size, 100.0, np.float32)
    flat[MANIFEST.slice_of("last")] = 1.0
    layout = layout_of("full", "last")
    pieces = seal_update(flat, layout, Sealer(pair_of("robust").secret))
    assert sum(map(len, pieces)) == layout.payload_bytes(profile("robust"))


def cut(data: bytes) -> bytes:
    """One byte less."""
    return data[:-1]


def extended(data: bytes) -> bytes:
    """One byte more."""
    return data + b"\0"


def with_infinity(data: bytes) -> bytes:
    """The last visible value is infinite."""
    return data[:-4] + np.float32(np.inf).tobytes()


def with_residue(data: bytes) -> bytes:
    """A residue beyond its prime in the first ciphertext."""
    return data[:100] + b"\xff" * 16 + data[116:]


def with_profile(data: bytes) -> bytes:
    """Another profile's code."""
    return data[:2] + b"\x01" + data[3:]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (cut, Code.CIPHERTEXT_MALFORMED),
        (extended, Code.CIPHERTEXT_MALFORMED),
        (with_infinity, Code.UPDATE_NOT_FINITE),
        (with_residue, Code.CIPHERTEXT_MALFORMED),
        (with_profile, Code.PROFILE_MISMATCH),
    ],
)
def test_malformed_payload_is_refused_by_the_check(
    tmp_path: Path, fault: Callable[[bytes], bytes], code: Code
) -> None:
    """One fault each, one code each."""
    update = spooled(tmp_path, layout_of("selective"))
    update.path.write_bytes(fault(update.path.read_bytes()))
    with pytest.raises((CiphertextError, UpdateError)) as caught:
        update.check()
    assert caught.value.code is code


def test_fault_in_the_second_block_is_found(tmp_path: Path) -> None:
    """Each block has a header and ciphertexts of its own."""
    layout = layout_of("full", "last")
    update = spooled(tmp_path, layout)
    data = bytearray(update.path.read_bytes())
    data[layout.sealed_offsets(update.profile)[1]] = 7
    update.path.write_bytes(data)
    with pytest.raises(CiphertextError, match="version 7"):
        update.check()


def test_spooled_file_that_vanished_or_shrank_is_the_servers_own_trouble(tmp_path: Path) -> None:
    """SPOOL_CORRUPT, not a client's fault."""
    update = spooled(tmp_path, layout_of("full"))
    update.path.write_bytes(b"short")
    with pytest.raises(ServerError) as caught:
        update.ciphertexts(0)(1)
    assert caught.value.code is Code.SPOOL_CORRUPT
    update.path.unlink()
    with pytest.raises(SecaggError) as caught_again:
        update.ciphertexts(0)(1)
    assert caught_again.value.code is Code.SPOOL_CORRUPT
