"""What a client gets back: the outcome of one round, and of the federation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.plan import RoundState
from secagg.update import Tensors

Model = dict[str, NDArray[np.float32]]

Trainer = Callable[[Model, int], tuple[Tensors, int]]
"""``train(model, round) -> (tensors, sample_count)``: the caller's own training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """How one round went for this client.

    Args:
        round: 1, 2, 3, …
        model: the new global model, named float32 tensors.
        state: AGGREGATED or CLOSED, as last heard.
        own_weight: what this client's own ballot gave its own update, in [0, 1]; None if the rule asked
            for no ballot or the answer came too late.
        seal_s: seconds spent sealing; 0 if the update was sealed by an earlier process.
        open_s: seconds spent opening statistics and aggregate.
        bytes_up: payload bytes this process handed to the transport, resent ones included.
        bytes_down: artifact bytes this process received.
        resumed_at: the committed sizes at which the upload went on after a cut or a restart.
    """

    round: int
    model: Model
    state: RoundState
    own_weight: float | None
    seal_s: float
    open_s: float
    bytes_up: int
    bytes_down: int
    resumed_at: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationEnd:
    """How the federation ended.

    Args:
        rounds_closed: how many rounds closed with an aggregate.
        last_aggregate_round: the last round with an aggregate; 0 if there is none.
        reason: empty for an ordinary end, otherwise why no further round is held.
    """

    rounds_closed: int
    last_aggregate_round: int
    reason: str
