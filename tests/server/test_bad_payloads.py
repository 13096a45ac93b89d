"""Chunks and payloads that are not what was announced are refused, and the round goes on."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
import numpy as np
import pytest
from raw_client import RawClient, Sealed, chunks, refusal
from served import Live, Serve, finish_round, flat_of, goes_on

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code
from secagg.plan import RoundPlan, RoundState
from secagg.server.events import DeadlinePassed


async def _changed_chunk(client: RawClient, sealed: Sealed, **changes: Any) -> Any:
    """Sends one chunk with some fields replaced."""
    created = await client.create(sealed)
    (chunk,) = chunks(created.upload_id, sealed.payload, created.chunk_bytes)
    for name, value in changes.items():
        setattr(chunk, name, value)
    return await refusal(client.stub.SendChunks(iter([chunk])))


CHUNKS: dict[str, tuple[dict[str, Any], Code]] = {
    "truncated": ({"data": b"x"}, Code.CHUNK_TRUNCATED),
    "empty": ({"data": b""}, Code.CHUNK_TRUNCATED),
    "oversized": ({"data": bytes(2**20)}, Code.CHUNK_OVERSIZED),
    "corrupt": ({"sha256": bytes(32)}, Code.CHUNK_CORRUPT),
    "without digest": ({"sha256": b""}, Code.REQUEST_MALFORMED),
    "ahead": ({"offset": 4096}, Code.OFFSET_MISMATCH),
    "of no upload": ({"upload_id": "0" * 32}, Code.UPLOAD_UNKNOWN),
}


@pytest.mark.parametrize("case", CHUNKS)
async def test_a_chunk_that_is_not_the_next_one_is_refused(case: str, live: Live) -> None:
    """Wrong size, digest or place: nothing of it is committed, and the right chunk is still taken."""
    changes, code = CHUNKS[case]
    client = live.clients[0]
    plan = await client.plan()
    error = await _changed_chunk(client, client.seal(plan, flat_of(plan)), **changes)
    if code is Code.OFFSET_MISMATCH:
        assert error.ids["committed_bytes"] == "0"
    await goes_on(live, plan, error, code)


async def test_a_chunk_beyond_grpc_own_limit_does_not_stop_the_round(live: Live) -> None:
    """A message over 4 MiB is refused by gRPC itself."""
    client = live.clients[0]
    plan = await client.plan()
    created = await client.create(client.seal(plan, flat_of(plan)))
    huge = pb.SendChunksRequest(upload_id=created.upload_id, data=bytes(5 * 2**20), sha256=bytes(32))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.SendChunks(iter([huge]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await finish_round(live, plan, ["c0", "c1", "c2"])


async def test_chunks_of_another_client_are_refused(live: Live) -> None:
    """Knowing an upload's id is not enough to write to it, look at it or finish it."""
    owner, other = live.clients[:2]
    plan = await owner.plan()
    sealed = owner.seal(plan, flat_of(plan))
    created = await owner.create(sealed)
    sending = other.send(created.upload_id, sealed.payload, created.chunk_bytes)
    asking = other.stub.GetUpload(pb.GetUploadRequest(upload_id=created.upload_id))
    for call in (sending, asking, other.finish(created.upload_id)):
        assert (await refusal(call)).code is Code.UPLOAD_UNKNOWN
    await finish_round(live, plan, ["c0", "c1", "c2"])


async def test_an_incomplete_upload_is_not_finished(live: Live) -> None:
    """FinishUpload before the last byte is refused; the upload goes on."""
    client = live.clients[0]
    plan = await client.plan()
    sealed = client.seal(plan, flat_of(plan))
    created = await client.create(sealed)
    error = await refusal(client.finish(created.upload_id))
    assert error.code is Code.UPLOAD_INCOMPLETE
    await client.upload(sealed)
    await finish_round(live, plan, ["c1", "c2"])


def _content(payload: bytes, plan: RoundPlan, client: RawClient) -> tuple[bytes, dict[str, Any]]:
    return payload, {"content_sha256": bytes(32)}


