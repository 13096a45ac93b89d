"""Serves a federation until one commit of its journal, and dies by SIGKILL right before or right after it.

python killed_server.py SERVER_DIR PORT POINT before|after

POINT is a state (the commit that enters it), or ACCEPTANCE, BALLOT, CONFIRMATION (the first one's commit), or
NEVER: it serves to the end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from even_rule import rules

from secagg.plan import RoundState
from secagg.server.app import serve
from secagg.server.events import Round
from secagg.server.journal import Journal

announce, record = Journal.announce, Journal.record


def reached(point: str, before: Round, after: Round) -> bool:
    if point in RoundState.__members__:
        return after.state is RoundState[point] and before.state is not after.state
    if point == "NEVER":
        return False
    grown = {
        "ACCEPTANCE": (before.accepted, after.accepted),
        "BALLOT": (before.votes, after.votes),
        "CONFIRMATION": (before.confirmations, after.confirmations),
    }[point]
    return len(grown[1]) > len(grown[0])


def die_at(point: str, side: str) -> None:
    def announce_or_die(self: Journal, plan: bytes, round_: Round) -> None:
        hit = point == RoundState.ANNOUNCED.name
        if hit and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        announce(self, plan, round_)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)

    def record_or_die(self: Journal, before: Round, after: Round, **extra: Any) -> None:
        hit = reached(point, before, after)
        if hit and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, before, after, **extra)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.announce = announce_or_die  # type: ignore[method-assign]
    Journal.record = record_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    directory, port, point, side = sys.argv[1:]
    die_at(point, side)
    asyncio.run(serve(Path(directory), rules=rules, port=int(port)))
