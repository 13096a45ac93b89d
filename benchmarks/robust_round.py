"""One robust round at the paper's setting: all that the server computes, beside what others' ways would take.

Ten clients' sealed models of 225,034 values lie in files, as after their upload. ``ours``: the server
screens (ten squared norms and ten products with the last aggregate), computes the 45 inner products of
pairs over all layers, releases all of them, and forms the weighted sum, in two processes. ``tenseal``:
TenSEAL's ``dot`` of two whole models in memory, and its weighted sum of ten; one ``dot`` is timed and
multiplied by the number of pairs. ``last layer``: what DDFed's public code does instead, ten ``dot`` of the
1,280 weights of the last layer with the global model's, and the same weighted sum. All in turn within one
process (``benchmarks.alternating``), medians.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tenseal as ts
from rich.console import Console

from benchmarks.alternating import Seconds, alternate
from benchmarks.engine import quiet, values_of
from benchmarks.peers.tenseal_path import DOT_PRIMES, DOT_TOLERANCE, context
from secagg.ckks import (
    AggregateOperand,
    Opener,
    ProductSum,
    SealedOperand,
    Sealer,
    aggregate_vector,
    generate,
    gram_pairs,
    product_sums,
    profile,
    weighted_sum,
)
from secagg.ckks.bounds import product_error_bound
from secagg.ckks.parameters import HEADER_BYTES
from secagg.ckks.products import Operand, Pair
from secagg.ckks.wire import AGGREGATE_HEADER_BYTES
from secagg.overhead.sweep import out_folder
from secagg.overhead.table import titled
from secagg.payload import StoredCiphertexts
from secagg.simulation.result import write_result

UPDATES, VALUES = 10, 225_034
LAST_LAYER = 1_280
"""Weights of the last layer of the paper's network."""
WEIGHT = 51
"""Of each update in the sum; ten of them are about the 512 that a coefficient sum of 1 is carried as."""
LIMIT_S = 1.5


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker of the server does: all pairs, or the sum, over some ciphertexts of the files."""

    files: tuple[Path, ...]
    aggregate: Path
    ciphertexts: range

    def operands(self) -> list[Operand]:
        """The updates, and the aggregate that the round started from."""
        operands: list[Operand] = [SealedOperand(reader=_stored(path, HEADER_BYTES)) for path in self.files]
        last = _stored(self.aggregate, AGGREGATE_HEADER_BYTES)
        return [*operands, AggregateOperand(reader=last, weight_total=len(self.files) * WEIGHT)]


def _stored(path: Path, start: int) -> StoredCiphertexts:
    used = profile("robust")
    size = used.sealed_ciphertext_bytes if start == HEADER_BYTES else used.aggregate_ciphertext_bytes
    return StoredCiphertexts(path, start=start, size=size, count=(path.stat().st_size - start) // size)


def products(share: Share, pairs: Sequence[Pair]) -> list[ProductSum]:
    """A worker's part of inner products."""
    return product_sums(share.operands(), pairs, VALUES, profile("robust"), ciphertexts=share.ciphertexts)


def summed(share: Share) -> list[bytes]:
    """A worker's part of the weighted sum."""
    readers = [_stored(path, HEADER_BYTES) for path in share.files]
    return list(weighted_sum(readers, [WEIGHT] * UPDATES, profile("robust"), ciphertexts=share.ciphertexts))