def _flipped_header(payload: bytes, plan: RoundPlan, client: RawClient) -> tuple[bytes, dict[str, Any]]:
    return b"\xff" + payload[1:], {}


def _big_residue(payload: bytes, plan: RoundPlan, client: RawClient) -> tuple[bytes, dict[str, Any]]:
    return payload[:-16] + b"\xff" * 16, {}


def _transparent(payload: bytes, plan: RoundPlan, client: RawClient) -> tuple[bytes, dict[str, Any]]:
    start = 3 + 64
    return payload[:start] + bytes(len(payload) - start), {}


def _noise(payload: bytes, plan: RoundPlan, client: RawClient) -> tuple[bytes, dict[str, Any]]:
    return os.urandom(len(payload)), {}


PAYLOADS = {
    _content: Code.CONTENT_MISMATCH,
    _flipped_header: Code.CIPHERTEXT_MALFORMED,
    _big_residue: Code.CIPHERTEXT_MALFORMED,
    _transparent: Code.CIPHERTEXT_MALFORMED,
    _noise: Code.CIPHERTEXT_MALFORMED,
}


@pytest.mark.parametrize("spoil", PAYLOADS, ids=lambda f: f.__name__.strip("_"))
async def test_a_payload_out_of_form_is_discarded(spoil: Any, live: Live) -> None:
    """A signed but malformed payload is dropped; the same client may upload a proper one."""
    client = live.clients[0]
    plan = await client.plan()
    payload, changes = spoil(client.seal(plan, flat_of(plan)).payload, plan, client)
    error = await refusal(client.upload(client.sign(plan, payload, **changes)))
    assert not list((live.folder / "server/spool/partial").iterdir())
    await goes_on(live, plan, error, PAYLOADS[spoil])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("protect", ["plain", "selective"])
async def test_a_visible_value_that_is_not_finite_is_refused(
    value: float, protect: str, serve: Serve
) -> None:
    """NaN and infinity in what the server can see never reach the sum."""
    extra = {"significance": "layers", "layers": ("last.weight",)} if protect == "selective" else {}
    async with serve(clients=3, rule="mean", protect=protect, **extra) as live:
        client = live.clients[0]
        plan = await client.plan()
        good = client.seal(plan, flat_of(plan)).payload
        bad = good[:-4] + np.float32(value).tobytes()
        error = await refusal(client.upload(client.sign(plan, bad)))
        await goes_on(live, plan, error, Code.UPDATE_NOT_FINITE)


async def test_an_upload_after_the_round_was_sealed_is_refused(serve: Serve) -> None:
    """ROUND_CLOSED for create, send and finish alike; what was accepted is summed."""
    async with serve(clients=3, rule="mean", protect="full", rounds=2) as live:
        late = live.clients[2]
        plan = await late.plan()
        sealed = late.seal(plan, flat_of(plan))
        created = await late.create(sealed)
        for seed, client in enumerate(live.clients[:2]):
            await client.upload(client.seal(plan, flat_of(plan, seed)))
        await live.server.coordinator.apply(1, DeadlinePassed(state=RoundState.COLLECTING))
        await late.reach(plan.round, RoundState.AGGREGATED)
        sending = late.send(created.upload_id, sealed.payload, created.chunk_bytes)
        for call in (sending, late.create(sealed), late.create(late.seal(plan, flat_of(plan, 7)))):
            assert (await refusal(call)).code is Code.ROUND_CLOSED
        assert len(live.server.coordinator.round(1).accepted) == 2


async def test_concurrent_streams_to_one_upload_do_not_mix(serve: Serve) -> None:
    """Two connections that send the same upload: every byte is written once, in order."""
    shapes = {"big.weight": (800, 1000)}
    async with serve(clients=2, rule="mean", protect="plain", shapes=shapes) as live:
        client = live.clients[0]
        plan = await client.plan()
        sealed = client.seal(plan, flat_of(plan))
        created = await client.create(sealed)
        results = await asyncio.gather(
            *(client.send(created.upload_id, sealed.payload, created.chunk_bytes) for _ in range(3)),
            return_exceptions=True,
        )
        assert any(result == len(sealed.payload) for result in results)
        assert await client.finish(created.upload_id)
