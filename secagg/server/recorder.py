"""Has what arrives in the clear recorded, round by round."""

from __future__ import annotations

from pathlib import Path

from secagg.server import work
from secagg.server.coordinator import Coordinator
from secagg.server.recording import Received


class Recorder:
    """Keeps a copy of each round's visible parts before the round's files are deleted.

    A round whose copy can't be written is not cleaned up; the server tries again, as with all of its files.

    Args:
        folder: where to; made if it is missing.
    """

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self._coordinator = coordinator
        self._folder = folder

    async def round_ended(self, number: int) -> None:
        """Records a round that has ended, whether closed or aborted; nothing if it has no update."""
        coordinator = self._coordinator
        round_ = coordinator.round(number)
        received = [
            Received(
                client=accepted.client,
                sample_count=accepted.sample_count,
                path=coordinator.spool.update(number, accepted.update_id),
            )
            for accepted in round_.accepted
        ]
        if received:
            job = coordinator.job(number)
            await coordinator.workers.run(work.record, job, self._folder, round_.state.name, received)
