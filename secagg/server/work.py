"""What worker processes do for a round; every function is given paths and plain values, and can be repeated.

Results go to a scratch path that the caller chose and renames. A worker that outlives its server by a
moment can so never touch what a restarted server has published.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from secagg.aggregate import (
    Additions,
    AggregateFile,
    Shares,
    WeightedUpdates,
    lay_out,
    write_aggregate,
    write_sums,
)
from secagg.ckks.keys import PublicKey
from secagg.ckks.products import ProductSum
from secagg.ckks.profiles import profile
from secagg.errors import Code, ServerError, UpdateError
from secagg.model_file import load_model
from secagg.payload import UpdateFile
from secagg.plan import RoundPlan
from secagg.rule import CoordinateRule
from secagg.scales import Scales
from secagg.selection import Layout, Mask, derive_mask
from secagg.selection.mask import entries_to_hide
from secagg.server.recording import Received, write_round
from secagg.server.spool import digest_of
from secagg.statistics.form import Front, Pair, drawn_of
from secagg.statistics.release import (
    Reference,
    Rows,
    assemble_statistics,
    pair_products,
    release_update,
)
from secagg.statistics.release import release_tile as release_pairs
from secagg.update import Manifest

_HISTORY_ROUND = 1
"""What a sum over rounds, which belongs to none of them, carries in a round's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundJob:
    """A round as a worker needs to know it.

    Args:
        federation_id: 16 bytes.
        mask_path: the bitmap of the plan's ``mask_sha256``; None if the mask follows from the plan.
    """

    plan: RoundPlan
    federation_id: bytes
    mask_path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelJob:
    """An earlier model: the initial one, the aggregate of ``base``, or both added up.

    Args:
        initial: the initial model's file; None if the aggregate alone is the model.
        aggregate: the aggregate artifact; None if the initial model alone is the model.
        base: the round of that aggregate.
    """

    initial: Path | None = None
    aggregate: Path | None = None
    base: RoundJob | None = None


def payload_bytes(job: RoundJob) -> int:
    """Exact length of an update of this round."""
    return _layout(job).payload_bytes(profile(job.plan.profile))


def check_update(job: RoundJob, path: Path, content_sha256: bytes) -> None:
    """Checks a complete payload: digest, form of every ciphertext, visible values finite.

    Raises:
        UpdateError: CONTENT_MISMATCH, UPDATE_NOT_FINITE.
        CiphertextError: CIPHERTEXT_MALFORMED.
    """
    _check_digest(path, content_sha256)
    _update(job, path).check()


