"""The engine's primitives against TenSEAL's, raw SEAL's and a memory copy, in turn within one process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tenseal as ts
import tenseal.sealapi as seal

from benchmarks.alternating import Seconds, alternate
from benchmarks.peers.tenseal_path import DOT_PRIMES, DOT_TOLERANCE, DOT_VALUES, SUM_PRIMES, context
from secagg.ckks import (
    PROFILES,
    Crew,
    KeyPair,
    Opener,
    ProductSum,
    SealedOperand,
    Sealer,
    Steps,
    generate,
    gram_pairs,
    inner_products,
    product_sums,
    weighted_sum,
)
from secagg.ckks.bounds import product_error_bound
from secagg.ckks.context import ring_of
from secagg.ckks.parameters import HEADER_BYTES, Profile
from secagg.ckks.products import _Factors, _Product
from secagg.ckks.vectors import CHUNK, CiphertextReader
from secagg.payload import StoredCiphertexts

MILLION = 10**6
STEP = 2.0**-18
"""Of quantised values: as a tensor's whose largest value is 0.06."""
GRAM_UPDATES, GRAM_VALUES = 10, 225_034
ADDITIONS = 200
"""Ciphertexts parsed and added per round."""
COPIES = 10
"""Clients whose plain vectors the memory copy stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """One thing that was timed; a row of ``result.json``.

    Args:
        primitive: what is done.
        scheme: under what.
        values: how many it is done to.
        seconds: the median.
        peer: whose code did it; None: this project's.
    """

    primitive: str
    scheme: str
    values: int
    seconds: float
    peer: str | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """What TenSEAL has to say about vectors of several ciphertexts, once per vector, is not said."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def values_of(count: int, seed: int) -> np.ndarray:
    """A vector to seal: float32 [count], N(0, 0.01²)."""
    drawn = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
    return drawn * np.float32(0.01)


class Sealing:
    """A profile's sealer for a million values, in one process or several."""

    def __init__(self, name: str, values: np.ndarray, workers: int = 1) -> None:
        profile = PROFILES[name]
        secret = generate(profile).secret
        self._steps = Steps.uniform(values.size, STEP) if profile.quantised else None
        self._values, self._sealer = values, Sealer(secret, Crew(secret, workers))

    def __call__(self) -> bytes:
        return self._sealer.seal(self._values, steps=self._steps)


class SealEncoding:
    """SEAL alone, by its own encoder: the ring of our profiles, N/2 values to a ciphertext, no bytes."""

    def __init__(self, values: np.ndarray) -> None:
        profile = PROFILES["precise"]
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(profile.poly_degree)
        parameters.set_coeff_modulus([seal.Modulus(profile.modulus)])
        made = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self._encoder = seal.CKKSEncoder(made)
        self._encryptor = seal.Encryptor(made, seal.KeyGenerator(made).secret_key())
        step = profile.poly_degree // 2
        self._parts = [values[at : at + step].tolist() for at in range(0, values.size, step)]

    def __call__(self) -> None:
        for part in self._parts:
            plaintext = seal.Plaintext()
            self._encoder.encode(part, 2.0**36, plaintext)
            self._encryptor.encrypt_symmetric(plaintext)


class SealEncrypting:
    """SEAL's encryption of zero alone, as many times as a profile needs ciphertexts: nobody seals faster with
    it.
    """

    def __init__(self, name: str, count: int) -> None:
        pair = generate(PROFILES[name])
        self._encryptor, self._count = pair.secret.seal_encryptor, PROFILES[name].ciphertext_count(count)

    def __call__(self) -> None:
        for _ in range(self._count):
            self._encryptor.encrypt_zero_symmetric()


def sealing(rounds: int, seed: int) -> tuple[Seconds, list[Primitive]]:
    """Sealing a million values: encode, encrypt, bytes."""
    values = values_of(MILLION, seed)
    keys = context(SUM_PRIMES)
    with quiet():
        found = alternate(
            rounds,
            tenseal=lambda: ts.ckks_vector(keys, values).serialize(),
            compact=Sealing("compact", values),
            compact_10=Sealing("compact-10", values),
            robust=Sealing("robust", values),
            seal=SealEncoding(values),
            seal_compact=SealEncrypting("compact", MILLION),
            seal_robust=SealEncrypting("robust", MILLION),
        )
    shared = alternate(
        rounds,
        compact_1=Sealing("compact", values),
        compact_2=Sealing("compact", values, workers=2),
        robust_1=Sealing("robust", values),
        robust_2=Sealing("robust", values, workers=2),
    )
    found = Seconds(of={**found.of, **shared.of})
    named = {
        "compact": ("seal", "compact", None),
        "compact_10": ("seal", "compact-10", None),
        "robust": ("seal", "robust", None),
        "compact_2": ("seal, two processes", "compact", None),
        "robust_2": ("seal, two processes", "robust", None),
        "tenseal": ("seal", "ckks_vector + serialize", "tenseal"),
        "seal": ("limit: encode + encrypt", "SEAL's slots, no bytes", "seal"),
        "seal_compact": ("limit: encrypt zero", "compact's ciphertexts, no bytes", "seal"),
        "seal_robust": ("limit: encrypt zero", "robust's ciphertexts, no bytes", "seal"),
    }
    return found, [
        Primitive(primitive=what, scheme=scheme, values=MILLION, seconds=found.median(name), peer=peer)
        for name, (what, scheme, peer) in named.items()
    ]


