"""Crypto worker processes: the engine holds the GIL throughout, so none of it runs in the server itself."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from secagg.errors import Code, ServerError

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Workers:
    """A pool of worker processes that survives the death of any of them.

    Processes are started by ``spawn``: a fork would copy gRPC's threads in mid-air. They end with the
    server however it ends, SIGKILL included: each watches a pipe whose other end only the server holds.

    Args:
        count: how many processes; 0 for one per core.
    """

    def __init__(self, count: int = 0) -> None:
        self._context = multiprocessing.get_context("spawn")
        self.count = count or os.cpu_count() or 1
        """How many processes."""
        self._watched, self._lifeline = self._context.Pipe(duplex=False)
        self._pool = self._start(self.count)

    async def warm_up(self) -> None:
        """Starts all processes and has each import the engine: the first round need not wait for it."""
        await asyncio.gather(*(self.run(_import_engine) for _ in range(self.count)))

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Runs a module's function with picklable arguments in a worker process.

        If a process dies, the pool is replaced and the call repeated once, alone in a process of its own:
        a payload that kills its worker takes down no other call twice.

        Raises:
            ServerError: WORKER_LOST if that process dies as well.
            SecaggError: whatever the function refuses.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, function, *args)
        except BrokenProcessPool:
            _log.warning("a worker process died in %s; trying once more", function.__name__)
        if pool is self._pool:
            self._pool = self._start(self.count)
            pool.shutdown(wait=False)
        alone = self._start(1)
        try:
            return await loop.run_in_executor(alone, function, *args)
        except BrokenProcessPool:
            raise ServerError(
                Code.WORKER_LOST, f"two worker processes in a row died in {function.__name__}"
            ) from None
        finally:
            alone.shutdown(wait=False)

    def close(self) -> None:
        """Ends all processes at once, in the middle of their work if need be."""
        self._lifeline.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._watched.close()

    def _start(self, count: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            count, mp_context=self._context, initializer=_enter_worker, initargs=(self._watched,)
        )


def _enter_worker(watched: Connection) -> None:
    # Ctrl-C reaches the whole process group; the server decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, args=(watched,), daemon=True).start()


def _end_with_server(watched: Connection) -> None:
    watched.poll(None)
    os._exit(0)


def _import_engine() -> None:
    """Imports what the work needs, in the worker."""
    import secagg.server.work  # noqa: F401
