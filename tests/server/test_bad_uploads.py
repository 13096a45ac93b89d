"""An upload that is announced wrongly is refused with its own code, and the round goes on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from raw_client import RawClient, Sealed, refusal
from served import Live, finish_round, flat_of, goes_on

from secagg._proto import aggregator_pb2 as pb
from secagg.ckks.keys import generate
from secagg.envelope import Domain, PayloadKind, sign
from secagg.errors import Code
from secagg.update import Manifest, TensorSpec

OTHER = Manifest(tensors=(TensorSpec(name="other", shape=(3,)),))


HEADERS: dict[str, tuple[dict[str, Any], Code]] = {
    "wrong round": ({"round": 9}, Code.ROUND_MISMATCH),
    "wrong key id": ({"key_id": bytes(16)}, Code.KEY_MISMATCH),
    "wrong profile": ({"profile": "robust"}, Code.PROFILE_MISMATCH),
    "wrong manifest": ({"manifest_sha256": OTHER.digest}, Code.MANIFEST_MISMATCH),
    "wrong mask": ({"mask_sha256": bytes(32)}, Code.MASK_MISMATCH),
    "another client's name": ({"client": "c1"}, Code.SIGNATURE_INVALID),
    "another federation": ({"federation_id": bytes(16)}, Code.ENVELOPE_MALFORMED),
    "too large": ({"payload_bytes": 2**40}, Code.SIZE_MISMATCH),
    "too small": ({"payload_bytes": 1}, Code.SIZE_MISMATCH),
    "sample count beyond the journal": ({"sample_count": 2**63}, Code.SAMPLE_COUNT_INVALID),
    "kind differs": ({"kind": PayloadKind.MASK}, Code.REQUEST_MALFORMED),
}


@pytest.mark.parametrize("case", HEADERS)
async def test_a_header_that_contradicts_the_plan_is_refused(case: str, live: Live) -> None:
    """Each field of the signed header is held against certificate, federation and plan."""
    changes, code = HEADERS[case]
    client = live.clients[0]
    plan = await client.plan()
    sealed = client.seal(plan, flat_of(plan), **changes)
    if case == "kind differs":
        sealed.request.kind = pb.PAYLOAD_KIND_UPDATE
    error = await refusal(client.create(sealed))
    await goes_on(live, plan, error, code)


def _unsigned(sealed: Sealed, client: RawClient) -> None:
    sealed.request.signature = b""


def _badly_signed(sealed: Sealed, client: RawClient) -> None:
    sealed.request.signature = bytes(64)


def _signed_as_ballot(sealed: Sealed, client: RawClient) -> None:
    sealed.request.signature = sign(client.identity, Domain.BALLOT, sealed.request.header)


def _garbled(sealed: Sealed, client: RawClient) -> None:
    sealed.request.header = sealed.request.header[:-1]
    sealed.request.signature = sign(client.identity, Domain.UPDATE, sealed.request.header)


def _zero_samples(sealed: Sealed, client: RawClient) -> None:
    header = sealed.request.header
    sealed.request.header = header[:-48] + bytes(8) + header[-40:]
    sealed.request.signature = sign(client.identity, Domain.UPDATE, sealed.request.header)


def _overlong(sealed: Sealed, client: RawClient) -> None:
    sealed.request.header = bytes(5000)


def _short_key(sealed: Sealed, client: RawClient) -> None:
    sealed.request.idempotency_key = b"short"


def _no_kind(sealed: Sealed, client: RawClient) -> None:
    sealed.request.kind = pb.PAYLOAD_KIND_UNSPECIFIED


def _unknown_round(sealed: Sealed, client: RawClient) -> None:
    sealed.request.round = 2**64 - 1


REQUESTS = {
    _unsigned: Code.SIGNATURE_INVALID,
    _badly_signed: Code.SIGNATURE_INVALID,
    _signed_as_ballot: Code.SIGNATURE_INVALID,
    _garbled: Code.ENVELOPE_MALFORMED,
    _zero_samples: Code.ENVELOPE_MALFORMED,
    _overlong: Code.ENVELOPE_MALFORMED,
    _short_key: Code.REQUEST_MALFORMED,
    _no_kind: Code.REQUEST_MALFORMED,
    _unknown_round: Code.ROUND_UNKNOWN,
}


@pytest.mark.parametrize("spoil", REQUESTS, ids=lambda f: f.__name__.strip("_"))
async def test_a_request_out_of_form_is_refused(spoil: Any, live: Live) -> None:
    """Unsigned, badly signed, truncated, overlong: refused before any payload travels."""
    client = live.clients[0]
    plan = await client.plan()
    sealed = client.seal(plan, flat_of(plan))
    spoil(sealed, client)
    error = await refusal(client.create(sealed))
    await goes_on(live, plan, error, REQUESTS[spoil])


async def test_a_duplicate_upload_is_refused_and_its_repetition_is_not(live: Live) -> None:
    """A second update is UPLOAD_DUPLICATE; the first one's request, repeated, answers `accepted`."""
    client = live.clients[0]
    plan = await client.plan()
    first = client.seal(plan, flat_of(plan))
    update_id = await client.upload(first)
    error = await refusal(client.create(client.seal(plan, flat_of(plan, 5))))
    assert error.code is Code.UPLOAD_DUPLICATE
    assert error.ids == {"round": "1", "client": "c0"}
    again = await client.create(first)
    assert again.accepted
    assert await client.finish(again.upload_id) == update_id
    await finish_round(live, plan, ["c1", "c2"])


