"""One round that is measured, as its three processes need to know it, and what is the same for all three."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg.overhead.schemes import Scheme
from secagg.plan import KEY_ID_BYTES, Protection, ProtectionMode, RoundPlan, Significance
from secagg.scales import Scales
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask, derive_mask
from secagg.update import Manifest

ROUND = 1
CLIENT = "measured"
DEVIATION = 0.01
"""Standard deviation of an update's values."""
LARGEST_BASE = 0.05
"""The largest value of each tensor of the model that the round starts from: what the scales follow from."""
_EARLIER = 2**32 - 1
_AT_ONCE = 2**20


@dataclass(frozen=True, kw_only=True)
class Task:
    """A round of some clients with the same model.

    Args:
        folder: the round's files; ``prepare`` makes the first of them.
        federation: whose key is sealed under.
        scheme: as ``Scheme.parse`` reads it.
        clients: how many updates the server checks and sums.
        sample_counts: of the updates that are really sealed, ≥ 1; client c sends update c mod their number.
        seed: of everything that is drawn.
        repeat: how often each step is timed.
        workers: processes for sealing, summing and opening; 0: one per core.
    """

    folder: Path
    federation: Path
    scheme: str
    clients: int
    sample_counts: tuple[int, ...]
    seed: int
    repeat: int
    workers: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Inverse of ``to_json``."""
        fields = json.loads(text)
        paths = {name: Path(fields[name]) for name in ("folder", "federation")}
        return cls(**{**fields, **paths, "sample_counts": tuple(fields["sample_counts"])})

    def prepare(self, manifest: Manifest) -> None:
        """Write manifest and, for a selective scheme, the agreed mask: so large a share of the entries,
        drawn.
        """
        (self.folder / "manifest").write_bytes(manifest.to_bytes())
        if self.mask_path is not None:
            ratio = self.parsed.protection.ratio
            drawn = Protection.selective(significance=Significance.RANDOM, ratio=ratio)
            mask = derive_mask(drawn, manifest, self.seed.to_bytes(16, "little"), ROUND)
            self.mask_path.write_bytes(mask.to_bytes())

    @cached_property
    def parsed(self) -> Scheme:
        """The scheme."""
        return Scheme.parse(self.scheme)

    @cached_property
    def manifest(self) -> Manifest:
        """The model's."""
        return Manifest.from_bytes((self.folder / "manifest").read_bytes())

    @property
    def mask_path(self) -> Path | None:
        """Where a selective scheme's mask lies."""
        selective = self.parsed.protection.mode is ProtectionMode.SELECTIVE
        return self.folder / "mask" if selective else None

    @property
    def aggregate_path(self) -> Path:
        """What the server writes."""
        return self.folder / "aggregate"

    @property
    def state(self) -> Path:
        """The sealing client's state folder, for its error feedback."""
        return self.folder / "state"

    def payload_path(self, update: int) -> Path:
        """What a client seals."""
        return self.folder / f"payload-{update}"

    def update_of(self, client: int) -> int:
        """Which of the sealed updates a client sends."""
        return client % len(self.sample_counts)

    def layout(self) -> Layout:
        """How updates travel; made anew at each call, as it is as large as the model."""
        agreed = None
        if self.mask_path is not None:
            agreed = Mask.from_bytes(self.mask_path.read_bytes(), size=self.manifest.size)
        mask = derive_mask(self.parsed.protection, self.manifest, bytes(16), ROUND, agreed)
        return Layout(self.manifest, mask)

    def plan(self, payload_bytes: int) -> RoundPlan:
        """The round's plan."""
        mask_sha256 = b""
        if self.mask_path is not None:
            mask_sha256 = Mask.from_bytes(self.mask_path.read_bytes()).digest
        return RoundPlan(
            round=ROUND,
            protection=self.parsed.protection,
            mask_sha256=mask_sha256,
            profile=self.parsed.profile.name,
            key_id=bytes(KEY_ID_BYTES),
            manifest=self.manifest,
            rule="mean",
            statistics_blocks=(),
            base_round=0,
            max_sample_count=max(self.sample_counts),
            # As in every round but the first: clients weigh their own values.
            count_unit=max(self.sample_counts) if self.parsed.quantised else 0,
            payload_bytes=payload_bytes,
        )

    def scales(self) -> Scales | None:
        """Of the round; None unless something is sealed in steps."""
        if not self.parsed.quantised:
            return None
        base = np.broadcast_to(np.float32(LARGEST_BASE), (self.manifest.size,))
        return Scales.around(base, self.manifest)

    def weight(self, update: int) -> float:
        """What an update is sealed times, under a quantising profile."""
        return self.sample_counts[update] / max(self.sample_counts)

    def vector(self, update: int) -> NDArray[np.float32]:
        """An update: float32 [d], N(0, ``DEVIATION``²)."""
        flat = np.random.default_rng([self.seed, update]).standard_normal(self.manifest.size, np.float32)
        flat *= np.float32(DEVIATION)
        return flat

    def left_over(self, count: int, step: float) -> Iterator[NDArray[np.float32]]:
        """What an earlier round left over of ``count`` hidden values: within ± step/2, piece by piece."""
        random = np.random.default_rng([self.seed, _EARLIER])
        for start in range(0, count, _AT_ONCE):
            part = random.random(min(_AT_ONCE, count - start), dtype=np.float32)
            yield (part - np.float32(0.5)) * np.float32(step)
