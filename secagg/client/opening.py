"""What a client seals and opens under the federation's key, and the models it has open."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secagg._proto import aggregator_pb2 as pb
from secagg.aggregate import Shares, aggregate_bytes, open_aggregate
from secagg.ckks.parameters import Profile
from secagg.ckks.profiles import profile
from secagg.client.federation import Federation
from secagg.client.outbox import StateFolder
from secagg.client.result import Model
from secagg.client.transfer import download
from secagg.custody.custody import Custody, Decryptor
from secagg.custody.shared import open_custody
from secagg.errors import Code, ConfigError, RoundError, SecaggError, UpdateError
from secagg.model_file import read_model
from secagg.payload import Quantisation, seal_update
from secagg.plan import Protection, RoundPlan, Significance
from secagg.release import Quantity, open_release
from secagg.rule import RuleLoader, Statistics, StatisticsRequest
from secagg.scales import Scales
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask, derive_mask, entries_to_hide, propose_mask, required_mask
from secagg.update import Manifest

MAX_GRANT_BYTES = 1024 * 1024
MAX_MODEL_BYTES = 8 * 2**30
MAX_STATISTICS_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What an aggregate's form follows from, beside its own round's mask.

    Args:
        manifest: names and shapes.
        protection: which entries are encrypted.
        profile: name of the CKKS profile.
        statistics_tensors: the tensors of the statistics block.
    """

    manifest: Manifest
    protection: Protection
    profile: str
    statistics_tensors: tuple[str, ...]

    @classmethod
    def of(cls, plan: RoundPlan) -> Form:
        """The form a plan asks for; a federation's rounds only differ in their masks."""
        return cls(
            manifest=plan.manifest,
            protection=plan.protection,
            profile=plan.profile,
            statistics_tensors=plan.statistics_tensors,
        )


