"""The federation's descriptor: what the dealer promises clients, signed, and held against every plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from secagg.ckks.profiles import profile
from secagg.custody.files import read_public, write_file
from secagg.custody.identity import ClientIdentity
from secagg.custody.trust import TrustAnchor
from secagg.envelope import FEDERATION_ID_BYTES, SIGNATURE_BYTES, Domain, Signer, sign, verify
from secagg.errors import Code, CustodyError, RoundError, SecaggError, UpdateError
from secagg.plan import DIGEST_BYTES, KEY_ID_BYTES, Protection, ProtectionMode, RoundPlan, Significance

DESCRIPTOR_VERSION = 1
MAX_DESCRIPTOR_BYTES = 64 * 1024
DESCRIPTOR_FILE = "descriptor.signed"

_STRENGTH = {ProtectionMode.PLAIN: 0, ProtectionMode.SELECTIVE: 1, ProtectionMode.FULL: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a federation is and the least it must protect; only the dealer can sign one.

    Args:
        federation_id: 16 bytes.
        name: what people call the federation, 1 to 64 characters.
        sequence: 1, 2, 3, …; grows with every change, so that an old descriptor can't come back.
        profile: name of the CKKS profile.
        key_id: 16 bytes, the key that was dealt.
        manifest_sha256: 32 bytes, of the initial model's manifest.
        initial_model_sha256: 32 bytes, of the initial model's file as it is served.
        protection: the weakest protection a plan may ask for.
        rule: the rule's name, with its parameters if it has any.
        min_clients: a round with fewer accepted updates has no aggregate; ≥ 1.
        max_sample_count: the highest cap a plan may set on sample counts; ≥ 1.

    Raises:
        CustodyError: DESCRIPTOR_INVALID for any value outside these ranges.
    """

    federation_id: bytes
    name: str
    sequence: int
    profile: str
    key_id: bytes
    manifest_sha256: bytes
    initial_model_sha256: bytes
    protection: Protection
    rule: str
    min_clients: int
    max_sample_count: int

    def __post_init__(self) -> None:
        for name, value, length in (
            ("federation_id", self.federation_id, FEDERATION_ID_BYTES),
            ("key_id", self.key_id, KEY_ID_BYTES),
            ("manifest_sha256", self.manifest_sha256, DIGEST_BYTES),
            ("initial_model_sha256", self.initial_model_sha256, DIGEST_BYTES),
        ):
            if len(value) != length:
                _invalid(f"{name} has {len(value)} bytes, not {length}")
        for name, number in (
            ("sequence", self.sequence),
            ("min_clients", self.min_clients),
            ("max_sample_count", self.max_sample_count),
        ):
            if not 1 <= number < 2**63:
                _invalid(f"{name} is {number}; it must be in [1, 2**63)")
        for name, text in (("name", self.name), ("profile", self.profile), ("rule", self.rule)):
            if not 1 <= len(text) <= 256:
                _invalid(f"{name} has {len(text)} characters; 1 to 256 are allowed")

    def to_bytes(self) -> bytes:
        """Canonical form: the version byte, then JSON with sorted keys, no spaces, ASCII only."""
        fields = {
            "federation_id": self.federation_id.hex(),
            "name": self.name,
            "sequence": self.sequence,
            "profile": self.profile,
            "key_id": self.key_id.hex(),
            "manifest_sha256": self.manifest_sha256.hex(),
            "initial_model_sha256": self.initial_model_sha256.hex(),
            "protection": {
                "mode": self.protection.mode.value,
                "ratio": float(self.protection.ratio),
                "significance": self.protection.significance and self.protection.significance.value,
                "layers": list(self.protection.layers),
            },
            "rule": self.rule,
            "min_clients": self.min_clients,
            "max_sample_count": self.max_sample_count,
        }
        data = bytes([DESCRIPTOR_VERSION]) + json.dumps(
            fields, sort_keys=True, separators=(",", ":"), allow_nan=False
        ).encode("ascii")
        if len(data) > MAX_DESCRIPTOR_BYTES:
            _invalid(f"it takes {len(data)} bytes; at most {MAX_DESCRIPTOR_BYTES} are allowed")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Descriptor:
        """Inverse of ``to_bytes``; only the canonical form is accepted.

        Raises:
            CustodyError: DESCRIPTOR_INVALID.
        """
        if len(data) > MAX_DESCRIPTOR_BYTES:
            _invalid(f"it has {len(data)} bytes; at most {MAX_DESCRIPTOR_BYTES} are allowed")
        if data[:1] != bytes([DESCRIPTOR_VERSION]):
            _invalid(f"its version is unknown; this build reads {DESCRIPTOR_VERSION}")
        try:
            descriptor = cls(**_fields(json.loads(data[1:].decode("ascii"))))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            _invalid(f"its fields can't be read: {type(error).__name__}")
        except SecaggError as error:
            raise CustodyError(Code.DESCRIPTOR_INVALID, error.message) from None
        if descriptor.to_bytes() != data:
            _invalid("it is not in canonical form")
        return descriptor