def readers_of(pair: KeyPair, vectors: Sequence[np.ndarray]) -> list[CiphertextReader]:
    """Sealed vectors in memory, by ciphertext."""
    sealer, size = Sealer(pair.secret), pair.secret.profile.sealed_ciphertext_bytes

    def reader(data: bytes) -> CiphertextReader:
        view = memoryview(data)[HEADER_BYTES:]
        return lambda index: view[index * size : (index + 1) * size]

    return [reader(sealer.seal(vector)) for vector in vectors]


def inner_product(rounds: int, seed: int) -> tuple[Seconds, list[Primitive]]:
    """⟨a, b⟩ of two encrypted vectors of 200,000 values.

    ``ready``: both operands lie ready to be multiplied, as TenSEAL's do, and what comes out is as fit to be
    seen as what ``dot`` gives: by the aggregator only. ``released``: that, and masked so that nothing else
    can be opened. ``stored``: from sealed bytes to a released scalar.
    """
    profile, vectors = PROFILES["robust"], [values_of(DOT_VALUES, seed + place) for place in (0, 1)]
    pair = generate(profile)
    operands = [SealedOperand(reader=reader) for reader in readers_of(pair, vectors)]
    indices = range(profile.ciphertext_count(DOT_VALUES))
    factors = [_Factors(operands, [(0, 1)], index, profile) for index in indices]
    exact = float(vectors[0].astype(np.float64) @ vectors[1])
    norms = [float(np.linalg.norm(vector.astype(np.float64))) for vector in vectors]
    bound = product_error_bound(profile, norms[0], norms[1], DOT_VALUES)
    opener = Opener(pair.secret)

    def ready() -> ProductSum:
        product = _Product(profile, operands[1])
        for factor in factors:
            product.add(factor.straight[0], factor.conjugated[1])
        return product.sum()

    def released() -> bytes:
        return ready().release(pair.public)

    def stored() -> bytes:
        return inner_products(operands, [(0, 1)], DOT_VALUES, pair.public)[0]

    for scalar in (released(), stored()):
        error = abs(opener.open_scalar(scalar) - exact)
        if error > bound:
            sys.exit(f"an inner product opened {error:.3g} off; at most {bound:.3g} is possible")
    keys = context(DOT_PRIMES)
    keys.generate_relin_keys()
    keys.generate_galois_keys()
    with quiet():
        sealed = [ts.ckks_vector(keys, vector) for vector in vectors]
        data = [vector.serialize() for vector in sealed]
        error = abs(sealed[0].dot(sealed[1]).decrypt()[0] - exact)
        if error > DOT_TOLERANCE:
            sys.exit(f"TenSEAL's dot is off by {error:.3g}")

        def tenseal_stored() -> bytes:
            left, right = (ts.ckks_vector_from(keys, item) for item in data)
            return bytes(left.dot(right).serialize())

        found = alternate(
            rounds,
            tenseal=lambda: sealed[0].dot(sealed[1]),
            ready=ready,
            released=released,
            tenseal_stored=tenseal_stored,
            stored=stored,
        )
    named = {
        "ready": ("inner product, operands ready", "robust", None),
        "released": ("inner product, operands ready, released", "robust", None),
        "tenseal": ("inner product, operands ready", "dot", "tenseal"),
        "stored": ("inner product, bytes to bytes", "robust", None),
        "tenseal_stored": ("inner product, bytes to bytes", "dot", "tenseal"),
    }
    return found, [
        Primitive(primitive=what, scheme=scheme, values=DOT_VALUES, seconds=found.median(name), peer=peer)
        for name, (what, scheme, peer) in named.items()
    ]


def part_of_gram(paths: Sequence[Path], part: range) -> list[ProductSum]:
    """A worker's share of a Gram matrix: all pairs over some ciphertexts of sealed files."""
    profile = PROFILES["robust"]
    operands = [SealedOperand(reader=_file_reader(path, profile)) for path in paths]
    return product_sums(operands, gram_pairs(len(paths)), GRAM_VALUES, profile, ciphertexts=part)


def _file_reader(path: Path, profile: Profile) -> CiphertextReader:
    """As ``UpdateFile`` reads a payload of one block."""
    size = profile.sealed_ciphertext_bytes
    count = (path.stat().st_size - HEADER_BYTES) // size
    return StoredCiphertexts(path, start=HEADER_BYTES, size=size, count=count)


