"""Restarts, deadlines, aborts, masks, cleaning up: what a server does beyond the straight path."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mean_bound import mean_bound
from raw_client import RawClient, Sealed, refusal
from served import Live, Serve, expire, make_federation, serving

from defenses import load_rule
from secagg._proto import aggregator_pb2 as pb
from secagg.envelope import PayloadKind
from secagg.errors import Code, ConfigError, ServerError
from secagg.plan import RoundPlan, RoundState
from secagg.selection import Mask, propose_mask
from secagg.server.app import SERVICE, running

BIG = {"big.weight": (900, 1000)}


def flat_of(plan: RoundPlan, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, plan.manifest.size).astype(np.float32)


async def upload_all(live: Live, plan: RoundPlan, mask: Mask | None = None) -> None:
    for seed, client in enumerate(live.clients):
        await client.upload(client.seal(plan, flat_of(plan, 10 * plan.round + seed), mask=mask))


async def test_an_upload_goes_on_where_a_restarted_server_left_it(tmp_path: Path) -> None:
    """Whole chunks survive, a torn one is cut off, and only the rest is sent."""
    folder = make_federation(tmp_path / "f", 2, shapes=BIG, protect="plain")
    async with serving(folder) as live:
        client = live.clients[0]
        plan = await client.plan()
        sealed = client.seal(plan, flat_of(plan, 0))
        created = await client.create(sealed)
        first = sealed.payload[: plan.chunk_bytes]
        assert await client.send(created.upload_id, first, plan.chunk_bytes) == plan.chunk_bytes
    partial = folder / "server/spool/partial" / created.upload_id
    with partial.open("ab") as file:
        file.write(b"torn")
    async with serving(folder) as live:
        client = live.clients[0]
        again = await client.create(sealed)
        assert again.upload_id == created.upload_id
        assert again.committed_bytes == plan.chunk_bytes
        got = await client.stub.GetUpload(pb.GetUploadRequest(upload_id=created.upload_id))
        assert got.committed_bytes == plan.chunk_bytes
        await client.upload(sealed)
        assert live.events.named("accepted")[0]["bytes"] == len(sealed.payload)
        assert live.server.coordinator.observer.traffic()["c0"]["bytes_up"] == len(sealed.payload) - len(
            first
        )
        accepted = await client.create(sealed)
        assert accepted.accepted
        got = await client.stub.GetUpload(pb.GetUploadRequest(upload_id=created.upload_id))
        assert got.accepted


async def test_a_payload_that_changed_on_disk_is_not_accepted(tmp_path: Path) -> None:
    """Chunk progress is not synced, so the whole is checked against the signed digest."""
    folder = make_federation(tmp_path / "f", 2, shapes=BIG, protect="plain")
    async with serving(folder) as live:
        client = live.clients[0]
        plan = await client.plan()
        sealed = client.seal(plan, flat_of(plan, 0))
        created = await client.create(sealed)
        await client.send(created.upload_id, sealed.payload, plan.chunk_bytes)
        with (folder / "server/spool/partial" / created.upload_id).open("r+b") as file:
            file.write(bytes(8))
        error = await refusal(client.finish(created.upload_id))
        assert error.code is Code.CONTENT_MISMATCH
        await client.upload(sealed)


async def test_statistics_are_released_once(tmp_path: Path) -> None:
    """A restarted server shows the same bytes; if they are damaged it aborts instead of making others."""
    folder = make_federation(tmp_path / "f", 2, rule="ddfed", protect="full", rounds=1)
    async with serving(folder) as live:
        plan = await live.clients[0].plan()
        await upload_all(live, plan)
        await live.clients[0].reach(1, RoundState.SCORED)
        shown = await live.clients[0].download(pb.ARTIFACT_KIND_STATISTICS, 1)
    async with serving(folder) as live:
        assert await live.clients[0].download(pb.ARTIFACT_KIND_STATISTICS, 1) == shown
    (folder / "server/spool/statistics/1").write_bytes(shown[:-1])
    async with serving(folder) as live:
        answer = await live.clients[0].reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.SPOOL_CORRUPT
        assert (await live.clients[0].plan(after=1)).base_round == 0


async def test_an_update_lost_from_the_spool_aborts_the_round(tmp_path: Path) -> None:
    """The server does not sum fewer updates than it accepted."""
    folder = make_federation(tmp_path / "f", 3, rule="mean", protect="plain")
    async with serving(folder) as live:
        plan = await live.clients[0].plan()
        for seed, client in enumerate(live.clients[:2]):
            await client.upload(client.seal(plan, flat_of(plan, seed)))
        next((folder / "server/spool/updates/1").iterdir()).unlink()
        last = live.clients[2]
        await last.upload(last.seal(plan, flat_of(plan, 2)))
        answer = await last.reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.SPOOL_CORRUPT


async def test_a_lost_aggregate_stops_the_server(tmp_path: Path) -> None:
    """There is no model to go on from: SPOOL_CORRUPT at the start, said plainly."""
    folder = make_federation(tmp_path / "f", 2, rule="mean", protect="plain")
    async with serving(folder) as live:
        await upload_all(live, await live.clients[0].plan())
        await live.clients[0].reach(1, RoundState.AGGREGATED)
    (folder / "server/spool/aggregates/1").write_bytes(b"?")
    with pytest.raises(ServerError) as caught:
        async with serving(folder):
            pass
    assert caught.value.code is Code.SPOOL_CORRUPT


async def test_too_few_clients_abort_and_the_set_number_of_aborts_ends_the_federation(serve: Serve) -> None:
    """Each aborted round keeps the base; the third is the end here, with the reason."""
    async with serve(clients=3, protect="plain", rule="mean", max_aborted_rounds=3) as live:
        client = live.clients[0]
        for number in (1, 2, 3):
            plan = await client.plan(after=number - 1)
            assert (plan.round, plan.base_round) == (number, 0)
            # The same update again: after an abort that is no replay.
            await client.upload(client.seal(plan, flat_of(plan, 0)))
            await expire(live, number, RoundState.COLLECTING)
            answer = await client.reach(number, RoundState.ABORTED)
            assert answer.abort_code == Code.NOT_ENOUGH_CLIENTS
        end = (await client.stub.AwaitPlan(pb.AwaitPlanRequest(after_round=3, wait_s=20))).end
        assert end.rounds_closed == 0
        assert Code.NOT_ENOUGH_CLIENTS in end.reason
        assert not list((live.folder / "server/spool/updates").iterdir())


async def test_a_deadline_runs_from_the_first_accepted_update(serve: Serve) -> None:
    """A client that only announces can't run the others' clock; an update ends the wait for more."""
    async with serve(clients=2, protect="plain", rule="mean", collect_timeout_s=0.2) as live:
        client = live.clients[0]
        plan = await client.plan()
        await live.clients[1].create(live.clients[1].seal(plan, flat_of(plan, 1)))
        request = pb.AwaitRoundRequest(round=1, state=pb.ROUND_STATE_SEALED, wait_s=0.6)
        assert (await client.stub.AwaitRound(request)).state == RoundState.COLLECTING
        waiting = await client.stub.AwaitPlan(pb.AwaitPlanRequest())
        assert waiting.plan.collect_remaining_s == 0.0
        await client.upload(client.seal(plan, flat_of(plan, 0)))
        assert (await client.reach(1, RoundState.ABORTED)).abort_code == Code.NOT_ENOUGH_CLIENTS
        await client.plan(after=1)
        assert not list((live.folder / "server/spool/partial").iterdir())


async def test_a_real_deadline_closes_the_round_with_whoever_came(serve: Serve) -> None:
    """Three are enrolled, two come: the server's clock seals, and the aggregate is the mean of the two."""
    settings = {"protect": "full", "rule": "mean", "collect_timeout_s": 2.0, "confirm_timeout_s": 0.2}
    async with serve(clients=3, **settings) as live:
        plan = await live.clients[0].plan()
        flats = [flat_of(plan, seed) for seed in (1, 2)]
        for client, flat in zip(live.clients, flats, strict=False):
            await client.upload(client.seal(plan, flat))
        await live.clients[2].reach(1, RoundState.AGGREGATED)
        opened = await live.clients[2].open(plan)
        weights = np.array(list(live.events.named("decided")[-1]["weights"].values()))
        bound = mean_bound(plan.profile, client.model, weights)
        assert np.abs(opened - np.mean(flats, axis=0, dtype=np.float64)).max() <= bound + 2.0**-24
        assert (await live.clients[0].reach(1, RoundState.CLOSED)).state == RoundState.CLOSED