def _fields(value: Any) -> dict[str, Any]:
    """Keyword arguments of ``Descriptor`` from parsed JSON; a surplus field fails when it is called."""
    fields = dict(value)
    for name in ("federation_id", "key_id", "manifest_sha256", "initial_model_sha256"):
        fields[name] = bytes.fromhex(fields[name])
    for name in ("name", "profile", "rule"):
        _expect(fields[name], str)
    for name in ("sequence", "min_clients", "max_sample_count"):
        _expect(fields[name], int)
    protection = fields["protection"]
    significance = protection["significance"]
    fields["protection"] = Protection(
        mode=ProtectionMode(protection["mode"]),
        ratio=_expect(protection["ratio"], float),
        significance=None if significance is None else Significance(significance),
        layers=tuple(_expect(layer, str) for layer in _expect(protection["layers"], list)),
    )
    return fields


def _expect(value: Any, kind: type) -> Any:
    # type() and not isinstance(): True would pass for a number.
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDescriptor:
    """A descriptor's canonical bytes with the dealer's signature; not yet checked.

    Args:
        data: canonical bytes.
        signature: Ed25519, 64 bytes.
    """

    data: bytes
    signature: bytes

    @classmethod
    def sign(cls, dealer: Signer, descriptor: Descriptor) -> SignedDescriptor:
        """Signs a descriptor as the dealer."""
        data = descriptor.to_bytes()
        return cls(data=data, signature=sign(dealer, Domain.DESCRIPTOR, data))

    @classmethod
    def load(cls, path: Path) -> SignedDescriptor:
        """Reads a file of signature (64 bytes) and descriptor.

        Raises:
            CustodyError: DESCRIPTOR_INVALID if it can't be read or is too short.
        """
        try:
            content = read_public(path)
        except CustodyError as error:
            raise CustodyError(
                Code.DESCRIPTOR_INVALID, f"{error.message}; the dealer makes it with: secagg deal"
            ) from None
        if len(content) <= SIGNATURE_BYTES:
            _invalid(f"{path} has only {len(content)} bytes")
        return cls(data=content[SIGNATURE_BYTES:], signature=content[:SIGNATURE_BYTES])

    def save(self, path: Path) -> None:
        """Writes the file that ``load`` reads."""
        write_file(path, self.signature + self.data, private=False)

    def open(self, anchor: TrustAnchor) -> Descriptor:
        """The descriptor, after checking the dealer's signature and that it is this federation's.

        Raises:
            CustodyError: DESCRIPTOR_INVALID.
        """
        try:
            verify(anchor.dealer_public_key, Domain.DESCRIPTOR, self.data, self.signature)
        except UpdateError:
            _invalid("it was not signed by this federation's dealer")
        descriptor = Descriptor.from_bytes(self.data)
        if descriptor.federation_id != anchor.federation_id:
            _invalid(
                f"it is for federation {descriptor.federation_id.hex()}, not {anchor.federation_id.hex()}"
            )
        return descriptor


