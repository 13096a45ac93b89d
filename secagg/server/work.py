"""What worker processes do for a round; every function is given paths and plain values, and can be repeated.

Results go to a scratch path that the caller chose and renames. A worker that outlives its server by a
moment can so never touch what a restarted server has published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from secagg.aggregate import Shares, WeightedUpdates, lay_out, write_sums
from secagg.ckks.keys import PublicKey
from secagg.ckks.profiles import profile
from secagg.errors import Code, ServerError, UpdateError
from secagg.model_file import load_model
from secagg.payload import UpdateFile
from secagg.plan import RoundPlan
from secagg.release import (
    AggregateReference,
    PlainReference,
    Quantity,
    assemble_statistics,
    release_update,
)
from secagg.rule import StatisticsRequest
from secagg.scales import Scales
from secagg.selection import Layout, Mask, derive_mask
from secagg.selection.mask import entries_to_hide
from secagg.server.spool import digest_of


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
class ReferenceJob:
    """The model a round starts from: the initial one, or the aggregate of ``base``.

    Args:
        path: the model file, or the aggregate artifact.
        base: the round of that aggregate; None for the initial model.
    """

    path: Path
    base: RoundJob | None


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
    UpdateFile(path=path, layout=_layout(job), profile=profile(job.plan.profile)).check()


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


def release(
    job: RoundJob,
    out: Path,
    update: Path,
    request: StatisticsRequest,
    reference: ReferenceJob,
    public_key: bytes,
) -> None:
    """Writes one update's entries of the statistics.

    Args:
        public_key: of the CKKS key pair; what is released is re-randomised under it.
    """
    layout = _layout(job)
    released = release_update(
        update,
        layout=layout,
        profile=profile(job.plan.profile),
        public_key=PublicKey.from_bytes(public_key) if any(layout.hidden_counts) else None,
        squared_norms=request.squared_norms,
        reference=_reference(job, reference) if request.reference_dots else None,
    )
    out.write_bytes(released)


def assemble(
    job: RoundJob,
    out: Path,
    update_ids: Sequence[bytes],
    released: Sequence[Path],
    request: StatisticsRequest,
) -> bytes:
    """Writes the round's statistics artifact from what ``release`` wrote for each update.

    Args:
        update_ids: in order of acceptance; ``released`` likewise.

    Returns:
        SHA-256 of the artifact.
    """
    assemble_statistics(
        out,
        round=job.plan.round,
        update_ids=update_ids,
        released=(path.read_bytes() for path in released),
        layout=_layout(job),
        quantities=Quantity.of(request),
    )
    return digest_of(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumJob:
    """An aggregate as workers need to know it.

    Args:
        round: whose.
        paths: accepted updates whose weight is positive.
        weights: their integer weights; where clients weighted their hidden values, what they did it by.
        scales: what they were sealed in; empty unless the profile quantises.
    """

    round: RoundJob
    paths: tuple[Path, ...]
    weights: tuple[int, ...]
    scales: bytes


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


def _updates(job: SumJob) -> WeightedUpdates:
    plan = job.round.plan
    shares = Shares(unit=plan.count_unit, scales=Scales.from_bytes(job.scales)) if job.scales else None
    return WeightedUpdates(
        round=plan.round,
        paths=job.paths,
        weights=job.weights,
        layout=_layout(job.round),
        profile=profile(plan.profile),
        shares=shares,
    )


@lru_cache(maxsize=1)
def _reference(job: RoundJob, reference: ReferenceJob) -> AggregateReference | PlainReference:
    if reference.base is None:
        return PlainReference(flat=job.plan.manifest.flatten(load_model(reference.path)))
    base = reference.base
    return AggregateReference(path=reference.path, round=base.plan.round, layout=_layout(base))


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
    return Layout(plan.manifest, mask, plan.statistics_tensors)


def _check_digest(path: Path, content_sha256: bytes) -> None:
    if digest_of(path) != content_sha256:
        raise UpdateError(
            Code.CONTENT_MISMATCH, "the payload does not have the SHA-256 its header was signed over"
        )
