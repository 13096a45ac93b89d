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
from collections.abc import Iterator
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.ckks.cipher import BATCH, Cipher
from secagg.ckks.keys import SecretKey
from secagg.ckks.parameters import Profile
from secagg.errors import Code, SecaggError, ServerError

BUFFERS = 2
"""Batches per worker under way at once: one is worked on while the other is filled or read."""

MIN_CIPHERTEXTS = 4 * BATCH
"""Below it a vector is not worth the second that new processes take to load the engine."""


class _Task(IntEnum):
    SEAL = 0
    OPEN = 1


class Crew:
    """Seals and opens batches, in this process or, for long vectors, in worker processes.

    At most ``BUFFERS``·workers batches of ``BATCH`` ciphertexts are held. Workers start with the first long
    vector, stay, and end with this object or this process, however it ends. While one vector is under way,
    another gets workers of its own.

    Args:
        secret_key: of a profile whose ciphertexts live in a coefficient ring; handed to workers over a pipe,
            never through a file or an argument.
        workers: how many; 1: everything is done in this process; 0: one per core.
    """

    def __init__(self, secret_key: SecretKey, workers: int = 1) -> None:
        self._cipher, self._key, self._count = Cipher(secret_key), secret_key, workers or os.cpu_count() or 1
        self._idle: list[list[_Worker]] = []

    def __reduce__(self) -> NoReturn:
        raise TypeError("a crew holds a secret key and is not pickled")

    def seal(self, batches: Iterator[NDArray[np.int64]], ciphertexts: int) -> Iterator[bytes]:
        """``Cipher.seal`` of each batch, in order; ``ciphertexts`` is how many all batches make."""
        if not self._worth_it(ciphertexts):
            return map(self._cipher.seal, batches)
        step = self._cipher.profile.sealed_ciphertext_bytes
        return (
            bytes(memory[: step * count])
            for count, memory in self._spread(
                _Task.SEAL, ((batch.reshape(-1).data, len(batch)) for batch in batches)
            )
        )

    def open(self, batches: Iterator[memoryview], ciphertexts: int) -> Iterator[NDArray[np.int64]]:
        """``Cipher.open`` of each batch, in order.

        Raises:
            CiphertextError: as ``Cipher.open``.
        """
        if not self._worth_it(ciphertexts):
            return map(self._cipher.open, batches)
        step, degree = self._cipher.profile.aggregate_ciphertext_bytes, self._cipher.profile.poly_degree
        return (
            np.frombuffer(memory, dtype=np.int64, count=count * degree).reshape(count, degree).copy()
            for count, memory in self._spread(_Task.OPEN, ((batch, len(batch) // step) for batch in batches))
        )

    def _worth_it(self, ciphertexts: int) -> bool:
        return self._count >= 2 and ciphertexts >= MIN_CIPHERTEXTS

    def _spread(
        self, task: _Task, batches: Iterator[tuple[memoryview, int]]
    ) -> Iterator[tuple[int, memoryview]]:
        """Hands batches out in turn and takes the results back in the same order."""
        workers = self._idle.pop() if self._idle else [_Worker(self._key) for _ in range(self._count)]
        pending: deque[tuple[_Worker, int]] = deque()
        turns = [(worker, buffer) for buffer in range(BUFFERS) for worker in workers]
        whole = False
        try:
            for number, (data, count) in enumerate(batches):
                worker, buffer = turns[number % len(turns)]
                if len(pending) == len(turns):
                    done, its = pending.popleft()
                    yield done.take(its)
                worker.give(task, buffer, data, count)
                pending.append((worker, buffer))
            while pending:
                done, its = pending.popleft()
                yield done.take(its)
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
        self._pipe.send_bytes(secret_key.to_bytes())

    def give(self, task: _Task, buffer: int, data: memoryview, count: int) -> None:
        """Put a batch into one of the buffers and have it worked on."""
        flat, start = data.cast("B"), 2 * buffer * self._size
        self._view[start : start + len(flat)] = flat
        try:
            self._pipe.send((task, buffer, count, len(flat)))
        except OSError:
            raise self._lost() from None

    def take(self, buffer: int) -> tuple[int, memoryview]:
        """Wait for a buffer's result: its number of ciphertexts, and a view that lasts until the next
        ``give``.
        """
        try:
            done, count, failure = self._pipe.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if failure is not None:
            raise failure
        assert done == buffer
        start = (2 * buffer + 1) * self._size
        return count, self._view[start : start + self._size]

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
            task, buffer, count, length = pipe.recv()
            given = view[2 * buffer * size : 2 * buffer * size + length]
            result, failure = view[(2 * buffer + 1) * size : (2 * buffer + 2) * size], None
            try:
                _perform(cipher, task, given, count, result)
            except SecaggError as error:
                failure = error
            pipe.send((buffer, count, failure))
    except (EOFError, OSError):
        os._exit(0)


def _perform(cipher: Cipher, task: _Task, given: memoryview, count: int, result: memoryview) -> None:
    if task is _Task.SEAL:
        degree = cipher.profile.poly_degree
        sealed = cipher.seal(np.frombuffer(given, dtype=np.int64).reshape(count, degree))
        result[: len(sealed)] = sealed
    else:
        opened = cipher.open(given)
        result[: opened.nbytes] = opened.reshape(-1).data.cast("B")
