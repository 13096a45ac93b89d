"""A network's linear layers, and what an exposure shows of their gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn

from attacks.inversion.exposure import Exposure
from attacks.inversion.victims.victim import Victim

PROBES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLayer:
    """y = W·a + b, as it takes part in a network's forward pass.

    Args:
        path: of the module.
        weight: name of W's tensor in the manifest, [outputs, inputs].
        bias: of b's; None without one.
        outputs: rows of W.
        inputs: columns of W.
        positions: how often it is applied to one sample; more than once per sample to tokens.
        reads_sample: True if a is the sample itself, flattened.
        gives_logits: True if y is what the network returns.
    """

    path: str
    weight: str
    bias: str | None
    outputs: int
    inputs: int
    positions: int
    reads_sample: bool
    gives_logits: bool

    def gradient(self, exposure: Exposure) -> tuple[torch.Tensor, torch.Tensor]:
        """[∂L/∂W | ∂L/∂b] and where the attacker takes it as sent, both [outputs, inputs (+ 1)].

        As ∂L/∂y = δ gives ∂L/∂W = Σ_s δ_s·a_sᵀ and ∂L/∂b = Σ_s δ_s, it has rank ≤ B·positions.
        """
        names = (self.weight,) if self.bias is None else (self.weight, self.bias)
        places = [exposure.victim.manifest.slice_of(name) for name in names]
        values, seen = (
            torch.cat([flat[place].view(self.outputs, -1) for place in places], dim=1)
            for flat in (exposure.visible, exposure.compared)
        )
        return values, seen

    def written(self, flat: torch.Tensor, matrix: torch.Tensor, victim: Victim) -> torch.Tensor:
        """A copy of a flat vector [d] in which this layer's entries are those of ``matrix``."""
        result = flat.clone()
        result[victim.manifest.slice_of(self.weight)] = matrix[:, : self.inputs].reshape(-1).to(flat.dtype)
        if self.bias is not None:
            result[victim.manifest.slice_of(self.bias)] = matrix[:, self.inputs].to(flat.dtype)
        return result


def precision(exposure: Exposure, layer: LinearLayer) -> float:
    """How exactly an attacker knows a layer's gradient, relative to its root mean square.

    The unit roundoff of the numbers that were sent, which shows in themselves, or the noise added to them.
    """
    values, seen = layer.gradient(exposure)
    single = torch.equal(values, values.to(torch.float32).to(values.dtype))
    roundoff = torch.finfo(torch.float32 if single else values.dtype).eps
    level = float(values[seen].to(torch.float64).square().mean().sqrt()) if seen.any() else 0.0
    return max(roundoff, exposure.noise / level) if level else roundoff


def closed(values: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of the logits' layer with its columns completed where one entry alone is unseen.

    Answers and labels both sum to 1, so the δ of cross entropy sums to 0 over the classes, and so does every
    column of Σ_s δ_s·a_sᵀ.

    Args:
        values: [classes, columns]; what lies at unseen places does not count.
        seen: bool, of the same shape.
    """
    single = (~seen).sum(dim=0) == 1
    filled = torch.where(seen, values, 0.0)
    rest = -filled.sum(dim=0, keepdim=True)
    return torch.where(~seen & single, rest, filled), seen | single


def probe_inputs(victim: Victim, count: int, *, seed: int) -> torch.Tensor:
    """Samples drawn evenly from all that are possible: [0, 1), or all tokens; [count, *shape]."""
    generator = torch.Generator().manual_seed(seed)
    if victim.vocabulary:
        drawn = torch.randint(victim.vocabulary, (count, *victim.shape), generator=generator)
    else:
        drawn = torch.rand(count, *victim.shape, generator=generator, dtype=torch.float64).to(victim.dtype)
    return drawn.to(victim.device)


@dataclass(slots=True)
class _Call:
    """One layer's inputs and outputs during the probe."""

    layer: nn.Linear
    path: str
    inputs: torch.Tensor
    outputs: torch.Tensor
    rows: int


_FOUND: WeakKeyDictionary[Victim, tuple[LinearLayer, ...]] = WeakKeyDictionary()


def linear_layers(victim: Victim) -> tuple[LinearLayer, ...]:
    """The trained linear layers in the order in which a forward pass comes to them.

    They are found by a forward pass of a copy of the module, once per victim; buffers stay as they are.
    """
    if victim not in _FOUND:
        _FOUND[victim] = _traced(victim)
    return _FOUND[victim]


def _traced(victim: Victim) -> tuple[LinearLayer, ...]:
    module = copy.deepcopy(victim.module)
    trained = {spec.name for spec in victim.manifest.tensors}
    calls: dict[str, _Call] = {}

    def watch(path: str, layer: nn.Linear) -> None:
        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> None:
            rows = inputs[0].numel() // layer.in_features
            if path in calls:
                calls[path].rows += rows
            else:
                calls[path] = _Call(layer, path, inputs[0].detach(), outputs.detach(), rows)

        layer.register_forward_hook(record)

    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and f"{path}.weight".lstrip(".") in trained:
            watch(path, layer)
    samples = probe_inputs(victim, PROBES, seed=0)
    with torch.no_grad():
        returned = module(samples)
    found = []
    for path, call in calls.items():
        bias = f"{path}.bias".lstrip(".")
        found.append(
            LinearLayer(
                path=path,
                weight=f"{path}.weight".lstrip("."),
                bias=bias if bias in trained else None,
                outputs=call.layer.out_features,
                inputs=call.layer.in_features,
                positions=max(1, call.rows // PROBES),
                reads_sample=call.inputs.numel() == samples.numel()
                and torch.equal(call.inputs.reshape(-1), samples.reshape(-1).to(call.inputs.dtype)),
                gives_logits=isinstance(returned, torch.Tensor)
                and call.outputs.shape == returned.shape
                and torch.equal(call.outputs, returned),
            )
        )
    return tuple(found)


def first_layer(victim: Victim) -> LinearLayer | None:
    """The linear layer that reads samples themselves; None if the network has none such."""
    return next((layer for layer in linear_layers(victim) if layer.reads_sample), None)


def last_layer(victim: Victim) -> LinearLayer | None:
    """The linear layer whose outputs are the logits; None if the network has none such."""
    return next((layer for layer in reversed(linear_layers(victim)) if layer.gives_logits), None)


def features(
    victim: Victim, layer: LinearLayer, parameters: torch.Tensor, inputs: torch.Tensor
) -> torch.Tensor:
    """What a layer that is applied once per sample reads of a batch of inputs, [B, inputs]."""
    module = copy.deepcopy(victim.module)
    seen: list[torch.Tensor] = []
    module.get_submodule(layer.path).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        torch.func.functional_call(module, dict(victim.named(parameters)), (inputs,))
    return seen[0].detach().reshape(len(inputs), -1)
