"""What a participant's training came to: it is done again, on its samples, with its random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.recording import About
from secagg.simulation.training import train
from secagg.update import Manifest


def retrained(
    about: About, samples: Samples, base: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.float32]:
    """The model after a participant's training in a round, flat, float32 [d]; not finite if that diverged.

    The same to the last bit as on the machine of the run, or to the rounding of float32 where another one
    sums in another order.

    Args:
        about: what is trained and how.
        samples: the participant's.
        base: the model that the round started from, flat, float32 [d].
        generator: the participant's random numbers of that round.

    Raises:
        UpdateError: UPDATE_SHAPE if the model is another network's.
    """
    module = build_model(about.model, about.shape, about.classes, seed=0)
    load_tensors(module, Manifest.of(tensors_from(module)).unflatten(base))
    train(module, samples, about.schedule, generator)
    # Not through a manifest: it refuses NaN.
    return np.concatenate([tensor.reshape(-1) for tensor in tensors_from(module).values()])
