"""The aggregator as one thing that starts, serves and ends."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from secagg._proto.aggregator_pb2 import DESCRIPTOR
from secagg._proto.aggregator_pb2_grpc import add_AggregatorServiceServicer_to_server
from secagg.custody.server_identity import ServerIdentity
from secagg.errors import Code, ConfigError
from secagg.rule import RuleLoader
from secagg.server.coordinator import Coordinator
from secagg.server.deployment import Deployment
from secagg.server.gate import MAX_MESSAGE_BYTES, Gate, Limits
from secagg.server.journal import Journal
from secagg.server.journal_thread import JournalThread
from secagg.server.observer import Observer
from secagg.server.recorder import Recorder
from secagg.server.recovery import recover
from secagg.server.service import AggregatorService
from secagg.server.spool import Spool
from secagg.server.uploads import Uploads
from secagg.server.workers import Workers

JOURNAL_FILE = "journal.sqlite"
LOCK_FILE = "server.lock"
SPOOL_FOLDER = "spool"
STOP_GRACE_S = 3.0
SERVICE = DESCRIPTOR.services_by_name["AggregatorService"].full_name

MAX_STREAMS_PER_CONNECTION = 32
HANDSHAKE_TIMEOUT_S = 10

_OPTIONS = (
    # Two servers must not share a port, and so half of the calls each.
    ("grpc.so_reuseport", 0),
    # A client in a long poll or in training keeps its connection alive with pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A peer that has gone without a word is noticed, and its connection and streams are given up. A client
    # that trains looks after its connection once a minute, which is why no answer is due before that.
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 90_000),
    # Who connects and says nothing is gone before it can collect open files.
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_S * 1000),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers.

    Args:
        address: ``host:port`` as clients are to reach it.
        port: the port it listens on.
    """

    address: str
    port: int
    coordinator: Coordinator


@asynccontextmanager
async def running(
    directory: Path,
    *,
    rules: RuleLoader,
    observer: Observer | None = None,
    listen: str | None = None,
    port: int | None = None,
    limits: Limits | None = None,
    record: Path | None = None,
) -> AsyncIterator[Running]:
    """Serves a federation inside the block.

    Args:
        directory: the federation's ``server/`` folder.
        rules: where the rule named in the settings comes from.
        observer: who is told what happens.
        listen: address to bind; by default the configured host if that is this machine's loopback, else
            every interface.
        port: port to bind instead of the configured one; 0 lets the system choose.
        limits: how much callers may have in hand at once.
        record: folder for what arrives in the clear (``secagg.server.recording``), for tests of one's own
            setting; by default nothing is kept.

    Raises:
        ConfigError, CustodyError, CiphertextError: as ``Deployment.load``; CONFIG_INVALID if a file of the
            folder can't be read, the folder is served already or the port can't be had.
        ServerError: JOURNAL_INCOMPATIBLE, SPOOL_CORRUPT.
    """
    observer, limits = observer or Observer(), limits or Limits()
    deployment = _load(directory, rules)
    with _locked(directory / LOCK_FILE):
        federation_id = deployment.descriptor.federation_id
        journal = JournalThread(Journal.open(directory / JOURNAL_FILE, federation_id=federation_id))
        workers = Workers(deployment.config.workers)
        coordinator = Coordinator(deployment, journal, Spool(directory / SPOOL_FOLDER), workers, observer)
        uploads = Uploads(coordinator)
        if record is not None:
            coordinator.when_ended.append(Recorder(coordinator, record).round_ended)
        health = health_aio.HealthServicer()
        server = grpc.aio.server(
            interceptors=[Gate(limits, observer)],
            options=(*_OPTIONS, ("grpc.max_allowed_incoming_connections", _connections())),
            # The gate refuses what is too much with a reason; this is for what comes faster than it can.
            maximum_concurrent_rpcs=2 * limits.calls,
        )
        add_AggregatorServiceServicer_to_server(AggregatorService(coordinator, uploads, limits), server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        try:
            host = deployment.config.host
            bind = listen or (host if host in _LOCAL_HOSTS else "::")
            wanted = deployment.config.port if port is None else port
            bound = _bind(server, bind, wanted, deployment.identity)
            await recover(coordinator, uploads)
            coordinator.spawn(workers.warm_up())
            await server.start()
            for name in ("", SERVICE):
                await health.set(name, health_pb2.HealthCheckResponse.SERVING)
            address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
            observer.emit("listening", address=address, port=bound)
            yield Running(address=address, port=bound, coordinator=coordinator)
        finally:
            coordinator.stopping = True
            await health.enter_graceful_shutdown()
            coordinator.wake()
            await server.stop(STOP_GRACE_S)
            await coordinator.stop()
            await asyncio.to_thread(workers.close)
            await asyncio.to_thread(journal.close)
            await asyncio.to_thread(observer.close)


async def serve(
    directory: Path,
    *,
    rules: RuleLoader,
    observer: Observer | None = None,
    listen: str | None = None,
    port: int | None = None,
    record: Path | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; arguments and errors as ``running``.

    Raises:
        SecaggError, OSError, sqlite3.Error: what kept the server from going on; the journal holds all that
            was answered, so that it can be started again.
    """
    raise_open_files()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(
        directory, rules=rules, observer=observer, listen=listen, port=port, record=record
    ) as server:
        stopped = asyncio.ensure_future(stop.wait())
        failed = server.coordinator.failed
        await asyncio.wait((stopped, failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if failed.done():
            failed.result()
        _log.info("stopping")


def raise_open_files() -> None:
    """Lets this process open as many files as it may: every connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the hard limit is infinite a system may still refuse it as the soft one.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _connections() -> int:
    """How many connections are let in: half of what may be open, so that strangers can't take it all."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(soft, 2**20) // 2 if soft != resource.RLIM_INFINITY else 2**19


def _load(directory: Path, rules: RuleLoader) -> Deployment:
    try:
        return Deployment.load(directory, rules=rules)
    except OSError as error:
        # Read, never written: what is wrong with it is for whoever set the folder up.
        raise ConfigError(Code.CONFIG_INVALID, f"{error.filename or directory}: {error.strerror}") from None


def _bind(server: grpc.aio.Server, host: str, port: int, identity: ServerIdentity) -> int:
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)],
        root_certificates=identity.ca_pem,
        require_client_auth=True,
    )
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(place, credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise ConfigError(
            Code.CONFIG_INVALID, f"can't listen on {place}; is the port free, and the name known here?"
        )
    return bound


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps a second server away from the same folder; the lock ends with the process, however that ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                Code.CONFIG_INVALID, f"{path.parent} is being served by another process already"
            ) from None
        yield
    finally:
        os.close(file)
