"""The models a client has open: the one a round starts from, those it adds to, and the one it ends with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg._proto import aggregator_pb2 as pb
from secagg.aggregate import AggregateFile, Onto, Shares, aggregate_bytes, open_aggregate
from secagg.ckks.profiles import profile
from secagg.client.artifacts import Artifacts
from secagg.client.federation import Federation
from secagg.client.result import Model
from secagg.errors import CiphertextError, Code, ConfigError, SecaggError, UpdateError
from secagg.model_file import read_model
from secagg.plan import Protection, RoundPlan, Significance
from secagg.rule import RuleLoader
from secagg.scales import Scales
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask, derive_mask
from secagg.update import Manifest

MAX_MODEL_BYTES = 8 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What an aggregate's form follows from, beside its own round's mask.

    Args:
        manifest: names and shapes.
        protection: which entries are encrypted.
        profile: name of the CKKS profile.
        statistics_blocks: the groups of tensors that statistics run over.
        differences: whether updates are differences to the model a round starts from.
    """

    manifest: Manifest
    protection: Protection
    profile: str
    statistics_blocks: tuple[tuple[str, ...], ...]
    differences: bool

    @classmethod
    def of(cls, plan: RoundPlan) -> Form:
        """The form a plan asks for; a federation's rounds only differ in their masks."""
        return cls(
            manifest=plan.manifest,
            protection=plan.protection,
            profile=plan.profile,
            statistics_blocks=plan.statistics_blocks,
            differences=plan.divisor > 0,
        )


