"""Refusals on the wire: ``SecaggError`` as ``google.rpc.Status`` with one ``google.rpc.ErrorInfo``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # has no py.typed

from secagg.errors import (
    DOMAIN,
    GRPC_STATUS,
    CiphertextError,
    Code,
    ConfigError,
    CustodyError,
    RoundError,
    SecaggError,
    ServerError,
    TransferError,
    UpdateError,
    is_shortage,
)

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata entry in which gRPC carries a serialised ``google.rpc.Status``."""
MAX_MESSAGE_CHARS = 1_000
"""Longer messages are cut: gRPC refuses a response whose trailing metadata exceeds 8 KiB."""
MAX_ID_CHARS = 200

_log = logging.getLogger(__name__)

_CLASSES: dict[type[SecaggError], tuple[Code, ...]] = {
    ConfigError: (
        Code.CONFIG_INVALID,
        Code.DATA_MISSING,
        Code.DATA_MALFORMED,
        Code.DEPENDENCY_MISSING,
        Code.RULE_UNKNOWN,
        Code.RULE_UNSUPPORTED,
    ),
    CustodyError: (
        Code.NOT_ENROLLED,
        Code.IDENTITY_INVALID,
        Code.GRANT_INVALID,
        Code.DESCRIPTOR_INVALID,
        Code.PLAN_BELOW_POLICY,
        Code.SIGNATURE_INVALID,
    ),
    UpdateError: (
        Code.UPDATE_SHAPE,
        Code.UPDATE_DTYPE,
        Code.UPDATE_NOT_FINITE,
        Code.UPDATE_OUT_OF_RANGE,
        Code.MANIFEST_MALFORMED,
        Code.MANIFEST_MISMATCH,
        Code.MASK_MISMATCH,
        Code.MASK_MALFORMED,
        Code.PROFILE_MISMATCH,
        Code.KEY_MISMATCH,
        Code.ENVELOPE_MALFORMED,
        Code.SAMPLE_COUNT_INVALID,
    ),
    CiphertextError: (
        Code.PROFILE_UNKNOWN,
        Code.CIPHERTEXT_MALFORMED,
        Code.KEY_MALFORMED,
        Code.STATISTICS_MALFORMED,
        Code.AGGREGATE_MALFORMED,
    ),
    RoundError: (
        Code.REQUEST_MALFORMED,
        Code.ROUND_UNKNOWN,
        Code.ROUND_MISMATCH,
        Code.ROUND_CLOSED,
        Code.ROUND_ABORTED,
        Code.STATE_INVALID,
        Code.NOT_A_CONTRIBUTOR,
        Code.NOT_ENOUGH_CLIENTS,
        Code.BALLOT_INVALID,
        Code.BALLOT_DUPLICATE,
        Code.NO_DECISION,
    ),
    ServerError: (
        Code.JOURNAL_INCOMPATIBLE,
        Code.SPOOL_CORRUPT,
        Code.WORKER_LOST,
        Code.RESOURCES_EXHAUSTED,
        Code.INTERNAL,
    ),
}
ERROR_CLASS: dict[Code, type[SecaggError]] = dict.fromkeys(Code, cast(type[SecaggError], TransferError)) | {
    code: cls for cls, codes in _CLASSES.items() for code in codes
}
"""Code -> the class a received refusal is raised as; what is not listed above concerns a transfer."""


_CODES = {code.value: code for code in Code}


class Abortable(Protocol):
    """The part of a ``grpc.aio`` servicer context that ends a call with a status."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Any:
        """End the call; raises."""
        ...


def to_status(error: SecaggError) -> status_pb2.Status:
    """The ``google.rpc.Status`` of an error: status code, message, ErrorInfo(reason, domain, ids)."""
    code = _grpc_code(error.code)
    number, _ = code.value
    status = status_pb2.Status(code=number, message=error.message[:MAX_MESSAGE_CHARS])
    info = error_details_pb2.ErrorInfo(
        reason=error.code.value,
        domain=DOMAIN,
        metadata={name: value[:MAX_ID_CHARS] for name, value in error.ids.items()},
    )
    status.details.add().Pack(info)
    return status


async def refuse(context: Abortable, error: SecaggError) -> None:
    """Ends a ``grpc.aio`` call with this error. Never returns: gRPC's abort raises."""
    status = to_status(error)
    metadata = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(_grpc_code(error.code), status.message, metadata)