def check_mask(path: Path, size: int, ratio: float, content_sha256: bytes) -> None:
    """Checks a proposed mask: digest, form, number of entries, and exactly ceil(ratio·size) of them hidden.

    Raises:
        UpdateError: CONTENT_MISMATCH, MASK_MALFORMED.
    """
    _check_digest(path, content_sha256)
    mask = Mask.from_bytes(path.read_bytes(), size=size)
    expected = entries_to_hide(size, ratio)
    if mask.hidden_count != expected:
        raise UpdateError(
            Code.MASK_MALFORMED,
            f"the mask hides {mask.hidden_count} entries; the plan's ratio asks for {expected}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseJob:
    """A statistics artifact as workers need to know it.

    Args:
        round: whose.
        front: what precedes its entries.
        paths: of the updates, in the order of the front's ids.
        references: g and g', as far as they are compared with.
        public_key: of the CKKS key pair; what is released is re-randomised under it.
    """

    round: RoundJob
    front: Front
    paths: tuple[Path, ...]
    references: tuple[ModelJob, ...]
    public_key: bytes


def drawn(job: RoundJob, sample: float) -> tuple[int, ...]:
    """Of each product block, how many ciphertexts products of pairs run over."""
    return drawn_of(_layout(job), profile(job.plan.profile), sample)


def release_single(job: ReleaseJob, out: Path, row: int) -> None:
    """Writes one update's own entries of the statistics."""
    out.write_bytes(
        release_update(
            _update(job.round, job.paths[row]),
            quantities=job.front.quantities,
            references=[_reference(model, job.round.plan.profile) for model in job.references],
            seed=job.front.seed,
            public_key=_public_key(job),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TileJob:
    """Some pairs of rows of a statistics artifact.

    Args:
        release: the artifact.
        tile: the pairs.
        histories: each row's sum of updates, if they are the rows; empty if the updates are.
    """

    release: ReleaseJob
    tile: tuple[Pair, ...]
    histories: tuple[Path, ...] = ()


def multiply_tile(job: TileJob, out: Path, place: int, part: int, parts: int) -> None:
    """Writes the hidden part of a tile's products in one product block, over one of several equal parts of
    its ciphertexts; nothing if the block hides nothing.

    Args:
        place: of the block among those that products run over.
    """
    rows = _rows(job)
    block = rows.layout.product_blocks[place]
    hides = rows.layout.hidden_counts[block] > 0
    sums = pair_products(rows, job.tile, job.release.front, block, part, parts) if hides else []
    out.write_bytes(pickle.dumps(sums))


def release_tile(job: TileJob, out: Path, parts: Sequence[Sequence[Path]]) -> None:
    """Writes a tile's entries of the statistics.

    Args:
        parts: of each product block what ``multiply_tile`` has written, part by part.
    """
    hidden = (_products(paths) for paths in parts)
    out.write_bytes(release_pairs(_rows(job), job.tile, hidden, job.release.front, _public_key(job.release)))


def _products(parts: Sequence[Path]) -> list[list[ProductSum]]:
    """Partial results that hold something; none where a block hides nothing."""
    # These files are this server's own, written moments ago: nothing from the network is unpickled.
    sums = (pickle.loads(path.read_bytes()) for path in parts)  # noqa: S301
    return [part for part in sums if part]


def assemble(job: ReleaseJob, out: Path, released: Sequence[Path]) -> bytes:
    """Writes the round's statistics artifact from what was released, in order.

    Returns:
        SHA-256 of the artifact.
    """
    assemble_statistics(out, job.front, (path.read_bytes() for path in released))
    return digest_of(out)


def extend_history(job: RoundJob, out: Path, update: Path, before: Path | None) -> None:
    """Writes the sum of a client's updates: an earlier sum and this round's update.

    Args:
        before: the earlier sum; None if this is the first update.
    """
    earlier = _history(job, before) if before is not None else None
    updates = WeightedUpdates(
        round=_HISTORY_ROUND,
        paths=(update,),
        weights=(1,),
        layout=_layout(job),
        profile=profile(job.plan.profile),
        additions=Additions(divisor=1, since=0, before=earlier),
    )
    write_aggregate(out, updates)


def record(job: RoundJob, folder: Path, state: str, received: Sequence[Received]) -> None:
    """Writes what a round's accepted updates show in the clear; raises as ``write_round``."""
    write_round(folder, job.plan, _layout(job), state, received)


def _rows(job: TileJob) -> Rows:
    round_ = job.release.round
    if job.histories:
        return Rows(files=tuple(_history(round_, path) for path in job.histories))
    return Rows(files=tuple(_update(round_, path) for path in job.release.paths))


def _history(job: RoundJob, path: Path) -> AggregateFile:
    return AggregateFile(
        path=path, round=_HISTORY_ROUND, layout=_layout(job), profile=profile(job.plan.profile)
    )


def _update(job: RoundJob, path: Path) -> UpdateFile:
    return UpdateFile(path=path, layout=_layout(job), profile=profile(job.plan.profile))


def _public_key(job: ReleaseJob) -> PublicKey | None:
    return PublicKey.from_bytes(job.public_key) if any(_layout(job.round).hidden_counts) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SumJob:
    """An aggregate as workers need to know it.

    Args:
        round: whose.
        paths: accepted updates whose weight is positive.
        weights: their integer weights; where clients weighted their hidden values, what they did it by.
        scales: what they were sealed in; empty unless the profile quantises.
        since: the round whose model differences add to.
        before: the aggregate that their sum is added to, with the job of its round; None if there is none.
    """

    round: RoundJob
    paths: tuple[Path, ...]
    weights: tuple[int, ...]
    scales: bytes
    since: int = 0
    before: tuple[Path, RoundJob] | None = None


def begin_aggregate(job: SumJob, out: Path) -> None:
    """Writes the round's aggregate artifact but for its ciphertexts."""
    with out.open("wb") as file:
        lay_out(file, _updates(job))


def sum_part(job: SumJob, out: Path, part: int, parts: int) -> None:
    """Writes one of several equal parts of each block's summed ciphertexts to where they belong.

    Memory does not grow with updates or values: a few ciphertexts of one update and their sums are held.
    """
    updates = _updates(job)
    with out.open("r+b") as file:
        for block, values in enumerate(updates.layout.hidden_counts):
            count = updates.profile.ciphertext_count(values)
            write_sums(file, updates, block, range(part * count // parts, (part + 1) * count // parts))


def combine(job: SumJob, out: Path, rule: CoordinateRule) -> None:
    """Writes the aggregate of updates that are all visible, each coordinate as the rule combines theirs."""
    with out.open("wb") as file:
        lay_out(file, _updates(job), rule.combine)


def _updates(job: SumJob) -> WeightedUpdates:
    plan, additions = job.round.plan, None
    if plan.divisor:
        before = None
        if job.before is not None:
            path, base = job.before
            before = AggregateFile(
                path=path, round=base.plan.round, layout=_layout(base), profile=profile(plan.profile)
            )
        additions = Additions(divisor=plan.divisor, since=job.since, before=before)
    shares = Shares(unit=plan.count_unit, scales=Scales.from_bytes(job.scales)) if job.scales else None
    return WeightedUpdates(
        round=plan.round,
        paths=job.paths,
        weights=job.weights,
        layout=_layout(job.round),
        profile=profile(plan.profile),
        shares=shares,
        additions=additions,
    )


@lru_cache(maxsize=2)
def _reference(model: ModelJob, profile_name: str) -> Reference:
    plain = aggregate = None
    if model.initial is not None:
        tensors = load_model(model.initial)
        plain = Manifest.of(tensors).flatten(tensors)
    if model.aggregate is not None and model.base is not None:
        aggregate = AggregateFile(
            path=model.aggregate,
            round=model.base.plan.round,
            layout=_layout(model.base),
            profile=profile(profile_name),
        )
    return Reference(plain=plain, aggregate=aggregate)


@lru_cache(maxsize=3)
def _layout(job: RoundJob) -> Layout:
    plan = job.plan
    agreed = None
    if job.mask_path is not None:
        data = job.mask_path.read_bytes()
        agreed = Mask.from_bytes(data, size=plan.manifest.size)
        if agreed.digest != plan.mask_sha256:
            raise ServerError(Code.SPOOL_CORRUPT, f"{job.mask_path} is not the mask of round {plan.round}")
    mask = derive_mask(plan.protection, plan.manifest, job.federation_id, plan.round, agreed)
    return Layout(plan.manifest, mask, plan.statistics_blocks)


def _check_digest(path: Path, content_sha256: bytes) -> None:
    if digest_of(path) != content_sha256:
        raise UpdateError(
            Code.CONTENT_MISMATCH, "the payload does not have the SHA-256 its header was signed over"
        )
