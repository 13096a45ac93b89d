"""What a round asks of its clients, and how much of an update it protects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code, ConfigError, RoundError, SecaggError
from secagg.update import Manifest

DEFAULT_CHUNK_BYTES = 3 * 512 * 1024
"""1.5 MiB: whatever gRPC's framing adds, a message stays below its 4 MiB default."""
MIN_CHUNK_BYTES = 1024 * 1024
MAX_CHUNK_BYTES = 2 * 1024 * 1024

MAX_DIVISOR = 2**20

KEY_ID_BYTES = 16
DIGEST_BYTES = 32


class ProtectionMode(StrEnum):
    """How an update's entries travel."""

    PLAIN = "plain"
    FULL = "full"
    SELECTIVE = "selective"


class Significance(StrEnum):
    """How the common mask of a selective round is chosen."""

    MAGNITUDE = "magnitude"
    RANDOM = "random"
    LAYERS = "layers"


class RoundState(IntEnum):
    """Where a round stands, in the order of time; CLOSED and ABORTED are ends."""

    ANNOUNCED = 1
    COLLECTING = 2
    SEALED = 3
    SCREENED = 4
    CLEARED = 5
    SCORED = 6
    DECIDED = 7
    AGGREGATED = 8
    CLOSED = 9
    ABORTED = 10

    @property
    def ended(self) -> bool:
        """True for CLOSED and ABORTED."""
        return self >= RoundState.CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """Which entries are encrypted.

    Args:
        mode: plain, full or selective.
        ratio: share of encrypted entries: 0 in plain, 1 in full, in (0, 1] in selective mode. Under
            ``layers`` the named tensors decide and the ratio says nothing; it is 1 then.
        significance: how the mask is chosen; None unless selective.
        layers: names of the tensors to encrypt; empty unless ``layers``.

    Raises:
        ConfigError: CONFIG_INVALID for a combination that says nothing or contradicts itself.
    """

    mode: ProtectionMode
    ratio: float
    significance: Significance | None = None
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        selective = self.mode is ProtectionMode.SELECTIVE
        fixed = {ProtectionMode.PLAIN: 0.0, ProtectionMode.FULL: 1.0}
        if selective and not 0.0 < self.ratio <= 1.0:
            raise _invalid(f"ratio is {self.ratio}; with protect = selective it must be in (0, 1]")
        if not selective and self.ratio != fixed[self.mode]:
            raise _invalid(f"ratio is {self.ratio}; with protect = {self.mode} it is {fixed[self.mode]}")
        if selective != (self.significance is not None):
            choices = ", ".join(Significance)
            raise _invalid(
                f"significance must be one of {choices} with protect = selective, and absent otherwise"
            )
        if (self.significance is Significance.LAYERS) != bool(self.layers):
            raise _invalid(
                "layers must name at least one tensor with significance = layers, and none otherwise"
            )

    @property
    def lasting(self) -> bool:
        """True if the same entries are encrypted in every round."""
        return self.significance in (None, Significance.LAYERS)

    @classmethod
    def plain(cls) -> Protection:
        """Nothing is encrypted."""
        return cls(mode=ProtectionMode.PLAIN, ratio=0.0)

    @classmethod
    def full(cls) -> Protection:
        """Everything is encrypted."""
        return cls(mode=ProtectionMode.FULL, ratio=1.0)

    @classmethod
    def selective(
        cls, *, significance: Significance, ratio: float = 1.0, layers: tuple[str, ...] = ()
    ) -> Protection:
        """Only the entries of one common mask are encrypted."""
        return cls(mode=ProtectionMode.SELECTIVE, ratio=ratio, significance=significance, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What one round asks of its clients; fields as in ``secagg.v1.RoundPlan``.

    Args:
        round: 1, 2, 3, …
        protection: which entries are encrypted.
        mask_sha256: digest of the mask artifact, 32 bytes; empty if the mask follows from the other fields.
        profile: name of the CKKS profile.
        key_id: 16 bytes.
        manifest: names and shapes of the update's tensors.
        rule: name of the aggregation rule.
        statistics_blocks: groups of tensors that form a block of the payload each, whose inner products are
            released; empty if there is none, or one over all tensors.
        base_round: the aggregate to train from; 0 for the initial model.
        earlier_round: the round whose aggregate the base round started from, if updates are compared with
            that model too; 0 for the initial model.
        max_sample_count: sample counts above it count as it.
        count_unit: under a quantising profile, the sample count of weight 1: hidden values are sealed
            times min(n, count_unit)/count_unit, and n counts up to it only. 0: values are sealed as they
            are, and the aggregator weighs them.
        divisor: if positive, updates are differences to the model of ``base_round``, and what is added to
            that model is their sum with integer weights over this number. 0: updates are models, and the new
            model is their weighted mean.
        payload_bytes: exact length of an update's payload.
        chunk_bytes: size of every upload chunk but the last, 1 to 2 MiB.
    """

    round: int
    protection: Protection
    mask_sha256: bytes
    profile: str
    key_id: bytes
    manifest: Manifest
    rule: str
    statistics_blocks: tuple[tuple[str, ...], ...]
    base_round: int
    max_sample_count: int
    payload_bytes: int
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    count_unit: int = 0
    divisor: int = 0
    earlier_round: int = 0

    def __post_init__(self) -> None:
        checks = (
            (self.round >= 1, f"round is {self.round}; rounds count from 1"),
            (
                0 <= self.base_round < self.round,
                f"base_round is {self.base_round}; it must precede {self.round}",
            ),
            (
                0 <= self.earlier_round <= self.base_round,
                f"earlier_round is {self.earlier_round}; it must not follow base_round, {self.base_round}",
            ),
            (
                len(self.mask_sha256) in (0, DIGEST_BYTES),
                f"mask_sha256 has {len(self.mask_sha256)} bytes, not 32",
            ),
            (len(self.key_id) == KEY_ID_BYTES, f"key_id has {len(self.key_id)} bytes, not {KEY_ID_BYTES}"),
            (self.max_sample_count >= 1, f"max_sample_count is {self.max_sample_count}; it must be ≥ 1"),
            (
                0 <= self.count_unit <= self.max_sample_count,
                f"count_unit is {self.count_unit}; it must be 0 to max_sample_count, {self.max_sample_count}",
            ),
            (
                0 <= self.divisor <= MAX_DIVISOR and not (self.divisor and self.count_unit),
                f"divisor is {self.divisor}; it must be 0 to {MAX_DIVISOR}, and 0 beside a count_unit",
            ),
            (self.payload_bytes >= 1, f"payload_bytes is {self.payload_bytes}; it must be ≥ 1"),
            (
                MIN_CHUNK_BYTES <= self.chunk_bytes <= MAX_CHUNK_BYTES,
                f"chunk_bytes is {self.chunk_bytes}; it must be {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}",
            ),
        )
        for holds, complaint in checks:
            if not holds:
                raise RoundError(Code.REQUEST_MALFORMED, f"round plan: {complaint}")
        named = [name for block in self.statistics_blocks for name in block]
        if len(set(named)) != len(named) or not all(self.statistics_blocks):
            raise RoundError(
                Code.REQUEST_MALFORMED,
                "round plan: a statistics block is empty, or a tensor is in two of them",
            )
        for name in (*named, *self.protection.layers):
            self.manifest.slice_of(name)

    @property
    def since(self) -> int:
        """The round whose model this round's aggregate adds to, if updates are differences (0: the initial
        one).

        Where every round hides the same entries, aggregates add up from the first round on, so that who has
        the last one needs no other; elsewhere each adds to the one before.
        """
        return 0 if self.protection.lasting else self.base_round

    def counted(self, sample_count: int) -> int:
        """What a client's sample count counts as."""
        return min(sample_count, self.count_unit or self.max_sample_count)

    def own_weight(self, sample_count: int) -> float:
        """What a client's hidden values are sealed times, in (0, 1]."""
        return self.counted(sample_count) / self.count_unit if self.count_unit else 1.0


