"""What must hold of manifests and of the flat vector."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import Code, SecaggError, UpdateError
from secagg.update import MANIFEST_VERSION, MAX_DIMENSIONS, Manifest, TensorSpec

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
manifests = st.dictionaries(names, shapes, min_size=1, max_size=5).map(
    lambda specs: Manifest(tensors=tuple(TensorSpec(name=n, shape=s) for n, s in specs.items()))
)


def small() -> Manifest:
    return Manifest(tensors=(TensorSpec(name="weight", shape=(2, 3)), TensorSpec(name="bias", shape=(2,))))


def tensors_of(manifest: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {spec.name: draw.normal(size=spec.shape).astype(np.float32) for spec in manifest.tensors}


@given(manifests)
def test_manifest_bytes_round_trip_to_the_same_manifest_and_bytes(manifest: Manifest) -> None:
    """Reading the canonical form gives the manifest back, and writing that gives the same bytes."""
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.to_bytes() == manifest.to_bytes()
    assert again.digest == hashlib.sha256(manifest.to_bytes()).digest()


@given(manifests, st.data())
def test_mutated_manifest_bytes_are_refused_or_canonical(manifest: Manifest, data: st.DataObject) -> None:
    """Whatever is accepted is canonical: no two byte strings stand for one manifest."""
    raw = bytearray(manifest.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        accepted = Manifest.from_bytes(bytes(raw))
    except UpdateError as error:
        assert error.code is Code.MANIFEST_MALFORMED
    else:
        assert accepted.to_bytes() == bytes(raw)


@given(manifests, st.integers(0, 2**32 - 1))
def test_flattening_and_unflattening_is_the_identity(manifest: Manifest, seed: int) -> None:
    """Every value keeps its place and its bits."""
    tensors = tensors_of(manifest, seed)
    flat = manifest.flatten(tensors)
    assert flat.shape == (manifest.size,) and flat.dtype == np.float32
    back = manifest.unflatten(flat)
    assert list(back) == [spec.name for spec in manifest.tensors]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_tensor_lies_where_slice_of_says() -> None:
    """The slice of a name cuts that tensor's values out of the flat vector."""
    tensors = tensors_of(small())
    flat = small().flatten(tensors)
    np.testing.assert_array_equal(flat[small().slice_of("bias")], tensors["bias"])
    with pytest.raises(UpdateError, match="no tensor 'scale'"):
        small().slice_of("scale")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t.pop("bias"), Code.MANIFEST_MISMATCH),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), Code.MANIFEST_MISMATCH),
        (lambda t: t.update(bias=np.zeros(3, np.float32)), Code.UPDATE_SHAPE),
        (lambda t: t.update(weight=t["weight"].T.copy()), Code.UPDATE_SHAPE),
        (lambda t: t.update(bias=np.zeros(2, np.float64)), Code.UPDATE_DTYPE),
        (lambda t: t.update(bias=np.array([0, np.nan], np.float32)), Code.UPDATE_NOT_FINITE),
        (lambda t: t.update(bias=np.array([0, -np.inf], np.float32)), Code.UPDATE_NOT_FINITE),
    ],
)
def test_wrong_tensors_are_refused_with_their_own_code(change, code: Code) -> None:
    """Each fault has its code, and the message names the tensor."""
    tensors = tensors_of(small())
    change(tensors)
    with pytest.raises(UpdateError) as caught:
        small().flatten(tensors)
    assert caught.value.code is code
    assert any(name in caught.value.message for name in ("bias", "extra", "weight"))


def test_unflattening_refuses_another_length() -> None:
    """A vector of the wrong length never becomes tensors."""
    with pytest.raises(UpdateError, match="UPDATE_SHAPE"):
        small().unflatten(np.zeros(9, np.float32))


@pytest.mark.parametrize(
    "specs",
    [
        (),
        (TensorSpec(name="", shape=(1,)),),
        (TensorSpec(name="a" * 513, shape=(1,)),),
        (TensorSpec(name="a", shape=(0,)),),
        (TensorSpec(name="a", shape=(1,) * (MAX_DIMENSIONS + 1)),),
        (TensorSpec(name="a", shape=(1,)), TensorSpec(name="a", shape=(2,))),
        (TensorSpec(name="a", shape=(2**17, 2**17)),),
    ],
)
def test_impossible_manifests_are_refused(specs: tuple[TensorSpec, ...]) -> None:
    """No tensor, bad names, empty, deep or enormous shapes never make a manifest."""
    with pytest.raises(UpdateError, match="MANIFEST_MALFORMED"):
        Manifest(tensors=specs)


def test_manifest_of_another_version_is_refused() -> None:
    """The version byte decides before anything else is read."""
    raw = small().to_bytes()
    with pytest.raises(SecaggError, match="version 9"):
        Manifest.from_bytes(struct.pack("<B", MANIFEST_VERSION + 8) + raw[1:])