def from_rpc_error(error: grpc.RpcError) -> SecaggError:
    """The typed error of a failed call, from ``grpc`` and ``grpc.aio`` alike.

    A refusal of this project's server comes back with its code, message and ids. A failure without
    our ErrorInfo is SERVER_UNREACHABLE where a repeat may help (UNAVAILABLE, DEADLINE_EXCEEDED,
    CANCELLED), IDENTITY_INVALID for UNAUTHENTICATED, else INTERNAL. Text is made fit to be printed: what
    would steer a terminal is taken out.
    """
    call = cast(Any, error)
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            parsed = _parse(value)
            if parsed is not None:
                return parsed
    code = call.code()
    message = _printable(" ".join(str(call.details() or "no details").split()), MAX_MESSAGE_CHARS)
    if code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        return TransferError(
            Code.SERVER_UNREACHABLE, f"the server can't be reached ({code.name}): {message}", status=code.name
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return CustodyError(Code.IDENTITY_INVALID, f"the peer refused the identity: {message}")
    name = "UNKNOWN" if code is None else code.name
    return ServerError(Code.INTERNAL, f"the call failed with {name}: {message}", status=name)


class Boundary:
    """Turns whatever leaves an ``async with`` block into a refusal of the call.

    A ``SecaggError`` travels as it is. Where this machine has run out of open files, disk or memory the
    refusal is RESOURCES_EXHAUSTED, which a client repeats. Anything else is logged with its traceback and
    travels as INTERNAL without a word about the inside. Cancellation and gRPC's own abort pass through.

    Args:
        context: the call's servicer context.
        method: name of the RPC, for the log.
        on_refused: called with (caller, error) before the refusal is sent.

    ``peer``, who is calling, is for the log; it is set once the certificate has been read.
    """

    def __init__(
        self,
        context: Abortable,
        method: str,
        on_refused: Callable[[str, SecaggError], None] | None = None,
    ) -> None:
        self._context = context
        self._method = method
        self._on_refused = on_refused
        self.peer = ""

    async def __aenter__(self) -> Boundary:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None or isinstance(exc, grpc.aio.AbortError) or not isinstance(exc, Exception):
            return
        if isinstance(exc, SecaggError):
            refused = exc
            _log.info("%s refused for %s: %s %s", self._method, self.peer or "?", exc, exc.ids)
        elif is_shortage(exc):
            _log.warning("%s failed for %s", self._method, self.peer or "?", exc_info=exc)
            refused = ServerError(
                Code.RESOURCES_EXHAUSTED, "the server has run out of files, disk or memory; repeat it later"
            )
        else:
            _log.error("%s failed for %s", self._method, self.peer or "?", exc_info=exc)
            refused = ServerError(Code.INTERNAL, "the server failed to answer; its log says why")
        if self._on_refused is not None:
            self._on_refused(self.peer, refused)
        await refuse(self._context, refused)


def _printable(text: str, most: int) -> str:
    """The text, cut, with a space for every character that is not printable (Unicode's Cc, Cf, Zl, …)."""
    return "".join(char if char.isprintable() else " " for char in text[:most])


def _grpc_code(code: Code) -> grpc.StatusCode:
    return grpc.StatusCode[GRPC_STATUS[code]]


def _parse(value: bytes | str) -> SecaggError | None:
    """The error inside a serialised status, or None if it isn't one of ours."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(value if isinstance(value, bytes) else value.encode())
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                code = _CODES.get(info.reason, Code.INTERNAL)
                error = ERROR_CLASS[code](code, _printable(status.message, MAX_MESSAGE_CHARS))
                error.ids.update(
                    (_printable(name, MAX_ID_CHARS), _printable(text, MAX_ID_CHARS))
                    for name, text in info.metadata.items()
                )
                return error
    except DecodeError:
        return None
    return None