_MODE_TO_PROTO = {
    ProtectionMode.PLAIN: pb.PROTECTION_MODE_PLAIN,
    ProtectionMode.FULL: pb.PROTECTION_MODE_FULL,
    ProtectionMode.SELECTIVE: pb.PROTECTION_MODE_SELECTIVE,
}
_SIGNIFICANCE_TO_PROTO = {
    None: pb.SIGNIFICANCE_UNSPECIFIED,
    Significance.MAGNITUDE: pb.SIGNIFICANCE_MAGNITUDE,
    Significance.RANDOM: pb.SIGNIFICANCE_RANDOM,
    Significance.LAYERS: pb.SIGNIFICANCE_LAYERS,
}
_MODE_FROM_PROTO = {number: mode for mode, number in _MODE_TO_PROTO.items()}
_SIGNIFICANCE_FROM_PROTO = {number: name for name, number in _SIGNIFICANCE_TO_PROTO.items()}


def plan_to_proto(plan: RoundPlan, *, state: RoundState, collect_remaining_s: float) -> pb.RoundPlan:
    """The wire form of a plan, with where the round stands now."""
    return pb.RoundPlan(
        round=plan.round,
        protection=_MODE_TO_PROTO[plan.protection.mode],
        ratio=plan.protection.ratio,
        significance=_SIGNIFICANCE_TO_PROTO[plan.protection.significance],
        layers=plan.protection.layers,
        mask_sha256=plan.mask_sha256,
        profile=plan.profile,
        key_id=plan.key_id,
        manifest=plan.manifest.to_bytes(),
        rule=plan.rule,
        statistics_blocks=[pb.StatisticsBlock(tensors=names) for names in plan.statistics_blocks],
        base_round=plan.base_round,
        max_sample_count=plan.max_sample_count,
        collect_remaining_s=collect_remaining_s,
        payload_bytes=plan.payload_bytes,
        chunk_bytes=plan.chunk_bytes,
        state=pb.RoundState.ValueType(state),
        count_unit=plan.count_unit,
        divisor=plan.divisor,
        earlier_round=plan.earlier_round,
    )


