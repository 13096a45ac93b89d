"""The user's own network, and whether it can be a victim."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from attacks.inversion.victims.statistics import smooth_noise
from attacks.inversion.victims.victim import Victim
from secagg.errors import Code, ConfigError


def custom(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The module that ``module:callable`` makes when it is called with (shape, classes).

    Its mode is kept: batch norm in training mode then uses the batch's statistics, and no longer keeps
    running ones, so that a forward pass is a function.

    Args:
        name: ``module:callable``; the working folder is searched first.
        shape: of one sample.
        classes: number of outputs.

    Raises:
        ConfigError: CONFIG_INVALID if it can't be imported, fails, returns no module, or the module has a
            layer that can't be attacked: dropout that is active, instance norm that updates its statistics.
    """
    made = _called(name, shape, classes)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            Code.CONFIG_INVALID, f"victim {name} returned {type(made).__name__}; a torch.nn.Module is needed"
        )
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

    It must give logits [B, classes], the same ones twice, leave its buffers alone, and have a gradient that
    can be differentiated by the inputs, also for several inputs at once (``torch.func.vmap``).

    Raises:
        ConfigError: CONFIG_INVALID, naming what does not hold.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = smooth_noise(victim.shape, 2).to(dtype=victim.dtype, device=victim.device)
        labels = torch.arange(2, device=victim.device) % victim.classes
        parameters, buffers = victim.parameters(), [buffer.clone() for buffer in victim.module.buffers()]

        def mismatch(inputs: torch.Tensor) -> torch.Tensor:
            return victim.gradient(parameters, inputs, labels).square().sum()

        try:
            outputs, again = (victim.outputs(parameters, inputs) for _ in range(2))
        except Exception as error:
            raise _unfit(victim, f"can't take samples of shape {victim.shape}: {_brief(error)}") from error
        if outputs.shape != (2, victim.classes):
            raise _unfit(
                victim, f"gives {tuple(outputs.shape)} for 2 samples; (2, {victim.classes}) logits are needed"
            )
        if not torch.equal(outputs, again):
            raise _unfit(victim, "gives other outputs the second time; switch off what is random in it")
        if any(not torch.equal(a, b) for a, b in zip(buffers, victim.module.buffers(), strict=True)):
            raise _unfit(victim, "changes its buffers in a forward pass; return it after .eval()")
        try:
            slope = torch.func.vmap(torch.func.grad(mismatch))(torch.stack([inputs, 1 - inputs]))
        except Exception as error:
            raise _unfit(
                victim, f"can't be differentiated twice, or not under torch.func.vmap: {_brief(error)}"
            ) from error
        if not slope.isfinite().all():
            raise _unfit(victim, "has a second derivative that is not finite")


def _called(name: str, shape: tuple[int, ...], classes: int) -> object:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(Code.CONFIG_INVALID, f"victim is {name!r}; give module:callable")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        made: object = getattr(importlib.import_module(module_name), attribute)(shape, classes)
    except ConfigError:
        raise
    except Exception as error:  # whatever the user's code does
        raise ConfigError(
            Code.CONFIG_INVALID, f"victim {name} failed with {type(error).__name__}: {_brief(error)}"
        ) from error
    return made


def _unfit(victim: Victim, complaint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, f"victim {victim.name} {complaint}")


def _brief(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
