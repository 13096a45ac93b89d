"""What one caller may hold, and for how long: beyond it is refused, and everyone else goes on."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw_client import RawClient, chunks, refusal
from served import Live, finish_round, flat_of, make_federation, serving

from secagg._proto import aggregator_pb2 as pb
from secagg._proto.aggregator_pb2_grpc import AggregatorServiceStub
from secagg.custody.authority import Authority
from secagg.custody.enrolment import revoke
from secagg.custody.roster import Roster, write_roster
from secagg.custody.trust import fingerprint
from secagg.envelope import MAX_BALLOT_WEIGHTS
from secagg.errors import Code
from secagg.plan import RoundState
from secagg.server.gate import MAX_MESSAGE_BYTES, Limits

BIG = {"big.weight": (2000, 1000)}
"""8 MB: more than a connection takes in before anyone reads."""
MODEL = pb.DownloadRequest(kind=pb.ARTIFACT_KIND_INITIAL_MODEL)
CLIENTS = ["c0", "c1", "c2"]


@asynccontextmanager
async def limited(folder: Path, shapes: Any = None, **limits: Any) -> AsyncIterator[Live]:
    made = make_federation(folder / "f", 3, shapes=shapes, rule="mean", protect="plain", rounds=2)
    async with serving(made, Limits(**limits)) as live:
        yield live


async def turned_away(call: Any, code: Code) -> None:
    assert (await refusal(call)).code is code


async def waiting(live: Live, count: int, client: int = 0) -> AsyncExitStack:
    """Calls of one client that the server has in hand; they end with the stack."""
    stack = AsyncExitStack()
    for _ in range(count):
        call = live.clients[client].stub.SendChunks()
        stack.callback(call.cancel)
        # A stream begins as soon as there is a connection, whether or not anything follows.
        await call.wait_for_connection()
    return stack


async def test_one_client_has_few_calls_at_once_whatever_its_connections(tmp_path: Path) -> None:
    """Beyond them TOO_MANY_CALLS, over a second connection and for health too; others are answered."""
    async with limited(tmp_path, calls_per_client=2) as live:
        plan = await live.clients[0].plan()
        async with await waiting(live, 2):
            second = RawClient(live.folder, "c0", live.server.address)
            await turned_away(second.stub.GetFederation(pb.GetFederationRequest()), Code.TOO_MANY_CALLS)
            health = health_pb2_grpc.HealthStub(second.channel)
            await turned_away(health.Check(health_pb2.HealthCheckRequest()), Code.TOO_MANY_CALLS)
            assert live.events.named("refused")[0]["client"] == "c0"
            await live.clients[1].plan()
            await second.close()
        await _given_back(live)
        await finish_round(live, plan, CLIENTS)


async def test_all_clients_together_have_so_many_calls(tmp_path: Path) -> None:
    """The refusal is one that clients repeat, not gRPC's own."""
    async with limited(tmp_path, calls=4) as live:
        plan = await live.clients[0].plan()
        async with await waiting(live, 2, client=0), await waiting(live, 2, client=1):
            await turned_away(live.clients[2].plan(), Code.TOO_MANY_CALLS)
        await _given_back(live)
        await finish_round(live, plan, CLIENTS)


async def _given_back(live: Live) -> None:
    """Returns when everybody has a call free again: a cancelled one ends a little later at the server."""
    for client in live.clients:
        while True:
            try:
                await client.stub.GetFederation(pb.GetFederationRequest())
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_download_that_nobody_reads_is_cut(tmp_path: Path) -> None:
    """Two at once; each is ended when nothing was read for too long, and can be asked for again."""
    async with limited(tmp_path, shapes=BIG, idle_s=0.5) as live:
        client = live.clients[0]
        identity = client.identity
        credentials = grpc.ssl_channel_credentials(
            identity.authority_pem, identity.tls_key_pem, identity.certificate_pem
        )
        # A reader that does not take in more than it was asked for.
        options = (("grpc.http2.bdp_probe", 0),)
        channel = grpc.aio.secure_channel(live.server.address, credentials, options=options)
        slow: Any = AggregatorServiceStub(channel)
        streams = [slow.Download(MODEL) for _ in range(2)]
        for stream in streams:
            assert (await stream.read()).offset == 0
        await turned_away(client.stub.Download(MODEL).read(), Code.TOO_MANY_CALLS)
        while len(live.events.named("refused")) < 3:
            await client.stub.AwaitRound(pb.AwaitRoundRequest(round=1, state=7, wait_s=0.1))
        assert {e["code"] for e in live.events.named("refused")[1:]} == {"STREAM_IDLE"}
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await stream.read():
                    pass
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await channel.close()
        model = (live.folder / "server/initial_model.npz").read_bytes()
        assert await client.download(pb.ARTIFACT_KIND_INITIAL_MODEL, 0) == model


