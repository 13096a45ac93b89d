"""The server never holds what it must not: an update's values, or the secret key."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from live_federation import in_threads

from defenses import load_rule
from secagg import Client
from secagg.custody.identity import ClientIdentity
from secagg.custody.shared import open_custody

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


class Search:
    """What the server's files held, at every moment somebody looked."""

    def __init__(self, fed):
        self._fed = fed
        self._contents = {}

    def look(self):
        for path in files_of_the_server(self._fed):
            # Files of a round may go, or move, between listing and reading.
            with suppress(FileNotFoundError):
                self._contents[path, len(self._contents)] = path.read_bytes()

    def hits(self, needles):
        """Which needles occur in which files; before, that what matters was among them."""
        paths = {path for (path, _), content in self._contents.items() if content}
        assert {"journal.sqlite", "journal.sqlite-wal", self._fed.log.name} <= {path.name for path in paths}
        spooled = {path.parts[-3] for path in paths if path.parent.parent.parent.name == "spool"}
        assert "updates" in spooled and any(path.parent.name == "aggregates" for path in paths)
        return {
            (label, path.name)
            for (path, _), content in self._contents.items()
            for label, needle in needles
            if needle in content
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
    grant = (fed.server_folder / "grants" / "alice").read_bytes()
    custody = open_custody(ClientIdentity.load(fed.identity("alice")), fed.descriptor, grant)
    key = custody.secret_key.to_bytes()
    needles = [(f"alice {n}", b) for n, b in needles_of(updates["alice"])]
    needles += [(f"bob {n}", b) for n, b in needles_of(updates["bob"])]
    needles += [(f"aggregate {n}", b) for n, b in needles_of(alice)]
    pieces = [key[at : at + NEEDLE] for at in range(8, len(key) - NEEDLE, NEEDLE)]
    needles += [("secret key", form) for p in pieces for form in (p, p.hex().encode())]
    assert search.hits(needles) == set()


def test_the_search_finds_what_is_there(federation):
    """In plain mode the same search does find the updates: it is not blind."""
    fed = federation(MODEL, ["alice"], protect="plain", rounds=2)
    fed.serve()
    updates, search = {}, Search(fed)
    contribute(fed, "alice", updates, search.look)
    assert {label for label, _ in search.hits(list(needles_of(updates["alice"])))} == set(MODEL)


def test_client_shows_no_secret_in_its_repr(federation):
    """Nothing a client object prints or hands to a traceback carries key material."""
    fed = federation(MODEL, ["alice"])
    with Client.load(fed.identity("alice"), server=fed.address, rules=load_rule) as client:
        assert "PRIVATE" not in repr(vars(client)) and "secret_key=" not in repr(vars(client))
