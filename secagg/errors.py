"""The error tree, and the one table from stable error code to gRPC status."""

from __future__ import annotations

import errno
from enum import StrEnum

DOMAIN = "secagg"
"""The ``domain`` of every ``google.rpc.ErrorInfo`` this project sends."""


class Code(StrEnum):
    """Stable names of what can go wrong; they are part of the wire contract and never change meaning."""

    # configuration, data, command line
    CONFIG_INVALID = "CONFIG_INVALID"
    DATA_MISSING = "DATA_MISSING"
    DATA_MALFORMED = "DATA_MALFORMED"
    DEPENDENCY_MISSING = "DEPENDENCY_MISSING"
    # identity and keys
    NOT_ENROLLED = "NOT_ENROLLED"
    IDENTITY_INVALID = "IDENTITY_INVALID"
    GRANT_INVALID = "GRANT_INVALID"
    DESCRIPTOR_INVALID = "DESCRIPTOR_INVALID"
    PLAN_BELOW_POLICY = "PLAN_BELOW_POLICY"
    # an update and its envelope
    UPDATE_SHAPE = "UPDATE_SHAPE"
    UPDATE_DTYPE = "UPDATE_DTYPE"
    UPDATE_NOT_FINITE = "UPDATE_NOT_FINITE"
    UPDATE_OUT_OF_RANGE = "UPDATE_OUT_OF_RANGE"
    MANIFEST_MALFORMED = "MANIFEST_MALFORMED"
    MANIFEST_MISMATCH = "MANIFEST_MISMATCH"
    MASK_MISMATCH = "MASK_MISMATCH"
    MASK_MALFORMED = "MASK_MALFORMED"
    PROFILE_UNKNOWN = "PROFILE_UNKNOWN"
    PROFILE_MISMATCH = "PROFILE_MISMATCH"
    KEY_MISMATCH = "KEY_MISMATCH"
    ENVELOPE_MALFORMED = "ENVELOPE_MALFORMED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    SAMPLE_COUNT_INVALID = "SAMPLE_COUNT_INVALID"
    CIPHERTEXT_MALFORMED = "CIPHERTEXT_MALFORMED"
    KEY_MALFORMED = "KEY_MALFORMED"
    STATISTICS_MALFORMED = "STATISTICS_MALFORMED"
    AGGREGATE_MALFORMED = "AGGREGATE_MALFORMED"
    # transfer
    REQUEST_MALFORMED = "REQUEST_MALFORMED"
    UPLOAD_UNKNOWN = "UPLOAD_UNKNOWN"
    UPLOAD_DUPLICATE = "UPLOAD_DUPLICATE"
    UPLOAD_REPLAYED = "UPLOAD_REPLAYED"
    UPLOAD_INCOMPLETE = "UPLOAD_INCOMPLETE"
    SIZE_MISMATCH = "SIZE_MISMATCH"
    CHUNK_CORRUPT = "CHUNK_CORRUPT"
    CHUNK_OVERSIZED = "CHUNK_OVERSIZED"
    CHUNK_TRUNCATED = "CHUNK_TRUNCATED"
    OFFSET_MISMATCH = "OFFSET_MISMATCH"
    CONTENT_MISMATCH = "CONTENT_MISMATCH"
    ARTIFACT_UNKNOWN = "ARTIFACT_UNKNOWN"
    STREAM_IDLE = "STREAM_IDLE"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
    # rounds and rules
    ROUND_UNKNOWN = "ROUND_UNKNOWN"
    ROUND_MISMATCH = "ROUND_MISMATCH"
    ROUND_CLOSED = "ROUND_CLOSED"
    ROUND_ABORTED = "ROUND_ABORTED"
    STATE_INVALID = "STATE_INVALID"
    NOT_A_CONTRIBUTOR = "NOT_A_CONTRIBUTOR"
    NOT_ENOUGH_CLIENTS = "NOT_ENOUGH_CLIENTS"
    BALLOT_INVALID = "BALLOT_INVALID"
    BALLOT_DUPLICATE = "BALLOT_DUPLICATE"
    NO_DECISION = "NO_DECISION"
    STATISTICS_IMPOSSIBLE = "STATISTICS_IMPOSSIBLE"
    TOO_FEW_CONTRIBUTORS = "TOO_FEW_CONTRIBUTORS"
    ROOT_MISSING = "ROOT_MISSING"
    RULE_UNKNOWN = "RULE_UNKNOWN"
    RULE_UNSUPPORTED = "RULE_UNSUPPORTED"
    # the server's own condition
    JOURNAL_INCOMPATIBLE = "JOURNAL_INCOMPATIBLE"
    SPOOL_CORRUPT = "SPOOL_CORRUPT"
    WORKER_LOST = "WORKER_LOST"
    RESOURCES_EXHAUSTED = "RESOURCES_EXHAUSTED"
    INTERNAL = "INTERNAL"