async def test_an_idempotency_key_stands_for_one_upload(live: Live) -> None:
    """The same key with another header is refused; the upload it stands for is not touched."""
    client = live.clients[0]
    plan = await client.plan()
    first, second = client.seal(plan, flat_of(plan)), client.seal(plan, flat_of(plan, 5))
    created = await client.create(first)
    second.request.idempotency_key = first.request.idempotency_key
    error = await refusal(client.create(second))
    assert error.code is Code.REQUEST_MALFORMED
    assert (await client.create(first)).upload_id == created.upload_id
    await goes_on(live, plan, error, Code.REQUEST_MALFORMED)


async def test_a_new_upload_replaces_the_unfinished_one(live: Live) -> None:
    """One unfinished upload per client: the old one is unknown then, its file gone."""
    client = live.clients[0]
    plan = await client.plan()
    old = await client.create(client.seal(plan, flat_of(plan)))
    new = client.seal(plan, flat_of(plan, 5))
    await client.create(new)
    assert (await refusal(client.finish(old.upload_id))).code is Code.UPLOAD_UNKNOWN
    assert len(list((live.folder / "server/spool/partial").iterdir())) == 1
    await client.upload(new)
    await finish_round(live, plan, ["c1", "c2"])


async def test_a_replayed_update_is_refused(live: Live) -> None:
    """Neither another client's content nor an old header is taken twice."""
    thief, victim = live.clients[:2]
    plan = await thief.plan()
    sealed = victim.seal(plan, flat_of(plan))
    await victim.upload(sealed)
    stolen = thief.sign(plan, sealed.payload)
    error = await refusal(thief.create(stolen))
    assert error.code is Code.UPLOAD_REPLAYED
    assert (await refusal(thief.create(sealed))).code is Code.SIGNATURE_INVALID
    await finish_round(live, plan, ["c0", "c2"])
    second = await victim.plan(after=1)
    replay = pb.CreateUploadRequest()
    replay.CopyFrom(sealed.request)
    replay.round, replay.idempotency_key = second.round, secrets.token_bytes(16)
    error = await refusal(victim.stub.CreateUpload(replay))
    assert error.code is Code.UPLOAD_REPLAYED
    resigned = victim.sign(second, sealed.payload)
    assert (await refusal(victim.create(resigned))).code is Code.UPLOAD_REPLAYED
    closed = await refusal(victim.create(Sealed(_rekeyed(sealed), b"")))
    assert closed.code in (Code.ROUND_CLOSED, Code.UPLOAD_DUPLICATE)


def _rekeyed(sealed: Sealed) -> pb.CreateUploadRequest:
    request = pb.CreateUploadRequest()
    request.CopyFrom(sealed.request)
    request.idempotency_key = secrets.token_bytes(16)
    return request


async def test_the_same_content_on_its_way_twice_is_accepted_once(live: Live) -> None:
    """Two clients that announce one ciphertext before either finishes: only one of them counts."""
    thief, victim = live.clients[:2]
    plan = await thief.plan()
    sealed = victim.seal(plan, flat_of(plan))
    stolen = thief.sign(plan, sealed.payload)
    ids = []
    for client, item in ((victim, sealed), (thief, stolen)):
        created = await client.create(item)
        await client.send(created.upload_id, item.payload, created.chunk_bytes)
        ids.append(created.upload_id)
    await victim.finish(ids[0])
    assert (await refusal(thief.finish(ids[1]))).code is Code.UPLOAD_REPLAYED
    await finish_round(live, plan, ["c0", "c2"])


async def test_an_update_under_another_key_of_another_profile_is_refused(live: Live) -> None:
    """A foreign key's id is named in the header; without it, the profile byte does not fit."""
    client = live.clients[0]
    plan = await client.plan()
    foreign = generate(client.profile)
    sealed = client.seal(plan, flat_of(plan), key_id=foreign.key_id)
    error = await refusal(client.create(sealed))
    await goes_on(live, plan, error, Code.KEY_MISMATCH)
