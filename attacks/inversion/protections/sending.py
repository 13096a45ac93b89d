"""From an update and its layout to the visible values that are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.inversion.exposure import Exposure
from attacks.inversion.protections.perturbations import Part, Perturbation, tensor_indices
from secagg.errors import Code, UpdateError
from secagg.selection import Layout
from secagg.selection.layout import FLOAT32_BYTES

Precision = Literal["float32", "float64"]
"""Of visible values as they travel: float32 on the wire, float64 for what is possible in principle."""


def rounded(values: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The values as precise as they travel, in their own dtype.

    Raises:
        UpdateError: UPDATE_NOT_FINITE for NaN or infinity, which no client sends.
    """
    sent = values.to(torch.float32).to(values.dtype) if precision == "float32" else values
    if not bool(torch.isfinite(sent).all()):
        raise UpdateError(Code.UPDATE_NOT_FINITE, "the update holds NaN or infinite values")
    return sent


def perturbed(
    update: torch.Tensor,
    layout: Layout,
    perturbations: Sequence[Perturbation],
    generator: torch.Generator,
) -> tuple[torch.Tensor, float]:
    """The update with its visible part perturbed, and the standard deviation of what was added to that.

    Args:
        update: [d].
        layout: says what is visible.
        perturbations: in their order.
        generator: on the CPU.
    """
    if not perturbations:
        return update, 0.0
    # In float64, so that only what is asked for is lost.
    flat = update.to(device="cpu", dtype=torch.float64).clone()
    visible = torch.from_numpy(~layout.hidden)
    part = Part(
        values=flat[visible],
        tensors=tensor_indices([spec.size for spec in layout.manifest.tensors])[visible],
    )
    for perturbation in perturbations:
        part = perturbation.apply(part, generator)
    flat[visible] = part.values
    return flat.to(device=update.device, dtype=update.dtype), part.noise


def received(flat: torch.Tensor, layout: Layout, precision: Precision) -> torch.Tensor:
    """What arrives in the clear, [d]; 0 where entries are hidden.

    The vector is cut by the layout that cuts a federation's updates, and put together from the visible parts
    alone.

    Args:
        flat: the update, [d].
        layout: of the round.
        precision: as which the values travel.

    Raises:
        UpdateError: UPDATE_NOT_FINITE.
    """
    values = rounded(flat, precision).cpu().numpy()
    # A layout cuts vectors of any dtype; only the wire knows float32 alone.
    wire = values.astype(np.float32) if precision == "float32" else cast(NDArray[np.float32], values)
    _, visible = layout.split(wire)
    unknown = [np.zeros(count, dtype=wire.dtype) for count in layout.hidden_counts]
    return torch.from_numpy(layout.join(unknown, visible)).to(device=flat.device, dtype=flat.dtype)


def hidden_entries(exposure: Exposure) -> int:
    """How many entries of the update travel encrypted."""
    return int(exposure.hidden.sum())


def visible_bytes(exposure: Exposure) -> int:
    """How many bytes of the update's payload are values in the clear."""
    return FLOAT32_BYTES * (exposure.victim.size - hidden_entries(exposure))
