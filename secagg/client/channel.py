"""The client's one connection: mutual TLS, calls that outlive a cut, and what it carried."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from secagg._proto import aggregator_pb2_grpc
from secagg.custody.identity import ClientIdentity
from secagg.errors import Code, SecaggError, TransferError
from secagg.rpc_status import from_rpc_error

CALL_TIMEOUT_S = 120.0
"""Longest single call; a transfer that takes longer goes on in the next call."""
KEEPALIVE_S = 60
"""Below the four minutes after which common load balancers and NATs forget an idle connection."""
HEARTBEAT_TIMEOUT_S = 20.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
PROBE_S = 5.0

RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        # What a stream ends with when the peer's process goes away under it.
        grpc.StatusCode.CANCELLED,
    }
)

OnEvent = Callable[[str, dict[str, object]], None]
"""``on_event(name, fields)``; may be called from a gRPC thread and must return quickly."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_random = secrets.SystemRandom()


class Traffic:
    """Payload bytes this process handed to the transport, and artifact bytes it received."""

    def __init__(self) -> None:
        self.bytes_up = 0
        self.bytes_down = 0


class Patience:
    """How long to go on without progress, with growing, jittered pauses.

    The pause before attempt k is uniform in [0, min(``LONGEST_PAUSE_S``, ``FIRST_PAUSE_S``·2^k)]
    (full jitter), so that clients cut off together do not come back together. After it, ``probe`` is given up
    to ``PROBE_S`` to get a connection.
    """

    def __init__(
        self,
        patience_s: float,
        on_event: OnEvent,
        closed: threading.Event,
        probe: Callable[[float], None],
    ) -> None:
        self._patience_s = patience_s
        self._on_event = on_event
        self._closed = closed
        self._probe = probe
        self._attempt = 0
        self._failing_since: float | None = None

    def progress(self) -> None:
        """Something worked: the full patience is back."""
        self._attempt = 0
        self._failing_since = None

    def pause(self, error: SecaggError, *, busy_s: float = 0.0) -> None:
        """Wait before the next attempt. Patience is counted from the first failure on.

        Args:
            error: why the last attempt failed.
            busy_s: seconds in which that attempt did move bytes; they don't count.

        Raises:
            TransferError: SERVER_UNREACHABLE when the patience is used up or the client was closed.
        """
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since + busy_s
        left = self._failing_since + self._patience_s - now
        if left <= 0:
            raise TransferError(
                Code.SERVER_UNREACHABLE,
                f"no progress for {self._patience_s:g} s; last answer: {error.message}",
                **error.ids,
            ) from error
        ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._attempt, 16))
        wait_s = min(left, _random.uniform(0.0, ceiling))
        self._attempt += 1
        self._on_event("retrying", {"attempt": self._attempt, "wait_s": wait_s, "reason": error.message})
        # Without a call that polls it, the channel would not get on with connecting again: hence the probe.
        if self._closed.wait(wait_s):
            raise TransferError(
                Code.SERVER_UNREACHABLE, "the client was closed while it waited for the server"
            )
        self._probe(min(PROBE_S, max(0.0, left - wait_s)))


def is_retryable(error: grpc.RpcError) -> bool:
    """True if the call may succeed when it is repeated: the connection failed, not the request."""
    # A failed call is a grpc.Call as well, which the two classes' types don't say.
    call = cast(grpc.Call, error)
    code = call.code()
    # HTTP/2 stream resets of a dying peer surface as INTERNAL; a server's own failure has a named code.
    reset = code is grpc.StatusCode.INTERNAL and "RST_STREAM" in (call.details() or "")
    return code in RETRYABLE or reset


class Connection:
    """A blocking gRPC channel under mutual TLS, and calls that are repeated until patience runs out.

    Args:
        identity: this client's certificate and key; the server's certificate must come from the same CA.
        server: ``HOST:PORT``; HOST must be a name or address in the server's certificate.
        patience_s: seconds without progress after which calls give up.
        on_event: told about retries and transfers.
    """

    def __init__(
        self, identity: ClientIdentity, server: str, *, patience_s: float, on_event: OnEvent
    ) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=identity.authority_pem,
            private_key=identity.tls_key_pem,
            certificate_chain=identity.certificate_pem,
        )
        options = (
            ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        )
        self._channel = grpc.secure_channel(server, credentials, options)
        self._health = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self.stub = aggregator_pb2_grpc.AggregatorServiceStub(self._channel)
        self.traffic = Traffic()
        self.on_event = on_event
        self._patience_s = patience_s
        self._closed = threading.Event()
        self._heartbeat = threading.Thread(target=self._keep_alive, name="secagg keepalive", daemon=True)
        self._heartbeat.start()

    def patience(self) -> Patience:
        """A fresh measure of patience for one operation."""
        return Patience(self._patience_s, self.on_event, self._closed, self._probe)

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        wait_s: float = 0.0,
        ids: Mapping[str, object] | None = None,
    ) -> Response:
        """One call, repeated while the server can't be reached; all calls of the contract are safe to repeat.

        Args:
            wait_s: how long the server itself may hold the call back before it answers.
            ids: where an unreachable server is noticed (``round=3``), for the error.

        Raises:
            SecaggError: what the server refused with, or SERVER_UNREACHABLE.
        """
        patience = self.patience()
        while True:
            try:
                return method(request, timeout=wait_s + CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                refusal = from_rpc_error(error)
                if not is_retryable(error):
                    raise refusal from None
                refusal.ids.update({name: str(value) for name, value in (ids or {}).items()})
                patience.pause(refusal)

    def close(self) -> None:
        """End all calls and the connection; safe to repeat."""
        self._closed.set()
        self._channel.close()
        self._heartbeat.join(HEARTBEAT_TIMEOUT_S)

    def _keep_alive(self) -> None:
        """Ask after the server's health now and then, so that the connection lives while the caller trains.

        gRPC's own keepalive does not do that here: a blocking channel only moves while a call polls it.
        """
        while not self._closed.wait(KEEPALIVE_S):
            self._probe(HEARTBEAT_TIMEOUT_S)

    def _probe(self, timeout_s: float) -> None:
        """Ask after the server's health, connecting first if need be; what the answer is does not matter."""
        # A server that is away is the next real call's affair; a channel closed meanwhile is a ValueError.
        with suppress(grpc.RpcError, ValueError):
            self._health(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)
