"""Worker processes seal and open what this process would, and whatever happens to them stays theirs."""

import copy
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sealed_vectors import pair_of, sealed_reader, steps_for

from secagg.ckks import Crew, KeyPair, Opener, Sealer, aggregate_vector
from secagg.ckks.bounds import error_bound
from secagg.ckks.cipher import BATCH, Cipher
from secagg.ckks.crew import BUFFERS, MIN_CIPHERTEXTS
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES
from secagg.errors import CiphertextError, Code, ServerError

WORKERS = 2
"""Beside this process, which works as well."""
COUNT = MIN_CIPHERTEXTS + 2 * BATCH + 3
"""More batches than are under way at once, the last of them not full."""


def worker_pids(parent: int | str = "self") -> set[int]:
    """Crew processes that a process has started and that are still there."""
    parent_pid = os.getpid() if parent == "self" else int(parent)
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            status = folder.joinpath("stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == parent_pid and b"secagg.ckks.crew" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


@contextmanager
def crew_of(pair: KeyPair, workers: int = WORKERS) -> Iterator[Crew]:
    """A crew that ends with the block."""
    crew = Crew(pair.secret, workers + 1)
    try:
        yield crew
    finally:
        crew.close()


def vector_of(pair: KeyPair, seed: int = 0) -> NDArray[np.float32]:
    """Values that fill ``COUNT`` ciphertexts, but for a few."""
    values = COUNT * pair.secret.profile.values_per_ciphertext - 7
    return np.random.default_rng(seed).uniform(-1, 1, values).astype(np.float32)


def aggregate_of(pair: KeyPair, sealed: bytes, values: int) -> bytes:
    """The sum of this one vector."""
    profile = pair.secret.profile
    return b"".join(aggregate_vector([sealed_reader(sealed, profile)], [1], values, profile))


def assert_holds(pair: KeyPair, sealed: bytes, vector: NDArray[np.float32]) -> None:
    """The sealed bytes are those of this vector, every ciphertext in its place."""
    profile, steps = pair.secret.profile, steps_for(pair.secret.profile, vector.size)
    assert len(sealed) == profile.sealed_bytes(vector.size)
    opened = Opener(pair.secret).open_vector(
        aggregate_of(pair, sealed, vector.size), vector.size, steps=steps
    )
    step = steps.largest if steps else 0.0
    bound = error_bound(profile, vector.size, np.array([1]), max_abs=1.0, step=step)
    assert np.abs(opened - vector).max() <= bound


@pytest.mark.parametrize("name", ["robust", "compact-10"])
def test_crew_seals_and_opens_as_this_process_does(name: str) -> None:
    """Sealed in workers, each value opens in its place; opened in workers, every double is the same."""
    pair = pair_of(name)
    vector, profile = vector_of(pair), pair.secret.profile
    steps = steps_for(profile, vector.size)
    with crew_of(pair) as crew:
        sealed = Sealer(pair.secret, crew).seal(vector, steps=steps)
        assert len(worker_pids()) == WORKERS
        assert_holds(pair, sealed, vector)
        aggregate = aggregate_of(pair, sealed, vector.size)
        apart = Opener(pair.secret, crew).open_vector(aggregate, vector.size, steps=steps)
        assert np.array_equal(apart, Opener(pair.secret).open_vector(aggregate, vector.size, steps=steps))
        assert len(worker_pids()) == WORKERS


def test_short_vectors_and_crews_of_one_start_no_process(robust: KeyPair) -> None:
    """New processes would take longer than the work."""
    vector = vector_of(robust)
    short = vector[: (MIN_CIPHERTEXTS - 1) * robust.secret.profile.values_per_ciphertext]
    with crew_of(robust) as crew, crew_of(robust, 0) as alone:
        assert_holds(robust, Sealer(robust.secret, crew).seal(short), short)
        assert_holds(robust, Sealer(robust.secret, alone).seal(vector), vector)
        assert not worker_pids()


@pytest.mark.parametrize(("victim", "idle"), [(0, True), (1, False)], ids=["idle", "busy"])
def test_killed_worker_ends_one_vector_and_no_later_one(robust: KeyPair, victim: int, idle: bool) -> None:
    """WORKER_LOST, whichever worker it is and whenever it dies; the next vector has new workers."""
    vector = vector_of(robust)
    with crew_of(robust) as crew:
        sealer = Sealer(robust.secret, crew)
        sealer.seal(vector)
        before = worker_pids()
        pieces = sealer.seal_blocks(vector)
        if not idle:
            next(pieces)
            next(pieces)
        os.kill(sorted(before)[victim], signal.SIGKILL)
        with pytest.raises(ServerError) as caught:
            list(pieces)
        assert caught.value.code is Code.WORKER_LOST
        assert_holds(robust, sealer.seal(vector), vector)
        assert len(worker_pids()) == WORKERS
        assert not worker_pids() & before


def test_error_inside_a_worker_arrives_with_its_code(robust: KeyPair) -> None:
    """A malformed ciphertext at the front or at the end; the crew opens the next vector."""
    vector, profile = vector_of(robust), robust.secret.profile
    aggregate = aggregate_of(robust, Sealer(robust.secret).seal(vector), vector.size)
    with crew_of(robust) as crew:
        opener = Opener(robust.secret, crew)
        for place in (0, COUNT - 1):
            at = AGGREGATE_HEADER_BYTES + place * profile.aggregate_ciphertext_bytes
            faulty = aggregate[:at] + b"\xff" * 16 + aggregate[at + 16 :]
            with pytest.raises(CiphertextError, match="not below its prime") as caught:
                opener.open_vector(faulty, vector.size)
            assert caught.value.code is Code.CIPHERTEXT_MALFORMED
        opened = opener.open_vector(aggregate, vector.size)
        assert np.array_equal(opened, Opener(robust.secret).open_vector(aggregate, vector.size))


def test_vector_abandoned_half_way_does_not_reach_the_next_one(robust: KeyPair) -> None:
    """What was under way ends with the workers that had it."""
    first, second = vector_of(robust, 1), vector_of(robust, 2)
    with crew_of(robust) as crew:
        sealer = Sealer(robust.secret, crew)
        pieces: Iterator[bytes] | None = sealer.seal_blocks(first)
        assert pieces is not None
        for _ in range(3):
            next(pieces)
        pieces = None
        assert not worker_pids()
        assert_holds(robust, sealer.seal(second), second)


def test_vectors_under_way_at_the_same_time_do_not_mix(robust: KeyPair) -> None:
    """Taken piece by piece in turn, or one whole while the other stands still: each has its own workers."""
    first, second = vector_of(robust, 1), vector_of(robust, 2)
    with crew_of(robust) as crew:
        sealer = Sealer(robust.secret, crew)
        turns = list(zip(sealer.seal_blocks(first), sealer.seal_blocks(second), strict=True))
        for place, vector in enumerate((first, second)):
            assert_holds(robust, b"".join(pieces[place] for pieces in turns), vector)
        assert len(worker_pids()) == WORKERS
        halted = sealer.seal_blocks(first)
        started = [next(halted), next(halted)]
        assert_holds(robust, sealer.seal(second), second)
        assert_holds(robust, b"".join([*started, *halted]), first)
    assert not worker_pids()


def test_no_more_batches_are_under_way_than_there_are_buffers(robust: KeyPair) -> None:
    """However long a vector is, and however slowly its pieces are taken."""
    drawn = 0

    def batches() -> Iterator[NDArray[np.int64]]:
        nonlocal drawn
        for _ in range(20):
            drawn += 1
            yield np.zeros((BATCH, robust.secret.profile.poly_degree), dtype=np.int64)

    with crew_of(robust) as crew:
        for taken, _ in enumerate(crew.seal(batches(), 20 * BATCH)):
            # One more is drawn, to be handed over next.
            assert drawn - taken <= BUFFERS * (WORKERS + 1) + 1
    assert drawn == 20


def test_batches_that_fail_leave_no_worker_behind(robust: KeyPair) -> None:
    """What the encoder raises goes through, and the next vector is right."""

    def batches() -> Iterator[NDArray[np.int64]]:
        yield np.zeros((BATCH, robust.secret.profile.poly_degree), dtype=np.int64)
        raise OverflowError("mine")

    vector = vector_of(robust)
    with crew_of(robust) as crew:
        with pytest.raises(OverflowError, match="mine"):
            list(crew.seal(batches(), MIN_CIPHERTEXTS))
        assert not worker_pids()
        assert_holds(robust, Sealer(robust.secret, crew).seal(vector), vector)


def test_closed_crew_has_no_processes_and_starts_new_ones(robust: KeyPair) -> None:
    """Closing is safe to repeat; dropping the crew does the same."""
    vector = vector_of(robust)
    crew = Crew(robust.secret, WORKERS + 1)
    Sealer(robust.secret, crew).seal(vector)
    assert len(worker_pids()) == WORKERS
    crew.close()
    crew.close()
    assert not worker_pids()
    Sealer(robust.secret, crew).seal(vector)
    assert len(worker_pids()) == WORKERS
    del crew
    assert not worker_pids()


PROGRAM = """
import sys
import numpy as np
from secagg.ckks import Crew, Sealer, SecretKey
secret = SecretKey.from_bytes(bytes.fromhex(sys.stdin.readline()))
crew = Crew(secret, 3)
Sealer(secret, crew).seal(np.zeros(80 * 4096))
print("sealed", flush=True)
sys.stdin.read()
"""


def test_workers_end_with_the_program_that_started_them(robust: KeyPair, tmp_path: Path) -> None:
    """Also if that is killed; and its main module, which guards nothing, runs once."""
    script = tmp_path / "embeds.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdin
        assert program.stdout
        program.stdin.write(robust.secret.to_bytes().hex() + "\n")
        program.stdin.flush()
        assert program.stdout.readline() == "sealed\n"
        descriptors = [os.pidfd_open(pid) for pid in worker_pids(str(program.pid))]
        assert len(descriptors) == WORKERS
        program.kill()
        assert program.stdout.read() == ""
    for descriptor in descriptors:
        ended, _, _ = select.select([descriptor], [], [], 30)
        os.close(descriptor)
        assert ended


def test_secret_is_in_no_argument_or_environment_of_a_worker(robust: KeyPair) -> None:
    """It goes over a pipe; and a worker outlives Ctrl-C, which its parent answers."""
    secret, vector = robust.secret.to_bytes()[3:], vector_of(robust)
    with crew_of(robust) as crew:
        Sealer(robust.secret, crew).seal(vector)
        pids = worker_pids()
        for pid in pids:
            for name in ("cmdline", "environ"):
                data = Path(f"/proc/{pid}/{name}").read_bytes()
                assert secret[:16] not in data
                assert secret[:16].hex().encode() not in data
            os.kill(pid, signal.SIGINT)
        assert_holds(robust, Sealer(robust.secret, crew).seal(vector), vector)
        assert worker_pids() == pids


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_crew_and_cipher_can_not_be_pickled_or_copied(
    robust: KeyPair, duplicate: Callable[[object], object]
) -> None:
    """They hold a secret key."""
    for item in (Crew(robust.secret), Cipher(robust.secret)):
        assert "array" not in repr(item)
        with pytest.raises(TypeError, match="secret key"):
            duplicate(item)
