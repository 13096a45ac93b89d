"""Sentences as token ids of a fixed length, and back."""

import json
import os
from pathlib import Path

import pytest
import torch

from attacks.inversion.batch import Batch
from attacks.inversion.bench.pool import Pool as Samples
from attacks.inversion.data import load_source, load_text, load_tokenizer
from secagg.errors import Code, ConfigError

DATA = Path(os.environ.get("SECAGG_DATA") or "data")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good", "bad", "##ly", "!")
TRAIN = "a good film\t1\na bad film\t0\n"
TEST = "good\t1\na badly good film !\t0\nA film\t1\na bad bad bad bad bad film\t0\nfilm goodly\t1\n"


@pytest.fixture
def data(tmp_path):
    """A data folder with a vocabulary of a few words and a few sentences."""
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    pieces = ["<|endoftext|>", "Ġ", *"abdfgilmoy", "go", "od", "good", "Ġgood", "Ġa", "fi"]
    (tmp_path / "tokenizers" / "vocab.json").write_text(
        json.dumps({piece: index for index, piece in enumerate(pieces)})
    )
    (tmp_path / "tokenizers" / "merges.txt").write_text(
        "#version: 0.2\ng o\no d\ngo od\nĠ good\nĠ a\nf i\n", encoding="utf-8"
    )
    (tmp_path / "text-sst2").mkdir()
    (tmp_path / "text-sst2" / "train.tsv").write_text(TRAIN)
    (tmp_path / "text-sst2" / "test.tsv").write_text(TEST)
    return tmp_path


def ids(*words):
    return [WORDS.index(word) for word in words]


def test_sentences_are_cut_or_padded_between_their_marks(data):
    """[CLS] and [SEP] count and survive; what is too long is cut, what is too short is padded at the end."""
    source = load_text("sst2", data, tokens=5)
    assert source.shape == (5,) and source.vocabulary == len(WORDS) and source.classes == 2
    assert source.test.values.tolist() == [
        ids("[CLS]", "good", "[SEP]", "[PAD]", "[PAD]"),
        ids("[CLS]", "a", "bad", "##ly", "[SEP]"),
        ids("[CLS]", "a", "film", "[SEP]", "[PAD]"),
        ids("[CLS]", "a", "bad", "bad", "[SEP]"),
        ids("[CLS]", "film", "good", "##ly", "[SEP]"),
    ]
    assert source.test.labels.tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_sentences_that_fit_are_attacked_first_and_padded_ones_last(data, seed):
    batches = load_text("sst2", data, tokens=5).batches(5, 1, seed=seed)
    padding = [int((batch.inputs == 0).sum()) for batch in batches]
    assert batches[0].inputs.tolist() == [ids("[CLS]", "film", "good", "##ly", "[SEP]")]
    assert padding[:3] == [0, 0, 0] and sorted(padding[3:]) == [1, 2]


def test_words_come_back(data):
    source = load_text("sst2", data, tokens=8)
    assert (
        source.text(torch.tensor(ids("[CLS]", "a", "bad", "##ly", "good", "[SEP]", "[PAD]")))
        == "a badly good"
    )
    tokenizer = load_tokenizer("bert", data / "tokenizers")
    assert tokenizer.pieces(ids("bad", "##ly")) == ["bad", "##ly"]


def test_gpt2_merges_bytes_and_pads_with_its_end_mark(data):
    source = load_text("sst2", data, tokenizer="gpt2", tokens=6)
    vocabulary = json.loads((data / "tokenizers" / "vocab.json").read_text())
    words = [*("a", "Ġgood", "Ġ", "fi", "l", "m")]
    assert source.train.values[0].tolist() == [vocabulary[word] for word in words]
    assert source.test.values[0].tolist() == [vocabulary["good"]] + [0] * 5
    assert source.text(torch.from_numpy(source.train.values[0])) == "a good film"


def test_batches_of_text_are_int64_and_have_no_mean(data):
    source = load_source("sst2", data, tokens=5)
    (batch,) = source.batches(1, 2, seed=0, distinct_labels=True)
    assert batch.inputs.dtype == torch.int64 and sorted(batch.labels.tolist()) == [0, 1]
    with pytest.raises(ConfigError, match="no mean image"):
        _ = source.mean_image


