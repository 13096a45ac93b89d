"""Refusals cross a real gRPC connection with code, message and ids."""

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from secagg.errors import DOMAIN, GRPC_STATUS, Code, SecaggError, TransferError, is_shortage
from secagg.rpc_status import (
    DETAILS_KEY,
    ERROR_CLASS,
    MAX_MESSAGE_CHARS,
    Boundary,
    from_rpc_error,
    to_status,
)

Behaviour = Callable[[], Awaitable[None]]
SECRET = "0xdeadbeef in the server's memory"


class _Service(grpc.GenericRpcHandler):
    """One method, ``/t/Call``, that runs whatever the test wants inside a boundary."""

    def __init__(self) -> None:
        self.behave: Behaviour = _nothing

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._call)

    async def _call(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        async with Boundary(context, "Call"):
            await self.behave()
        return b"done"


async def _nothing() -> None:
    return


@pytest.fixture
async def wire() -> AsyncIterator[tuple[_Service, grpc.aio.Channel, str]]:
    service = _Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield service, channel, f"127.0.0.1:{port}"
    await server.stop(None)


async def _failure(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/t/Call")(b"", timeout=10)
    return caught.value


@pytest.mark.parametrize("code", list(Code))
async def test_every_code_survives_the_wire(code: Code, wire: tuple[_Service, grpc.aio.Channel, str]) -> None:
    """Code, class, message, ids and the status of the one table arrive as they were raised."""
    service, channel, _ = wire

    async def raise_it() -> None:
        raise SecaggError(code, "thing is 3; it must be 4 – see §2", round=7, client="älice")

    service.behave = raise_it
    failure = await _failure(channel)
    assert failure.code().name == GRPC_STATUS[code]
    error = from_rpc_error(failure)
    assert type(error) is ERROR_CLASS[code]
    assert error.code is code
    assert error.message == "thing is 3; it must be 4 – see §2"
    assert error.ids == {"round": "7", "client": "älice"}


async def test_the_blocking_client_reads_the_same_refusal(
    wire: tuple[_Service, grpc.aio.Channel, str],
) -> None:
    """``grpc`` and ``grpc.aio`` failures are parsed alike."""
    service, _, address = wire

    async def raise_it() -> None:
        raise TransferError(Code.OFFSET_MISMATCH, "offset is 5", committed_bytes=1024)

    service.behave = raise_it

    def call() -> SecaggError:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t/Call")(b"", timeout=10)
        return from_rpc_error(caught.value)

    error = await asyncio.to_thread(call)
    assert isinstance(error, TransferError)
    assert error.ids["committed_bytes"] == "1024"


async def test_an_unexpected_failure_says_nothing_of_the_inside(
    wire: tuple[_Service, grpc.aio.Channel, str], caplog: pytest.LogCaptureFixture
) -> None:
    """A bug becomes INTERNAL; its text stays in the server's log."""
    service, channel, _ = wire

    async def fail() -> None:
        raise ValueError(SECRET)

    service.behave = fail
    failure = await _failure(channel)
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(failure)
    assert from_rpc_error(failure).code is Code.INTERNAL
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    "shortage",
    [
        OSError(errno.EMFILE, SECRET, "/spool/1"),
        OSError(errno.ENFILE, SECRET),
        OSError(errno.ENOSPC, SECRET),
        OSError(errno.ENOMEM, SECRET),
        MemoryError(SECRET),
    ],
)
async def test_a_machine_at_its_end_asks_for_a_repetition(
    shortage: Exception, wire: tuple[_Service, grpc.aio.Channel, str]
) -> None:
    """No open file, disk or memory left is UNAVAILABLE, which every client repeats, and says no more."""
    service, channel, _ = wire

    async def fail() -> None:
        raise shortage

    service.behave = fail
    failure = await _failure(channel)
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert SECRET not in str(failure)
    assert from_rpc_error(failure).code is Code.RESOURCES_EXHAUSTED


def test_a_full_database_is_a_shortage_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """SQLite says so in a code of its own."""
    with closing(sqlite3.connect(tmp_path / "small.sqlite")) as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE t (content)")
        with pytest.raises(sqlite3.OperationalError) as full:
            database.execute("INSERT INTO t VALUES (zeroblob(100000))")
        with pytest.raises(sqlite3.OperationalError) as broken:
            database.execute("SELECT nothing FROM nowhere")
    assert is_shortage(full.value)
    assert not is_shortage(broken.value)
    assert not is_shortage(FileNotFoundError(errno.ENOENT, "gone"))


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    """A refused connection is SERVER_UNREACHABLE, which a client may retry."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        failure = await _failure(channel)
    assert from_rpc_error(failure).code is Code.SERVER_UNREACHABLE


def test_a_long_message_is_cut() -> None:
    """Trailing metadata stays far below gRPC's 8 KiB limit."""
    status = to_status(SecaggError(Code.INTERNAL, "x" * 50_000, client="y" * 50_000))
    assert len(status.message) == MAX_MESSAGE_CHARS
    assert status.ByteSize() < 4096


class _Foreign(grpc.RpcError):
    """A failed call with details of our choice."""

    def __init__(self, details: bytes) -> None:
        super().__init__()
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.FAILED_PRECONDITION

    def details(self) -> str:
        return "from elsewhere"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((DETAILS_KEY, self._details),)


@pytest.mark.parametrize("domain, reason", [("other.org", "ROUND_CLOSED"), (DOMAIN, "FROM_THE_FUTURE")])
def test_details_we_do_not_know_become_internal(domain: str, reason: str) -> None:
    """Another domain's reason, or a code of a newer version, is not mistaken for one of ours."""
    status = status_pb2.Status(code=9, message="m")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    assert from_rpc_error(_Foreign(status.SerializeToString())).code is Code.INTERNAL


def test_what_would_steer_a_terminal_is_taken_out() -> None:
    """Message and ids of a hostile server can be printed; no name of an id breaks the error."""
    status = status_pb2.Status(code=9, message="a\x1b[2Jb\x9bc\u202ed\r\ne" + "x" * 10_000)
    info = error_details_pb2.ErrorInfo(reason="ROUND_CLOSED", domain=DOMAIN)
    info.metadata.update({"round": "\x07\x1b]0;owned", "self": "1", "code": "2", "\x1b": "3"})
    status.details.add().Pack(info)
    error = from_rpc_error(_Foreign(status.SerializeToString()))
    assert error.code is Code.ROUND_CLOSED
    assert error.message.startswith("a [2Jb c d  e")
    assert len(error.message) == MAX_MESSAGE_CHARS
    for text in (error.message, *error.ids, *error.ids.values()):
        assert text.isprintable()
    assert error.ids["self"] == "1"


def test_garbled_details_become_internal() -> None:
    """Bytes that are no status are not a crash."""
    assert from_rpc_error(_Foreign(b"\xff\xff\xff")).code is Code.INTERNAL