async def test_an_upload_that_stands_still_is_cut_and_can_go_on(tmp_path: Path) -> None:
    """What came before stays; two streams at once, whole messages only."""
    async with limited(tmp_path, shapes=BIG, idle_s=0.5) as live:
        client = live.clients[0]
        plan = await client.plan()
        sealed = client.seal(plan, flat_of(plan))
        created = await client.create(sealed)
        first = next(iter(chunks(created.upload_id, sealed.payload, plan.chunk_bytes)))
        stream, empty = client.stub.SendChunks(), client.stub.SendChunks()
        await stream.write(first)
        await empty.wait_for_connection()
        await turned_away(stream, Code.STREAM_IDLE)
        await turned_away(empty, Code.STREAM_IDLE)
        got = await client.stub.GetUpload(pb.GetUploadRequest(upload_id=created.upload_id))
        assert got.committed_bytes == plan.chunk_bytes
        await client.upload(sealed)
        await finish_round(live, plan, ["c1", "c2"])


async def test_a_third_stream_of_chunks_is_refused(tmp_path: Path) -> None:
    """Two, so that a connection that was cut does not stand in the way of its successor."""
    async with limited(tmp_path) as live:
        client = live.clients[0]
        plan = await client.plan()
        streams = [client.stub.SendChunks() for _ in range(3)]
        for stream in streams[:2]:
            await stream.wait_for_connection()
        await turned_away(streams[2], Code.TOO_MANY_CALLS)
        for stream in streams[:2]:
            stream.cancel()
        await finish_round(live, plan, CLIENTS)


@pytest.mark.parametrize(
    "method, size, code",
    [
        ("AwaitRound", 1025, Code.REQUEST_MALFORMED),
        ("CreateUpload", 17 * 1024 + 1, Code.REQUEST_MALFORMED),
        ("SubmitBallot", 9 * MAX_BALLOT_WEIGHTS + 1025, Code.REQUEST_MALFORMED),
        ("GetFederation", MAX_MESSAGE_BYTES + 1, Code.INTERNAL),
    ],
)
async def test_a_padded_request_is_refused(method: str, size: int, code: Code, tmp_path: Path) -> None:
    """A field that nobody knows would be held as long as the call lasts; gRPC itself stops the largest."""
    async with limited(tmp_path) as live:
        call = live.clients[0].channel.unary_unary(f"/secagg.v1.AggregatorService/{method}")
        await turned_away(call(_padding(size)), code)
        await turned_away(call(b"\xff"), Code.REQUEST_MALFORMED)


def _padding(size: int) -> bytes:
    """One unknown field of the protocol buffer format, with its length in five bytes."""
    length = size - 7
    groups = [length >> shift & 0x7F for shift in range(0, 35, 7)]
    return b"\xfa\x3f" + bytes([g | 0x80 for g in groups[:4]] + groups[4:]) + bytes(length)


async def test_revoking_a_client_ends_its_streams(tmp_path: Path) -> None:
    """A stream that was let in is looked at again with every chunk."""
    async with limited(tmp_path, shapes=BIG) as live:
        client = live.clients[2]
        plan = await client.plan()
        sealed = client.seal(plan, flat_of(plan))
        created = await client.create(sealed)
        pieces = chunks(created.upload_id, sealed.payload, plan.chunk_bytes)
        upload, download = client.stub.SendChunks(), client.stub.Download(MODEL)
        await upload.write(next(iter(pieces)))
        assert (await download.read()).offset == 0
        while not live.server.coordinator.observer.traffic().get("c2", {}).get("bytes_up"):
            await live.clients[0].stub.AwaitRound(pb.AwaitRoundRequest(round=1, state=7, wait_s=0.02))
        revoke(live.folder, "c2")
        await upload.write(next(iter(pieces)))
        await turned_away(upload, Code.NOT_ENROLLED)
        await turned_away(_rest(download), Code.NOT_ENROLLED)