class Ours:
    """This project's server, with its updates in files."""

    def __init__(self, folder: Path, pool: ProcessPoolExecutor, seed: int) -> None:
        self._profile, self._pool = profile("robust"), pool
        self._pair = generate(self._profile)
        self.vectors = [values_of(VALUES, seed + place) for place in range(UPDATES)]
        files = tuple(folder / str(place) for place in range(UPDATES))
        for path, vector in zip(files, self.vectors, strict=True):
            path.write_bytes(Sealer(self._pair.secret).seal(vector))
        aggregate = folder / "aggregate"
        readers = [_stored(path, HEADER_BYTES) for path in files]
        aggregate.write_bytes(b"".join(aggregate_vector(readers, [WEIGHT] * UPDATES, VALUES, self._profile)))
        count = self._profile.ciphertext_count(VALUES)
        halves = (range(count // 2), range(count // 2, count))
        self._shares = [Share(files, aggregate, half) for half in halves]

    def released(self, pairs: Sequence[Pair]) -> list[bytes]:
        """Inner products as they leave the server."""
        parts = self._pool.map(products, self._shares, [pairs] * len(self._shares))
        return [a.plus(b, self._profile).release(self._pair.public) for a, b in zip(*parts, strict=True)]

    def screening(self) -> list[bytes]:
        """Squared norms, and products with the last aggregate."""
        return self.released([(i, i) for i in range(UPDATES)] + [(i, UPDATES) for i in range(UPDATES)])

    def pairs(self) -> list[bytes]:
        """All pairs of two updates."""
        return self.released([pair for pair in gram_pairs(UPDATES) if pair[0] != pair[1]])

    def sum(self) -> list[bytes]:
        """The weighted sum's ciphertexts."""
        return [item for part in self._pool.map(summed, self._shares) for item in part]

    def round(self) -> None:
        """All of it."""
        self.screening()
        self.pairs()
        self.sum()

    def check(self) -> None:
        """See that what is released opens to the right numbers.

        Raises:
            SystemExit: it does not.
        """
        opener, exact = Opener(self._pair.secret), np.array(self.vectors, dtype=np.float64)
        pairs = [pair for pair in gram_pairs(UPDATES) if pair[0] != pair[1]]
        for (i, j), scalar in zip(pairs, self.pairs(), strict=True):
            norms = float(np.linalg.norm(exact[i])), float(np.linalg.norm(exact[j]))
            off = abs(opener.open_scalar(scalar) - exact[i] @ exact[j])
            if off > product_error_bound(self._profile, *norms, VALUES):
                sys.exit(f"the product of updates {i} and {j} opened {off:.3g} off")


class TenSEAL:
    """TenSEAL's way with the same vectors: everything in memory, nothing parsed."""

    def __init__(self, vectors: Sequence[np.ndarray]) -> None:
        keys = context(DOT_PRIMES)
        keys.generate_relin_keys()
        keys.generate_galois_keys()
        self._whole = [ts.ckks_vector(keys, vector) for vector in vectors]
        self._last = [ts.ckks_vector(keys, vector[-LAST_LAYER:]) for vector in vectors]
        self._reference = ts.ckks_vector(keys, np.mean(vectors, axis=0)[-LAST_LAYER:])
        error = abs(self.dot().decrypt()[0] - float(vectors[0].astype(np.float64) @ vectors[1]))
        if error > DOT_TOLERANCE:
            sys.exit(f"TenSEAL's dot is off by {error:.3g}")

    def dot(self) -> ts.CKKSVector:
        """One inner product of two whole models."""
        return self._whole[0].dot(self._whole[1])

    def sum(self) -> ts.CKKSVector:
        """The weighted sum."""
        total = self._whole[0] * (1 / UPDATES)
        for vector in self._whole[1:]:
            total += vector * (1 / UPDATES)
        return total

    def last_layer(self) -> list[ts.CKKSVector]:
        """Each client's last layer with the reference."""
        return [vector.dot(self._reference) for vector in self._last]


@contextmanager
def contestants(seed: int) -> Iterator[dict[str, Callable[[], object]]]:
    """What is timed, by name."""
    with (
        quiet(),
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        ours = Ours(Path(folder), pool, seed)
        ours.check()
        theirs = TenSEAL(ours.vectors)
        yield {
            "round": ours.round,
            "screening": ours.screening,
            "pairs": ours.pairs,
            "sum": ours.sum,
            "tenseal_dot": theirs.dot,
            "tenseal_sum": theirs.sum,
            "last_layer": theirs.last_layer,
        }


def rows_of(found: Seconds) -> list[dict[str, object]]:
    """The rows of ``result.json``."""
    pairs = len(gram_pairs(UPDATES))
    dot, total, last = (found.median(name) for name in ("tenseal_dot", "tenseal_sum", "last_layer"))
    named = (
        ("whole round, two processes", "robust", None, found.median("round")),
        ("squared norms and products with the last aggregate", "robust", None, found.median("screening")),
        ("products of all pairs", "robust", None, found.median("pairs")),
        ("weighted sum", "robust", None, found.median("sum")),
        (f"{pairs} products of whole models, {pairs} x one that was timed", "dot", "tenseal", pairs * dot),
        ("weighted sum", "ckks_vector", "tenseal", total),
        (f"{pairs} products of whole models and the sum", "dot", "tenseal", pairs * dot + total),
        ("last layer with the reference, as in DDFed's code", "dot", "tenseal", last),
        ("last layer with the reference and the sum", "dot", "tenseal", last + total),
    )
    return [
        {
            "primitive": what,
            "scheme": scheme,
            "peer": peer,
            "updates": UPDATES,
            "values": VALUES,
            "seconds": seconds,
        }
        for what, scheme, peer, seconds in named
    ]


def main() -> None:
    """Measure, print, write ``result.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns whose median counts (5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/robust-round"), help="folder (runs/robust-round)"
    )
    asked = parser.parse_args()
    out = out_folder(asked.out)
    with contestants(asked.seed) as things:
        found = alternate(asked.rounds, **things)
    rows = rows_of(found)
    ratios = {
        "tenseal_pairs_over_ours": 55 * found.ratio("tenseal_dot", "round"),
        "last_layer_over_ours": found.ratio("last_layer", "round"),
    }
    more = {"limit_s": LIMIT_S, "ratios": ratios}
    write_result(out, command=" ".join(sys.argv), seed=asked.seed, rows=rows, more=more)
    table = titled(f"One round, {UPDATES} updates of {VALUES:,} values: the server's seconds")
    for name in ("", "by", "s"):
        table.add_column(name, justify="right" if name == "s" else "left")
    for row in rows:
        table.add_row(str(row["primitive"]), str(row["peer"] or "ours"), f"{row['seconds']:.3f}")
    console = Console()
    console.print(table)
    verdict = "ok" if found.median("round") <= LIMIT_S else "SHORT"
    console.print(f"\nwanted: a round in at most {LIMIT_S} s: {found.median('round'):.2f} s, {verdict}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