def gram(rounds: int, seed: int) -> tuple[Seconds, list[Primitive]]:
    """The Gram matrix of 10 sealed files of 225,034 values in two processes, and TenSEAL's ``dot`` of two."""
    profile = PROFILES["robust"]
    pair = generate(profile)
    vectors = [values_of(GRAM_VALUES, seed + place) for place in range(GRAM_UPDATES)]
    count, pairs = profile.ciphertext_count(GRAM_VALUES), gram_pairs(GRAM_UPDATES)
    halves = (range(count // 2), range(count // 2, count))
    exact = np.array(vectors, dtype=np.float64) @ np.array(vectors, dtype=np.float64).T
    keys = context(DOT_PRIMES)
    keys.generate_relin_keys()
    keys.generate_galois_keys()
    with (
        quiet(),
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        paths = [Path(folder) / str(place) for place in range(GRAM_UPDATES)]
        for path, vector in zip(paths, vectors, strict=True):
            path.write_bytes(Sealer(pair.secret).seal(vector))

        def ours() -> list[bytes]:
            parts = pool.map(part_of_gram, (paths, paths), halves)
            return [
                first.plus(second, profile).release(pair.public) for first, second in zip(*parts, strict=True)
            ]

        opener = Opener(pair.secret)
        for (row, column), released in zip(pairs, ours(), strict=True):
            norm = np.sqrt(exact[row, row]), np.sqrt(exact[column, column])
            off = abs(opener.open_scalar(released) - exact[row, column])
            if off > product_error_bound(profile, float(norm[0]), float(norm[1]), GRAM_VALUES):
                sys.exit(f"entry {row}, {column} of the Gram matrix opened {off:.3g} off")
        sealed = [ts.ckks_vector(keys, vector) for vector in vectors[:2]]
        found = alternate(rounds, ours=ours, tenseal=lambda: sealed[0].dot(sealed[1]))
    return found, [
        Primitive(
            primitive="Gram matrix of 10, two processes",
            scheme="robust",
            values=GRAM_VALUES,
            seconds=found.median("ours"),
        ),
        Primitive(
            primitive="one of its 55 entries",
            scheme="dot",
            values=GRAM_VALUES,
            seconds=found.median("tenseal"),
            peer="tenseal",
        ),
    ]


def parse_and_add(rounds: int, seed: int) -> tuple[Seconds, list[Primitive]]:
    """The server's work on one ciphertext: ours from a spooled file, SEAL's from its own saved stream."""
    del seed  # the work is the same whatever the values are
    profile = PROFILES["robust"]
    pair, ring, size = generate(profile), ring_of(profile), profile.sealed_ciphertext_bytes
    with tempfile.TemporaryDirectory() as folder:
        spooled = Path(folder) / "spooled"
        values = np.zeros(ADDITIONS * profile.values_per_ciphertext, dtype=np.float32)
        spooled.write_bytes(Sealer(pair.secret).seal(values))
        saved = [str(Path(folder) / str(index)) for index in range(ADDITIONS)]
        for path in saved:
            pair.secret.seal_encryptor.encrypt_zero_symmetric().save(path)

        def ours() -> None:
            # As in a round: each client's next few ciphertexts, and what comes of them packed at the end.
            starts = range(HEADER_BYTES, HEADER_BYTES + ADDITIONS * size, CHUNK * size)
            readers = [StoredCiphertexts(spooled, start=at, size=size, count=CHUNK) for at in starts]
            for _ in weighted_sum(readers, [1] * len(readers), profile, ciphertexts=range(CHUNK)):
                pass

        def raw() -> None:
            running = seal.Ciphertext()
            running.load(ring.seal, saved[0])
            for path in saved[1:]:
                item = seal.Ciphertext()
                item.load(ring.seal, path)
                ring.evaluator.add_inplace(running, item)

        found = alternate(rounds, ours=ours, seal=raw)
    return found, [
        Primitive(
            primitive="parse and add one ciphertext",
            scheme=scheme,
            values=profile.values_per_ciphertext,
            seconds=found.median(name) / ADDITIONS,
            peer=peer,
        )
        for name, scheme, peer in (("ours", "robust", None), ("seal", "SEAL's saved stream", "seal"))
    ]


def memory_copy(rounds: int, seed: int) -> tuple[Seconds, list[Primitive]]:
    """What no sum of plain float32 vectors can beat: reading and writing each once."""
    vector = values_of(MILLION, seed)
    target = np.empty_like(vector)

    def copies() -> None:
        for _ in range(COPIES):
            np.copyto(target, vector)

    found = alternate(rounds, copies=copies)
    return found, [
        Primitive(
            primitive=f"limit: memory copy of {COPIES} plain vectors",
            scheme="float32",
            values=MILLION,
            seconds=found.median("copies"),
            peer="numpy",
        )
    ]
