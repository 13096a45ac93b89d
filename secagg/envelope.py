"""One sealed update's header, a ballot, and the signatures that bind them to federation and round."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NoReturn, Protocol

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secagg.canonical import Reader, counted
from secagg.errors import Code, RoundError, UpdateError
from secagg.plan import DIGEST_BYTES, KEY_ID_BYTES
from secagg.rule import Answer, Reason, Stage

HEADER_VERSION = 2
BALLOT_VERSION = 2
FEDERATION_ID_BYTES = 16
UPDATE_ID_BYTES = 16
SIGNATURE_BYTES = 64
MAX_HEADER_BYTES = 16_384
MAX_SCALES = 8192
MAX_BALLOT_WEIGHTS = 100_000

_U64 = 2**64
_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,63}")
_PROFILE = re.compile(r"[!-~]{1,64}")
_HEADER_START = struct.Struct("<BB16sQ")
_SCALES_LENGTH = struct.Struct("<H")
_HEADER_END = struct.Struct("<QQ32s")


class Domain(StrEnum):
    """What a signature is for; no signature of one domain verifies in another."""

    UPDATE = "update"
    BALLOT = "ballot"
    DESCRIPTOR = "descriptor"
    GRANT = "grant"
    ENROLMENT = "enrolment"


class PayloadKind(IntEnum):
    """What an upload's payload is, with the numbers of ``secagg.v1.PayloadKind``."""

    UPDATE = 1
    MASK = 2


class Signer(Protocol):
    """Whoever can sign: a client's identity, or the dealer."""

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """The Ed25519 private key."""
        ...


def valid_client_name(name: str) -> bool:
    """True for 1 to 64 characters of a-z, 0-9, ``.``, ``_``, ``-`` that don't start with ``.`` or ``-``.

    Such a name is safe as a file name, on a command line and in a certificate.
    """
    return _NAME.fullmatch(name) is not None


def sign(identity: Signer, domain: Domain, data: bytes) -> bytes:
    """Ed25519 (RFC 8032) over ``"secagg/v1/" domain NUL data``, 64 bytes."""
    return identity.signing_key.sign(_prefix(domain) + data)


