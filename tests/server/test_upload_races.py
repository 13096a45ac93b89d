"""Calls of one client that overlap never cost anybody an accepted update."""

from __future__ import annotations

import asyncio
import secrets

import grpc
import pytest
from raw_client import RawClient, Sealed
from served import Live, finish_round, flat_of

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code
from secagg.plan import RoundPlan
from secagg.rpc_status import from_rpc_error

EXPECTED = {Code.UPLOAD_DUPLICATE, Code.UPLOAD_UNKNOWN, Code.CONTENT_MISMATCH}


def announced_again(sealed: Sealed) -> Sealed:
    """The same header under another idempotency key, with a payload that is not what it says."""
    request = pb.CreateUploadRequest()
    request.CopyFrom(sealed.request)
    request.idempotency_key = secrets.token_bytes(16)
    return Sealed(request, bytes(len(sealed.payload)))


async def code_of(call: object) -> Code | None:
    """How a call was refused; None if it was answered."""
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).code
    return None


async def overlap(client: RawClient, plan: RoundPlan, pause_s: float) -> list[Code | None]:
    """Finish a good upload while another with its header is announced, sent and finished."""
    sealed = client.seal(plan, flat_of(plan))
    created = await client.create(sealed)
    await client.send(created.upload_id, sealed.payload, created.chunk_bytes)

    async def later() -> Code | None:
        # An event that nobody sets: the pause only varies who comes first.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), pause_s)
        return await code_of(client.upload(announced_again(sealed)))

    return list(await asyncio.gather(code_of(client.finish(created.upload_id)), later()))


async def test_an_upload_replaced_while_it_is_checked_leaves_no_accepted_update_without_its_file(
    live: Live,
) -> None:
    """Whoever comes first wins; an update that counts is in the spool, and the round ends with all three."""
    erring = live.clients[0]
    plan = await erring.plan()
    accepted = False
    for attempt in range(40):
        codes = await overlap(erring, plan, 0.0005 * (attempt % 20))
        assert {code for code in codes if code is not None} <= EXPECTED, codes
        if accepted := codes[0] is None:
            break
    if not accepted:
        await erring.upload(erring.seal(plan, flat_of(plan)))
    assert len(list((live.folder / "server" / "spool" / "updates" / str(plan.round)).iterdir())) == 1
    await finish_round(live, plan, ["c1", "c2"])
