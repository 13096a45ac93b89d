"""A federation of real processes and sockets for tests: its folder, its server, and a cuttable wire."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from watched_folder import wait_until

from defenses import load_rule
from secagg.config import FederationConfig
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import init_federation
from secagg.model_file import save_model

DEADLINE_S = 60.0
Event = dict[str, Any]


class EventLines:
    """A process that prints JSON lines; a thread reads and logs them, so that they can be waited for."""

    def __init__(self, arguments: Sequence[str], *, log: Path, cwd: Path | None = None) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secagg.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=cwd,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._log.write(line.encode())
            self._log.flush()
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, event: str, **fields: Any) -> Event:
        """The first event of that name with these fields; fails if the process ends, or after a minute."""
        until = time.monotonic() + DEADLINE_S

        def found() -> Event | None:
            wanted = {"event": event, **fields}
            return next((e for e in self.events if wanted.items() <= e.items()), None)

        with self._changed:
            while (hit := found()) is None:
                left = until - time.monotonic()
                assert left > 0 and (self._reader.is_alive() or self.process.poll() is None), (
                    f"no {event} {fields} among {self.events[-10:]}, exit {self.process.poll()}"
                )
                self._changed.wait(min(left, 0.5))
        return hit

    def named(self, event: str) -> list[Event]:
        with self._changed:
            return [e for e in self.events if e["event"] == event]

    def kill(self) -> None:
        """SIGKILL the process and whatever it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(timeout=DEADLINE_S)
        self._reader.join(timeout=DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return status


class Wire:
    """A TCP relay between clients and the server that can stall, cut, and swallow answers.

    Upstream (client to server) it lets ``budget`` bytes through, then holds everything and sets ``stalled``.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target: int | None = None
        self.stalled = threading.Event()
        self.passed_up = 0
        self._gate = threading.Condition()
        self._budget: int | None = None
        self._swallow = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def limit(self, budget: int | None) -> None:
        """Let that many more bytes upstream, or any number again."""
        with self._gate:
            self._budget = budget
            if budget is None:
                self.stalled.clear()
            self._gate.notify_all()

    def swallow_answers(self) -> None:
        """From now on nothing comes back from the server, until ``cut``."""
        self._swallow = True

    def cut(self) -> None:
        """Break every connection and lift all limits; new ones are relayed as usual."""
        with self._gate:
            pairs, self._pairs = self._pairs, []
            self._budget, self._swallow = None, False
            self.stalled.clear()
            for pair in pairs:
                for end in pair:
                    _shut(end)
            self._gate.notify_all()

    def close(self) -> None:
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                # Port 0 is nobody's: no server yet, or none any more.
                far = socket.create_connection(("127.0.0.1", self.target or 0))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            with self._gate:
                self._pairs.append(pair)
            for source, sink, up in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._pump, args=(source, sink, up, pair), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, up: bool, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        try:
            while data := source.recv(65536):
                if up:
                    self._send_up(sink, data, pair)
                elif not self._swallow:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            _shut(source)
            _shut(sink)
            # Each direction closes the end it reads from, so both are closed when both are done.
            source.close()

    def _send_up(self, sink: socket.socket, data: bytes, pair: tuple[socket.socket, socket.socket]) -> None:
        while data:
            with self._gate:
                while self._budget == 0:
                    self.stalled.set()
                    self._gate.wait()
                    if pair not in self._pairs:
                        raise OSError("cut")
                now = len(data) if self._budget is None else min(len(data), self._budget)
                if self._budget is not None:
                    self._budget -= now
                self.passed_up += now
            sink.sendall(data[:now])
            data = data[now:]


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


class LiveFederation:
    """A federation's folder, dealt and ready, with its server behind a ``Wire``."""

    def __init__(
        self, root: Path, model: dict[str, np.ndarray], clients: Sequence[str], **settings: Any
    ) -> None:
        self.root = root / "federation"
        self.log = root / "server.log"
        self._model = model
        defaults = {"name": "test", "address": "localhost:0", "workers": 1, "rounds": 1, "min_clients": 1}
        init_federation(self.root, FederationConfig(**(defaults | settings)))
        save_model(self.root / "initial_model.npz", model)
        for client in clients:
            enroll_local(self.root, client)
        self.descriptor = deal(self.root, rules=load_rule)
        self.wire = Wire()
        self.server: EventLines | None = None
        self.processes: list[EventLines] = []

    @property
    def address(self) -> str:
        """What clients connect to: the wire."""
        return f"localhost:{self.wire.port}"

    @property
    def server_folder(self) -> Path:
        return self.root / "server"

    def identity(self, client: str) -> Path:
        return self.root / "clients" / client

    def serve(self) -> EventLines:
        """Start the server (again)."""
        self.server = EventLines(["serve", str(self.server_folder), "--events"], log=self.log)
        self.processes.append(self.server)
        self.wire.target = int(self.server.wait_for("listening")["port"])
        return self.server

    def join(self, client: str, trainer: str, cwd: Path, *more: str) -> EventLines:
        """Start ``secagg join`` for a client."""
        arguments = ["join", str(self.identity(client)), "--server", self.address, "--trainer", trainer]
        process = EventLines([*arguments, "--events", *more], log=cwd / f"{client}.log", cwd=cwd)
        self.processes.append(process)
        return process

    def wait_committed(self, size: int) -> None:
        """Wait until the server holds that much of the one unfinished upload."""
        folder = self.server_folder / "spool" / "partial"
        wait_until(
            lambda: any(partial.stat().st_size == size for partial in folder.iterdir()),
            folder,
            timeout_s=DEADLINE_S,
        )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.wire.close()


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Run these at the same time; their results in order, or the first exception, as soon as there is one."""
    results: list[Any] = [None] * len(calls)
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            results[index] = call()
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    for item in enumerate(calls):
        threading.Thread(target=run, args=item, daemon=True).start()
    until = time.monotonic() + DEADLINE_S
    for _ in calls:
        try:
            failure = ended.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise AssertionError("a client does not come to an end") from None
        if failure is not None:
            raise failure
    return results
