"""One round as a client lives it: seal, hand in, help decide, open, confirm."""

from __future__ import annotations

import io
import time
from functools import partial

import numpy as np
from numpy.typing import NDArray

from secagg._proto import aggregator_pb2 as pb
from secagg.ckks.profiles import profile
from secagg.client.federation import Federation
from secagg.client.opening import Opening
from secagg.client.outbox import Entry, StateFolder, new_idempotency_key
from secagg.client.result import Model, RoundResult, Trainer
from secagg.client.transfer import Upload, upload
from secagg.client.voting import Voting
from secagg.envelope import Domain, PayloadKind, UpdateHeader, sign, update_id
from secagg.errors import Code, RoundError, SecaggError, TransferError, UpdateError
from secagg.plan import RoundPlan, RoundState, plan_from_proto
from secagg.rule import RuleLoader
from secagg.scales import Scales
from secagg.selection.layout import Layout
from secagg.selection.mask import Mask
from secagg.update import Tensors

RESUMABLE = frozenset(
    {
        Code.SERVER_UNREACHABLE,
        Code.WORKER_LOST,
        Code.RESOURCES_EXHAUSTED,
        Code.TOO_MANY_CALLS,
        Code.STREAM_IDLE,
    }
)
"""Failures after which the sealed update is kept; any other one is the end of this round's part."""


