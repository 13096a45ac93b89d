"""Worker processes: errors come back typed, deaths are survived, and nobody outlives the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from secagg.errors import Code, ServerError, UpdateError
from secagg.server.workers import Workers


def own_pid() -> int:
    return os.getpid()


def refuse() -> None:
    raise UpdateError(Code.UPDATE_NOT_FINITE, "a NaN", client="a")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        die()
    return "survived"


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    pool = Workers(1)
    yield pool
    await asyncio.to_thread(pool.close)


async def test_work_runs_in_another_process(workers: Workers) -> None:
    """The event loop's own process does none of it."""
    assert await workers.run(own_pid) != os.getpid()


async def test_a_refusal_keeps_its_code_and_ids(workers: Workers) -> None:
    """A typed error crosses the process boundary as it is; the worker lives on."""
    pid = await workers.run(own_pid)
    with pytest.raises(UpdateError) as caught:
        await workers.run(refuse)
    assert caught.value.code is Code.UPDATE_NOT_FINITE
    assert caught.value.ids == {"client": "a"}
    assert await workers.run(own_pid) == pid


async def test_a_dead_worker_is_replaced_and_its_work_repeated(workers: Workers, tmp_path: Path) -> None:
    """One death is nobody's fault."""
    assert await workers.run(die_once, tmp_path / "marker") == "survived"
    assert await workers.run(own_pid)


async def test_work_that_kills_twice_is_given_up(workers: Workers) -> None:
    """WORKER_LOST for that call; other calls at the same time are answered."""
    deadly = asyncio.ensure_future(workers.run(die))
    pids = await asyncio.gather(*(workers.run(own_pid) for _ in range(3)))
    with pytest.raises(ServerError) as caught:
        await deadly
    assert caught.value.code is Code.WORKER_LOST
    assert all(pids)
    assert await workers.run(own_pid)


PARENT = """
import asyncio
from secagg.server.workers import Workers
import os
async def main():
    workers = Workers(2)
    print(await workers.run(os.getpid), flush=True)
    await workers.run(os.wait)
if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_end_when_the_server_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves no worker behind: each watches a pipe that dies with the server."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    gone, alive = psutil.wait_procs([worker], timeout=20)
    assert not alive
    assert gone