async def _rest(stream: Any) -> Any:
    while (part := await stream.read()) is not grpc.aio.EOF:
        pass
    return part


async def test_a_certificate_that_expires_ends_an_open_connection(tmp_path: Path) -> None:
    """TLS looks at the dates when a connection is made; the server looks at every call."""
    folder = make_federation(tmp_path / "f", 3, rule="mean", protect="plain")
    key = (folder / "clients/c1/tls.key").read_bytes()
    pem, end = _short_lived(folder, "c1", seconds=4)
    async with serving(folder) as live:
        anchor = (folder / "server/ca.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(anchor, key, pem)
        async with grpc.aio.secure_channel(live.server.address, credentials) as channel:
            stub: Any = AggregatorServiceStub(channel)
            assert (await stub.GetFederation(pb.GetFederationRequest())).client == "c1"
            left = (end - datetime.now(UTC)).total_seconds() + 0.2
            await stub.AwaitRound(pb.AwaitRoundRequest(round=1, state=7, wait_s=left))
            await turned_away(stub.GetFederation(pb.GetFederationRequest()), Code.IDENTITY_INVALID)
        await live.clients[0].plan()


def _short_lived(folder: Path, name: str, seconds: int) -> tuple[bytes, datetime]:
    """An enrolled client's certificate anew, with little time left; the roster names it."""
    authority = Authority.load(folder / "authority")
    old = x509.load_pem_x509_certificate((folder / "clients" / name / "certificate.pem").read_bytes())
    end = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 7, end - timedelta(hours=1), end, list(old.extensions)
    )
    new = builder.sign(authority.key, hashes.SHA256())
    path = folder / "server/roster.json"
    write_roster(path, Roster(path).entries | {name: fingerprint(new)})
    return new.public_bytes(Encoding.PEM), end


FILES = 256


@contextmanager
def served_with_few_files(folder: Path, soft: int, hard: int) -> Iterator[tuple[int, int]]:
    """``secagg serve`` in a process that may open only so many files; its port and process id."""
    command = [sys.executable, "-m", "secagg.cli", "serve", str(folder / "server"), "--events"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=limit) as server:
        assert server.stdout is not None
        try:
            while (event := json.loads(server.stdout.readline()))["event"] != "listening":
                pass
            yield event["port"], server.pid
            assert server.poll() is None
        finally:
            server.terminate()
            server.stdout.read()


def test_a_server_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path) -> None:
    """The soft limit that a shell gives is for shells."""
    folder = make_federation(tmp_path / "f", 2)
    with served_with_few_files(folder, FILES, 4 * FILES) as (_, pid):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (4 * FILES, 4 * FILES)


async def test_strangers_connections_do_not_end_a_federation(tmp_path: Path) -> None:
    """More idle connections than files: who is connected goes on, and the strangers are gone soon."""
    folder = make_federation(tmp_path / "f", 2, rule="mean", protect="plain", rounds=2)
    with served_with_few_files(folder, FILES, FILES) as (port, _), ExitStack() as stack:
        address = f"localhost:{port}"
        clients = [RawClient(folder, name, address) for name in ("c0", "c1")]
        plan = await clients[0].plan()
        await clients[1].plan()
        strangers = [stack.enter_context(socket.create_connection(("localhost", port))) for _ in range(FILES)]
        for client in clients:
            await client.upload(client.seal(plan, flat_of(plan)))
        await clients[0].reach(1, RoundState.AGGREGATED)
        for client in clients:
            await client.confirm(1)
        assert (await clients[1].plan(after=1)).base_round == 1
        strangers[0].settimeout(60)
        assert await asyncio.to_thread(_ended, strangers[0])
        newcomer = RawClient(folder, "c0", address)
        await newcomer.plan(after=1)
        for client in (*clients, newcomer):
            await client.close()


def _ended(stranger: socket.socket) -> bool:
    """True once the server has closed the connection; it may have greeted first, as HTTP/2 does."""
    try:
        while stranger.recv(4096):
            pass
    except ConnectionError:
        pass
    return True