def load_descriptor(directory: Path | str) -> SignedDescriptor | None:
    """The descriptor an identity folder remembers; None if the client never saw one."""
    path = Path(directory) / DESCRIPTOR_FILE
    return SignedDescriptor.load(path) if path.exists() else None


def remember_descriptor(identity: ClientIdentity, received: SignedDescriptor) -> Descriptor:
    """Checks the descriptor a server shows and keeps it; one older than the last is refused.

    A newer one is taken over: the dealer signs it, and the dealer sets the policy. After a failure the
    folder still holds what it held.

    Raises:
        CustodyError: DESCRIPTOR_INVALID if the dealer did not sign it, it is for another federation, or
            it was replaced by a newer one that this client has seen.
    """
    descriptor = received.open(identity.anchor)
    known = load_descriptor(identity.directory)
    if known is not None:
        last = known.open(identity.anchor)
        if descriptor.sequence < last.sequence:
            _invalid(f"its sequence is {descriptor.sequence}; this client has seen {last.sequence} already")
        if descriptor.sequence == last.sequence and descriptor != last:
            _invalid(f"two different descriptors have sequence {last.sequence}")
    if received != known:
        received.save(identity.directory / DESCRIPTOR_FILE)
    return descriptor


def check_plan(descriptor: Descriptor, plan: RoundPlan) -> None:
    """Refuses a plan that protects less than the dealer promised, or that is about something else.

    What it can't see: whether the mask of a selective round is as large as the plan's ratio says; check
    that on the mask itself.

    Raises:
        RoundError: PROFILE_MISMATCH, KEY_MISMATCH, MANIFEST_MISMATCH, or PLAN_BELOW_POLICY for
            protection, rule or cap; the message names both values.
    """
    promised, asked = descriptor.protection, plan.protection
    _compare(plan, Code.PROFILE_MISMATCH, "profile", plan.profile, descriptor.profile)
    _compare(plan, Code.KEY_MISMATCH, "key id", plan.key_id.hex(), descriptor.key_id.hex())
    _compare(
        plan,
        Code.MANIFEST_MISMATCH,
        "manifest digest",
        plan.manifest.digest.hex(),
        descriptor.manifest_sha256.hex(),
    )
    _compare(plan, Code.PLAN_BELOW_POLICY, "rule", plan.rule, descriptor.rule)
    if plan.count_unit and not (profile(plan.profile).quantised and plan.base_round):
        raise RoundError(
            Code.REQUEST_MALFORMED,
            f"the plan's count_unit is {plan.count_unit}; profile {plan.profile} has none"
            + ("" if plan.base_round else " before there is an aggregate"),
            round=plan.round,
        )
    if plan.max_sample_count > descriptor.max_sample_count:
        _below(plan, "max_sample_count", plan.max_sample_count, f"at most {descriptor.max_sample_count}")
    if _STRENGTH[asked.mode] < _STRENGTH[promised.mode]:
        _below(plan, "protection", asked.mode, f"at least {promised.mode}")
    if asked.mode is promised.mode is ProtectionMode.SELECTIVE:
        if asked.significance is not promised.significance:
            _below(plan, "significance", asked.significance, promised.significance)
        if asked.ratio < promised.ratio:
            _below(plan, "ratio", asked.ratio, f"at least {promised.ratio}")
        if missing := sorted(set(promised.layers) - set(asked.layers)):
            _below(plan, "layers", f"without {', '.join(missing)}", "all that were promised")


def _compare(plan: RoundPlan, code: Code, what: str, asked: str, promised: str) -> None:
    if asked != promised:
        raise RoundError(
            code,
            f"the plan's {what} is {asked!r}; the federation's descriptor says {promised!r}",
            round=plan.round,
        )


def _below(plan: RoundPlan, what: str, asked: object, promised: object) -> NoReturn:
    raise RoundError(
        Code.PLAN_BELOW_POLICY,
        f"the plan's {what} is {asked}; the federation's descriptor promises {promised}",
        round=plan.round,
    )


def _invalid(message: str) -> NoReturn:
    raise CustodyError(Code.DESCRIPTOR_INVALID, f"descriptor: {message}")
