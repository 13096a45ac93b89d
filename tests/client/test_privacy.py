"""The server never holds what it must not: an update's values, or the secret key."""

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from live_federation import in_threads

from defenses import load_rule
from secagg import Client
from secagg.ckks import Opener, Sealer, SecretKey
from secagg.ckks.context import ring_of
from secagg.ckks.opening import LweSecret
from secagg.ckks.packing import pack
from secagg.ckks.parameters import HEADER_BYTES
from secagg.custody.identity import ClientIdentity
from secagg.custody.shared import SharedCustody, open_custody
from secagg.plan import Protection, Significance
from secagg.selection import Layout, derive_mask
from secagg.update import Manifest

RNG = np.random.default_rng(3)
MODEL = {"hidden": RNG.normal(0, 0.1, (64, 100)).astype(np.float32), "out": np.zeros((10, 64), np.float32)}
NEEDLE = 32
"""Bytes that are looked for: 8 float32 values in a row; by chance they'd be found with probability 2^-200."""


def contribute(fed, name, updates, look=None):
    """One round of one client. ``look`` is called while the server holds the updates: before this client
    has confirmed, so the round is not over, and at each earlier step of it."""

    def on_event(event, fields):
        if look is not None and event in ("accepted", "opened", "balloted"):
            look()

    rng = np.random.default_rng(len(name))
    with Client.load(
        fed.identity(name), server=fed.address, rules=load_rule, patience_s=60, on_event=on_event
    ) as client:
        for upcoming in client.rounds(limit=1):
            updates[name] = {
                n: (t + rng.normal(0, 0.02, t.shape)).astype(np.float32) for n, t in upcoming.model.items()
            }
            return upcoming.contribute(updates[name], sample_count=7).model
    raise AssertionError("no round")


def files_of_the_server(fed):
    """Everything below its folder, its log, and every writable file its processes have mapped."""
    files = {p for p in fed.server_folder.rglob("*") if p.is_file()} | {fed.log}
    group = [fed.server.process.pid]
    group += [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == group[0]]
    for pid in group:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and "w" in fields[1] and fields[5].startswith("/"):
                path = Path(fields[5].removesuffix(" (deleted)"))
                if path.is_file() and ".so" not in path.name and path != Path("/dev/zero"):
                    files.add(path)
    return files


def _group(process):
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return None


def needles_of(tensors):
    """For each row of each tensor, bytes of it as float32 and as float64."""
    for name, tensor in tensors.items():
        for row in tensor:
            yield name, row.tobytes()[:NEEDLE]
            yield name, row.astype(np.float64).tobytes()[:NEEDLE]