async def test_trouble_with_files_after_a_round_ends_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The server tries again until whoever runs it has mended what is wrong; then the next round comes."""
    async with serve(clients=2, rule="mean", protect="plain", rounds=2) as live:
        client = live.clients[0]
        obstacle = live.folder / "server/spool/scratch/folder"
        await upload_all(live, await client.plan())
        await client.reach(1, RoundState.AGGREGATED)
        obstacle.mkdir()
        for one in live.clients:
            await one.confirm(1)
        answer = await client.stub.AwaitPlan(pb.AwaitPlanRequest(after_round=1, wait_s=0.5))
        assert answer.WhichOneof("outcome") is None
        assert caplog.text.count("round 1 can't go on from CLOSED; again in") >= 2
        obstacle.rmdir()
        assert (await client.plan(after=1)).base_round == 1


async def test_a_round_goes_on_with_whoever_came_in_time(serve: Serve) -> None:
    """Deadlines of collection, ballots and confirmation each end their stage with min_clients."""
    async with serve(clients=4, rule="ddfed", protect="full", rounds=2) as live:
        plan = await live.clients[0].plan()
        for seed, client in enumerate(live.clients[:3]):
            await client.upload(client.seal(plan, flat_of(plan, seed)))
        await expire(live, 1, RoundState.COLLECTING)
        assert not (await live.clients[3].reach(1, RoundState.SCORED)).contributor
        for client in live.clients[:2]:
            await client.vote(plan, load_rule("ddfed"))
        await expire(live, 1, RoundState.SCORED)
        await live.clients[0].reach(1, RoundState.AGGREGATED)
        await expire(live, 1, RoundState.AGGREGATED)
        await live.clients[0].reach(1, RoundState.CLOSED)
        # Late clients still get the model, and the next round's plan.
        assert (await live.clients[3].plan(after=1)).base_round == 1
        assert np.isfinite(await live.clients[3].open(plan)).all()


async def test_too_few_ballots_are_no_decision(serve: Serve) -> None:
    """Fewer ballots than min_clients abort the round."""
    async with serve(clients=2, rule="ddfed", protect="full") as live:
        plan = await live.clients[0].plan()
        await upload_all(live, plan)
        await live.clients[0].reach(1, RoundState.SCORED)
        await live.clients[0].vote(plan, load_rule("ddfed"))
        await expire(live, 1, RoundState.SCORED)
        answer = await live.clients[0].reach(1, RoundState.ABORTED)
        assert answer.abort_code == Code.NO_DECISION


async def propose(client: RawClient, plan: RoundPlan, mask: Mask) -> tuple[bool, Sealed]:
    data = mask.to_bytes()
    sealed = client.sign(plan, data, kind=PayloadKind.MASK, mask_sha256=plan.mask_sha256, sample_count=1)
    return await client.confirm(plan.round, mask.digest), sealed


async def test_the_mask_that_most_propose_is_the_next_rounds(serve: Serve) -> None:
    """One bitmap is asked for and sent once; a wrong count, a foreign digest or an outsider is refused."""
    settings = {"protect": "selective", "significance": "magnitude", "ratio": 0.25}
    async with serve(clients=3, rule="ddfed", rounds=2, **settings) as live:
        plan = await live.clients[0].plan()
        assert not plan.mask_sha256
        await upload_all(live, plan)
        for client in live.clients:
            await client.reach(1, RoundState.SCORED)
            await client.vote(plan, load_rule("ddfed"))
        await live.clients[0].reach(1, RoundState.AGGREGATED)
        model = live.clients[0].model
        start = plan.manifest.flatten(model)
        mask = propose_mask(start, await live.clients[0].open(plan), 0.25)
        full = Mask(np.ones(plan.manifest.size, dtype=np.bool_))
        wanted, bad = await propose(live.clients[0], plan, full)
        assert wanted
        assert (await refusal(live.clients[0].upload(bad))).code is Code.MASK_MALFORMED
        wanted, good = await propose(live.clients[1], plan, mask)
        assert wanted
        foreign = live.clients[0].sign(plan, good.payload, kind=PayloadKind.MASK, sample_count=1)
        assert (await refusal(live.clients[0].create(foreign))).code is Code.MASK_MISMATCH
        assert await live.clients[1].upload(good) == b""
        wanted, again = await propose(live.clients[2], plan, mask)
        assert not wanted
        assert (await live.clients[2].reach(1, RoundState.CLOSED)).state == RoundState.CLOSED
        assert (await refusal(live.clients[2].create(again))).code is Code.ROUND_CLOSED
        second = await live.clients[0].plan(after=1)
        assert second.mask_sha256 == mask.digest
        assert await live.clients[0].download(pb.ARTIFACT_KIND_MASK, 2) == mask.to_bytes()
        await upload_all(live, second, mask)
        answer = await live.clients[0].reach(2, RoundState.SCORED)
        assert answer.state == RoundState.SCORED


async def test_only_the_last_aggregate_and_the_journal_stay(serve: Serve) -> None:
    """Updates, statistics and older aggregates of closed rounds are deleted."""
    async with serve(clients=2, rule="mean", protect="full", rounds=3) as live:
        spool = live.folder / "server/spool"
        for number in (1, 2, 3):
            plan = await live.clients[0].plan(after=number - 1)
            await upload_all(live, plan)
            await live.clients[0].reach(number, RoundState.AGGREGATED)
            for client in live.clients:
                await client.open(plan)
                await client.confirm(number)
        await live.clients[0].stub.AwaitPlan(pb.AwaitPlanRequest(after_round=3, wait_s=20))
        left = sorted(str(path.relative_to(spool)) for path in spool.rglob("*") if path.is_file())
        assert left == ["aggregates/3"]


async def test_long_polls_wake_up_and_are_cut(serve: Serve) -> None:
    """AwaitRound returns with the change it waits for; nonsense waits are bounded, none blocks others."""
    async with serve(clients=2, rule="mean", protect="plain") as live:
        client = live.clients[0]
        plan = await client.plan()
        waiting = asyncio.ensure_future(client.reach(1, RoundState.AGGREGATED))
        for wait_s in (-1.0, 0.0, float("nan"), 0.01):
            request = pb.AwaitRoundRequest(round=1, state=pb.ROUND_STATE_CLOSED, wait_s=wait_s)
            assert (await client.stub.AwaitRound(request)).state == RoundState.ANNOUNCED
        assert not waiting.done()
        await upload_all(live, plan)
        assert (await waiting).contributor
        bad = client.stub.AwaitRound(pb.AwaitRoundRequest(round=1, state=99))
        assert (await refusal(bad)).code is Code.REQUEST_MALFORMED


async def test_health_is_served(serve: Serve) -> None:
    """grpc.health.v1 reports SERVING for the server and its service."""
    async with serve(clients=2) as live:
        stub = health_pb2_grpc.HealthStub(live.clients[0].channel)
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_is_not_served(serve: Serve) -> None:
    """The contract is in the proto file; the server does not explain itself to strangers."""
    async with serve(clients=2) as live:
        method = live.clients[0].channel.unary_unary(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_folder_is_served_once(tmp_path: Path) -> None:
    """A second server on the same folder, or the same port, is refused in one line."""
    folder = make_federation(tmp_path / "f", 2)
    other = make_federation(tmp_path / "g", 2)
    async with serving(folder) as live:
        for place, port in ((folder, 0), (other, live.server.port)):
            with pytest.raises(ConfigError) as caught:
                async with running(place / "server", rules=load_rule, port=port):
                    pass
            assert caught.value.code is Code.CONFIG_INVALID


def test_settings_changed_without_a_deal_are_refused(tmp_path: Path) -> None:
    """The signed descriptor is what clients check; the server does not start against it."""
    folder = make_federation(tmp_path / "f", 2)
    settings = folder / "server/federation.toml"
    settings.write_text(settings.read_text().replace("min_clients = 2", "min_clients = 1"))
    done = subprocess.run(
        [sys.executable, "-m", "secagg.cli", "serve", str(folder / "server")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "secagg: CONFIG_INVALID: federation.toml: min_clients is 1"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_end(number: signal.Signals, tmp_path: Path) -> None:
    """One JSON line per event; exit status 0, and no process of it is left."""
    folder = make_federation(tmp_path / "f", 2)
    command = [sys.executable, "-m", "secagg.cli", "serve", str(folder / "server"), "--events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        events = [json.loads(server.stdout.readline()) for _ in range(2)]
        assert [e["event"] for e in events] == ["state", "listening"]
        assert events[1]["address"] == f"localhost:{events[1]['port']}"
        server.send_signal(number)
        assert server.wait(timeout=20) == 0
