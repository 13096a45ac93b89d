"""What a sweep is asked for, by flags or in a TOML file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from attacks.inversion.bench.cell import Setting
from secagg.simulation.config import LearningRate

FASHION, DIGITS = "fashion-mnist", "digits"
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Knowledge(StrEnum):
    """Which attackers are tried: those who know of the mask, those who don't, or both."""

    BOTH = "both"
    NAIVE = "naive"
    AWARE = "aware"

    @property
    def aware(self) -> tuple[bool, ...]:
        """Values of a row's ``aware``, the naive one first."""
        return {Knowledge.BOTH: (False, True), Knowledge.NAIVE: (False,), Knowledge.AWARE: (True,)}[self]


class SweepConfig(BaseModel):
    """A sweep: every victim x protection x attacker x knowledge x update; each field has a default.

    Args:
        victim: as in ``load_victim``.
        significance: how hidden entries are chosen, as in ``attacks.inversion.protections``; ``file=PATH``
            takes a mask from a file, whose ratio is its own.
        ratio: hidden entries / all. Ratio 0 is always played, once: it shows what attackers can do.
        attacker: as in ``load_attacker``.
        knowledge: naive attackers take hidden entries for zeros, aware ones leave them out; both by default.
        dataset: as in ``attacks.inversion.data``; by default fashion-mnist where it is found, else digits.
        data: folder with the named data sets; default $SECAGG_DATA.
        batch: samples per update.
        samples: updates that are attacked, of ``batch`` samples each.
        candidates: samples among which the attacked one is to be identified, itself included.
        rounds: updates of the same samples that are attacked together.
        epochs, steps, learning_rate: of a client's local training; one of each is a gradient.
        pretrain: passes over other samples that the victim has learnt from before it is attacked.
        tokens: of text, length of a sample.
        perturb: ways to perturb visible entries, each tried; ``plain`` for none. Default: plain.
        granularity: what one decision to hide is about.
        scores: whose scores choose entries: ``common``, one mask per round from what clients learn in sum, as
            secagg's rounds have it; ``own``, the attacked client's, as most of what is published assumes.
        labels: known to attackers, or inferred by them.
        precision: wire computes in float64 and sends float32, as secagg does; float32 and float64 do both so.
        effort, restarts: an attacker's usual iterations are multiplied with the first; the second says how
            many starting points it tries.
        clients: whose updates the server sums, in the table of costs; 0 leaves the table out.
        seed: of everything that is drawn.
        device: cpu, cuda, cuda:0, ….
        processes: that play cells; 0: one per core. Without meaning over Ray.
        ray: address of a Ray cluster; local starts one here.

    Raises:
        pydantic.ValidationError: ``secagg.config.parse_toml`` turns it into a ConfigError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    victim: Names = ("lenet",)
    significance: Names = ("magnitude", "sensitivity", "random")
    ratio: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)] = (0.0, 0.01, 0.1, 0.3, 0.6, 0.9)
    attacker: Names = ("gauss-newton", "inverting-gradients")
    knowledge: Annotated[Knowledge, Field(strict=False)] = Knowledge.BOTH
    dataset: Annotated[str, Field(min_length=1)] | None = None
    data: str | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] = 1
    samples: Count = 8
    candidates: Annotated[int, Field(ge=2, le=10_000)] = 100
    rounds: Annotated[int, Field(ge=1, le=1000)] = 1
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: LearningRate = 0.01
    pretrain: Annotated[int, Field(ge=0, le=1000)] = 0
    tokens: Annotated[int, Field(ge=3, le=512)] = 16
    perturb: Annotated[tuple[str, ...], Field(strict=False)] = ()
    granularity: Literal["entry", "layer"] = "entry"
    scores: Literal["own", "common"] = "common"
    labels: Literal["known", "inferred"] = "known"
    precision: Literal["wire", "float32", "float64"] = "wire"
    effort: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    restarts: Annotated[int, Field(ge=1, le=1000)] = 1
    clients: Annotated[int, Field(ge=0, le=10_000)] = 10
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: Annotated[
        str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$", description="cpu, cuda or cuda:INDEX")
    ] = "cpu"
    processes: Annotated[int, Field(ge=0, le=1024)] = 0
    ray: Annotated[str, Field(min_length=1)] | None = None

    @property
    def workers(self) -> int:
        """How many processes play cells."""
        return self.processes or len(os.sched_getaffinity(0))

    def setting(self, dataset: str) -> Setting:
        """What all cells have in common, on this data set."""
        names = [name for name in Setting.__dataclass_fields__ if name != "dataset"]
        return Setting(dataset=dataset, **{name: getattr(self, name) for name in names})

    def dataset_or_default(self) -> tuple[str, str]:
        """The data set, and what to say where it was not asked for."""
        if self.dataset is not None:
            return self.dataset, ""
        root = self.data or os.environ.get("SECAGG_DATA")
        if root and (Path(root) / FASHION).is_dir():
            return FASHION, f"dataset: {FASHION}, found in {root}"
        where = f"in {root}" if root else "as neither --data nor SECAGG_DATA says where it is"
        return DIGITS, f"dataset: {DIGITS} (8x8), since {FASHION} was not found {where}"
