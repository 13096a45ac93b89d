"""``python -m secagg.overhead.client_role seal|open``: what a client does in a measured round.

By the same calls as a client of a federation. Times begin and end with bytes in memory: writing the payload's
file is not counted, reading the aggregate's is.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import perf_counter

import numpy as np

from secagg.aggregate import Shares, open_aggregate
from secagg.ckks.crew import MIN_CIPHERTEXTS
from secagg.ckks.quantisation import Steps
from secagg.client.feedback import ErrorFeedback
from secagg.custody.custody import Custody, Encryptor
from secagg.custody.descriptor import DESCRIPTOR_FILE, SignedDescriptor
from secagg.custody.identity import ClientIdentity
from secagg.custody.shared import open_custody
from secagg.overhead.correctness import check_opened
from secagg.overhead.processes import family_peak_mib, own_peak_mib, play
from secagg.overhead.task import CLIENT, ROUND, Task
from secagg.payload import Quantisation, seal_update
from secagg.scales import Scales
from secagg.selection.layout import Layout


def seal(text: str) -> dict[str, object]:
    """The way up: each repetition seals an update into its payload file."""
    task, baseline = Task.from_json(text), own_peak_mib()
    layout, scales = task.layout(), task.scales()
    sealer = _custody(task).sealer() if layout.mask.hidden_count else None
    if sealer is not None:
        _warm(sealer, layout)
    feedback, seconds = ErrorFeedback(task.state), []
    task.state.mkdir()
    if scales is not None:
        _settle_earlier_round(task, feedback, layout, scales)
    for run in range(task.repeat):
        update = run % len(task.sample_counts)
        flat = task.vector(update)
        quantisation = None
        if scales is not None:
            carry = feedback.begin(layout)
            quantisation = Quantisation(scales=scales, weight=task.weight(update), carry=carry)
        with task.payload_path(update).open("wb") as file:
            started = perf_counter()
            pieces = seal_update(flat, layout, sealer, quantisation)
            spent = perf_counter() - started
            for piece, took in _timed(pieces):
                file.write(piece)
                spent += took
        seconds.append(spent)
        del flat, pieces
    return {"seal_s": median(seconds), "peak_mib": family_peak_mib(), "baseline_mib": baseline}


def open_(text: str) -> dict[str, object]:
    """The way down: opens the aggregate, and sees that it is the weighted mean of what was sent."""
    task, baseline = Task.from_json(text), own_peak_mib()
    layout, scales, form = task.layout(), task.scales(), task.parsed.profile
    custody = _custody(task) if layout.mask.hidden_count else None
    if custody is not None:
        # A client that opens has sealed before: contexts are made, worker processes started.
        _warm(custody.sealer(), layout)
    opener = custody.opener() if custody is not None else None
    seconds, opened = [], np.empty(0, dtype=np.float32)
    shares = Shares(unit=max(task.sample_counts), scales=scales) if scales is not None else None
    for _ in range(task.repeat):
        del opened
        started = perf_counter()
        opened = open_aggregate(
            task.aggregate_path, round=ROUND, layout=layout, profile=form, opener=opener, shares=shares
        )
        seconds.append(perf_counter() - started)
    peak = family_peak_mib()
    error, bound = check_opened(task, layout, scales, opened)
    return {
        "open_s": median(seconds),
        "peak_mib": peak,
        "baseline_mib": baseline,
        "max_error": error,
        "error_bound": bound,
    }


def _custody(task: Task) -> Custody:
    """What the client of the federation holds of its key."""
    identity = ClientIdentity.load(task.federation / "clients" / CLIENT)
    descriptor = SignedDescriptor.load(task.federation / "server" / DESCRIPTOR_FILE).open(identity.anchor)
    grant = (task.federation / "server" / "grants" / CLIENT).read_bytes()
    return open_custody(identity, descriptor, grant, workers=task.workers)


def _warm(sealer: Encryptor, layout: Layout) -> None:
    """Make contexts and, where the layout is worth them, start worker processes, as an earlier round has."""
    form = sealer.profile
    count = min(max(layout.hidden_counts), MIN_CIPHERTEXTS * form.values_per_ciphertext)
    steps = Steps.uniform(count, 1.0) if form.quantised else None
    for _ in sealer.seal_blocks(np.zeros(count, dtype=np.float32), steps=steps):
        pass


def _settle_earlier_round(task: Task, feedback: ErrorFeedback, layout: Layout, scales: Scales) -> None:
    """Leave something over for the measured updates to take along, as in every round but the first."""
    carry_of, form = feedback.begin(layout), task.parsed.profile
    for block, count in enumerate(layout.hidden_counts):
        carry, at = carry_of(block), 0
        step = float(scales.steps(form, layout.hidden_runs(block)).sizes.min(initial=1.0))
        for part in task.left_over(count, step):
            carry.write(at, part)
            at += part.size
    feedback.settle(layout)


def _timed(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, float]]:
    """Each piece, and the seconds it took to come."""
    while True:
        started = perf_counter()
        piece = next(pieces, None)
        spent = perf_counter() - started
        if piece is None:
            return
        yield piece, spent


if __name__ == "__main__":
    play({"seal": seal, "open": open_})
