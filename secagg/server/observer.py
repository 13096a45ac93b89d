"""What the server tells whoever watches it: one JSON object per event; no secret, nothing of an update."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import defaultdict
from typing import TextIO

from secagg.rule import Reason
from secagg.server.events import Round

MAX_WAITING_LINES = 100_000
FLUSH_S = 2.0

_log = logging.getLogger(__name__)


class Observer:
    """Writes events as JSON lines and counts payload bytes per client.

    The lines are written by a thread of their own: if whoever reads them stops reading, the server goes on,
    and drops lines once ``MAX_WAITING_LINES`` are waiting.

    Args:
        out: where the lines go; None to only log them.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._started = time.monotonic()
        self._up: defaultdict[str, int] = defaultdict(int)
        self._down: defaultdict[str, int] = defaultdict(int)
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._writer: threading.Thread | None = None
        if out is not None:
            self._writer = threading.Thread(target=self._write, args=(out,), name="events", daemon=True)
            self._writer.start()

    def emit(self, event: str, **fields: object) -> None:
        """One event: ``{"event": …, "t_s": seconds since start, …fields}``."""
        line = json.dumps({"event": event, "t_s": round(time.monotonic() - self._started, 3), **fields})
        _log.info("%s", line)
        if self._writer is not None and self._writer.is_alive():
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                _log.warning("nobody reads the events; one was dropped")

    def close(self) -> None:
        """Writes what is waiting, for at most ``FLUSH_S``."""
        if self._writer is not None and self._writer.is_alive() and not self._lines.full():
            self._lines.put_nowait(None)
            self._writer.join(FLUSH_S)

    def received(self, client: str, count: int) -> None:
        """Counts payload bytes that a client sent."""
        self._up[client] += count

    def sent(self, client: str, count: int) -> None:
        """Counts artifact bytes that a client was sent."""
        self._down[client] += count

    def traffic(self) -> dict[str, dict[str, int]]:
        """Client -> bytes up and down since the server started."""
        names = sorted(self._up.keys() | self._down.keys())
        return {name: {"bytes_up": self._up[name], "bytes_down": self._down[name]} for name in names}

    def _write(self, out: TextIO) -> None:
        while (line := self._lines.get()) is not None:
            try:
                out.write(line + "\n")
                out.flush()
            except OSError as error:
                _log.warning("events can't be written any more: %s", error.strerror)
                return


def decision(round_: Round) -> dict[str, object]:
    """A settled round's weights and, for those that have none, why: client -> weight, client -> reason."""
    reasons = zip(round_.accepted, round_.reasons or (Reason.KEPT,) * len(round_.accepted), strict=True)
    return {
        "weights": {a.client: w for a, w in zip(round_.accepted, round_.weights, strict=True)},
        "reasons": {a.client: Reason(r).name.lower() for a, r in reasons if r != Reason.KEPT},
    }