class Round:
    """A round this client can take part in. Made by ``Client.rounds``.

    Args:
        message: the plan as received; it is kept beside the sealed update.
        entry: the update an earlier process sealed for this round, or None.

    Raises:
        SecaggError: the plan is below the policy, contradicts itself, or its mask isn't what it says.
    """

    def __init__(
        self,
        message: pb.RoundPlan,
        *,
        federation: Federation,
        opening: Opening,
        folder: StateFolder,
        rules: RuleLoader,
        entry: Entry | None = None,
    ) -> None:
        self.plan: RoundPlan = plan_from_proto(message)
        self._message = message
        self._federation = federation
        self._opening = opening
        self._folder = folder
        self._rules = rules
        self._entry = entry
        self._tried = False
        self._result: RoundResult | None = None
        federation.check(self.plan)
        self._check_statistics()
        self._profile = profile(self.plan.profile)
        self._layout = opening.layout(self.plan)
        expected = self._layout.payload_bytes(self._profile)
        if self.plan.payload_bytes != expected:
            raise TransferError(
                Code.SIZE_MISMATCH,
                f"the plan asks for a payload of {self.plan.payload_bytes} bytes; "
                f"its manifest, mask and profile make {expected}",
                round=self.number,
            )

    @property
    def number(self) -> int:
        """1, 2, 3, …"""
        return self.plan.round

    @property
    def layout(self) -> Layout:
        """Which entries of this round's update travel encrypted, and which in the clear."""
        return self._layout

    @property
    def resuming(self) -> bool:
        """True if an earlier process sealed this round's update already: no training is needed."""
        return self._entry is not None

    @property
    def tried(self) -> bool:
        """True once ``contribute`` was called."""
        return self._tried

    @property
    def model(self) -> Model:
        """The model to train from, named float32 tensors; copies, so training in place is fine.

        Raises:
            SecaggError: it can't be downloaded or opened.
        """
        return self.plan.manifest.unflatten(self._opening.base_vector(self.plan))

    def run(self, trainer: Trainer) -> RoundResult:
        """Train with ``trainer(model, round)`` and contribute; when resuming, the trainer is not called.

        Raises:
            SecaggError: as ``contribute``.
        """
        if self.resuming:
            return self.contribute()
        tensors, sample_count = trainer(self.model, self.number)
        return self.contribute(tensors, sample_count=sample_count)

    def contribute(self, tensors: Tensors | None = None, *, sample_count: int | None = None) -> RoundResult:
        """Seal an update, hand it in, help decide, and open the new global model. Blocks until it is open.

        Args:
            tensors: the model after training, finite float32 tensors as in ``plan.manifest``.
            sample_count: how many samples it was trained on, ≥ 1; counted up to ``plan.max_sample_count``,
                and told to the server up to the descriptor's.

        Neither is looked at when ``resuming``: an update once sealed is this round's update.

        Raises:
            UpdateError: these tensors don't fit the plan, or hold NaN or values too large; nothing was sent.
            RoundError: ROUND_CLOSED (too late), ROUND_ABORTED (ids: reason): go on with the next round.
            TransferError: SERVER_UNREACHABLE; the sealed update is kept, and the next round that
                ``Client.rounds`` gives, in this process or a later one, goes on with it.
            SecaggError: any other refusal of the server.
        """
        if self._result is not None:
            raise RoundError(
                Code.STATE_INVALID, f"round {self.number} is done; take the next one", round=self.number
            )
        self._tried = True
        traffic = self._federation.connection.traffic
        up, down, open_before = traffic.bytes_up, traffic.bytes_down, self._opening.open_s
        try:
            entry, sealed_here = self._entry, self._entry is None
            if entry is None:
                entry = self._entry = self._seal(tensors, sample_count)
            entry, resumed_at = self._hand_in(entry)
            voting = Voting(
                self.plan, self._layout, self._federation, self._opening, self._rules(self.plan.rule)
            )
            own_weight = voting.vote(entry.update_id.hex())
            status = self._federation.await_round(self.number, RoundState.AGGREGATED)
            flat = self._opening.aggregate(self.plan, self._layout, _sealed_in(entry))
            self._folder.feedback.settle(self._layout)
            self._confirm(flat)
        except SecaggError as error:
            if error.code not in RESUMABLE:
                if self._entry is not None and self._entry.accepted and error.code is not Code.ROUND_ABORTED:
                    self._folder.feedback.forget()
                self._folder.discard()
                self._entry = None
            raise
        self._folder.discard()
        self._result = RoundResult(
            round=self.number,
            model=self.plan.manifest.unflatten(flat),
            state=status.state,
            own_weight=own_weight,
            seal_s=entry.seal_s if sealed_here else 0.0,
            open_s=self._opening.open_s - open_before,
            bytes_up=traffic.bytes_up - up,
            bytes_down=traffic.bytes_down - down,
            resumed_at=resumed_at,
        )
        return self._result

    def _check_statistics(self) -> None:
        """The plan may release what the agreed rule needs, of updates as it needs them, and nothing else."""
        request = self._rules(self.plan.rule).request(self.plan.manifest)
        differences = request is not None and not request.models
        blocks = request.blocks if request is not None else ()
        for name, found, due in (
            ("statistics over", self.plan.statistics_blocks, blocks),
            ("differences", self.plan.divisor > 0, differences),
        ):
            if found != due:
                raise RoundError(
                    Code.REQUEST_MALFORMED,
                    f"the plan asks for {name} {found}; rule {self.plan.rule!r} needs {due}",
                    round=self.number,
                )

    def _seal(self, tensors: Tensors | None, sample_count: int | None) -> Entry:
        """Put the sealed update into the outbox; from there on a restart goes on with it."""
        if tensors is None or sample_count is None:
            raise RoundError(
                Code.STATE_INVALID,
                f"round {self.number} has no sealed update to go on with; give tensors and sample_count",
                round=self.number,
            )
        if isinstance(sample_count, bool) or int(sample_count) != sample_count or sample_count < 1:
            raise UpdateError(
                Code.SAMPLE_COUNT_INVALID,
                f"sample_count is {sample_count!r}; it must be a whole number ≥ 1",
                round=self.number,
            )
        # Neither plan nor policy counts more, so the server need not know of more.
        counted = min(int(sample_count), self._federation.descriptor.max_sample_count)
        flat = self.plan.manifest.flatten(tensors)
        scales = self._opening.scales(self.plan)
        pieces = self._opening.seal(self.plan, self._layout, flat, scales, sample_count=counted)
        started = time.perf_counter()
        payload = self._folder.write_payload(pieces, self.plan.chunk_bytes)
        seal_s = time.perf_counter() - started
        header, signature = self._sign(
            PayloadKind.UPDATE,
            self.plan.mask_sha256,
            counted,
            payload.size,
            payload.sha256,
            scales=scales.to_bytes() if scales is not None else b"",
        )
        entry = Entry(
            round=self.number,
            plan=self._message.SerializeToString(),
            header=header,
            signature=signature,
            idempotency_key=new_idempotency_key(),
            size=payload.size,
            chunk_digests=payload.chunk_digests,
            seal_s=seal_s,
        )
        self._folder.commit(entry)
        self._federation.connection.on_event(
            "sealed", {"round": self.number, "size": payload.size, "seal_s": seal_s}
        )
        return entry

    def _sign(
        self,
        kind: PayloadKind,
        mask_sha256: bytes,
        sample_count: int,
        size: int,
        content_sha256: bytes,
        *,
        scales: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """The canonical header of a payload, and its signature."""
        header = UpdateHeader(
            federation_id=self._federation.descriptor.federation_id,
            round=self.number,
            client=self._federation.identity.name,
            kind=kind,
            profile=self.plan.profile,
            key_id=self.plan.key_id,
            manifest_sha256=self.plan.manifest.digest,
            mask_sha256=mask_sha256,
            scales=scales,
            sample_count=sample_count,
            payload_bytes=size,
            content_sha256=content_sha256,
        ).to_bytes()
        return header, sign(self._federation.identity, Domain.UPDATE, header)

    def _hand_in(self, entry: Entry) -> tuple[Entry, tuple[int, ...]]:
        """Upload the sealed update, unless the receipt is here already."""
        if entry.accepted:
            return entry, ()
        receipt = upload(
            self._federation.connection,
            Upload(
                round=self.number,
                kind=pb.PAYLOAD_KIND_UPDATE,
                idempotency_key=entry.idempotency_key,
                header=entry.header,
                signature=entry.signature,
                size=entry.size,
                open=self._folder.open_payload,
                chunk_digests=entry.chunk_digests,
            ),
        )
        if receipt.update_id != update_id(UpdateHeader.from_bytes(entry.header)):
            raise UpdateError(
                Code.ENVELOPE_MALFORMED,
                f"the server's receipt is for another update, {receipt.update_id.hex()}",
                round=self.number,
            )
        self._entry = self._folder.mark_accepted(entry, receipt.update_id)
        return self._entry, receipt.resumed_at

    def _confirm(self, flat: NDArray[np.float32]) -> None:
        """Say that the aggregate is open, with a proposal for the next mask where the plan wants one."""
        mask = self._opening.propose(self.plan, flat)
        self._opening.remember(self.plan, flat)
        try:
            wanted = self._federation.confirm(self.number, mask.digest if mask is not None else b"")
            if mask is not None and wanted:
                self._propose(mask)
        except (RoundError, TransferError) as error:
            if error.code in RESUMABLE:
                raise
            # The round closed meanwhile, or another client's bitmap was first: the model is open either way.
            self._federation.connection.on_event(
                "confirm_refused", {"round": self.number, "reason": error.message}
            )

    def _propose(self, mask: Mask) -> None:
        """Upload the bitmap of the next mask."""
        bitmap = mask.to_bytes()
        header, signature = self._sign(PayloadKind.MASK, mask.digest, 1, len(bitmap), mask.digest)
        upload(
            self._federation.connection,
            Upload(
                round=self.number,
                kind=pb.PAYLOAD_KIND_MASK,
                idempotency_key=new_idempotency_key(),
                header=header,
                signature=signature,
                size=len(bitmap),
                open=partial(io.BytesIO, bitmap),
            ),
        )


def _sealed_in(entry: Entry) -> Scales | None:
    """The scales that an update was signed with; the model they follow from may be gone by now."""
    scales = UpdateHeader.from_bytes(entry.header).scales
    return Scales.from_bytes(scales) if scales else None
