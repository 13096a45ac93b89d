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
    """The largest error over hidden values, and its bound; both are 0 where nothing is hidden.

    The bound is that of ``bounds.error_bound`` and the rounding to float32; visible values may differ from
    the mean by the latter alone.

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
    hidden_values = sum(layout.hidden_counts)
    bound = _bound(task, layout, scales, senders, largest) + rounding if hidden_values else 0.0
    error, feedback = 0.0, ErrorFeedback(task.state)
    carry_of = feedback.begin(layout) if scales is not None else None
    for block, count in enumerate(layout.hidden_counts):
        hidden, wanted = layout.hidden_of(opened, block), exact[layout.hidden_places(block)]
        if carry_of is not None:
            wanted = wanted + carry_of(block).read(0, count)
        error = max(error, float(np.abs(hidden - wanted).max(initial=0.0)))
    exact[:] -= opened
    for block in range(len(layout.blocks)):
        exact[layout.hidden_places(block)] = 0.0
    visible = float(np.abs(exact).max())
    if not (error <= bound and visible <= rounding):
        raise SecaggError(
            Code.INTERNAL,
            f"scheme {task.scheme} opened a wrong mean: hidden values are off by {error:.3g} (at most "
            f"{bound:.3g} is possible), visible ones by {visible:.3g}",
        )
    return error, bound


def _bound(
    task: Task, layout: Layout, scales: Scales | None, senders: NDArray[np.int64], largest: float
) -> float:
    """``bounds.error_bound``; clients that send the same ciphertexts send the same noise: weights add up."""
    hidden, form = sum(layout.hidden_counts), task.parsed.profile
    if scales is None:
        return error_bound(form, hidden, senders * np.array(task.sample_counts), max_abs=largest)
    steps = (
        scales.steps(form, layout.hidden_runs(block)).largest for block in range(len(layout.hidden_counts))
    )
    # Each client's value is rounded in steps of its own, step/weight, and counts weight/Σ weights.
    weights = np.array([task.weight(update) for update in range(len(senders))])
    step = max(steps) * senders.sum() / float(senders @ weights)
    return error_bound(form, hidden, senders, max_abs=largest, step=step)
