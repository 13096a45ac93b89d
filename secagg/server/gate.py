"""The gate before every call: how much one caller, and all of them together, may have in hand at once."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from secagg.custody.trust import Peer, peer_from_certificate
from secagg.envelope import MAX_BALLOT_WEIGHTS, MAX_HEADER_BYTES
from secagg.errors import Code, CustodyError, RoundError, SecaggError, TransferError
from secagg.plan import MAX_CHUNK_BYTES
from secagg.rpc_status import Boundary
from secagg.server.observer import Observer

MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES + 256 * 1024
"""Largest message that is received at all: a chunk with what stands around it."""
REQUEST_BYTES = 1024
_STREAMS = ("Download", "SendChunks")
_LONGER_REQUESTS = {"CreateUpload": MAX_HEADER_BYTES + 1024, "SubmitBallot": 9 * MAX_BALLOT_WEIGHTS + 1024}

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server lets its callers hold.

    Args:
        calls: calls at once, of all callers together; a client in a long poll holds one of them.
        calls_per_client: calls at once that one certificate may have, over all of its connections.
        streams_per_client: how many of these may be Downloads, and how many SendChunks.
        idle_s: a stream whose other end neither sends nor takes anything for so long is ended, seconds.
    """

    calls: int = 4096
    calls_per_client: int = 16
    streams_per_client: int = 2
    idle_s: float = 60.0


class Gate(grpc.aio.ServerInterceptor):
    """Counts calls from their first byte on, and reads requests itself.

    gRPC would start a unary call only when its request is complete, and until then nobody would know whose
    memory it takes. On the wire a single request and a stream of one are the same, so every method is served
    as a stream: who calls is known before the request is received.

    Args:
        limits: what callers may hold.
        observer: is told who was refused what.
    """

    def __init__(self, limits: Limits, observer: Observer) -> None:
        self._limits = limits
        self._observer = observer
        self._calls: Counter[bytes] = Counter()
        self._streams: Counter[tuple[bytes, str]] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler behind the gate; None if there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # The contract has no method that streams both ways.
        method = str(handler_call_details.method).rpartition("/")[2]
        serializer = handler.response_serializer

        async def sent(requests: AsyncIterator[Any], context: Context) -> Any:
            async with self._entered(context, method):
                return await handler.stream_unary(requests, context)

        async def asked(_: AsyncIterator[bytes], context: Context) -> Any:
            async with self._entered(context, method):
                return await handler.unary_unary(await self._request(handler, method, context), context)

        async def fetched(_: AsyncIterator[bytes], context: Context) -> None:
            async with self._entered(context, method):
                request = await self._request(handler, method, context)
                await self._send(context, handler.unary_stream(request, context))

        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(sent, handler.request_deserializer, serializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(fetched, None, serializer)
        return grpc.stream_unary_rpc_method_handler(asked, None, serializer)

    @asynccontextmanager
    async def _entered(self, context: Context, method: str) -> AsyncIterator[None]:
        caller = b"".join(context.auth_context().get("x509_pem_cert", ()))
        entered = False
        try:
            async with Boundary(context, method, reporter(self._observer, method)) as boundary:
                with suppress(CustodyError):
                    boundary.peer = peer_of(context).name
                self._enter(caller, method)
                entered = True
                yield
        finally:
            # Only now: a call that is cut while its last chunk waits for a reader still holds that chunk.
            if entered:
                self._leave(caller, method)

    def _enter(self, caller: bytes, method: str) -> None:
        limits, key = self._limits, (caller, method)
        for what, found, most in (
            ("the server has {} calls in hand", self._calls.total(), limits.calls),
            ("this client has {} calls in hand", self._calls[caller], limits.calls_per_client),
            (f"this client has {{}} {method} calls in hand", self._streams[key], limits.streams_per_client),
        ):
            if found >= most:
                raise TransferError(
                    Code.TOO_MANY_CALLS, f"{what.format(found)}, at most {most} at once; repeat it later"
                )
        self._calls[caller] += 1
        if method in _STREAMS:
            self._streams[key] += 1

    def _leave(self, caller: bytes, method: str) -> None:
        # Nobody is remembered who has nothing in hand.
        self._calls[caller] -= 1
        if not self._calls[caller]:
            del self._calls[caller]
        if method in _STREAMS:
            self._streams[caller, method] -= 1
            if not self._streams[caller, method]:
                del self._streams[caller, method]

    async def _request(self, handler: Any, method: str, context: Context) -> Any:
        """The one request of a call, read and parsed."""
        data = await read_within(context, self._limits.idle_s)
        if data is grpc.aio.EOF:
            raise RoundError(Code.REQUEST_MALFORMED, "the call carries no request")
        most = _LONGER_REQUESTS.get(method, REQUEST_BYTES)
        if len(data) > most:
            raise RoundError(
                Code.REQUEST_MALFORMED, f"the request has {len(data)} bytes; {method} takes at most {most}"
            )
        try:
            return handler.request_deserializer(data)
        except DecodeError:
            raise RoundError(Code.REQUEST_MALFORMED, "the request is not of the contract's form") from None

    async def _send(self, context: Context, responses: Any) -> None:
        if inspect.isawaitable(responses):  # a handler that writes by itself
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                try:
                    async with asyncio.timeout(self._limits.idle_s):
                        await context.write(response)
                except TimeoutError:
                    raise idle(f"nothing was read for {self._limits.idle_s:g} s") from None
                del response


async def read_within(context: Context, idle_s: float) -> Any:
    """A call's next message, or ``grpc.aio.EOF``.

    The iterator that gRPC hands to a method does the same, but one that is not read to its end refers to
    itself, and its call's memory then waits for the garbage collector.

    Raises:
        TransferError: STREAM_IDLE if it does not come within ``idle_s`` seconds.
        RoundError: REQUEST_MALFORMED if it can't be parsed.
    """
    try:
        async with asyncio.timeout(idle_s):
            return await context.read()
    except TimeoutError:
        raise idle(f"nothing was sent for {idle_s:g} s") from None
    except DecodeError:
        raise RoundError(Code.REQUEST_MALFORMED, "a message is not of the contract's form") from None


def idle(what: str) -> TransferError:
    """The refusal of a stream that stands still."""
    return TransferError(Code.STREAM_IDLE, f"{what}; ask again to go on where it stopped")


def reporter(observer: Observer, method: str) -> Callable[[str, SecaggError], None]:
    """What a ``Boundary`` calls to tell the observer of a refusal."""

    def report(client: str, error: SecaggError) -> None:
        ids = {name: value for name, value in error.ids.items() if name in ("round", "upload")}
        observer.emit(
            "refused", method=method, client=client, code=error.code.value, message=error.message, **ids
        )

    return report


def peer_of(context: Context) -> Peer:
    """Who calls, as the connection's certificate says.

    Raises:
        CustodyError: IDENTITY_INVALID if it is no client's, or has expired since the connection was made.
    """
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise CustodyError(Code.IDENTITY_INVALID, "the connection carries no client certificate")
    peer = _peer_of(bytes(certificates[0]))
    peer.require_unexpired()
    return peer


@lru_cache(maxsize=4096)
def _peer_of(pem: bytes) -> Peer:
    # The TLS handshake has checked the chain; reading the keys out of it again costs as much as a call.
    return peer_from_certificate(pem)
