"""Peak memory of the server in ``mean``: many clients against few, the same model.

Every client is enrolled, holds its own certificate and connection, and seals and uploads a real update. The
peak is the sum over the server's process and its crypto workers of the largest resident set each ever had
(VmHWM), so it can only overstate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from benchmarks.served import make_federation, served
from defenses import load_rule
from secagg import Client
from secagg.simulation.result import write_result

LIMIT = 1.3


def high_water_mib(pid: int) -> float:
    """Sum of the peak resident sets of a process and its children, MiB."""
    total = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return total / 1024


def contribute(identity: Path, address: str, values: int, seed: int) -> float:
    """One client's round, over a connection of its own: the mean of the model it opens."""
    with Client.load(identity, server=address, rules=load_rule) as client:
        for round_ in client.rounds(limit=1):
            result = round_.contribute({"vector": vector(values, seed)}, sample_count=1)
    return float(result.model["vector"].mean())


def vector(values: int, seed: int) -> np.ndarray:
    """A client's update: float32 [values] around ``seed``/1000, so that the mean over clients is known."""
    noise = np.random.default_rng(seed).normal(0.0, 0.1, values)
    return (seed / 1000 + noise - noise.mean()).astype(np.float32)


def peak_mib(clients: int, values: int, scratch: Path) -> float:
    """The server's peak over one round of so many clients, MiB."""
    federation = scratch / f"federation-{clients}"
    # One profile for few and many: auto would take another beyond 180 clients.
    identities = make_federation(
        federation, clients=clients, values=values, min_clients=clients, profile="precise"
    )
    with served(federation) as (server, address), ThreadPoolExecutor(clients) as pool:
        waiting = [
            pool.submit(contribute, identity, address, values, seed)
            for seed, identity in enumerate(identities)
        ]
        expected = (clients - 1) / 2 / 1000
        for done in waiting:
            if abs(done.result() - expected) > 1e-6:
                sys.exit(f"a client opened an aggregate with mean {done.result()}, not {expected}")
        return high_water_mib(server.pid)


def main() -> None:
    """Measure, print, write ``result.json`` if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="folder for result.json")
    asked = parser.parse_args()
    peaks = {}
    with tempfile.TemporaryDirectory() as scratch:
        for clients in (asked.few, asked.many):
            peaks[clients] = peak_mib(clients, asked.values, Path(scratch))
            print(
                f"{clients:4d} clients x {asked.values} values: server peak {peaks[clients]:.0f} MiB",
                flush=True,
            )
    ratio = peaks[asked.many] / peaks[asked.few]
    print(f"{asked.many} clients take {ratio:.2f} x the memory of {asked.few} (at most {LIMIT} wanted)")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        rows = [{"clients": n, "values": asked.values, "server_peak_mib": peak} for n, peak in peaks.items()]
        write_result(asked.out, command=" ".join(sys.argv), seed=0, rows=rows, more={"ratio": ratio})


if __name__ == "__main__":
    main()
