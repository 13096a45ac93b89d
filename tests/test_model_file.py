"""Model files: what is written is read, and nothing else is."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secagg.errors import Code, ConfigError, UpdateError
from secagg.model_file import load_model, model_to_bytes, read_model, save_model

MODEL = {"layer/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.ones(2, np.float32)}


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=20),
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
            elements=st.floats(-1e6, 1e6, width=32),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(tensors):
    """Names, order, shapes and bits come back."""
    read = read_model(model_to_bytes(tensors))
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
        assert read[name].dtype == np.float32 and read[name].flags.writeable


def test_numpy_reads_and_writes_the_same_files(tmp_path):
    """A model file is an ordinary .npz, whichever side numpy is on."""
    save_model(tmp_path / "ours.npz", MODEL)
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as loaded:
        assert list(loaded.files) == list(MODEL)
    np.savez_compressed(tmp_path / "theirs.npz", w=MODEL["file"])
    np.testing.assert_array_equal(load_model(tmp_path / "theirs.npz")["w"], MODEL["file"])


def test_missing_file_is_named(tmp_path):
    """The path and the way out."""
    with pytest.raises(ConfigError, match=r"nowhere\.npz") as caught:
        load_model(tmp_path / "nowhere.npz")
    assert caught.value.code is Code.DATA_MISSING


def test_nothing_but_finite_float32_is_written(tmp_path):
    """The writer refuses what the reader would."""
    with pytest.raises(UpdateError):
        save_model(tmp_path / "m.npz", {"w": np.full(2, np.nan, np.float32)})
    assert list(tmp_path.iterdir()) == []


HUGE = npy(np.zeros(4, np.float32)).replace(b"(4,)", b"(4000000000,)").replace(b"          \n", b" \n")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no readable"),
        (b"PK\x03\x04 and then nothing", "no readable"),
        (archive({}), "0 members"),
        (archive({"w.txt": b"hello"}), "no array"),
        (archive({"w.npy": b"hello"}), "no readable"),
        (archive({"w.npy": npy(np.ones(3))}), "float64"),
        (archive({"w.npy": npy(np.ones((2, 3), np.float32, order="F"))}), "Fortran"),
        (archive({"w.npy": npy(np.array([1.0, np.inf], np.float32))}), "NaN or infinite"),
        (archive({"w.npy": npy(np.zeros((0, 3), np.float32))}), "empty shape"),
        (archive({"w.npy": npy(np.ones(3, np.float32))[:-1]}), "11 bytes"),
        (archive({"w.npy": npy(np.ones(3, np.float32)) + b"x"}), "13 bytes"),
        (archive({"w.npy": npy(np.array([{"a": 1}], dtype=object))}), "object"),
        (archive({"w.npy": pickle.dumps({"a": 1})}), "no readable"),
        (archive({"w.npy": npy(np.ones(600, np.float32))}), "exceeds the 2000 bytes"),
        (archive({"w.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9) + b"__import_"}), "no readable"),
    ],
)
def test_malformed_file_is_refused(data, complaint):
    """One fault each, one line each; nothing is unpickled and no announced size is believed."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_model(data, max_bytes=2000)
    assert caught.value.code is Code.DATA_MALFORMED


def test_announced_size_is_not_allocated():
    """A header that claims 16 GB in a file of 200 bytes is refused before memory is taken."""
    with pytest.raises(ConfigError, match=r"exceeds the|has \d+ bytes"):
        read_model(archive({"w.npy": HUGE}), max_bytes=2**20)


def test_repeated_member_is_refused():
    """Which of the two would count is nobody's guess."""
    with pytest.warns(UserWarning, match="Duplicate"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            made.writestr("w.npy", npy(np.ones(2, np.float32)))
            made.writestr("w.npy", npy(np.zeros(2, np.float32)))
    with pytest.raises(ConfigError, match="twice"):
        read_model(out.getvalue())


@given(st.data())
def test_damaged_compressed_files_are_refused_by_type(data):
    """Whatever bytes are flipped in a deflated archive, the answer is a model or DATA_MALFORMED."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, weight=np.linspace(-1, 1, 300, dtype=np.float32), bias=np.ones(3, np.float32))
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_model(bytes(raw))
    except ConfigError as error:
        assert error.code is Code.DATA_MALFORMED
