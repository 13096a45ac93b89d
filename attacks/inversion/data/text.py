"""Sentences as token ids of a fixed length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.data.pool import Pool
from attacks.inversion.data.source import Source
from attacks.inversion.data.tokenizer import Tokenizer, load_tokenizer
from secagg.errors import Code, ConfigError
from secagg.simulation.datasets import data_folder
from secagg.simulation.datasets.dataset import malformed

TEXTS = ("sst2",)
TOKENS = 16
SST2_FILES = ("train.tsv", "test.tsv")
SST2_SOURCE = "https://github.com/clairett/pytorch-sentiment-classification (data/SST2)"
MAX_BYTES = 64 * 2**20


def load_text(
    dataset: str, data: Path | None = None, *, tokenizer: str = "bert", tokens: int = TOKENS
) -> Source:
    """Sentences of a text data set; those that need no padding are attacked first.

    Victims attend to every token, padding too, so batches hold sentences of exactly ``tokens`` tokens
    first, then longer ones, cut, then shorter ones, padded.

    Args:
        dataset: ``sst2``, the Stanford sentiment treebank's sentences (Socher et al., EMNLP 2013).
        data: folder that holds ``text-sst2/`` and ``tokenizers/``; default $SECAGG_DATA.
        tokenizer: ``bert`` or ``gpt2``; the victim's.
        tokens: length of a sample, at least 3; BERT's two marks count.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown name or too small a length; DATA_MISSING names what is
            missing and where it comes from; DATA_MALFORMED; DEPENDENCY_MISSING.
    """
    if dataset not in TEXTS:
        raise ConfigError(Code.CONFIG_INVALID, f"no text data set {dataset!r}: give {', '.join(TEXTS)}")
    if tokens < 3:
        raise ConfigError(Code.CONFIG_INVALID, f"a sample of text has 3 tokens or more, not {tokens}")
    folder = data_folder(data)
    engine = load_tokenizer(tokenizer, folder / "tokenizers")
    train, _ = _pool(engine, folder / "text-sst2" / SST2_FILES[0], tokens)
    test, lengths = _pool(engine, folder / "text-sst2" / SST2_FILES[1], tokens)

    def decode(ids: torch.Tensor) -> str:
        return engine.decode(ids.tolist())

    return Source(
        name=dataset,
        shape=(tokens,),
        classes=2,
        class_names=("negative", "positive"),
        train=train,
        test=test,
        vocabulary=engine.vocabulary,
        padding=engine.padding,
        rank=np.where(lengths == tokens, 0, np.where(lengths > tokens, 1, 2)),
        decode=decode,
    )


def _pool(engine: Tokenizer, path: Path, tokens: int) -> tuple[Pool, NDArray[np.int64]]:
    sentences, labels = _lines(path)
    ids, lengths = engine.encode(sentences, tokens)
    return Pool(values=ids, labels=np.array(labels, dtype=np.int64)), lengths


def _lines(path: Path) -> tuple[list[str], list[int]]:
    """Sentences and labels of lines "sentence<TAB>label"."""
    if not path.is_file():
        raise ConfigError(
            Code.DATA_MISSING,
            f"sst2: {path.parent} lacks {path.name}; {' and '.join(SST2_FILES)} come from {SST2_SOURCE}; "
            "name the folder above it with --data or SECAGG_DATA",
        )
    if path.stat().st_size > MAX_BYTES:
        raise malformed("sst2", f"{path} exceeds {MAX_BYTES} bytes")
    sentences, labels = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise malformed("sst2", f"{path} is no readable text: {error}") from None
    for number, line in enumerate(lines, 1):
        sentence, tab, label = line.rpartition("\t")
        if not tab or label not in ("0", "1") or not sentence.strip():
            raise malformed("sst2", f"line {number} of {path} is no sentence, tab, and label 0 or 1")
        sentences.append(sentence)
        labels.append(int(label))
    if not sentences:
        raise malformed("sst2", f"{path} is empty")
    return sentences, labels
