"""The real vocabularies of BERT and GPT-2, from local files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.errors import Code, ConfigError

BERT_FILES = ("bert_base_uncased_vocab.txt",)
BERT_SOURCE = "https://github.com/pytorch/text (test/torchtext_unittest/asset)"
GPT2_FILES = ("gpt2_encoder.json", "gpt2_vocab.bpe")
GPT2_SOURCE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/ (encoder.json, vocab.bpe)"
BERT_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GPT2_MARK = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokenizer:
    """Text to token ids of a fixed length, and back.

    Args:
        name: ``bert`` or ``gpt2``.
        vocabulary: number of tokens.
        padding: id that fills what is too short.
        marks: ids that are no words: padding, start, end.
        around: ids that every text starts and ends with, or none.
        engine: a ``tokenizers.Tokenizer``.
    """

    name: str
    vocabulary: int
    padding: int
    marks: tuple[int, ...]
    around: tuple[int, int] | None = None
    engine: Any

    def encode(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids, int64 [n, length], cut or padded at the end; and each text's own number of tokens, int64 [n].

        BERT's [CLS] and [SEP] are part of the length and never cut off.
        """
        start, end = ([self.around[0]], [self.around[1]]) if self.around else ([], [])
        room = length - len(start) - len(end)
        found = [encoded.ids for encoded in self.engine.encode_batch(list(texts))]
        ids = np.full((len(found), length), self.padding, dtype=np.int64)
        for row, own in zip(ids, found, strict=True):
            kept = start + own[:room] + end
            row[: len(kept)] = kept
        return ids, np.array([len(own) + length - room for own in found], dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """Words of these ids, marks left out."""
        words: str = self.engine.decode([token for token in tokens if token not in self.marks])
        return words

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it."""
        return [str(self.engine.id_to_token(token)) for token in tokens]


def load_tokenizer(name: str, folder: Path) -> Tokenizer:
    """BERT's lower-case WordPiece or GPT-2's byte-level BPE.

    Args:
        name: ``bert`` or ``gpt2``.
        folder: with ``bert_base_uncased_vocab.txt`` (or ``vocab.txt``), or with ``gpt2_encoder.json`` and
            ``gpt2_vocab.bpe`` (or ``encoder.json`` and ``vocab.bpe``, or ``vocab.json`` and ``merges.txt``).

    Raises:
        ConfigError: CONFIG_INVALID for another name; DATA_MISSING names the files and their source;
            DATA_MALFORMED; DEPENDENCY_MISSING.
    """
    if name not in ("bert", "gpt2"):
        raise ConfigError(Code.CONFIG_INVALID, f"no tokenizer {name!r}: give bert or gpt2")
    try:
        import tokenizers
    except ImportError:
        raise ConfigError(
            Code.DEPENDENCY_MISSING, "text is cut into tokens by tokenizers: pip install 'secagg[text]'"
        ) from None
    build = _bert if name == "bert" else _gpt2
    try:
        return build(tokenizers, folder)
    except ConfigError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(
            Code.DATA_MALFORMED, f"the files of tokenizer {name} in {folder} can't be used: {error}"
        ) from None


def _bert(library: Any, folder: Path) -> Tokenizer:
    (path,) = _files("bert", folder, (BERT_FILES, ("vocab.txt",)), BERT_SOURCE)
    engine = library.Tokenizer(library.models.WordPiece.from_file(path, unk_token="[UNK]"))  # noqa: S106
    engine.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    engine.decoder = library.decoders.WordPiece()
    ids = {mark: engine.token_to_id(mark) for mark in BERT_MARKS}
    lacking = [mark for mark, found in ids.items() if found is None]
    if lacking:
        raise ConfigError(Code.DATA_MALFORMED, f"vocabulary {path} lacks {', '.join(lacking)}")
    return Tokenizer(
        name="bert",
        vocabulary=engine.get_vocab_size(),
        padding=ids["[PAD]"],
        marks=tuple(ids[mark] for mark in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")),
        around=(ids["[CLS]"], ids["[SEP]"]),
        engine=engine,
    )


def _gpt2(library: Any, folder: Path) -> Tokenizer:
    words, merges = _files(
        "gpt2", folder, (GPT2_FILES, ("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")), GPT2_SOURCE
    )
    engine = library.Tokenizer(library.models.BPE.from_file(words, merges))
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = library.decoders.ByteLevel()
    end = engine.token_to_id(GPT2_MARK)
    if end is None:
        raise ConfigError(Code.DATA_MALFORMED, f"vocabulary {words} lacks {GPT2_MARK}")
    return Tokenizer(
        name="gpt2", vocabulary=engine.get_vocab_size(), padding=end, marks=(end,), engine=engine
    )


def _files(kind: str, folder: Path, choices: Sequence[tuple[str, ...]], source: str) -> list[str]:
    for names in choices:
        if all((folder / name).is_file() for name in names):
            return [str(folder / name) for name in names]
    lacking = [name for name in choices[0] if not (folder / name).is_file()]
    raise ConfigError(
        Code.DATA_MISSING,
        f"tokenizer {kind}: {folder} lacks {', '.join(lacking)}; from {source}; name the folder above it "
        "with --data or SECAGG_DATA",
    )
