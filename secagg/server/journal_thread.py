"""The journal off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from secagg.server.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")


class JournalThread:
    """Runs a journal's methods in one thread of their own, in the order they were called.

    A sync can take long while large payloads are being written back; the event loop must not wait for it.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def call(
        self, method: Callable[Concatenate[Journal, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``method(journal, …)``; when it returns, what it wrote is on disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: method(self._journal, *args, **kwargs))

    def close(self) -> None:
        """Waits for what was called and closes the journal."""
        self._executor.shutdown(wait=True)
        self._journal.close()
