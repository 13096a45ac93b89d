"""Callers, ballots, confirmations and downloads that do not fit are refused, and the round goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import numpy as np
import pytest
from raw_client import SAMPLE_COUNT, RawClient, chunks, refusal
from served import Live, Serve, finish_round, flat_of, make_federation, serving

from defenses import load_rule
from secagg._proto import aggregator_pb2 as pb
from secagg.custody.dealing import deal
from secagg.custody.enrolment import enroll_local, revoke
from secagg.errors import Code
from secagg.plan import RoundState


async def test_a_revoked_client_is_turned_away_at_once(tmp_path: Path) -> None:
    """The roster is looked at on every call, so that an open connection does not help."""
    folder = make_federation(tmp_path / "federation", 4, rule="mean", protect="full")
    async with serving(folder) as live:
        client = live.clients[3]
        plan = await client.plan()
        revoke(folder, "c3")
        request = pb.GetFederationRequest()
        error = await refusal(client.stub.GetFederation(request))
        assert error.code is Code.NOT_ENROLLED
        assert error.ids["client"] == "c3"
        for call in (
            client.create(client.seal(plan, flat_of(plan))),
            client.stub.AwaitPlan(pb.AwaitPlanRequest()),
            client.stub.SendChunks(chunks("0" * 32, b"x", 1)),
            client.confirm(1),
        ):
            assert (await refusal(call)).code is Code.NOT_ENROLLED
        live.clients = live.clients[:3]
        await finish_round(live, plan, ["c0", "c1", "c2"])
        await client.close()


async def test_a_certificate_of_another_authority_gets_no_connection(live: Live, tmp_path: Path) -> None:
    """TLS itself refuses whoever another federation's authority has certified."""
    other = make_federation(tmp_path / "other", 1)
    identity = RawClient(other, "c0", live.server.address).identity
    credentials = grpc.ssl_channel_credentials(
        live.clients[0].identity.authority_pem, identity.tls_key_pem, identity.certificate_pem
    )
    async with grpc.aio.secure_channel(live.server.address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/secagg.v1.AggregatorService/GetFederation")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    plan = await live.clients[0].plan()
    await finish_round(live, plan, ["c0", "c1", "c2"])


async def test_a_client_enrolled_later_is_let_in_without_a_restart(tmp_path: Path) -> None:
    """The roster's new content counts from the next call on."""
    folder = make_federation(tmp_path / "federation", 2, rule="mean", protect="plain", rounds=2)
    async with serving(folder) as live:
        plan = await live.clients[0].plan()
        enroll_local(folder, "late")
        deal(folder, rules=load_rule)
        late = RawClient(folder, "late", live.server.address)
        live.clients.append(late)
        await finish_round(live, plan, ["c0", "c1", "late"])


async def test_ballots_that_do_not_fit_are_refused(serve: Serve) -> None:
    """Wrong state, digest, length, signer or second thoughts: refused; the round is decided all the same."""
    async with serve(clients=3, rule="ddfed", protect="full", min_clients=2) as live:
        client, other, outsider = live.clients
        plan = await client.plan()
        early = await refusal(client.submit(plan.round, np.ones(2), bytes(32)))
        assert early.code is Code.NOT_A_CONTRIBUTOR
        await client.upload(client.seal(plan, flat_of(plan, 1)))
        assert (await refusal(client.submit(plan.round, np.ones(2), bytes(32)))).code is Code.STATE_INVALID
        for seed, item in ((2, other), (3, outsider)):
            await item.upload(item.seal(plan, flat_of(plan, seed)))
        await client.reach(plan.round, RoundState.SCORED)
        data = await client.download(pb.ARTIFACT_KIND_STATISTICS, plan.round)
        digest = hashlib.sha256(data).digest()
        for weights, sha256, changes in (
            (np.ones(2), digest, {}),
            (np.ones(3), bytes(32), {}),
            (np.ones(3), digest, {"round": 2}),
            (np.ones(3), digest, {"client": "c1"}),
            (np.ones(3), digest, {"federation_id": bytes(16)}),
        ):
            error = await refusal(client.submit(plan.round, weights, sha256, **changes))
            assert error.code is Code.BALLOT_INVALID
        unsigned = pb.SubmitBallotRequest(round=plan.round, ballot=b"?", signature=bytes(64))
        assert (await refusal(client.stub.SubmitBallot(unsigned))).code is Code.SIGNATURE_INVALID
        even = np.full(3, SAMPLE_COUNT) / (3 * SAMPLE_COUNT)
        await client.submit(plan.round, even, digest)
        await client.submit(plan.round, even, digest)
        second = await refusal(client.submit(plan.round, np.array([0.0, 0.5, 0.5]), digest))
        assert second.code is Code.BALLOT_DUPLICATE
        for item in (other, outsider):
            await item.submit(plan.round, even, digest)
        await client.reach(plan.round, RoundState.AGGREGATED)
        await client.open(plan)


async def test_artifacts_that_are_not_there_are_unknown(live: Live) -> None:
    """Not yet, never, or of an impossible kind: ARTIFACT_UNKNOWN; an offset behind the end is refused."""
    client = live.clients[0]
    plan = await client.plan()
    for kind, number in (
        (pb.ARTIFACT_KIND_UNSPECIFIED, 1),
        (pb.ARTIFACT_KIND_MASK, 1),
        (pb.ARTIFACT_KIND_STATISTICS, 1),
        (pb.ARTIFACT_KIND_AGGREGATE, 1),
        (pb.ARTIFACT_KIND_AGGREGATE, 2**63),
        (17, 1),
    ):
        assert (await refusal(client.download(kind, number))).code is Code.ARTIFACT_UNKNOWN
    error = await refusal(client.download(pb.ARTIFACT_KIND_INITIAL_MODEL, 0, offset=2**40))
    assert error.code is Code.OFFSET_MISMATCH
    model = (live.folder / "server/initial_model.npz").read_bytes()
    assert await client.download(pb.ARTIFACT_KIND_INITIAL_MODEL, 0) == model
    assert await client.download(pb.ARTIFACT_KIND_INITIAL_MODEL, 0, offset=100) == model[100:]
    assert await client.download(pb.ARTIFACT_KIND_INITIAL_MODEL, 0, offset=len(model)) == b""
    await finish_round(live, plan, ["c0", "c1", "c2"])


async def test_confirmations_that_do_not_fit_are_refused(live: Live) -> None:
    """Too early, by an outsider, or with a mask where none belongs."""
    client = live.clients[0]
    plan = await client.plan()
    assert (await refusal(client.confirm(1))).code is Code.NOT_A_CONTRIBUTOR
    assert (await refusal(client.confirm(7))).code is Code.ROUND_UNKNOWN
    await client.upload(client.seal(plan, flat_of(plan)))
    assert (await refusal(client.confirm(1))).code is Code.STATE_INVALID
    assert (await refusal(client.confirm(1, bytes(32)))).code is Code.REQUEST_MALFORMED
    await finish_round(live, plan, ["c1", "c2"])
