"""Samples to attack, by the data set's name or path."""

from __future__ import annotations

from pathlib import Path

from attacks.inversion.data.images import load_images
from attacks.inversion.data.source import Source
from attacks.inversion.data.text import TEXTS, TOKENS, load_text
from attacks.inversion.data.tokenizer import Tokenizer, load_tokenizer
from secagg.simulation.datasets import DATASETS

__all__ = [
    "SOURCES",
    "TEXTS",
    "Source",
    "Tokenizer",
    "load_images",
    "load_source",
    "load_text",
    "load_tokenizer",
]

SOURCES = (*DATASETS, *TEXTS)
"""Names of data sets; a folder of IDX files and an ``.npz`` file besides."""


def load_source(
    dataset: str, data: Path | None = None, *, tokenizer: str = "bert", tokens: int = TOKENS
) -> Source:
    """Images, feature rows or text.

    Args:
        dataset: one of ``SOURCES``, a folder of IDX files or an ``.npz`` file.
        data: folder with the named data sets; default $SECAGG_DATA.
        tokenizer: of text, ``bert`` or ``gpt2``.
        tokens: of text, length of a sample.

    Raises:
        ConfigError: as ``load_images`` and ``load_text``.
    """
    if dataset in TEXTS:
        return load_text(dataset, data, tokenizer=tokenizer, tokens=tokens)
    return load_images(dataset, data)
