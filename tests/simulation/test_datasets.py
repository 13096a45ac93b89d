"""Data sets by name and path: what is accepted, what is refused, and what the refusal says."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from idx_files import blobs, idx_bytes, write_idx

from secagg.errors import Code, ConfigError
from secagg.simulation.datasets import load_dataset
from secagg.simulation.datasets.dataset import Samples, dataset_of

DATA = Path(os.environ.get("SECAGG_DATA") or "data")
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def refused(code: Code, **call) -> str:
    with pytest.raises(ConfigError) as caught:
        load_dataset(**call)
    assert caught.value.code is code and "\n" not in caught.value.message
    return caught.value.message


def fill(folder: Path, *, suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, count in (("train", 40), ("t10k", 12)):
        images, labels = blobs(count, seed=count)
        write_idx(folder / f"{kind}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{kind}-labels-idx1-ubyte{suffix}", labels)
    return folder


def test_digits_need_no_folder():
    """1,797 images of 8 x 8, a fifth of each class held out, scaled to [0, 1]."""
    digits = load_dataset("digits")
    assert (digits.classes, digits.shape) == (10, (1, 8, 8))
    assert len(digits.train) + len(digits.test) == 1797
    assert set(np.bincount(digits.test.labels)) <= {35, 36, 37}
    assert digits.train.scaled().min() == 0 and digits.train.scaled().max() == 1


def test_held_out_samples_are_nobodys_training_samples():
    values = np.arange(100, dtype=np.float32).reshape(50, 2)
    split = dataset_of("d", values, np.arange(50) % 5)
    train, test = set(split.train.values[:, 0].tolist()), set(split.test.values[:, 0].tolist())
    assert not train & test and train | test == set(range(0, 100, 2))
    assert np.bincount(split.test.labels).tolist() == [2] * 5


@pytest.mark.skipif(not (DATA / "fashion-mnist").is_dir(), reason="SECAGG_DATA has no fashion-mnist")
def test_fashion_mnist_is_read_whole():
    fashion = load_dataset("fashion-mnist", DATA)
    assert (fashion.classes, fashion.shape) == (10, (1, 28, 28))
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    assert fashion.train.scaled().mean() == pytest.approx(0.2860, abs=1e-4)


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="SECAGG_DATA has no cifar10")
def test_cifar10_sheets_are_read_in_the_order_of_their_labels():
    """The first labels are the published ones, and the channel means the data set's own."""
    cifar = load_dataset("cifar10", DATA)
    assert cifar.shape == (3, 32, 32) and len(cifar.train) == 3000 and len(cifar.test) == 1000
    assert cifar.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    everything = np.concatenate([cifar.train.values, cifar.test.values]) / 255
    np.testing.assert_allclose(everything.mean(axis=(0, 2, 3)), [0.4916, 0.4818, 0.4447], atol=1e-4)


