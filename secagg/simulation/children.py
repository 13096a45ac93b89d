"""The processes of a run: started, listened to, and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from secagg.errors import Code, SecaggError

GRACE_S = 10.0
"""How long a process may take to end after SIGTERM."""
MAX_LINE_BYTES = 1 << 20
TAIL_LINES = 5

# One thread each: as many processes as clients share the cores.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a child said, or that it has ended.

    Args:
        child: its name.
        event: name of the event; ``exit`` if the process has ended.
        fields: the event's fields; for ``exit`` its ``status``.
    """

    child: str
    event: str
    fields: Mapping[str, Any]


class Children:
    """Child processes whose standard output is JSON lines and whose standard error is a log file.

    Used as an async context manager: on leaving, whatever still runs gets SIGTERM and, ``GRACE_S``
    later, SIGKILL together with its own children.

    Args:
        logs: folder for the log files, ``NAME.log``.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start ``python ARGUMENTS`` in a session of its own, so that Ctrl-C reaches only the launcher."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "secagg.simulation.tether",
                str(os.getpid()),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
        self._processes[name] = process
        self._readers.append(asyncio.create_task(self._listen(name, process)))

    async def next_message(self, timeout_s: float) -> Message:
        """The next thing any child says.

        Raises:
            SecaggError: INTERNAL if nobody says anything for so long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._messages.get()
        except TimeoutError:
            raise SecaggError(
                Code.INTERNAL, f"no process said anything for {timeout_s:g} s; see {self._logs}"
            ) from None

    async def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL for the process and its children if it does not end in time."""
        process = self._processes[name]
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def tail(self, name: str) -> str:
        """The last lines of a child's log, as one line."""
        with (self._logs / f"{name}.log").open(encoding="utf-8", errors="replace") as log:
            lines = deque((line.strip() for line in log if line.strip()), maxlen=TAIL_LINES)
        return " | ".join(lines) or "nothing"

    def log_path(self, name: str) -> Path:
        """Where a child's standard error goes."""
        return self._logs / f"{name}.log"

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Clients first, so that none of them complains about a server that has gone.
        names = [name for name in self._processes if name != "server"]
        await asyncio.gather(*(self.stop(name) for name in names))
        if "server" in self._processes:
            await self.stop("server")
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _listen(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # it was asked for
        async for line in process.stdout:
            try:
                fields = json.loads(line)
                event = fields.pop("event")
            except (ValueError, KeyError, AttributeError, TypeError):
                continue  # a library that prints is no reason to stop
            self._messages.put_nowait(Message(child=name, event=str(event), fields=fields))
        status = await process.wait()
        self._messages.put_nowait(Message(child=name, event="exit", fields={"status": status}))