def verify(public_key: Ed25519PublicKey, domain: Domain, data: bytes, signature: bytes) -> None:
    """Checks a signature made by ``sign`` for the same domain.

    Raises:
        UpdateError: SIGNATURE_INVALID, whatever the reason.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise UpdateError(
            Code.SIGNATURE_INVALID,
            f"the {domain} signature has {len(signature)} bytes, not {SIGNATURE_BYTES}",
        )
    try:
        public_key.verify(signature, _prefix(domain) + data)
    except InvalidSignature:
        raise UpdateError(
            Code.SIGNATURE_INVALID, f"the {domain} signature was not made by this key over these bytes"
        ) from None


def _prefix(domain: Domain) -> bytes:
    # A NUL ends the domain, so no domain's name can be continued by the data that follows it.
    return b"secagg/v1/" + domain.value.encode() + b"\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHeader:
    """What a payload is and belongs to; the client's signature covers its canonical bytes.

    Args:
        federation_id: 16 bytes.
        round: 1, 2, 3, …
        client: the name in the client's certificate.
        kind: an update, or a proposed mask.
        profile: name of the CKKS profile, 1 to 64 printable ASCII characters.
        key_id: 16 bytes, the key the hidden part is sealed under.
        manifest_sha256: 32 bytes.
        mask_sha256: what the plan says: 32 bytes, or empty if the mask follows from the plan.
        scales: what a quantising profile's values are sealed in, one byte per tensor; empty for others.
        sample_count: how many samples the client trained on, ≥ 1.
        payload_bytes: exact length of the payload, ≥ 1.
        content_sha256: SHA-256 of the payload, hidden and visible part together; 32 bytes.

    Raises:
        UpdateError: ENVELOPE_MALFORMED for any value outside these ranges.
    """

    federation_id: bytes
    round: int
    client: str
    kind: PayloadKind
    profile: str
    key_id: bytes
    manifest_sha256: bytes
    mask_sha256: bytes
    scales: bytes
    sample_count: int
    payload_bytes: int
    content_sha256: bytes

    def __post_init__(self) -> None:
        lengths = (
            ("federation_id", self.federation_id, (FEDERATION_ID_BYTES,)),
            ("key_id", self.key_id, (KEY_ID_BYTES,)),
            ("manifest_sha256", self.manifest_sha256, (DIGEST_BYTES,)),
            ("mask_sha256", self.mask_sha256, (0, DIGEST_BYTES)),
            ("content_sha256", self.content_sha256, (DIGEST_BYTES,)),
        )
        for name, value, allowed in lengths:
            if len(value) not in allowed:
                _bad_header(f"{name} has {len(value)} bytes, not {' or '.join(map(str, allowed))}")
        for name, number in (
            ("round", self.round),
            ("sample_count", self.sample_count),
            ("payload_bytes", self.payload_bytes),
        ):
            if not 1 <= number < _U64:
                _bad_header(f"{name} is {number}; it must be in [1, 2**64)")
        if len(self.scales) > MAX_SCALES:
            _bad_header(f"{len(self.scales)} scales; at most {MAX_SCALES} are possible")
        if not valid_client_name(self.client):
            _bad_header(f"client name {self.client[:70]!r} is not one a certificate may carry")
        if not _PROFILE.fullmatch(self.profile):
            _bad_header(f"profile {self.profile[:70]!r} must be 1 to 64 printable ASCII characters")

    def to_bytes(self) -> bytes:
        """Canonical form, little-endian.

        version u8, kind u8, federation_id 16, round u64; client and profile, each a u8 length and ASCII;
        key_id 16, manifest_sha256 32, mask_sha256 as u8 length and bytes, scales as u16 length and bytes;
        sample_count u64,
        payload_bytes u64, content_sha256 32.
        """
        return b"".join(
            (
                _HEADER_START.pack(HEADER_VERSION, self.kind, self.federation_id, self.round),
                counted(self.client.encode()),
                counted(self.profile.encode()),
                self.key_id,
                self.manifest_sha256,
                counted(self.mask_sha256),
                _SCALES_LENGTH.pack(len(self.scales)) + self.scales,
                _HEADER_END.pack(self.sample_count, self.payload_bytes, self.content_sha256),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> UpdateHeader:
        """Inverse of ``to_bytes``; only the canonical form is accepted.

        Raises:
            UpdateError: ENVELOPE_MALFORMED.
        """
        if len(data) > MAX_HEADER_BYTES:
            _bad_header(f"{len(data)} bytes; at most {MAX_HEADER_BYTES} are allowed")
        reader = Reader(data)
        try:
            version, kind, federation_id, round_ = reader.unpack(_HEADER_START)
            if version != HEADER_VERSION:
                _bad_header(f"version {version} is unknown; this build reads {HEADER_VERSION}")
            client, profile = reader.counted().decode("ascii"), reader.counted().decode("ascii")
            key_id, manifest_sha256 = reader.take(KEY_ID_BYTES), reader.take(DIGEST_BYTES)
            mask_sha256 = reader.counted()
            scales = reader.take(*reader.unpack(_SCALES_LENGTH))
            sample_count, payload_bytes, content_sha256 = reader.unpack(_HEADER_END)
            kind = PayloadKind(kind)
        except (EOFError, ValueError) as error:
            _bad_header(str(error))
        if reader.left:
            _bad_header(f"{reader.left} bytes follow its end")
        return cls(
            federation_id=federation_id,
            round=round_,
            client=client,
            kind=kind,
            profile=profile,
            key_id=key_id,
            manifest_sha256=manifest_sha256,
            mask_sha256=mask_sha256,
            scales=scales,
            sample_count=sample_count,
            payload_bytes=payload_bytes,
            content_sha256=content_sha256,
        )


def update_id(header: UpdateHeader) -> bytes:
    """The id under which an update appears in statistics: the first 16 bytes of SHA-256(header bytes)."""
    return hashlib.sha256(header.to_bytes()).digest()[:UPDATE_ID_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ballot:
    """One decryptor's answer to a round's opened statistics.

    Args:
        federation_id: 16 bytes.
        round: 1, 2, 3, …
        client: the name in the client's certificate.
        stage: what it answers.
        statistics_sha256: SHA-256 of the artifact that was opened, 32 bytes.
        answer: a weight in [0, 1] and a reason for each update, in the order of the artifact's ids; 1 to
            100,000.

    Raises:
        RoundError: BALLOT_INVALID for any value outside these ranges.
    """

    federation_id: bytes
    round: int
    client: str
    stage: Stage
    statistics_sha256: bytes
    answer: Answer

    def __post_init__(self) -> None:
        if len(self.federation_id) != FEDERATION_ID_BYTES:
            _bad_ballot(f"federation_id has {len(self.federation_id)} bytes, not {FEDERATION_ID_BYTES}")
        if len(self.statistics_sha256) != DIGEST_BYTES:
            _bad_ballot(f"statistics_sha256 has {len(self.statistics_sha256)} bytes, not {DIGEST_BYTES}")
        if not 1 <= self.round < _U64:
            _bad_ballot(f"round is {self.round}; it must be in [1, 2**64)")
        if not valid_client_name(self.client):
            _bad_ballot(f"client name {self.client[:70]!r} is not one a certificate may carry")
        # Copies, so that nobody changes them afterwards; + 0.0 turns -0.0 into 0.0, one form for one value.
        weights = np.array(self.answer.weights, dtype=np.float64) + 0.0
        reasons = np.array(self.answer.reasons)
        if weights.ndim != 1 or not 1 <= weights.size <= MAX_BALLOT_WEIGHTS:
            _bad_ballot(f"weights have shape {weights.shape}; 1 to {MAX_BALLOT_WEIGHTS} in a row are allowed")
        if not bool(np.all((weights >= 0.0) & (weights <= 1.0))):
            _bad_ballot("every weight must be in [0, 1]")
        if reasons.shape != weights.shape or not set(reasons.tolist()) <= set(Reason):
            _bad_ballot(f"there must be one reason per weight, each of 0 to {max(Reason)}")
        answer = Answer(weights=weights, reasons=reasons.astype(np.uint8))
        answer.weights.flags.writeable = answer.reasons.flags.writeable = False
        object.__setattr__(self, "answer", answer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ballot) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Canonical form, little-endian.

        version u8, federation_id 16, round u64, client as u8 length and ASCII, stage u8, statistics_sha256
        32, n u32, n float64, n u8.
        """
        return b"".join(
            (
                struct.pack("<B16sQ", BALLOT_VERSION, self.federation_id, self.round),
                counted(self.client.encode()),
                struct.pack("<B32sI", self.stage, self.statistics_sha256, self.answer.weights.size),
                self.answer.weights.astype("<f8").tobytes(),
                self.answer.reasons.tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Ballot:
        """Inverse of ``to_bytes``; only the canonical form is accepted.

        Raises:
            RoundError: BALLOT_INVALID.
        """
        reader = Reader(data)
        try:
            version, federation_id, round_ = reader.unpack(struct.Struct("<B16sQ"))
            if version != BALLOT_VERSION:
                _bad_ballot(f"version {version} is unknown; this build reads {BALLOT_VERSION}")
            client = reader.counted().decode("ascii")
            stage, statistics_sha256, count = reader.unpack(struct.Struct("<B32sI"))
            if reader.left != 9 * count:
                _bad_ballot(f"{reader.left} bytes of weights and reasons; {count} of them take {9 * count}")
            weights = np.frombuffer(reader.take(8 * count), dtype="<f8")
            reasons = np.frombuffer(reader.take(count), dtype=np.uint8)
            answers = Stage(stage)
        except (EOFError, ValueError) as error:
            _bad_ballot(str(error))
        ballot = cls(
            federation_id=federation_id,
            round=round_,
            client=client,
            stage=answers,
            statistics_sha256=statistics_sha256,
            answer=Answer(weights=weights, reasons=reasons),
        )
        if ballot.to_bytes() != data:
            _bad_ballot("it is not in canonical form (a weight of -0.0)")
        return ballot


def _bad_header(what: str) -> NoReturn:
    raise UpdateError(Code.ENVELOPE_MALFORMED, f"update header: {what}")


def _bad_ballot(what: str) -> NoReturn:
    raise RoundError(Code.BALLOT_INVALID, f"ballot: {what}")
