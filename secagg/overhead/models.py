"""The tensors of well-known models: names and shapes only, no weights."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from secagg.errors import Code, ConfigError
from secagg.update import Manifest, TensorSpec

Tensor = tuple[str, tuple[int, ...]]


def _layer(name: str, *weight: int, outputs: int | None = None) -> list[Tensor]:
    """A weight and the bias that goes with it, one per output."""
    return [(f"{name}.weight", weight), (f"{name}.bias", (outputs or weight[0],))]


def _lenet() -> Iterator[Tensor]:
    """LeNet-5 on 28 x 28 x 1 (LeCun et al., *Gradient-based learning applied to document recognition*)."""
    yield from _layer("conv1", 6, 1, 5, 5)
    yield from _layer("conv2", 16, 6, 5, 5)
    yield from _layer("fc1", 120, 400)
    yield from _layer("fc2", 84, 120)
    yield from _layer("fc3", 10, 84)


def _lenet_dlg() -> Iterator[Tensor]:
    """The LeNet of gradient inversion, 32 x 32 x 3, 100 classes (Zhu et al., *Deep leakage from
    gradients*).
    """
    yield from _layer("body.0", 12, 3, 5, 5)
    for place in (2, 4, 6):
        yield from _layer(f"body.{place}", 12, 12, 5, 5)
    yield from _layer("fc.0", 100, 768)


def _cnn() -> Iterator[Tensor]:
    """The cnn of ``secagg run`` on 28 x 28 x 1."""
    yield from _layer("conv1", 32, 1, 3, 3)
    yield from _layer("conv2", 64, 32, 3, 3)
    yield from _layer("hidden", 128, 1600)
    yield from _layer("output", 10, 128)


def _batch_norm(name: str, channels: int) -> Iterator[Tensor]:
    """Affine parameters and running statistics; the counter of batches is an integer and does not travel."""
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)


def _resnet18() -> Iterator[Tensor]:
    """ResNet-18 for ImageNet (He et al., *Deep residual learning for image recognition*), torchvision."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from _batch_norm("bn1", 64)
    inputs = 64
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            yield f"{name}.conv1.weight", (channels, inputs, 3, 3)
            yield from _batch_norm(f"{name}.bn1", channels)
            yield f"{name}.conv2.weight", (channels, channels, 3, 3)
            yield from _batch_norm(f"{name}.bn2", channels)
            if inputs != channels:
                yield f"{name}.downsample.0.weight", (channels, inputs, 1, 1)
                yield from _batch_norm(f"{name}.downsample.1", channels)
            inputs = channels
    yield from _layer("fc", 1000, 512)


def _bert_base() -> Iterator[Tensor]:
    """BERT-base-uncased with its pooler (Devlin et al., *BERT*), names as in Hugging Face's ``BertModel``."""
    width = 768
    for table, rows in (("word", 30_522), ("position", 512), ("token_type", 2)):
        yield f"embeddings.{table}_embeddings.weight", (rows, width)
    yield from _layer("embeddings.LayerNorm", width)
    for number in range(12):
        name = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _layer(f"{name}.attention.{part}", width, width)
        yield from _layer(f"{name}.attention.output.LayerNorm", width)
        yield from _layer(f"{name}.intermediate.dense", 4 * width, width)
        yield from _layer(f"{name}.output.dense", width, 4 * width)
        yield from _layer(f"{name}.output.LayerNorm", width)
    yield from _layer("pooler.dense", width, width)


def _gpt2() -> Iterator[Tensor]:
    """GPT-2 small (Radford et al., *Language models are unsupervised multitask learners*), names as in
    Hugging Face's ``GPT2Model``; the output layer shares the embedding's weights.
    """
    width = 768
    yield "wte.weight", (50_257, width)
    yield "wpe.weight", (1024, width)
    for number in range(12):
        name = f"h.{number}"
        yield from _layer(f"{name}.ln_1", width)
        yield from _layer(f"{name}.attn.c_attn", width, 3 * width, outputs=3 * width)
        yield from _layer(f"{name}.attn.c_proj", width, width)
        yield from _layer(f"{name}.ln_2", width)
        yield from _layer(f"{name}.mlp.c_fc", width, 4 * width, outputs=4 * width)
        yield from _layer(f"{name}.mlp.c_proj", 4 * width, width, outputs=width)
    yield from _layer("ln_f", width)


MODELS: dict[str, tuple[Tensor, ...]] = {
    "lenet": tuple(_lenet()),
    "lenet-dlg": tuple(_lenet_dlg()),
    "cnn": tuple(_cnn()),
    "resnet18": tuple(_resnet18()),
    "bert-base": tuple(_bert_base()),
    "gpt2": tuple(_gpt2()),
}
"""Model -> its tensors' names and shapes, in the order in which they are flattened; smallest first."""


def manifest_of(name: str) -> Manifest:
    """The manifest of a model of ``MODELS``.

    Raises:
        ConfigError: CONFIG_INVALID for an unknown name.
    """
    if name not in MODELS:
        raise ConfigError(Code.CONFIG_INVALID, f"model {name!r} is unknown; choose from {', '.join(MODELS)}")
    return Manifest(tensors=tuple(TensorSpec(name=tensor, shape=shape) for tensor, shape in MODELS[name]))


def values_of(name: str) -> int:
    """How many values a model of ``MODELS`` has."""
    return sum(prod(shape) for _, shape in MODELS[name])
