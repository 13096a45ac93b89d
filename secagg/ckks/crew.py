"""Worker processes that seal and open long vectors in shared memory: no ciphertext is pickled."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from multiprocessing.connection import Connection
from typing import Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.cipher import BATCH, Cipher
from secagg.ckks.keys import SecretKey
from secagg.ckks.parameters import Profile
from secagg.errors import Code, SecaggError, ServerError

BUFFERS = 2
"""Batches that each worker has at once: one is worked on while the other is filled or read."""

MIN_CIPHERTEXTS = 64
"""Below it a vector is not worth the second that new processes take to load the engine."""

S = TypeVar("S")
T = TypeVar("T")


class _Task(IntEnum):
    SEAL = 0
    OPEN = 1


class Crew:
    """Seals and opens batches, in this process and, for long vectors, in worker processes beside it.

    This process takes a batch whenever all workers have ``BUFFERS``. At most ``BUFFERS``·processes + 1
    batches of ``BATCH`` ciphertexts are held. Workers start with the first long vector, stay, and end with
    this object or this process, however it ends. While one vector is under way, another gets workers of its
    own.

    Args:
        secret_key: of a profile whose ciphertexts live in a coefficient ring; handed to workers over a pipe,
            never through a file or an argument.
        processes: how many, this one among them; 0: one per core.
    """

    def __init__(self, secret_key: SecretKey, processes: int = 1) -> None:
        self._cipher, self._key = Cipher(secret_key), secret_key
        self._workers = (processes or os.cpu_count() or 1) - 1
        self._idle: list[list[_Worker]] = []

    def __reduce__(self) -> NoReturn:
        raise TypeError("a crew holds a secret key and is not pickled")

    def seal(self, batches: Iterator[NDArray[np.int64]], ciphertexts: int) -> Iterator[bytes]:
        """``Cipher.seal`` of each batch, in order; ``ciphertexts`` is how many all batches make."""
        if not self._worth_it(ciphertexts):
            return map(self._cipher.seal, batches)
        return self._spread(batches, self._cipher.seal, self._send_to_seal)

    def open(self, batches: Iterator[memoryview], ciphertexts: int) -> Iterator[NDArray[np.int64]]:
        """``Cipher.open`` of each batch, in order.

        Raises:
            CiphertextError: as ``Cipher.open``.
        """
        if not self._worth_it(ciphertexts):
            return map(self._cipher.open, batches)
        return self._spread(batches, self._cipher.open, self._send_to_open)

    def _worth_it(self, ciphertexts: int) -> bool:
        return self._workers > 0 and ciphertexts >= MIN_CIPHERTEXTS

    def _send_to_seal(self, worker: _Worker, buffer: int, batch: NDArray[np.int64]) -> Callable[[], bytes]:
        """Have a worker seal a batch; the call that waits for it."""
        size = len(batch) * self._cipher.profile.sealed_ciphertext_bytes
        worker.give(_Task.SEAL, buffer, batch.reshape(-1).data)
        return lambda: bytes(worker.take(buffer)[:size])

    def _send_to_open(
        self, worker: _Worker, buffer: int, batch: memoryview
    ) -> Callable[[], NDArray[np.int64]]:
        """Have a worker open a batch; the call that waits for it."""
        profile = self._cipher.profile
        shape = (len(batch) // profile.aggregate_ciphertext_bytes, profile.poly_degree)
        worker.give(_Task.OPEN, buffer, batch)
        count = shape[0] * shape[1]
        return lambda: np.frombuffer(worker.take(buffer), np.int64, count).reshape(shape).copy()

    def _spread(
        self,
        batches: Iterator[S],
        here: Callable[[S], T],
        send: Callable[[_Worker, int, S], Callable[[], T]],
    ) -> Iterator[T]:
        """What comes of each batch, in order, wherever it was worked on."""
        workers = self._idle.pop() if self._idle else [_Worker(self._key) for _ in range(self._workers)]
        free = deque((worker, buffer) for buffer in range(BUFFERS) for worker in workers)
        pending: deque[_Pending[T]] = deque()
        whole = False
        try:
            for batch in batches:
                if free:
                    worker, buffer = free.popleft()
                    pending.append(_Pending(send(worker, buffer, batch), worker, buffer))
                else:
                    pending.append(_Pending(partial(_identity, here(batch))))
                held = sum(item.worker is None for item in pending)
                while pending and (pending[0].ready or held > BUFFERS):
                    held -= pending[0].worker is None
                    yield _taken(pending, free)
            while pending:
                yield _taken(pending, free)
            whole = True
        finally:
            if whole and not self._idle:
                self._idle.append(workers)
            else:
                # A worker died, or somebody stopped half way: what is under way belongs to no later vector.
                _dismiss(workers)

    def close(self) -> None:
        """End the workers, but those of a vector that is under way; the next long vector starts new ones."""
        while self._idle:
            _dismiss(self._idle.pop())


@dataclass(frozen=True, slots=True)
class _Pending(Generic[T]):
    """A batch that was handed out: the call that gives its result, and who works on it; None: it is done."""

    result: Callable[[], T]
    worker: _Worker | None = None
    buffer: int = 0

    @property
    def ready(self) -> bool:
        """True if the result is there without waiting."""
        return self.worker is None or self.worker.answers


def _taken(pending: deque[_Pending[T]], free: deque[tuple[_Worker, int]]) -> T:
    """The first result, once it is there; its buffer is free then."""
    first = pending.popleft()
    result = first.result()
    if first.worker is not None:
        free.append((first.worker, first.buffer))
    return result


def _identity(item: T) -> T:
    return item


class _Worker:
    """One process, its pipe and its shared buffers.

    A fresh interpreter that runs ``_work``, not one of ``multiprocessing``'s, which would import the main
    module of whatever program embeds a client.
    """

    def __init__(self, secret_key: SecretKey) -> None:
        self._size = _buffer_bytes(secret_key.profile)
        memory = os.memfd_create("secagg-crew", os.MFD_CLOEXEC)
        os.ftruncate(memory, 2 * BUFFERS * self._size)
        self._view = memoryview(mmap.mmap(memory, 2 * BUFFERS * self._size))
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import work; work({theirs.fileno()}, {memory})"],
            pass_fds=(theirs.fileno(), memory),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        os.close(memory)
        self._finalizer = weakref.finalize(self, _release, self._pipe, self._process)
        try:
            self._pipe.send_bytes(secret_key.to_bytes())
        except OSError:
            raise self._lost() from None

    @property
    def answers(self) -> bool:
        """True if ``take`` need not wait."""
        try:
            return self._pipe.poll()
        except OSError:
            return True

    def give(self, task: _Task, buffer: int, data: memoryview) -> None:
        """Put a batch into one of the buffers and have it worked on."""
        flat, start = data.cast("B"), 2 * buffer * self._size
        self._view[start : start + len(flat)] = flat
        try:
            self._pipe.send((task, buffer, len(flat)))
        except OSError:
            raise self._lost() from None

    def take(self, buffer: int) -> memoryview:
        """Wait for a buffer's result: a view that lasts until the buffer's next ``give``."""
        try:
            done, failure = self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if failure is not None:
            raise failure
        assert done == buffer
        start = (2 * buffer + 1) * self._size
        return self._view[start : start + self._size]

    def close(self) -> None:
        """End the process and give its memory back; safe to repeat."""
        self._finalizer()

    def _lost(self) -> ServerError:
        return ServerError(Code.WORKER_LOST, "a worker process that seals and opens vectors died")


def _dismiss(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.close()


def _release(pipe: Connection, process: subprocess.Popen[bytes]) -> None:
    pipe.close()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _buffer_bytes(profile: Profile) -> int:
    """Enough for a batch of coefficients or of ciphertexts, of either form."""
    return BATCH * max(
        8 * profile.poly_degree, profile.sealed_ciphertext_bytes, profile.aggregate_ciphertext_bytes
    )


def work(pipe_descriptor: int, memory_descriptor: int) -> None:
    """A worker's life: the key, then tasks, until the pipe's other end is gone."""
    # Ctrl-C reaches the whole process group; whoever started this decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe, view = Connection(pipe_descriptor), memoryview(mmap.mmap(memory_descriptor, 0))
    try:
        cipher = Cipher(SecretKey.from_bytes(pipe.recv_bytes()))
        size = _buffer_bytes(cipher.profile)
        while True:
            task, buffer, length = pipe.recv()
            given = view[2 * buffer * size : 2 * buffer * size + length]
            result, failure = view[(2 * buffer + 1) * size : (2 * buffer + 2) * size], None
            try:
                _perform(cipher, task, given, result)
            except SecaggError as error:
                failure = error
            pipe.send((buffer, failure))
    except (EOFError, OSError):
        os._exit(0)


def _perform(cipher: Cipher, task: _Task, given: memoryview, result: memoryview) -> None:
    if task is _Task.SEAL:
        degree = cipher.profile.poly_degree
        sealed = cipher.seal(np.frombuffer(given, dtype=np.int64).reshape(-1, degree))
        result[: len(sealed)] = sealed
    else:
        opened = cipher.open(given)
        result[: opened.nbytes] = opened.reshape(-1).data.cast("B")