class Opening:
    """Seals and opens for one client. The opened key stays in this process's memory.

    Args:
        federation: says what the federation is, and holds the connection.
        folder: where downloads go.
        workers: processes that seal and open long vectors; 1: this one; 0: one per core.
    """

    def __init__(self, federation: Federation, folder: StateFolder, *, workers: int = 1) -> None:
        self._federation = federation
        self._workers = workers
        self._folder = folder
        self._custody: Custody | None = None
        self._model: tuple[int, NDArray[np.float32]] | None = None
        self.open_s = 0.0
        """Seconds spent opening so far, transfers not counted."""

    def close(self) -> None:
        """End the processes that seal and open; safe to repeat."""
        if self._custody is not None:
            self._custody.close()

    def layout(self, plan: RoundPlan) -> Layout:
        """How this round's update travels, from the plan's mask.

        Raises:
            UpdateError: MASK_MISMATCH, MASK_MALFORMED if the mask isn't the one that was announced.
            RoundError: PLAN_BELOW_POLICY if it hides fewer entries than the plan's ratio says.
        """
        agreed: Mask | None = None
        if plan.mask_sha256:
            data = self._fetch(pb.ARTIFACT_KIND_MASK, plan.round, Mask.wire_bytes(plan.manifest.size))
            if hashlib.sha256(data).digest() != plan.mask_sha256:
                raise UpdateError(
                    Code.MASK_MISMATCH, "the mask is not the one the plan names", round=plan.round
                )
            agreed = Mask.from_bytes(data, size=plan.manifest.size)
            least = entries_to_hide(plan.manifest.size, plan.protection.ratio)
            if agreed.hidden_count < least:
                raise RoundError(
                    Code.PLAN_BELOW_POLICY,
                    f"the plan's mask hides {agreed.hidden_count} entries; its ratio asks for {least}",
                    round=plan.round,
                )
            self._check_agreed(plan, agreed)
        return self._layout(Form.of(plan), plan.round, agreed)

    def _check_agreed(self, plan: RoundPlan, agreed: Mask) -> None:
        """The mask must hide what this client itself, like every other, would hide.

        A client that did not open the last two aggregates has nothing to hold the mask against; it takes part
        all the same, see SECURITY.md.
        """
        required = self._folder.required_mask(plan.base_round)
        if required is None or required.size != agreed.size:
            return
        exposed = int(np.count_nonzero(required.hidden & ~agreed.hidden))
        if exposed:
            raise RoundError(
                Code.PLAN_BELOW_POLICY,
                f"the plan's mask exposes {exposed} of the entries that changed most in round "
                f"{plan.base_round}; it is not what the clients proposed",
                round=plan.round,
            )

    def scales(self, plan: RoundPlan) -> Scales | None:
        """What every client of this round seals in: a function of the model it starts from; None unless the
        profile quantises.

        Raises:
            SecaggError: as ``base_vector``.
        """
        if not profile(plan.profile).quantised:
            return None
        return Scales.around(self.base_vector(plan), plan.manifest)

    def seal(
        self,
        plan: RoundPlan,
        layout: Layout,
        flat: NDArray[np.float32],
        scales: Scales | None,
        *,
        sample_count: int,
    ) -> Iterator[bytes]:
        """The payload of an update, piece by piece.

        Args:
            scales: of the round (``scales``).
            sample_count: the client's; where the plan says so the values are sealed times it.

        Raises:
            UpdateError: UPDATE_OUT_OF_RANGE for values the profile has no room for.
        """
        sealer = self._custody_of(plan.key_id).sealer() if layout.mask.hidden_count else None
        if scales is None:
            return seal_update(flat, layout, sealer)
        quantisation = Quantisation(
            scales=scales,
            weight=plan.own_weight(sample_count),
            carry=self._folder.feedback.begin(layout),
        )
        return seal_update(flat, layout, sealer, quantisation)

    def statistics(
        self, plan: RoundPlan, layout: Layout, request: StatisticsRequest
    ) -> tuple[Statistics, bytes]:
        """The round's opened statistics, and the SHA-256 of the artifact they came from.

        Args:
            request: of the agreed rule; nothing that releases more or less than it asks for is opened.

        Raises:
            CiphertextError: STATISTICS_MALFORMED, also if they release other quantities than the rule asks
                for or speak of fewer updates than the federation's ``min_clients``.
        """
        data = self._fetch(pb.ARTIFACT_KIND_STATISTICS, plan.round, MAX_STATISTICS_BYTES)
        opener = self._opener(plan.key_id, layout)
        with self._timed("statistics", plan.round):
            opened = open_release(
                data,
                round=plan.round,
                layout=layout,
                profile=profile(plan.profile),
                opener=opener,
                quantities=Quantity.of(request),
                min_updates=self._federation.descriptor.min_clients,
            )
        return opened, hashlib.sha256(data).digest()

    def aggregate(self, plan: RoundPlan, layout: Layout, scales: Scales | None) -> NDArray[np.float32]:
        """The round's opened aggregate, float32 [d].

        Args:
            scales: what this client's own update was sealed in.

        Raises:
            CiphertextError: AGGREGATE_MALFORMED.
        """
        shares = Shares(unit=plan.count_unit, scales=scales) if scales is not None else None
        return self._aggregate(plan.round, plan.key_id, layout, profile(plan.profile), shares=shares)

    def base_vector(self, plan: RoundPlan) -> NDArray[np.float32]:
        """The model a plan starts from, float32 [d]; downloaded and opened unless it is open already.

        Raises:
            SecaggError: it can't be downloaded, or isn't what the descriptor says.
        """
        return self._model_of(plan.base_round, Form.of(plan), plan.key_id)

    def final_model(self, round: int, rules: RuleLoader) -> Model:
        """The aggregate of a federation's last round (the initial model if 0), without its plan.

        Raises:
            SecaggError: it can't be downloaded or opened.
        """
        descriptor = self._federation.descriptor
        manifest = Manifest.of(self._initial_model())
        request = rules(descriptor.rule).request(manifest)
        form = Form(
            manifest=manifest,
            protection=descriptor.protection,
            profile=descriptor.profile,
            statistics_tensors=request.tensors if request is not None else (),
        )
        return manifest.unflatten(self._model_of(round, form, descriptor.key_id))

    def remember(self, round: int, flat: NDArray[np.float32]) -> None:
        """Keep an opened model: it is the next plan's base."""
        self._model = (round, flat)

    def propose(self, plan: RoundPlan, flat: NDArray[np.float32]) -> Mask | None:
        """What this client proposes to hide in the next round; None unless the significance is magnitude.

        What the next plan's mask must hide is kept in the state folder, for ``layout`` to hold it against.
        """
        if plan.protection.significance is not Significance.MAGNITUDE:
            return None
        base, ratio = self.base_vector(plan), plan.protection.ratio
        self._folder.keep_required_mask(plan.round, required_mask(base, flat, ratio))
        return propose_mask(base, flat, ratio)

    def _model_of(self, round: int, form: Form, key_id: bytes) -> NDArray[np.float32]:
        if self._model is None or self._model[0] != round:
            if round == 0:
                flat = form.manifest.flatten(self._initial_model())
            else:
                layout = self._layout(form, round, self._agreed_mask(form, round))
                flat = self._aggregate(round, key_id, layout, profile(form.profile))
            self._model = (round, flat)
        return self._model[1]

    def _initial_model(self) -> Model:
        """The federation's first model, as the descriptor names it."""
        descriptor = self._federation.descriptor
        data = self._fetch(pb.ARTIFACT_KIND_INITIAL_MODEL, 0, MAX_MODEL_BYTES)
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
            data = self._fetch(pb.ARTIFACT_KIND_MASK, round, Mask.wire_bytes(form.manifest.size))
        except SecaggError as error:
            # The first rounds have no agreed mask.
            if error.code is Code.ARTIFACT_UNKNOWN:
                return None
            raise
        return Mask.from_bytes(data, size=form.manifest.size)

    def _layout(self, form: Form, round: int, agreed: Mask | None) -> Layout:
        federation_id = self._federation.descriptor.federation_id
        mask = derive_mask(form.protection, form.manifest, federation_id, round, agreed)
        return Layout(form.manifest, mask, form.statistics_tensors)

    def _aggregate(
        self, round: int, key_id: bytes, layout: Layout, form: Profile, *, shares: Shares | None = None
    ) -> NDArray[np.float32]:
        path = self._download(pb.ARTIFACT_KIND_AGGREGATE, round, aggregate_bytes(layout, form))
        opener = self._opener(key_id, layout)
        with self._timed("aggregate", round):
            return open_aggregate(
                path, round=round, layout=layout, profile=form, opener=opener, shares=shares
            )

    def _opener(self, key_id: bytes, layout: Layout) -> Decryptor | None:
        return self._custody_of(key_id).opener() if layout.mask.hidden_count else None

    def _custody_of(self, key_id: bytes) -> Custody:
        """This client's hold on the federation's key, fetched and opened once.

        Raises:
            CustodyError: GRANT_INVALID if there is no grant for this client, or it isn't the dealer's.
            UpdateError: KEY_MISMATCH if another key was dealt.
        """
        if self._custody is None or self._custody.key_id != key_id:
            grant = self._fetch(pb.ARTIFACT_KIND_KEY_GRANT, 0, MAX_GRANT_BYTES)
            self._custody = open_custody(
                self._federation.identity, self._federation.descriptor, grant, workers=self._workers
            )
        if self._custody.key_id != key_id:
            raise UpdateError(
                Code.KEY_MISMATCH,
                f"key {key_id.hex()} is asked for; this client was dealt {self._custody.key_id.hex()}",
            )
        return self._custody

    def _download(self, kind: pb.ArtifactKind.ValueType, round: int, max_bytes: int) -> Path:
        return download(
            self._federation.connection,
            kind=kind,
            round=round,
            folder=self._folder.downloads,
            max_bytes=max_bytes,
        )

    def _fetch(self, kind: pb.ArtifactKind.ValueType, round: int, max_bytes: int) -> bytes:
        """An artifact that fits in memory; its file is not kept."""
        path = self._download(kind, round, max_bytes)
        data = path.read_bytes()
        path.unlink()
        return data

    @contextmanager
    def _timed(self, what: str, round: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.open_s += spent
        self._federation.connection.on_event("opened", {"artifact": what, "round": round, "open_s": spent})
