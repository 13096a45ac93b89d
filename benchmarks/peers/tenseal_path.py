"""TenSEAL's own way to add vectors, with NVFlare's parameters.

These are: CKKS, degree 8192, primes [60, 40, 40], scale 2^40, symmetric encryption. One ``ckks_vector`` per
tensor, in three processes:

- client: encrypt each tensor and ``serialize`` it;
- server: ``ckks_vector_from`` each client's bytes and add, without a secret key, then ``serialize`` the sum;
- client: ``ckks_vector_from`` the sum, ``decrypt``, divide by the number of clients.

``ckks_vector_from`` parses at once (``lazy_ckks_vector_from`` would not), so the server's time has the
parsing in it. One client's update is really sealed; the server parses its bytes anew for every client.
Reading and writing the files that stand for the network is not timed.

A tensor of more than about 37 million values makes TenSEAL fail: its serialised form exceeds protobuf's 2
GiB.

``dot_200k_s`` is one ``dot`` of two encrypted vectors of 200,000 values under [60, 40, 60] with
relinearisation and Galois keys, whose making isn't counted. A product takes one level, and switching keys
takes a last prime as wide as the widest other: under [60, 40, 40] ``dot`` returns a wrong number, and [60,
40, 40, 60], which works too, takes about twice the time.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import tenseal as ts

from benchmarks.peers.roles import Step, in_own_process, peak_mib
from benchmarks.peers.task import Figures, Task, largest_error, stdout_for_figures

SUM_PRIMES, DOT_PRIMES = [60, 40, 40], [60, 40, 60]
DOT_VALUES, DOT_RUNS, DOT_TOLERANCE = 200_000, 5, 1e-2


def context(primes: list[int]) -> ts.Context:
    """A context with a fresh secret key."""
    made = ts.context(
        ts.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=primes,
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
    )
    made.global_scale = 2**40
    return made


def make_keys(folder: Path) -> None:
    """Write the clients' context and the server's, which has no secret key."""
    made = context(SUM_PRIMES)
    (folder / "client").write_bytes(made.serialize(save_secret_key=True))
    (folder / "server").write_bytes(made.serialize(save_secret_key=False))


def write(path: Path, sent: list[bytes]) -> None:
    """Put one string of bytes per tensor on the wire."""
    with path.open("wb") as file:
        pickle.dump(sent, file, protocol=pickle.HIGHEST_PROTOCOL)


def read(path: Path) -> list[bytes]:
    """Take them off the wire."""
    with path.open("rb") as file:
        received: list[bytes] = pickle.load(file)
    return received


def seal(task: Task, folder: Path) -> Step:
    """The client's way up: an update becomes one string of bytes per tensor."""
    keys = ts.context_from((folder / "client").read_bytes())
    seconds, update = [], task.update(0)
    for _ in range(task.repeat):
        started = perf_counter()
        sent = [ts.ckks_vector(keys, tensor.ravel()).serialize() for tensor in update]
        seconds.append(perf_counter() - started)
    peak = peak_mib()
    write(folder / "up", sent)
    return Step(seconds=median(seconds), peak_mib=peak, size=sum(map(len, sent)))


def aggregate(task: Task, folder: Path) -> Step:
    """The server's round: all clients' bytes become those of their sum."""
    keys = ts.context_from((folder / "server").read_bytes())
    seconds = []
    for _ in range(task.repeat):
        total: list[ts.CKKSVector] = []
        spent = 0.0
        for client in range(task.clients):
            received = read(folder / "up")
            started = perf_counter()
            for index, blob in enumerate(received):
                vector = ts.ckks_vector_from(keys, blob)
                if client:
                    total[index].add_(vector)
                else:
                    total.append(vector)
            spent += perf_counter() - started
            del received
        started = perf_counter()
        sent = [vector.serialize() for vector in total]
        seconds.append(spent + perf_counter() - started)
    peak = peak_mib()
    write(folder / "down", sent)
    return Step(seconds=median(seconds), peak_mib=peak, size=sum(map(len, sent)))


def unseal(task: Task, folder: Path) -> Step:
    """The client's way down: the sum's bytes become means, checked against the update."""
    keys = ts.context_from((folder / "client").read_bytes())
    seconds, received = [], read(folder / "down")
    for _ in range(task.repeat):
        started = perf_counter()
        opened = [np.array(ts.ckks_vector_from(keys, blob).decrypt()) / task.clients for blob in received]
        seconds.append(perf_counter() - started)
    peak = peak_mib()
    # All clients sent the first one's update, so that it is the exact mean.
    exact = [tensor.astype(np.float64) for tensor in task.update(0)]
    return Step(seconds=median(seconds), peak_mib=peak, error=largest_error(opened, exact))


def dot_seconds(seed: int) -> float:
    """Seconds of ``dot`` between two encrypted vectors of 200,000 values, median of five."""
    keys = context(DOT_PRIMES)
    keys.generate_relin_keys()
    keys.generate_galois_keys()
    one, other = np.random.default_rng(seed).normal(0.0, 0.01, (2, DOT_VALUES))
    sealed, sealed_other, seconds = ts.ckks_vector(keys, one), ts.ckks_vector(keys, other), []
    for _ in range(DOT_RUNS):
        started = perf_counter()
        product = sealed.dot(sealed_other)
        seconds.append(perf_counter() - started)
    error = abs(product.decrypt()[0] - float(one @ other))
    if error > DOT_TOLERANCE:
        raise RuntimeError(f"TenSEAL's dot is off by {error}, more than {DOT_TOLERANCE}")
    return median(seconds)


def main() -> None:
    """Make keys, then run the three steps and the inner product, each in a process of its own."""
    task = Task.from_command_line(__doc__)
    with stdout_for_figures() as stdout, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        in_own_process(make_keys, folder)
        sealed = in_own_process(seal, task, folder)
        summed = in_own_process(aggregate, task, folder)
        opened = in_own_process(unseal, task, folder)
        dot_s = in_own_process(dot_seconds, task.seed)
        figures = Figures.of(f"tenseal {ts.__version__}", task, sealed, summed, opened)
        figures.write(stdout, dot_200k_s=dot_s)


if __name__ == "__main__":
    main()
