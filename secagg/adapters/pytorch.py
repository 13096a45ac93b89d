"""PyTorch modules as named float32 tensors, and back. Importing this module imports torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from secagg.errors import Code, UpdateError

_TO_FLOAT32 = (torch.float32, torch.float16, torch.bfloat16)


def tensors_from(module: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """A module's parameters and floating-point buffers as float32 arrays (copies), in ``state_dict`` order.

    Integer and boolean buffers (such as batch norm's ``num_batches_tracked``) are left out: a mean of
    counters means nothing, and each client keeps its own. Half-precision values become float32, which
    is exact. Parameters under two names appear under both.

    Raises:
        UpdateError: UPDATE_DTYPE for float64 or complex values, which float32 would cut short.
    """
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, value in module.state_dict().items():
        if not _travels(name, value):
            continue
        tensors[name] = value.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
    return tensors


def load_tensors(module: torch.nn.Module, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy named float32 arrays into a module; integer buffers keep their values.

    Raises:
        UpdateError: MANIFEST_MISMATCH for a missing or unexpected name, UPDATE_SHAPE for a wrong shape,
            UPDATE_DTYPE for an array that is not float32; the module is unchanged then.
    """
    targets = {name: value for name, value in module.state_dict().items() if _travels(name, value)}
    missing, extra = targets.keys() - tensors.keys(), tensors.keys() - targets.keys()
    if missing or extra:
        raise UpdateError(
            Code.MANIFEST_MISMATCH,
            f"tensors differ from the module's: missing {sorted(missing)}, unexpected {sorted(extra)}",
        )
    for name, target in targets.items():
        array = tensors[name]
        if array.dtype != np.float32:
            raise UpdateError(Code.UPDATE_DTYPE, f"tensor {name!r} is {array.dtype}; float32 is needed")
        if array.shape != tuple(target.shape):
            raise UpdateError(
                Code.UPDATE_SHAPE,
                f"tensor {name!r} has shape {array.shape}; the module has {tuple(target.shape)}",
            )
    with torch.no_grad():
        for name, target in targets.items():
            # A copy: torch wants a writable array, and tensors read from a file need not be.
            target.copy_(torch.from_numpy(np.array(tensors[name])))


def _travels(name: str, value: torch.Tensor) -> bool:
    if value.dtype in _TO_FLOAT32:
        return True
    if value.is_floating_point() or value.is_complex():
        raise UpdateError(
            Code.UPDATE_DTYPE, f"tensor {name!r} is {value.dtype}; call module.float() before federating it"
        )
    return False
