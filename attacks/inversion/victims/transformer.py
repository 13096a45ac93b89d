"""Text classifiers: BERT and GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

LAYERS = 2
HEADS = 2
WIDTH = 128
MAX_TOKENS = 512
BERT_VOCABULARY = 30_522
GPT2_VOCABULARY = 50_257


class Bert(nn.Module):
    """Class logits of the first token (Devlin et al., arXiv 1810.04805)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.bert: Any = model.bert
        self.classifier: Any = model.classifier
        self.word_embeddings = "bert.embeddings.word_embeddings.weight"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = self.classifier(self.bert(**_either(inputs)).pooler_output)
        assert isinstance(outputs, torch.Tensor)
        return outputs


class GPT2(nn.Module):
    """Class logits of the last token (Radford et al. 2019)."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.transformer: Any = model.transformer
        self.classifier: Any = model.score
        self.word_embeddings = "transformer.wte.weight"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.transformer(use_cache=False, **_either(inputs)).last_hidden_state
        outputs = self.classifier(hidden[:, -1])
        assert isinstance(outputs, torch.Tensor)
        return outputs


def _either(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}


def bert(
    shape: tuple[int, ...], classes: int, *, vocabulary: int | None = None, path: Path | None = None
) -> Bert:
    """A BERT that classifies whole sentences, in inference mode (no dropout), every token attended to.

    Without a path 2 layers, 2 heads, width 128 and random weights: the size of BERT-Tiny (Turc, Chang, Lee,
    Toutanova, arXiv 1908.08962). It takes word ids, or word embeddings in their place; position and segment
    embeddings are added to both.

    Args:
        shape: (tokens,).
        classes: number of outputs.
        vocabulary: number of words; default BERT's 30,522.
        path: local folder with ``config.json`` and weights, as transformers saves them. A classifier in it
            is kept if it has as many classes, otherwise a random one is put on top.

    Raises:
        ConfigError: CONFIG_INVALID for a shape that is no (tokens,) or more tokens than it has positions;
            DATA_MISSING or DATA_MALFORMED if there is no such model at the path; DEPENDENCY_MISSING.
    """
    transformers = _transformers()
    if path is None:
        config = transformers.BertConfig(
            vocab_size=vocabulary or BERT_VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=MAX_TOKENS,
        )
    else:
        config = _config(path, "bert")
    _fits("bert", shape, config.max_position_embeddings)
    return Bert(_model(transformers.BertForSequenceClassification, config, classes, path))


def gpt2(
    shape: tuple[int, ...], classes: int, *, vocabulary: int | None = None, path: Path | None = None
) -> GPT2:
    """As ``bert``, of GPT-2: words see earlier ones only, the last one is classified.

    Args, Raises: as of ``bert``; the default vocabulary has 50,257 tokens.
    """
    transformers = _transformers()
    if path is None:
        size = vocabulary or GPT2_VOCABULARY
        config = transformers.GPT2Config(
            vocab_size=size,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            n_positions=MAX_TOKENS,
            bos_token_id=size - 1,
            eos_token_id=size - 1,
        )
    else:
        config = _config(path, "gpt2")
    _fits("gpt2", shape, config.n_positions)
    return GPT2(_model(transformers.GPT2ForSequenceClassification, config, classes, path))


def embedding_name(victim: Victim) -> str:
    """Name of the tensor of word embeddings, [vocabulary, width], of a BERT or GPT-2.

    Raises:
        ConfigError: CONFIG_INVALID if the victim takes no text.
    """
    name = getattr(victim.module, "word_embeddings", None)
    if not isinstance(name, str):
        raise ConfigError(
            Code.CONFIG_INVALID, f"victim {victim.name} takes no text: it has no word embeddings"
        )
    return name


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            Code.DEPENDENCY_MISSING, "BERT and GPT-2 are built by transformers: pip install 'secagg[text]'"
        ) from None
    return transformers


def _config(path: Path, kind: str) -> PretrainedConfig:
    if not (path / "config.json").is_file():
        raise ConfigError(
            Code.DATA_MISSING,
            f"victim {kind}:{path}: there is no {path / 'config.json'}; give a folder that transformers' "
            "save_pretrained wrote",
        )
    try:
        config: PretrainedConfig = _transformers().AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(Code.DATA_MALFORMED, f"victim {kind}:{path}: {_first_line(error)}") from None
    if config.model_type != kind:
        raise ConfigError(
            Code.DATA_MALFORMED, f"victim {kind}:{path}: the folder holds a {config.model_type}, no {kind}"
        )
    return config


def _model(kind: Any, config: PretrainedConfig, classes: int, path: Path | None) -> PreTrainedModel:
    config.num_labels = classes
    # The other implementations of attention have no second derivative.
    config._attn_implementation = "eager"
    model: PreTrainedModel
    if path is None:
        model = kind(config)
    else:
        try:
            model = kind.from_pretrained(
                path, config=config, local_files_only=True, ignore_mismatched_sizes=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(Code.DATA_MALFORMED, f"victim {path}: {_first_line(error)}") from None
    model.train(False)
    return model


def _fits(kind: str, shape: tuple[int, ...], positions: int) -> None:
    if len(shape) != 1 or not 1 <= shape[0] <= positions:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"victim {kind} can't take samples of shape {shape}; it needs (tokens,), at most {positions}",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