class Models:
    """Opens models and keeps those that are needed again.

    Args:
        federation: says what the federation is.
        artifacts: downloads and opens.
    """

    def __init__(self, federation: Federation, artifacts: Artifacts) -> None:
        self._federation = federation
        self._artifacts = artifacts
        self._models: dict[int, NDArray[np.float32]] = {}
        """Open models by round."""

    def opened_by(self, plan: RoundPlan, layout: Layout, scales: Scales | None) -> NDArray[np.float32]:
        """A round's new model, float32 [d].

        Args:
            scales: what this client's own update was sealed in.

        Raises:
            CiphertextError: AGGREGATE_MALFORMED.
        """
        shares = Shares(unit=plan.count_unit, scales=scales) if scales is not None else None
        onto = None
        if plan.divisor:
            model = self.of(plan.since, Form.of(plan), plan.key_id)
            onto = Onto(since=plan.since, model=model, divisor=plan.divisor)
        return self._open(self._file(plan.round, layout, plan.profile), plan.key_id, shares, onto)

    def of(self, round: int, form: Form, key_id: bytes) -> NDArray[np.float32]:
        """The model that a round ended with, float32 [d]; 0: the initial one. Downloaded unless it is open
        already.

        Raises:
            SecaggError: it can't be downloaded, or isn't what it should be.
        """
        # A chain may be as long as the federation: it is followed down to an open model, then opened upwards.
        chain: list[tuple[int, Path, int]] = []
        at = round
        while at and at not in self._models:
            file = self._past(at, form)
            since = self._since(file) if form.differences else 0
            chain.append((at, file.path, since))
            at = since
        flat = self._models.get(at)
        if flat is None and (form.differences or not round):
            flat = form.manifest.flatten(self._initial())
            self.remember(0, flat, form)
        for number, path, since in reversed(chain):
            onto = Onto(since=since, model=flat) if form.differences and flat is not None else None
            flat = self._open(self._past(number, form, path), key_id, None, onto)
            self.remember(number, flat, form)
        assert flat is not None
        return flat

    def remember(self, round: int, flat: NDArray[np.float32], form: Form) -> None:
        """Keep an open model. Of models, only the last is needed again; of differences, what they add to and
        are compared with as well."""
        self._models[round] = flat
        last = sorted(self._models)[-2:] if form.differences else [round]
        needed = {*last, 0} if form.differences else set(last)
        self._models = {number: model for number, model in self._models.items() if number in needed}

    def final(self, round: int, rules: RuleLoader) -> Model:
        """The aggregate of a federation's last round (the initial model if 0), without its plan.

        Raises:
            SecaggError: it can't be downloaded or opened.
        """
        descriptor = self._federation.descriptor
        manifest = Manifest.of(self._initial())
        request = rules(descriptor.rule).request(manifest)
        form = Form(
            manifest=manifest,
            protection=descriptor.protection,
            profile=descriptor.profile,
            statistics_blocks=request.blocks if request is not None else (),
            differences=request is not None and not request.models,
        )
        return manifest.unflatten(self.of(round, form, descriptor.key_id))

    def layout(self, form: Form, round: int, agreed: Mask | None) -> Layout:
        """How a round's updates travel."""
        federation_id = self._federation.descriptor.federation_id
        mask = derive_mask(form.protection, form.manifest, federation_id, round, agreed)
        return Layout(form.manifest, mask, form.statistics_blocks)

    def _past(self, round: int, form: Form, path: Path | None = None) -> AggregateFile:
        """An earlier round's aggregate, downloaded unless its path is given.

        Its layout is as large as the model: who follows a chain keeps the paths only.
        """
        layout = self.layout(form, round, self._agreed_mask(form, round))
        if path is None:
            return self._file(round, layout, form.profile)
        return AggregateFile(path=path, round=round, layout=layout, profile=profile(form.profile))

    def _since(self, file: AggregateFile) -> int:
        """The round whose model an aggregate of differences adds to."""
        since = file.since()
        if since is None:
            raise CiphertextError(
                Code.AGGREGATE_MALFORMED,
                f"the aggregate of round {file.round} is a mean of models",
                round=file.round,
            )
        return since

    def _file(self, round: int, layout: Layout, name: str) -> AggregateFile:
        form = profile(name)
        path = self._artifacts.download(pb.ARTIFACT_KIND_AGGREGATE, round, aggregate_bytes(layout, form))
        return AggregateFile(path=path, round=round, layout=layout, profile=form)

    def _open(
        self, file: AggregateFile, key_id: bytes, shares: Shares | None, onto: Onto | None
    ) -> NDArray[np.float32]:
        opener = self._artifacts.opener(key_id, file.layout)
        with self._artifacts.timed("aggregate", file.round):
            return open_aggregate(
                file.path,
                round=file.round,
                layout=file.layout,
                profile=file.profile,
                opener=opener,
                shares=shares,
                onto=onto,
            )

    def _initial(self) -> Model:
        """The federation's first model, as the descriptor names it."""
        descriptor = self._federation.descriptor
        data = self._artifacts.fetch(pb.ARTIFACT_KIND_INITIAL_MODEL, 0, MAX_MODEL_BYTES)
        if hashlib.sha256(data).digest() != descriptor.initial_model_sha256:
            raise ConfigError(
                Code.DATA_MALFORMED, "the server's initial model is not the one the descriptor names"
            )
        tensors = read_model(data, max_bytes=MAX_MODEL_BYTES)
        if Manifest.of(tensors).digest != descriptor.manifest_sha256:
            raise UpdateError(
                Code.MANIFEST_MISMATCH, "the initial model's manifest is not the one the descriptor names"
            )
        return tensors

    def _agreed_mask(self, form: Form, round: int) -> Mask | None:
        """The mask of an earlier round, where it can't be derived; None if that round hid everything."""
        if form.protection.significance is not Significance.MAGNITUDE:
            return None
        try:
            data = self._artifacts.fetch(pb.ARTIFACT_KIND_MASK, round, Mask.wire_bytes(form.manifest.size))
        except SecaggError as error:
            # The first rounds have no agreed mask.
            if error.code is Code.ARTIFACT_UNKNOWN:
                return None
            raise
        return Mask.from_bytes(data, size=form.manifest.size)
