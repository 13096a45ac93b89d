"""A network as its attackers know it: its shape, its weights, its loss."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from attacks.inversion.batch import Batch
from secagg.errors import Code, ConfigError
from secagg.update import Manifest, TensorSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Victim:
    """A network, and the mean cross entropy that its clients minimise.

    Everything is a function of one flat vector of parameters, in the manifest's order, so that it can be
    differentiated with respect to inputs, vectorised over restarts (``torch.func.vmap``), and evaluated at
    other models than the module's own.

    Args:
        name: as in ``load_victim``.
        module: in the mode (inference or training) that its clients train it in; its parameters that
            require gradients are what an update holds.
        shape: of one sample: (channels, height, width), (features,) or (tokens,).
        classes: number of outputs.
        vocabulary: number of tokens if samples are text, otherwise 0.

    Raises:
        ConfigError: CONFIG_INVALID if no parameter requires a gradient.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    classes: int
    vocabulary: int = 0
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        specs = tuple(
            TensorSpec(name=name, shape=tuple(parameter.shape)) for name, parameter in self._trained()
        )
        if not specs:
            raise ConfigError(Code.CONFIG_INVALID, f"victim {self.name} has no parameter that is trained")
        object.__setattr__(self, "manifest", Manifest(tensors=specs))

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]

    @property
    def size(self) -> int:
        """d, how many entries an update has."""
        return self.manifest.size

    @property
    def sample_size(self) -> int:
        """d_x, how many numbers one sample has."""
        return int(torch.Size(self.shape).numel())

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self._trained()[0][1].dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._trained()[0][1].device

    def parameters(self) -> torch.Tensor:
        """The module's own, flat, [d]; a copy that requires no gradient."""
        return torch.cat([parameter.detach().reshape(-1) for _, parameter in self._trained()])

    def named(self, flat: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Views of a flat vector [d] under the tensors' names and in their shapes."""
        specs = self.manifest.tensors
        parts = torch.split(flat, [spec.size for spec in specs])
        return OrderedDict(
            (spec.name, part.view(spec.shape)) for spec, part in zip(specs, parts, strict=True)
        )

    def outputs(self, parameters: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, [B, classes].

        Args:
            parameters: flat, [d].
            inputs: [B, *shape]; of text token ids, int64, or embeddings, [B, tokens, width].

        Raises:
            ConfigError: CONFIG_INVALID if the module returns something else than a tensor.
        """
        outputs = torch.func.functional_call(self.module, dict(self.named(parameters)), (inputs,))
        if not isinstance(outputs, torch.Tensor):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {self.name} gives a {type(outputs).__name__}; one tensor of logits is needed",
            )
        return outputs

    def loss(self, parameters: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy over a batch, natural logarithm.

        Args:
            parameters, inputs: as in ``outputs``.
            labels: int64 [B], or probabilities [B, classes].
        """
        return cross_entropy(self.outputs(parameters, inputs), labels)

    def gradient(self, parameters: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """∂loss/∂parameters, flat, [d]; differentiable in whatever of the arguments requires a gradient.

        Inside ``torch.func``'s transforms it is one of them; outside plain autograd takes 0.6 times as long.
        """
        if torch._C._are_functorch_transforms_active():
            transformed = torch.func.grad(self.loss)(parameters, inputs, labels)
            assert isinstance(transformed, torch.Tensor)
            return transformed
        wanted = any(tensor.requires_grad for tensor in (parameters, inputs, labels))
        with torch.enable_grad():
            at = parameters if parameters.requires_grad else parameters.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.loss(at, inputs, labels), at, create_graph=wanted)
        return gradient

    def check(self, batch: Batch) -> None:
        """See that a batch is of this victim's kind.

        Raises:
            ConfigError: CONFIG_INVALID, naming what does not fit.
        """
        found, lowest, highest = (
            tuple(batch.inputs.shape[1:]),
            int(batch.labels.min()),
            int(batch.labels.max()),
        )
        if found != self.shape:
            raise ConfigError(
                Code.CONFIG_INVALID, f"samples have shape {found}; victim {self.name} takes {self.shape}"
            )
        if lowest < 0 or highest >= self.classes:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"labels run from {lowest} to {highest}; victim {self.name} knows 0 … {self.classes - 1}",
            )
        if self.vocabulary and not 0 <= int(batch.inputs.min()) <= int(batch.inputs.max()) < self.vocabulary:
            raise ConfigError(
                Code.CONFIG_INVALID, f"tokens lie outside 0 … {self.vocabulary - 1}, what {self.name} knows"
            )
