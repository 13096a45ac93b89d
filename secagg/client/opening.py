"""What a client seals and opens in a round."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg._proto import aggregator_pb2 as pb
from secagg.ckks.profiles import profile
from secagg.client.artifacts import Artifacts
from secagg.client.federation import Federation
from secagg.client.models import Form, Models
from secagg.client.outbox import StateFolder
from secagg.client.result import Model
from secagg.errors import Code, RoundError, UpdateError
from secagg.payload import Quantisation, seal_update
from secagg.plan import RoundPlan, Significance
from secagg.rule import RuleLoader, Stage, Statistics, StatisticsRequest
from secagg.scales import Scales
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask, entries_to_hide, propose_mask, required_mask
from secagg.statistics.opening import Expectation, joined, open_statistics

MAX_STATISTICS_BYTES = 2**30


class Opening:
    """Seals and opens for one client. The opened key stays in this process's memory.

    Args:
        federation: says what the federation is, and holds the connection.
        folder: where downloads go.
        workers: processes that seal and open long vectors; 1: this one; 0: one per core.
    """

    def __init__(self, federation: Federation, folder: StateFolder, *, workers: int = 1) -> None:
        self._federation = federation
        self._folder = folder
        self._artifacts = Artifacts(federation, folder, workers=workers)
        self._models = Models(federation, self._artifacts)
        self._opened: dict[tuple[int, Stage], tuple[Statistics, bytes]] = {}

    @property
    def open_s(self) -> float:
        """Seconds spent opening so far, transfers not counted."""
        return self._artifacts.open_s

    def close(self) -> None:
        """End the processes that seal and open; safe to repeat."""
        self._artifacts.close()

    def layout(self, plan: RoundPlan) -> Layout:
        """How this round's update travels, from the plan's mask.

        Raises:
            UpdateError: MASK_MISMATCH, MASK_MALFORMED if the mask isn't the one that was announced.
            RoundError: PLAN_BELOW_POLICY if it hides fewer entries than the plan's ratio says.
        """
        agreed: Mask | None = None
        if plan.mask_sha256:
            data = self._artifacts.fetch(
                pb.ARTIFACT_KIND_MASK, plan.round, Mask.wire_bytes(plan.manifest.size)
            )
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
        return self._models.layout(Form.of(plan), plan.round, agreed)

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
            flat: the model after training, float32 [d].
            scales: of the round (``scales``).
            sample_count: the client's; where the plan says so the values are sealed times it.

        Raises:
            UpdateError: UPDATE_OUT_OF_RANGE for values the profile has no room for.
        """
        sealer = self._artifacts.custody_of(plan.key_id).sealer() if layout.mask.hidden_count else None
        if plan.divisor:
            flat = flat - self.base_vector(plan)
        if scales is None:
            return seal_update(flat, layout, sealer)
        quantisation = Quantisation(
            scales=scales,
            weight=plan.own_weight(sample_count),
            carry=self._folder.feedback.begin(layout),
        )
        return seal_update(flat, layout, sealer, quantisation)

    def statistics(
        self, plan: RoundPlan, layout: Layout, request: StatisticsRequest, stage: Stage
    ) -> tuple[Statistics, bytes]:
        """A stage's opened statistics, and the SHA-256 of the artifact they came from.

        Args:
            request: of the agreed rule; nothing that releases more or less than it asks for is opened.

        Raises:
            CiphertextError: STATISTICS_MALFORMED, also if they release other quantities than the rule asks
                for or speak of fewer updates than the federation's ``min_clients``.
        """
        opened, digest = self._statistics(plan, layout, request, stage)
        if request.screened and stage is Stage.STATISTICS:
            screening, _ = self._statistics(plan, layout, request, Stage.SCREENING)
            opened = joined(screening, opened)
        return opened, digest

    def _statistics(
        self, plan: RoundPlan, layout: Layout, request: StatisticsRequest, stage: Stage
    ) -> tuple[Statistics, bytes]:
        kept = self._opened.get((plan.round, stage))
        if kept is not None:
            return kept
        screening = stage is Stage.SCREENING
        kind = pb.ARTIFACT_KIND_SCREENING if screening else pb.ARTIFACT_KIND_STATISTICS
        data = self._artifacts.fetch(kind, plan.round, MAX_STATISTICS_BYTES)
        opener, expected = (
            self._artifacts.opener(plan.key_id, layout),
            self._expectation(plan, layout, request, stage),
        )
        with self._artifacts.timed(stage.name.lower(), plan.round):
            opened = open_statistics(data, expected, opener)
        # Of earlier rounds nothing is needed any more.
        self._opened = {key: value for key, value in self._opened.items() if key[0] == plan.round}
        self._opened[plan.round, stage] = opened, hashlib.sha256(data).digest()
        return self._opened[plan.round, stage]

    def _expectation(
        self, plan: RoundPlan, layout: Layout, request: StatisticsRequest, stage: Stage
    ) -> Expectation:
        references: list[NDArray[np.float32]] = []
        if request.references:
            references.append(self.base_vector(plan))
        if request.references > 1:
            references.append(self._models.of(plan.earlier_round, Form.of(plan), plan.key_id))
        return Expectation(
            round=plan.round,
            stage=stage,
            layout=layout,
            profile=profile(plan.profile),
            request=request,
            min_updates=self._federation.descriptor.min_clients,
            references=references,
            same_models=plan.earlier_round == plan.base_round,
        )

    def aggregate(self, plan: RoundPlan, layout: Layout, scales: Scales | None) -> NDArray[np.float32]:
        """The round's new model, float32 [d].

        Args:
            scales: what this client's own update was sealed in.

        Raises:
            CiphertextError: AGGREGATE_MALFORMED.
        """
        return self._models.opened_by(plan, layout, scales)

    def base_vector(self, plan: RoundPlan) -> NDArray[np.float32]:
        """The model a plan starts from, float32 [d]; downloaded and opened unless it is open already.

        Raises:
            SecaggError: it can't be downloaded, or isn't what the descriptor says.
        """
        return self._models.of(plan.base_round, Form.of(plan), plan.key_id)

    def final_model(self, round: int, rules: RuleLoader) -> Model:
        """The aggregate of a federation's last round (the initial model if 0), without its plan.

        Raises:
            SecaggError: it can't be downloaded or opened.
        """
        return self._models.final(round, rules)

    def remember(self, plan: RoundPlan, flat: NDArray[np.float32]) -> None:
        """Keep an opened model: it is the next plan's base."""
        self._models.remember(plan.round, flat, Form.of(plan))

    def propose(self, plan: RoundPlan, flat: NDArray[np.float32]) -> Mask | None:
        """What this client proposes to hide in the next round; None unless the significance is magnitude.

        What the next plan's mask must hide is kept in the state folder, for ``layout`` to hold it against.
        """
        if plan.protection.significance is not Significance.MAGNITUDE:
            return None
        base, ratio = self.base_vector(plan), plan.protection.ratio
        self._folder.keep_required_mask(plan.round, required_mask(base, flat, ratio))
        return propose_mask(base, flat, ratio)
