"""Images to attack: where they come from, that batches don't overlap, what attackers may know."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.inversion.data import SOURCES, load_images, load_source
from attacks.inversion.data.pool import Pool
from attacks.inversion.data.source import Source
from attacks.inversion.victims import load_victim
from secagg.errors import Code, ConfigError

DATA = Path(os.environ.get("SECAGG_DATA") or "data")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def rows(inputs):
    return {tuple(row) for row in inputs.flatten(1).tolist()}


def test_images_are_float64_between_0_and_1(digits):
    (batch,) = digits.batches(1, 4, seed=0)
    assert (digits.shape, digits.classes, digits.class_names[7]) == ((1, 8, 8), 10, "7")
    assert batch.inputs.shape == (4, 1, 8, 8) and batch.inputs.dtype == torch.float64
    assert batch.inputs.min() >= 0 and batch.inputs.max() <= 1
    load_victim("mlp", shape=digits.shape, classes=digits.classes, seed=0).check(batch)


def test_bytes_stand_for_a_255th(tmp_path):
    """An .npz file of bytes: 0 … 255 become 0 … 1 exactly, the mean image too."""
    values = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=values, y=np.arange(40) % 2)
    source = load_source(str(tmp_path / "own.npz"))
    everything = torch.cat([source.known().inputs, *(b.inputs for b in source.batches(8, 1, seed=0))])
    assert rows(everything) == {tuple((image / 255).flatten().tolist()) for image in values}
    torch.testing.assert_close(source.mean_image, source.known().inputs.mean(dim=0))
    assert source.class_names == () and source.name == "own"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 255, "values run from 0 to 255; give uint8, or divide by 255"),
        (-3, 2.5, "values run from -3 to 2.5; images need values from 0 to 1"),
        (0, 1.5, "values run from 0 to 1.5; give uint8"),
    ],
)
@pytest.mark.parametrize("odd", range(10))
def test_images_beyond_0_and_1_are_refused(tmp_path, low, high, said, odd):
    """Whichever one it is, attacked or known; feature rows may hold any numbers."""
    values = np.full((10, 4, 4), 0.5)
    values[odd, 1, :2] = low, high
    np.savez(tmp_path / "own.npz", x=values, y=np.arange(10) % 2)
    np.savez(tmp_path / "rows.npz", x=values.reshape(10, -1), y=np.arange(10) % 2)
    with pytest.raises(ConfigError) as caught:
        load_images(str(tmp_path / "own.npz"))
    assert said in caught.value.message and caught.value.code is Code.DATA_MALFORMED
    assert load_images(str(tmp_path / "rows.npz")).shape == (16,)


def test_images_from_0_to_1_are_taken_as_they_are(tmp_path):
    values = np.random.default_rng(0).random((10, 4, 4), dtype=np.float32)
    values[0, 0, :2] = 0, 1
    np.savez(tmp_path / "own.npz", x=values, y=np.arange(10) % 2)
    known = load_images(str(tmp_path / "own.npz")).known().inputs
    assert rows(known) <= {tuple(image.flatten().tolist()) for image in values.astype(np.float64)}


def test_no_sample_is_in_two_batches_or_known_beforehand(digits):
    """What is attacked is neither a candidate nor something that a victim or an attacker was trained on."""
    attacked = torch.cat([batch.inputs for batch in digits.batches(10, 8, seed=3)])
    assert len(rows(attacked)) == 80
    assert not rows(attacked) & rows(digits.known().inputs)
    assert rows(digits.candidates(30, seed=1)) <= rows(digits.known().inputs)


def test_the_seed_chooses_and_more_batches_only_add_some(digits):
    few, many, other = (digits.batches(n, 4, seed=s) for n, s in ((2, 5), (6, 5), (2, 6)))
    for a, b in zip(few, many, strict=False):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
    assert not torch.equal(few[0].inputs, other[0].inputs)
    assert torch.equal(digits.candidates(5, seed=1), digits.candidates(5, seed=1))
    assert not torch.equal(digits.candidates(5, seed=1), digits.candidates(5, seed=2))


def test_distinct_labels_are_distinct_within_each_batch(digits):
    """… and without the wish some batch of ten would repeat one: the chance of none is 10!/10¹⁰ each."""
    wanted = digits.batches(20, 10, seed=0, distinct_labels=True)
    assert all(len(batch.labels.unique()) == 10 for batch in wanted)
    assert any(len(batch.labels.unique()) < 10 for batch in digits.batches(20, 10, seed=0))


def test_labels_belong_to_their_images(digits):
    """Each drawn sample is found in the data set under the same label."""
    pairs = {
        (tuple(row), int(label))
        for row, label in zip(
            digits.test.values.astype(np.float64).reshape(len(digits.test), -1).tolist(),
            digits.test.labels,
            strict=True,
        )
    }
    for batch in digits.batches(5, 3, seed=0, distinct_labels=True):
        for row, label in zip(batch.inputs.flatten(1).tolist(), batch.labels, strict=True):
            assert (tuple(row), int(label)) in pairs


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.batches(0, 1, seed=0), "must be 1 or more"),
        (lambda s: s.batches(1, 0, seed=0), "must be 1 or more"),
        (lambda s: s.batches(90, 4, seed=0), "has 359 to attack"),
        (lambda s: s.batches(1, 11, seed=0, distinct_labels=True), "has 10 classes"),
        (lambda s: s.batches(35, 10, seed=0, distinct_labels=True), None),
        (lambda s: s.known(0), "1 … 1438"),
        (lambda s: s.candidates(1439, seed=0), "1 … 1438"),
        (lambda s: s.text(torch.tensor([1])), "is no text"),
    ],
)
def test_more_than_there_is_is_refused(digits, call, said):
    """Each class has 35 samples at least, so 35 batches of all ten labels are just possible."""
    if said is None:
        assert len(call(digits)) == 35
        return
    with pytest.raises(ConfigError, match=said) as caught:
        call(digits)
    assert caught.value.code is Code.CONFIG_INVALID


def test_running_out_of_a_class_is_refused():
    pool = Pool(values=np.zeros((6, 2), dtype=np.float32), labels=np.array([0, 0, 0, 0, 0, 1]))
    source = Source(name="lopsided", shape=(2,), classes=2, train=pool, test=pool)
    with pytest.raises(ConfigError, match="too few classes left"):
        source.batches(2, 2, seed=0, distinct_labels=True)


def test_missing_data_is_named_with_its_source(tmp_path):
    for name, source in {
        "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist",
        "cifar10": "https://www.cs.toronto.edu",
        "pneumonia": "https://zenodo.org/records/10519652",
        "sst2": "https://github.com/pytorch/text",
    }.items():
        with pytest.raises(ConfigError, match="SECAGG_DATA") as caught:
            load_source(name, tmp_path)
        assert caught.value.code is Code.DATA_MISSING and source in caught.value.message
        assert str(tmp_path) in caught.value.message and "\n" not in caught.value.message
    with pytest.raises(ConfigError, match="no data set 'minst'") as caught:
        load_source("minst", tmp_path)
    assert all(name in caught.value.message for name in SOURCES)
    assert set(SOURCES) == {"digits", "fashion-mnist", "cifar10", "pneumonia", "sst2"}


def save_pneumonia(path, counts, seed=0):
    """Images whose pixels all are their running number; labels [n, 1], as in MedMNIST files."""
    arrays = {}
    for part, (normal, ill) in counts.items():
        arrays[f"{part}_images"] = np.full((normal + ill, 28, 28), seed, dtype=np.uint8)
        arrays[f"{part}_labels"] = np.repeat([0, 1], [normal, ill]).astype(np.uint8)[:, None]
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def test_pneumonia_joins_two_copies_that_lack_part_of_it(tmp_path):
    """Ill ones of the one, normal ones of the other, test images of the first."""
    folder = tmp_path / "medmnist"
    save_pneumonia(folder / "pneumoniamnist_varun.npz", {"train": (2, 9), "test": (3, 4)}, seed=1)
    save_pneumonia(folder / "pneumoniamnist_aksufatih.npz", {"train": (5, 6), "test": (1, 1)}, seed=2)
    source = load_images("pneumonia", tmp_path)
    assert source.class_names == ("normal", "pneumonia") and source.shape == (1, 28, 28)
    known = source.known()
    assert torch.bincount(known.labels).tolist() == [5, 9] and len(source.test) == 7
    of_copy = (known.inputs[:, 0, 0, 0] * 255).round()
    assert torch.equal(of_copy, torch.where(known.labels == 1, 1.0, 2.0).double())


def test_the_official_pneumonia_file_is_preferred(tmp_path):
    save_pneumonia(tmp_path / "medmnist" / "pneumoniamnist.npz", {"train": (3, 5), "test": (1, 2)})
    source = load_images("pneumonia", tmp_path)
    assert (len(source.train), len(source.test)) == (8, 3)


def test_a_pneumonia_file_without_labels_is_malformed(tmp_path):
    (tmp_path / "medmnist").mkdir()
    np.savez(tmp_path / "medmnist" / "pneumoniamnist.npz", train_images=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(ConfigError, match="train_labels") as caught:
        load_images("pneumonia", tmp_path)
    assert caught.value.code is Code.DATA_MALFORMED


@pytest.mark.skipif(not (DATA / "medmnist").is_dir(), reason="SECAGG_DATA has no medmnist")
def test_pneumonia_is_read_whole():
    """The counts that MedMNIST states: 1,214 and 3,494 to train on, 234 and 390 to test on."""
    source = load_images("pneumonia", DATA)
    assert np.bincount(source.train.labels).tolist() == [1214, 3494]
    assert np.bincount(source.test.labels).tolist() == [234, 390]


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="SECAGG_DATA has no cifar10")
def test_cifar_images_are_attacked_in_colour():
    source = load_images("cifar10", DATA)
    (batch,) = source.batches(1, 2, seed=0)
    assert batch.inputs.shape == (2, 3, 32, 32) and source.mean_image.shape == (3, 32, 32)


def test_images_are_made_smaller_by_means_of_blocks(digits):
    """``@SIDE`` keeps samples, labels and their split; a side that doesn't divide is refused."""
    small = load_source("digits@4")
    assert small.shape == (1, 4, 4) and small.name == "digits@4"
    assert np.array_equal(small.test.labels, digits.test.labels)
    first, whole = small.test.values[0, 0], digits.test.values[0, 0].astype(np.float64)
    assert first[1, 2] == pytest.approx(whole[2:4, 4:6].mean(), abs=0.5)
    with pytest.raises(ConfigError, match="3 x 3 equal blocks") as caught:
        load_source("digits@3")
    assert caught.value.code is Code.CONFIG_INVALID
