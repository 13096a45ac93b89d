"""A real federation for measuring: its folder, its server as a process, and connections of its clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from defenses import load_rule
from secagg.client.channel import Connection
from secagg.config import FederationConfig
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import init_federation
from secagg.custody.identity import ClientIdentity
from secagg.model_file import save_model


def make_federation(folder: Path, *, clients: int, values: int, **settings: object) -> list[Path]:
    """A dealt federation whose model is one vector of ``values`` zeros; the clients' identity folders."""
    defaults: dict[str, object] = {
        "name": "measured",
        "address": "localhost:0",
        "rounds": 1,
        "min_clients": 1,
        "collect_timeout_s": 3600.0,
    }
    init_federation(folder, FederationConfig(**(defaults | settings)))
    save_model(folder / "initial_model.npz", {"vector": np.zeros(values, dtype=np.float32)})
    identities = [enroll_local(folder, f"client-{index:03d}") for index in range(clients)]
    deal(folder, rules=load_rule)
    return identities


@contextmanager
def process(arguments: Sequence[str], log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A child that prints ``{"event": "listening", "address": …}``; it and that address."""
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "listening":
                yield child, event["address"]
                break
        else:
            sys.exit(f"{' '.join(arguments)} did not start: {log.read_text()[-2000:]}")
    finally:
        child.terminate()
        child.communicate(timeout=60)


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``secagg serve`` on a federation's server folder."""
    arguments = ["-m", "secagg.cli", "serve", str(folder / "server"), "--events"]
    with process(arguments, folder / "server.log") as running:
        yield running


@contextmanager
def connected(identity: Path, address: str) -> Iterator[Connection]:
    """A client's connection over mutual TLS."""
    connection = Connection(
        ClientIdentity.load(identity), address, patience_s=60.0, on_event=lambda _name, _fields: None
    )
    try:
        yield connection
    finally:
        connection.close()
