"""Taking up where a server ended, however it ended: journal, spool and settings brought in line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from secagg.envelope import PayloadKind, UpdateHeader, update_id
from secagg.errors import Code, ServerError
from secagg.plan import RoundPlan, RoundState
from secagg.server.deployment import Deployment
from secagg.server.events import Failed, Round
from secagg.server.journal import Journal
from secagg.server.records import UploadRecord
from secagg.server.spool import digest_of

if TYPE_CHECKING:
    from secagg.server.coordinator import Coordinator
    from secagg.server.uploads import Uploads

_log = logging.getLogger(__name__)


async def recover(coordinator: Coordinator, uploads: Uploads) -> None:
    """Reads the journal, brings the spool in line with it, and goes on with the round it holds.

    Raises:
        ServerError: JOURNAL_INCOMPATIBLE, or SPOOL_CORRUPT if the model to train from is lost.
    """
    await coordinator.load()
    records = await coordinator.journal.call(Journal.unfinished_uploads)
    current = coordinator.history[-1] if coordinator.history else Round(number=0)
    number = 0 if current.state.ended else current.number
    accepted = [a.update_id for a in current.accepted]
    strays = await coordinator.in_thread(
        coordinator.spool.reconcile, {r.upload_id for r in records}, number, accepted
    )
    names = {_final_name(record): record.upload_id for record in records}
    for stray in strays:
        _log.info("taking back %s, which no acceptance explains", stray.name)
        if stray.name in names:
            await coordinator.in_thread(coordinator.spool.take_back, stray, names[stray.name])
        else:
            await coordinator.in_thread(coordinator.spool.drop, stray)
    await uploads.recover(records)
    if coordinator.history:
        await _check_artifacts(coordinator, current)
    await coordinator.resume()


def check_settings(plan: RoundPlan, round_: Round, deployment: Deployment) -> None:
    """Refuses settings that contradict what was announced.

    Raises:
        ServerError: JOURNAL_INCOMPATIBLE.
    """
    config, descriptor = deployment.config, deployment.descriptor
    checks = [("key id", plan.key_id.hex(), descriptor.key_id.hex())]
    if not round_.state.ended:
        checks += [
            ("rule", plan.rule, config.rule),
            ("protection", str(plan.protection), str(config.protection)),
            ("profile", plan.profile, descriptor.profile),
            ("manifest", plan.manifest.digest.hex(), deployment.manifest.digest.hex()),
        ]
    for name, journalled, now in checks:
        if journalled != now:
            raise ServerError(
                Code.JOURNAL_INCOMPATIBLE,
                f"round {plan.round} was announced with {name} {journalled}; the settings now say {now}",
                round=plan.round,
            )


async def _check_artifacts(coordinator: Coordinator, current: Round) -> None:
    """Holds the artifacts that clients may ask for against the journal's digests."""
    spool, number = coordinator.spool, current.number
    judged = RoundState.SCREENED <= current.state <= RoundState.SCORED
    for path, announced in (
        (spool.screening(number), current.screening_sha256),
        (spool.statistics(number), current.statistics_sha256),
    ):
        if not (judged and announced):
            continue
        found = await coordinator.in_thread(digest_of, path) if path.exists() else b""
        if found != announced:
            # Clients may have opened them; different ones for the same updates must not be released.
            await coordinator.apply(number, Failed(code=Code.SPOOL_CORRUPT))
            break
    with_aggregate = [r for r in coordinator.history if r.aggregate_sha256]
    if with_aggregate:
        last = with_aggregate[-1]
        if await coordinator.in_thread(digest_of, spool.aggregate(last.number)) != last.aggregate_sha256:
            raise ServerError(
                Code.SPOOL_CORRUPT, f"{spool.aggregate(last.number)} is not the aggregate that was announced"
            )


def _final_name(record: UploadRecord) -> str:
    header = UpdateHeader.from_bytes(record.header)
    return update_id(header).hex() if header.kind is PayloadKind.UPDATE else ""