def spread(data, length=NEEDLE, pieces=16):
    """Pieces from all over some bytes, aligned to 8: whoever holds the whole holds every one of them."""
    step = max(8, (len(data) - length) // pieces // 8 * 8)
    return [data[at : at + length] for at in range(0, len(data) - length + 1, step)]


def needles_of_key(secret):
    """The secret key in every form this software gives it: its own bytes (and in hex), its coefficients, and
    the residues modulo each key prime that SEAL computes with, as words and packed as they would travel."""
    own = secret.to_bytes()[HEADER_BYTES:]
    forms = {"bytes": [own[at : at + NEEDLE] for at in range(0, len(own) - NEEDLE + 1, NEEDLE)]}
    forms["hex"] = [piece.hex().encode() for piece in forms["bytes"]]
    # A ternary coefficient has 1.6 bits, so these have to be longer: by chance found with 2^-200, too.
    forms["coefficients"] = spread(secret.coefficients.tobytes(), 128)
    forms["wide coefficients"] = spread(secret.coefficients.astype("<i8").tobytes(), 8 * 128)
    residues, _ = ring_of(secret.profile).secret_form.read(secret.seal_key)
    for prime, row in zip(secret.profile.key_primes, residues, strict=True):
        assert row.shape == (secret.profile.poly_degree,) and row.max() < prime
        forms[f"residues mod {prime}"] = spread(row.astype("<u8").tobytes())
        packed = pack(row, prime.bit_length())
        width = prime.bit_length()
        # Whole groups of residues, which begin at whole bytes.
        forms[f"packed mod {prime}"] = [
            packed[at : at + NEEDLE] for at in range(0, len(packed) - NEEDLE, 16 * width)
        ]
    return [(f"key: {form}", piece) for form, pieces in forms.items() for piece in pieces]


class Search:
    """What the server's files held, at every moment somebody looked."""

    def __init__(self, fed):
        self._fed = fed
        self._contents = defaultdict(set)

    def look(self):
        for path in files_of_the_server(self._fed):
            # Files of a round may go, or move, between listing and reading.
            with suppress(FileNotFoundError):
                self._contents[path].add(path.read_bytes())

    def hits(self, needles):
        """Which needles occur in which files; before, that what matters was among them."""
        paths = {path for path, seen in self._contents.items() if any(seen)}
        assert {"journal.sqlite", "journal.sqlite-wal", self._fed.log.name} <= {path.name for path in paths}
        spooled = {path.parts[-3] for path in paths if path.parent.parent.parent.name == "spool"}
        assert "updates" in spooled and any(path.parent.name == "aggregates" for path in paths)
        return {
            (label, path.name)
            for path, seen in self._contents.items()
            for label, needle in needles
            if any(needle in content for content in seen)
        }


@pytest.mark.parametrize("rule", ["mean", "ddfed"])
def test_neither_updates_nor_the_secret_key_reach_the_server(federation, rule):
    """During and after a full-mode round its journal, spool, logs and mapped files hold no row of an update,
    no piece of the key, and no row of the opened aggregate."""
    fed = federation(MODEL, ["alice", "bob"], min_clients=2, rounds=2, rule=rule)
    fed.serve()
    updates, search = {}, Search(fed)
    alice, _ = in_threads(
        lambda: contribute(fed, "alice", updates),
        lambda: contribute(fed, "bob", updates, search.look),
    )
    search.look()
    needles = [(f"alice {n}", b) for n, b in needles_of(updates["alice"])]
    needles += [(f"bob {n}", b) for n, b in needles_of(updates["bob"])]
    needles += [(f"aggregate {n}", b) for n, b in needles_of(alice)]
    needles += needles_of_key(dealt_key(fed))
    assert search.hits(needles) == set()


def test_hidden_part_of_a_selective_update_does_not_reach_the_server(federation):
    """Of a selective round the server's files hold every visible row, and no hidden one: neither of an update
    nor of the opened aggregate."""
    protection = Protection.selective(significance=Significance.RANDOM, ratio=0.3)
    settings = {"protect": "selective", "significance": "random", "ratio": 0.3}
    fed = federation(MODEL, ["alice", "bob"], min_clients=2, rounds=2, **settings)
    fed.serve()
    updates, search = {}, Search(fed)
    opened, _ = in_threads(
        lambda: contribute(fed, "alice", updates),
        lambda: contribute(fed, "bob", updates, search.look),
    )
    search.look()
    manifest = Manifest.of(MODEL)
    layout = Layout(manifest, derive_mask(protection, manifest, fed.descriptor.federation_id, 1))
    hidden, visible = {}, {}
    for name, model in (updates | {"aggregate": opened}).items():
        (hidden[name],), (visible[name],) = layout.split(manifest.flatten(model))
    rows = [(f"hidden {n}", row) for n, flat in hidden.items() for row in needles_of({n: in_rows(flat)})]
    assert search.hits([(label, needle) for label, (_, needle) in rows]) == set()
    assert search.hits(needles_of_key(dealt_key(fed))) == set()
    seen = [(f"{n} {i}", row.tobytes()) for n, flat in visible.items() for i, row in enumerate(in_rows(flat))]
    assert {label for label, _ in search.hits(seen)} == {label for label, _ in seen}


def in_rows(flat):
    """As many whole rows of one needle's length as there are, [n, 8]."""
    width = NEEDLE // flat.itemsize
    return flat[: flat.size // width * width].reshape(-1, width)


def dealt_key(fed):
    """The federation's secret key, as a client gets it."""
    grant = (fed.server_folder / "grants" / "alice").read_bytes()
    return open_custody(ClientIdentity.load(fed.identity("alice")), fed.descriptor, grant).secret_key


def test_the_search_finds_what_is_there(federation):
    """In plain mode the same search does find the updates: it is not blind."""
    fed = federation(MODEL, ["alice"], protect="plain", rounds=2)
    fed.serve()
    updates, search = {}, Search(fed)
    contribute(fed, "alice", updates, search.look)
    assert {label for label, _ in search.hits(list(needles_of(updates["alice"])))} == set(MODEL)


def test_the_search_finds_a_key_that_is_there(federation):
    """A key left in the server's folder, in any of its forms, would be found."""
    fed = federation(MODEL, ["alice"], protect="plain", rounds=2)
    fed.serve()
    search, secret = Search(fed), dealt_key(fed)
    contribute(fed, "alice", {}, search.look)
    residues, _ = ring_of(secret.profile).secret_form.read(secret.seal_key)
    packed = [pack(row, p.bit_length()) for row, p in zip(residues, secret.profile.key_primes, strict=True)]
    wide = secret.coefficients.astype("<i8").tobytes()
    left = [secret.to_bytes(), secret.to_bytes()[HEADER_BYTES:].hex().encode(), residues.tobytes(), *packed]
    for index, data in enumerate([*left, secret.coefficients.tobytes(), wide]):
        (fed.server_folder / f"left-{index}").write_bytes(data)
    search.look()
    needles = needles_of_key(secret)
    assert {label for label, _ in search.hits(needles)} == {label for label, _ in needles}


def objects_of(start):
    """Every object of this project that can be reached from one, and every container on the way."""
    found, waiting = {}, [start]
    while waiting:
        item = waiting.pop()
        containers = isinstance(item, dict | list | tuple | set | frozenset)
        if id(item) in found or not (containers or type(item).__module__.startswith("secagg.")):
            continue
        found[id(item)] = item
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif containers:
            waiting += item
        else:
            slots = (name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ()))
            waiting += [getattr(item, name, None) for name in slots]
            waiting += getattr(item, "__dict__", {}).values()
    return list(found.values())


def test_client_shows_no_secret_in_its_repr(federation):
    """Once a round is over and a key is open, nothing that a client object leads to prints any of it, nor its
    identity's keys: neither as text nor in a container."""
    fed = federation(MODEL, ["alice"], rounds=2, rule="ddfed")
    fed.serve()
    with Client.load(fed.identity("alice"), server=fed.address, rules=load_rule, patience_s=60) as client:
        (upcoming,) = client.rounds(limit=1)
        upcoming.contribute(upcoming.model, sample_count=1)
        objects = objects_of(client)
        (custody,) = (item for item in objects if isinstance(item, SharedCustody))
        objects += objects_of([custody, custody.sealer(), custody.opener(), upcoming])
        kinds = {type(item) for item in objects}
        assert {ClientIdentity, SharedCustody, SecretKey, Sealer, Opener, LweSecret} <= kinds
        secret, identity = custody.secret_key, client._identity
        keys = [secret.to_bytes(), secret.coefficients.tobytes(), identity.tls_key_pem]
        keys += [key.private_bytes_raw() for key in (identity.signing_key, identity.hpke_key)]
        forms = [str(secret.coefficients), repr(secret.coefficients)[:-1], "PRIVATE"]
        forms += [form(key)[2:-1] for key in keys for form in (repr, lambda key: f"b'{key.hex()}'")]
        for item in objects:
            for shown in (repr(item), str(item), f"{item}"):
                assert not any(form in shown for form in forms), type(item)
