"""What text attackers know of a transformer: its embeddings, and what its attention layers read."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from attacks.inversion.exposure import Exposure
from attacks.inversion.victims.victim import Victim

_POSITIONS = re.compile(r"(^|\.)(position_embeddings|wpe)\.weight$")
_PROJECTION = re.compile(r"\.(\d+)\.(attention\.self\.(query|key|value)|attn\.c_attn)\.weight$")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayer:
    """The projections of one attention layer, which all read the same h [B, tokens, width].

    Args:
        path: of a module whose input is h.
        weights: names of the projections' tensors.
        transposed: True if they are [width, outputs] as GPT-2's, False if [outputs, width] as BERT's.
    """

    path: str
    weights: tuple[str, ...]
    transposed: bool

    def gradient(self, exposure: Exposure) -> tuple[torch.Tensor, torch.Tensor]:
        """G = Σ_t h_t·δ_tᵀ of all projections side by side, and where it is seen; [width, columns].

        Query, key and value alike: a last layer of which one token's output counts has query gradients of
        that token only, but key and value gradients of all that it attends to.
        """
        values, seen = exposure.victim.named(exposure.visible), exposure.victim.named(exposure.compared)
        sides = []
        for tensors in (values, seen):
            parts = [tensors[name] if self.transposed else tensors[name].T for name in self.weights]
            sides.append(torch.cat(parts, dim=1))
        return sides[0], sides[1]

    def projected(
        self, exposure: Exposure, read: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of h [n, width], each [n, width]."""
        tensors = exposure.victim.named(exposure.parameters)
        parts = []
        for name in self.weights:
            bias = tensors.get(name.removesuffix("weight") + "bias")
            product = read @ (tensors[name] if self.transposed else tensors[name].T)
            parts.append(product if bias is None else product + bias)
        queries, keys, values = torch.cat(parts, dim=1).chunk(3, dim=1)
        return queries, keys, values

    def heads(self, victim: Victim) -> int:
        """How many heads share the width."""
        module = victim.module.get_submodule(self.path.rpartition(".")[0])
        return int(getattr(module, "num_attention_heads", 0) or getattr(module, "num_heads", 1))


def attention_layers(victim: Victim) -> tuple[AttentionLayer, ...]:
    """A transformer's attention layers whose weights are trained, in order; none of other networks."""
    found: dict[int, list[str]] = {}
    for spec in victim.manifest.tensors:
        match = _PROJECTION.search(spec.name)
        if match is not None:
            found.setdefault(int(match.group(1)), []).append(spec.name)
    return tuple(
        AttentionLayer(
            path=names[0].removesuffix(".weight"),
            weights=tuple(names),
            transposed=names[0].endswith("c_attn.weight"),
        )
        for _, names in sorted(found.items())
    )


def position_name(victim: Victim) -> str | None:
    """Name of the tensor of position embeddings, [positions, width], if there is one."""
    names = (spec.name for spec in victim.manifest.tensors)
    return next((name for name in names if _POSITIONS.search(name)), None)


def reads_text(victim: Victim) -> bool:
    """True if it takes token ids, and its word embeddings are trained."""
    name = getattr(victim.module, "word_embeddings", None)
    return bool(victim.vocabulary) and name in {spec.name for spec in victim.manifest.tensors}


class _Reached(Exception):  # noqa: N818 - no error: the forward pass went as far as it had to
    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs


def read_by(
    victim: Victim, parameters: torch.Tensor, layer: AttentionLayer, tokens: torch.Tensor
) -> torch.Tensor:
    """h, what an attention layer reads of these sentences, [B, tokens, width]; nothing behind it is run.

    Args:
        parameters: flat, [d].
        tokens: int64 [B, tokens].
    """

    def stop(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise _Reached(inputs[0])

    hook = victim.module.get_submodule(layer.path).register_forward_pre_hook(stop)
    try:
        with torch.no_grad():
            victim.outputs(parameters, tokens)
    except _Reached as reached:
        return reached.inputs
    finally:
        hook.remove()
    raise AssertionError(f"{layer.path} takes no part in {victim.name}")
