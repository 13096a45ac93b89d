"""Whether what was opened is the weighted mean of what was sealed, within what theory promises."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.bounds import error_bound
from secagg.client.feedback import ErrorFeedback
from secagg.errors import Code, SecaggError
from secagg.overhead.task import Task
from secagg.scales import Scales
from secagg.selection.layout import Layout


def check_opened(
    task: Task, layout: Layout, scales: Scales | None, opened: NDArray[np.float32]
) -> tuple[float, float]:
    """The largest error over hidden values, and the largest bound; both are 0 where nothing is hidden.

    A value's bound is that of ``bounds.error_bound``, by its own tensor's step, and the rounding to float32;
    visible values may differ from the mean by the latter alone.

    Raises:
        SecaggError: INTERNAL if any value is further off: no figure of such a round means anything.
    """
    senders = np.bincount([task.update_of(client) for client in range(task.clients)])
    shares = senders * np.array(task.sample_counts)
    exact, largest = np.zeros(layout.size), 0.0
    for update, share in enumerate(shares):
        vector = task.vector(update)
        largest = max(largest, float(np.abs(vector).max()))
        exact += vector * np.float64(share / shares.sum())
    rounding = float(np.spacing(np.float32(largest)))
    carry_of = ErrorFeedback(task.state).begin(layout) if scales is not None else None
    error, allowed, right = 0.0, 0.0, True
    for block, count in enumerate(layout.hidden_counts):
        if not count:
            continue
        places = layout.hidden_places(block)
        wanted = exact[places]
        if carry_of is not None:
            wanted = wanted + carry_of(block).read(0, count)
        off = np.abs(layout.hidden_of(opened, block) - wanted)
        bound = _bound(task, layout, scales, senders, block, largest) + rounding
        right &= bool((off <= bound).all())
        error, allowed = max(error, float(off.max())), max(allowed, float(bound.max()))
        exact[places] = opened[places]
    visible = float(np.abs(exact - opened).max())
    if not (right and visible <= rounding):
        raise SecaggError(
            Code.INTERNAL,
            f"scheme {task.scheme} opened a wrong mean: hidden values are off by up to {error:.3g} (at most "
            f"{allowed:.3g} is possible), visible ones by {visible:.3g}",
        )
    return error, allowed


def _bound(
    task: Task,
    layout: Layout,
    scales: Scales | None,
    senders: NDArray[np.int64],
    block: int,
    largest: float,
) -> NDArray[np.float64]:
    """Of each hidden value of a block, or [1] if it is the same for all.

    Clients that send the same ciphertexts send the same noise: their weights add up.
    """
    form, count = task.parsed.profile, layout.hidden_counts[block]
    if scales is None:
        weights = senders * np.array(task.sample_counts)
        return np.array([error_bound(form, layout.size, weights, max_abs=largest)])
    # Each client's value is rounded in steps of its own, step/weight, and counts weight/Σ weights.
    weights = np.array([task.weight(update) for update in range(len(senders))])
    stretch = senders.sum() / float(senders @ weights)
    steps = scales.steps(form, layout.hidden_runs(block)).over(0, count) * stretch
    doubles = error_bound(form, layout.size, senders, max_abs=largest)
    bounds: NDArray[np.float64] = steps * error_bound(form, layout.size, senders, max_abs=0.0, step=1.0)
    return bounds + doubles