def test_cifar10_is_read_from_the_authors_binary_batches(tmp_path):
    """A record is one label byte and 3 x 32 x 32 bytes, channel by channel."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    pixels = np.arange(3072, dtype=np.uint32).astype(np.uint8)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(b"".join(bytes([label]) + pixels.tobytes() for label in range(10)))
    cifar = load_dataset("cifar10", tmp_path)
    assert len(cifar.train) == 50 and len(cifar.test) == 10
    np.testing.assert_array_equal(cifar.train.values[7], pixels.reshape(3, 32, 32))
    (folder / "test_batch.bin").write_bytes(b"\0" * 3000)
    assert "3000 bytes" in refused(Code.DATA_MALFORMED, dataset="cifar10", data=tmp_path)


def test_missing_folder_names_the_files_and_their_source(tmp_path):
    message = refused(Code.DATA_MISSING, dataset="fashion-mnist", data=tmp_path)
    assert all(name in message for name in NAMES)
    assert "https://github.com/zalandoresearch/fashion-mnist" in message and "SECAGG_DATA" in message
    message = refused(Code.DATA_MISSING, dataset="cifar10", data=tmp_path)
    assert "data_batch_3.bin" in message and "https://www.cs.toronto.edu/~kriz/" in message


def test_only_the_missing_file_is_named(tmp_path):
    fill(tmp_path / "fashion-mnist")
    (tmp_path / "fashion-mnist" / f"{NAMES[2]}.gz").unlink()
    message = refused(Code.DATA_MISSING, dataset="fashion-mnist", data=tmp_path)
    assert NAMES[2] in message and NAMES[0] not in message


def test_environment_names_the_data_folder(tmp_path, monkeypatch):
    fill(tmp_path / "fashion-mnist", suffix="")
    monkeypatch.setenv("SECAGG_DATA", str(tmp_path))
    assert len(load_dataset("fashion-mnist").train) == 40


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_idx_folder_with_two_pairs_is_a_data_set(tmp_path, suffix):
    """Names need only say which pair is which; other files beside them do no harm."""
    fill(tmp_path / "mine", suffix=suffix)
    (tmp_path / "mine" / "README.md").write_text("what this is")
    (tmp_path / "mine" / "notes.gz").write_bytes(b"\x1f\x8b and so on")
    mine = load_dataset(str(tmp_path / "mine"))
    assert (mine.name, mine.classes, mine.shape) == ("mine", 4, (1, 6, 6))
    assert (len(mine.train), len(mine.test)) == (40, 12)


def test_a_single_idx_pair_is_split(tmp_path):
    images, labels = blobs(60)
    write_idx(tmp_path / "pictures.idx", images)
    write_idx(tmp_path / "answers.idx", labels)
    mine = load_dataset(str(tmp_path))
    assert len(mine.train) + len(mine.test) == 60 and 8 <= len(mine.test) <= 16


def test_idx_folder_without_labels_says_so(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", blobs(9)[0])
    assert "labels" in refused(Code.DATA_MISSING, dataset=str(tmp_path))


def test_folder_without_idx_files_says_what_one_is(tmp_path):
    (tmp_path / "README").write_text("nothing here")
    assert "train-images-idx3-ubyte.gz" in refused(Code.DATA_MISSING, dataset=str(tmp_path))


def test_two_candidates_for_one_part_are_not_guessed_between(tmp_path):
    images, labels = blobs(9)
    for name in ("a.idx", "b.idx"):
        write_idx(tmp_path / name, images)
    write_idx(tmp_path / "c.idx", labels)
    message = refused(Code.DATA_MISSING, dataset=str(tmp_path))
    assert "a.idx" in message and "b.idx" in message


def test_a_malformed_file_among_idx_files_is_refused(tmp_path):
    fill(tmp_path, suffix="")
    (tmp_path / NAMES[1]).write_bytes(struct.pack(">HBBI", 0, 8, 1, 40) + b"\0" * 39)
    assert NAMES[1] in refused(Code.DATA_MALFORMED, dataset=str(tmp_path))


def test_counts_of_samples_and_labels_must_agree(tmp_path):
    images, labels = blobs(20)
    write_idx(tmp_path / "x.idx", images)
    write_idx(tmp_path / "y.idx", labels[:-1])
    assert "one label per sample" in refused(Code.DATA_MALFORMED, dataset=str(tmp_path))


def test_train_and_test_must_have_the_same_shape(tmp_path):
    fill(tmp_path, suffix="")
    (tmp_path / NAMES[2]).write_bytes(idx_bytes(blobs(12, side=7)[0]))
    assert "(1, 7, 7)" in refused(Code.DATA_MALFORMED, dataset=str(tmp_path))


@pytest.mark.parametrize(
    ("shape", "stored"),
    [((20, 5), (5,)), ((20, 4, 6), (1, 4, 6)), ((20, 3, 4, 6), (3, 4, 6)), ((20, 4, 6, 3), (3, 4, 6))],
)
def test_npz_takes_rows_grey_and_colour_images(tmp_path, shape, stored):
    np.savez(tmp_path / "d.npz", x=np.zeros(shape, np.uint8), y=np.arange(20) % 2)
    assert load_dataset(str(tmp_path / "d.npz")).shape == stored


def test_npz_values_keep_their_meaning(tmp_path):
    """uint8 is divided by 255; anything else is taken as it is."""
    y = np.arange(20) % 2
    np.savez(tmp_path / "u.npz", x=np.full((20, 2), 255, np.uint8), y=y)
    np.savez(tmp_path / "f.npz", x=np.full((20, 2), -7.5), y=y)
    assert load_dataset(str(tmp_path / "u.npz")).train.scaled().max() == 1
    assert load_dataset(str(tmp_path / "f.npz")).train.scaled().dtype == np.float32
    assert load_dataset(str(tmp_path / "f.npz")).train.scaled().max() == -7.5


GOOD_X, GOOD_Y = np.zeros((20, 3), np.float32), np.arange(20) % 2


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": GOOD_X}, "lacks the arrays y"),
        ({"x": GOOD_X, "y": GOOD_Y[:-1]}, "one label per sample"),
        ({"x": GOOD_X, "y": GOOD_Y.astype(float)}, "labels are float64"),
        ({"x": GOOD_X, "y": GOOD_Y - 1}, "labels run from -1"),
        ({"x": GOOD_X, "y": GOOD_Y + 10_000}, "labels run from"),
        ({"x": GOOD_X, "y": GOOD_Y * 0}, "1 classes"),
        ({"x": GOOD_X, "y": GOOD_Y.reshape(20, 1)}, "one label per sample"),
        ({"x": GOOD_X[:, 0], "y": GOOD_Y}, "values have shape"),
        ({"x": np.full((20, 3), np.nan), "y": GOOD_Y}, "NaN"),
        ({"x": np.full((20, 3), 1e300), "y": GOOD_Y}, "beyond float32"),
        ({"x": GOOD_X.astype(complex), "y": GOOD_Y}, "complex128"),
        ({"x": np.array([{"a": 1}] * 20, dtype=object), "y": GOOD_Y}, "object"),
        ({"x": GOOD_X[:0], "y": GOOD_Y[:0]}, "empty"),
        ({"x": GOOD_X[:2], "y": GOOD_Y[:2]}, "too few"),
    ],
)
def test_impossible_npz_is_refused(tmp_path, arrays, says):
    """Nothing is unpickled on the way."""
    np.savez(tmp_path / "d.npz", **arrays)
    assert says in refused(Code.DATA_MALFORMED, dataset=str(tmp_path / "d.npz"))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:200], lambda b: b"PK" + b"\0" * 99])
def test_damaged_npz_is_refused(tmp_path, damage):
    np.savez(tmp_path / "whole.npz", x=GOOD_X, y=GOOD_Y)
    (tmp_path / "d.npz").write_bytes(damage((tmp_path / "whole.npz").read_bytes()))
    refused(Code.DATA_MALFORMED, dataset=str(tmp_path / "d.npz"))


def forged_array(shape: str) -> bytes:
    """An ``.npy`` file of 60 bytes of data whose header announces another shape."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0" * 60


@pytest.mark.parametrize(
    ("shape", "says"),
    [("(20, 333333333)", "exceeds"), ("(20, 300000)", "does not have 24000000 bytes"), ("(5,)", "20 bytes")],
)
def test_npz_header_that_announces_what_is_not_there_is_refused(tmp_path, shape, says):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", forged_array(shape))
        archive.writestr("y.npy", forged_array("(15,)"))
    assert says in refused(Code.DATA_MALFORMED, dataset=str(tmp_path / "d.npz"))


def test_unknown_data_set_says_what_can_be_given():
    message = refused(Code.DATA_MISSING, dataset="no-such-thing")
    assert "digits, fashion-mnist, cifar10" in message and "x and y" in message


def test_taking_samples_copies_them():
    samples = Samples(values=np.zeros((3, 2), np.float32), labels=np.array([0, 1, 2]))
    taken = samples.take(np.array([2]))
    taken.values[:] = 1
    assert not samples.values.any() and taken.labels.tolist() == [2]
