"""The user's own network, and whether it can be a victim."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from attacks.inversion.victims.statistics import smooth_noise
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError


def custom(name: str, shape: tuple[int, ...], classes: int, *, seed: int) -> nn.Module:
    """The module that ``module:callable`` makes when it is called with (shape, classes).

    Its mode is kept: batch norm in training mode then uses the batch's statistics, and no longer keeps
    running ones, so that a forward pass is a function.

    It is called twice: processes make their victims each for itself, which must be the same one.

    Args:
        name: ``module:callable``; the working folder is searched first.
        shape: of one sample.
        classes: number of outputs.
        seed: set in torch's global generator before each call.

    Raises:
        ConfigError: CONFIG_INVALID if it can't be imported, fails or exits, returns no module, makes other
            weights the second time, or the module has a layer that can't be attacked: dropout that is
            active, instance norm that updates its statistics, weights without a shape, one layer in two
            places.
    """
    made, again = (_called(name, shape, classes, seed) for _ in range(2))
    for path, tensor in _state(made).items():
        if is_lazy(tensor):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {name}: {path} has no shape yet; run one forward pass first, before returning it",
            )
        if tensor.is_meta:
            raise ConfigError(
                Code.CONFIG_INVALID, f"victim {name}: {path} is on the meta device; give it values on the CPU"
            )
    if not _same(_state(made), _state(again)):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"victim {name} has other weights each time it is made; draw them with torch, whose seed is set, "
            "or seed what draws them",
        )
    _refuse_shared(name, made)
    for path, layer in made.named_modules():
        if isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {name}: layer {path or type(layer).__name__} is active dropout, so that "
                "gradients are drawn at random; return the module after .eval()",
            )
        if isinstance(layer, nn.RNNBase) and layer.training and layer.dropout > 0:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {name}: layer {path or type(layer).__name__} has active dropout; return the module "
                "after .eval()",
            )
        if isinstance(layer, _BatchNorm) and layer.training:
            layer.track_running_stats = False
        elif isinstance(layer, _NormBase) and layer.training and layer.track_running_stats:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {name}: layer {path or type(layer).__name__} updates its statistics in place; make "
                "it with track_running_stats=False, or return the module after .eval()",
            )
    return made


def probe(victim: Victim) -> None:
    """See on two random samples that a network can be attacked.

    It must give logits [B, classes], finite, the same ones twice, leave its buffers alone, and have a
    gradient that depends on the inputs and can be differentiated by them, also for several inputs at once
    (``torch.func.vmap``).

    Raises:
        ConfigError: CONFIG_INVALID, naming what does not hold.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = smooth_noise(victim.shape, 2).to(dtype=victim.dtype, device=victim.device)
        labels = torch.arange(2, device=victim.device) % victim.classes
        parameters = victim.parameters()
        buffers = {path: buffer.clone() for path, buffer in victim.module.named_buffers()}

        def mismatch(inputs: torch.Tensor) -> torch.Tensor:
            return victim.gradient(parameters, inputs, labels).square().sum()

        try:
            outputs, again = (victim.outputs(parameters, inputs) for _ in range(2))
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise _unfit(victim, f"can't take samples of shape {victim.shape}: {_brief(error)}") from error
        if outputs.shape != (2, victim.classes):
            raise _unfit(
                victim, f"gives {tuple(outputs.shape)} for 2 samples; (2, {victim.classes}) logits are needed"
            )
        if not outputs.isfinite().all():
            raise _unfit(victim, "gives outputs that are not finite for samples between 0 and 1")
        if not torch.equal(outputs, again):
            raise _unfit(victim, "gives other outputs the second time; switch off what is random in it")
        if not _same(buffers, dict(victim.module.named_buffers())):
            raise _unfit(victim, "changes its buffers in a forward pass; return it after .eval()")
        try:
            slope = torch.func.vmap(torch.func.grad(mismatch))(torch.stack([inputs, 1 - inputs]))
        except (Exception, SystemExit) as error:
            raise _unfit(
                victim, f"can't be differentiated twice, or not under torch.func.vmap: {_brief(error)}"
            ) from error
        if not slope.isfinite().all():
            raise _unfit(victim, "has a second derivative that is not finite")
        if not slope.any():
            raise _unfit(
                victim, "has a gradient that does not depend on the samples; see what cuts them off its loss"
            )


def _called(name: str, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(Code.CONFIG_INVALID, f"victim is {name!r}; give module:callable")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    how = ""
    try:
        with torch.random.fork_rng(devices=[]):
            # What a module draws as it is imported must not hang on which seed came first in a process.
            torch.manual_seed(0)
            make: Callable[..., object] = getattr(importlib.import_module(module_name), attribute)
            how = f"; it is called as {attribute}(shape, classes), here {attribute}({shape}, {classes})"
            torch.manual_seed(seed)
            made = make(shape, classes)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise ConfigError(Code.CONFIG_INVALID, f"victim {name} failed with {_brief(error)}{how}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(
            Code.CONFIG_INVALID, f"victim {name} returned {type(made).__name__}; a torch.nn.Module is needed"
        )
    return made


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two networks have the same weights and buffers; NaN is equal to itself."""

    def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
        return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())

    return first.keys() == second.keys() and all(equal(a, second[path]) for path, a in first.items())


def _refuse_shared(name: str, module: nn.Module) -> None:
    """See that no trained layer is in two places: ``functional_call`` would not put its own weights back.

    Two layers that share a tensor are none of that.
    """
    places: dict[nn.Module, str] = {}
    for path, layer in module.named_modules(remove_duplicate=False):
        if not any(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            continue
        if layer in places:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"victim {name}: layers {places[layer]} and {path} are one module; make two, which may share "
                "their weights",
            )
        places[layer] = path


def _unfit(victim: Victim, complaint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"victim {victim.name} {complaint}")


def _brief(error: BaseException) -> str:
    """Its kind and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