def plan_from_proto(message: pb.RoundPlan) -> RoundPlan:
    """A checked plan from its wire form.

    Raises:
        RoundError: REQUEST_MALFORMED for any field that no plan can have.
    """
    try:
        protection = Protection(
            mode=_MODE_FROM_PROTO[message.protection],
            ratio=message.ratio,
            significance=_SIGNIFICANCE_FROM_PROTO[message.significance],
            layers=tuple(message.layers),
        )
        return RoundPlan(
            round=message.round,
            protection=protection,
            mask_sha256=message.mask_sha256,
            profile=message.profile,
            key_id=message.key_id,
            manifest=Manifest.from_bytes(message.manifest),
            rule=message.rule,
            statistics_blocks=tuple(tuple(block.tensors) for block in message.statistics_blocks),
            base_round=message.base_round,
            max_sample_count=message.max_sample_count,
            payload_bytes=message.payload_bytes,
            chunk_bytes=message.chunk_bytes,
            count_unit=message.count_unit,
            divisor=message.divisor,
            earlier_round=message.earlier_round,
        )
    except KeyError as error:
        raise RoundError(Code.REQUEST_MALFORMED, f"round plan: enum value {error} is unknown") from None
    except SecaggError as error:
        if isinstance(error, RoundError):
            raise
        raise RoundError(Code.REQUEST_MALFORMED, f"round plan: {error.message}") from error


def _invalid(message: str) -> ConfigError:
    return ConfigError(Code.CONFIG_INVALID, message)