def refused(code, data, **settings):
    with pytest.raises(ConfigError) as caught:
        load_text(**{"dataset": "sst2", "data": data, **settings})
    assert caught.value.code is code and "\n" not in caught.value.message
    return caught.value.message


def test_unknown_names_and_lengths_are_refused(data):
    assert "sst2" in refused(Code.CONFIG_INVALID, data, dataset="imdb")
    assert "bert or gpt2" in refused(Code.CONFIG_INVALID, data, tokenizer="t5")
    assert "3 tokens or more" in refused(Code.CONFIG_INVALID, data, tokens=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a film\t1\ngood\n", "line 2"),
        (b"a film\t2\n", "line 1"),
        (b"\t1\n", "line 1"),
        (b"", "is empty"),
        (b"\xff\xfe\t1\n", "no readable text"),
    ],
)
def test_malformed_sentences_are_named_by_line(data, content, said):
    (data / "text-sst2" / "test.tsv").write_bytes(content)
    assert said in refused(Code.DATA_MALFORMED, data)


def test_vocabularies_that_lack_what_is_needed_are_refused(data):
    (data / "tokenizers" / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    assert "[CLS], [SEP]" in refused(Code.DATA_MALFORMED, data)
    (data / "tokenizers" / "vocab.json").write_text("{")
    assert "tokenizer gpt2" in refused(Code.DATA_MALFORMED, data, tokenizer="gpt2")
    (data / "tokenizers" / "merges.txt").unlink()
    message = refused(Code.DATA_MISSING, data, tokenizer="gpt2")
    assert "gpt2_vocab.bpe" in message and "https://" in message
    (data / "text-sst2" / "test.tsv").unlink()
    (data / "tokenizers" / "vocab.txt").write_text("\n".join(WORDS))
    assert "clairett" in refused(Code.DATA_MISSING, data)


@pytest.mark.skipif(
    not ((DATA / "text-sst2").is_dir() and (DATA / "tokenizers").is_dir()),
    reason="SECAGG_DATA has no text-sst2 or tokenizers",
)
@pytest.mark.parametrize(("tokenizer", "vocabulary"), [("bert", 30_522), ("gpt2", 50_257)])
def test_real_sentences_need_no_padding_and_come_back_as_words(tokenizer, vocabulary):
    """Real vocabularies lose nothing but case and the space around punctuation."""
    source = load_text("sst2", DATA, tokenizer=tokenizer, tokens=16)
    assert (source.vocabulary, len(source.train), len(source.test)) == (vocabulary, 6920, 1821)
    lines = {
        line.rpartition("\t")[0].lower().replace(" ", "")
        for line in (DATA / "text-sst2" / "test.tsv").read_text().splitlines()
    }
    padding = 0 if tokenizer == "bert" else 50_256
    for batch in source.batches(10, 4, seed=0):
        assert not (batch.inputs == padding).any()
        assert all(source.text(tokens).replace(" ", "") in lines for tokens in batch.inputs)


def test_what_is_usual_in_known_texts_is_the_prior_of_text():
    """Per place the commonest token, and as a bag "the token for the k-th time"; padding is neither."""
    known = torch.tensor([[1, 7, 7, 0], [1, 7, 5, 0], [1, 6, 5, 4]])
    batch = Batch(inputs=known[:1], labels=torch.tensor([0]))
    pool = Samples(
        name="made up",
        attacked=batch,
        others=(),
        known=Batch(inputs=known, labels=torch.zeros(3, dtype=torch.int64)),
        classes=2,
        vocabulary=8,
        padding=0,
    )
    assert pool.usual is not None and pool.mean is None
    places, bag = pool.usual
    assert places.tolist() == [1, 7, 5, 4]
    # 1 in all three, 7 and 5 in two; of the rest each in one, whichever.
    assert sorted(bag.tolist()[:3]) == [1, 5, 7] and 0 not in bag.tolist()


def test_the_padding_token_is_known(data):
    assert load_text("sst2", data, tokens=5).padding == 0