_BY_STATUS: dict[str, tuple[Code, ...]] = {
    "NOT_FOUND": (Code.UPLOAD_UNKNOWN, Code.ARTIFACT_UNKNOWN, Code.ROUND_UNKNOWN, Code.DATA_MISSING),
    "ALREADY_EXISTS": (Code.UPLOAD_DUPLICATE, Code.UPLOAD_REPLAYED, Code.BALLOT_DUPLICATE),
    "PERMISSION_DENIED": (Code.NOT_ENROLLED, Code.NOT_A_CONTRIBUTOR),
    "UNAUTHENTICATED": (Code.SIGNATURE_INVALID, Code.IDENTITY_INVALID),
    "OUT_OF_RANGE": (Code.OFFSET_MISMATCH,),
    "RESOURCE_EXHAUSTED": (Code.CHUNK_OVERSIZED,),
    "DATA_LOSS": (Code.CHUNK_CORRUPT, Code.CHUNK_TRUNCATED, Code.CONTENT_MISMATCH),
    "ABORTED": (
        Code.ROUND_ABORTED,
        Code.NOT_ENOUGH_CLIENTS,
        Code.NO_DECISION,
        Code.STATISTICS_IMPOSSIBLE,
        Code.TOO_FEW_CONTRIBUTORS,
        Code.ROOT_MISSING,
    ),
    # What passes by itself: a client repeats the call after a pause.
    "UNAVAILABLE": (
        Code.SERVER_UNREACHABLE,
        Code.WORKER_LOST,
        Code.RESOURCES_EXHAUSTED,
        Code.TOO_MANY_CALLS,
        Code.STREAM_IDLE,
    ),
    "INTERNAL": (Code.INTERNAL, Code.SPOOL_CORRUPT, Code.JOURNAL_INCOMPATIBLE, Code.DEPENDENCY_MISSING),
    "FAILED_PRECONDITION": (
        Code.ROUND_MISMATCH,
        Code.ROUND_CLOSED,
        Code.STATE_INVALID,
        Code.UPLOAD_INCOMPLETE,
        Code.MANIFEST_MISMATCH,
        Code.MASK_MISMATCH,
        Code.PROFILE_MISMATCH,
        Code.KEY_MISMATCH,
        Code.PLAN_BELOW_POLICY,
        Code.DESCRIPTOR_INVALID,
        Code.GRANT_INVALID,
    ),
}

GRPC_STATUS: dict[Code, str] = dict.fromkeys(Code, "INVALID_ARGUMENT") | {
    code: status for status, codes in _BY_STATUS.items() for code in codes
}
"""Code -> name of the ``grpc.StatusCode`` it travels as; a malformed message is INVALID_ARGUMENT."""


class SecaggError(Exception):
    """Something this project refuses, with a stable code and the ids that locate it.

    Args:
        code: what went wrong.
        message: one line that names the thing, the value and the way out. Never holds a secret.
        ids: where it happened (``round=3, client="alice"``); they travel as ErrorInfo metadata.
    """

    def __init__(self, code: Code, message: str, **ids: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.ids = {name: str(value) for name, value in ids.items()}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross from the crypto worker processes to the server by pickle.
        return (_rebuild, (type(self), self.code, self.message, self.ids))


def _rebuild(cls: type[SecaggError], code: Code, message: str, ids: dict[str, str]) -> SecaggError:
    return cls(code, message, **ids)


class ConfigError(SecaggError):
    """A configuration file, flag or data folder that can't be used."""


class CustodyError(SecaggError):
    """An identity, certificate, key or grant that is not what it should be."""


class UpdateError(SecaggError):
    """A client update, manifest, mask or envelope that is refused."""


class CiphertextError(SecaggError):
    """Bytes of a ciphertext, key, statistic or aggregate that are refused before any SEAL call."""


class TransferError(SecaggError):
    """An upload or download that can't go on as asked."""


class RoundError(SecaggError):
    """A request that does not fit the round's state, or a round that can't go on."""


class ServerError(SecaggError):
    """The server's own journal, spool or workers are in trouble."""


_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
_SQLITE_SHORTAGES = {7, 13, 14}
"""SQLITE_NOMEM, SQLITE_FULL, SQLITE_CANTOPEN; a client has no use for the module itself."""


def is_shortage(error: BaseException) -> bool:
    """True if this machine ran out of open files, disk or memory: a state that passes, not a fault."""
    if isinstance(error, OSError):
        return error.errno in _SHORTAGES
    # Extended codes carry the general one in their low byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, MemoryError) or code in _SQLITE_SHORTAGES
