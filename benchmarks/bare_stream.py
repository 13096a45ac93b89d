"""The limit that uploads are measured against: a grpc.aio stream that takes chunks and drops them.

Run as a process of its own: ``python -m benchmarks.bare_stream SERVER_DIR``; it uses that server's
certificate and asks clients for theirs, so the channel is the same as the service's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from secagg._proto import aggregator_pb2 as pb
from secagg._proto import aggregator_pb2_grpc
from secagg.custody.identity import ClientIdentity
from secagg.custody.server_identity import ServerIdentity

Chunks = list[pb.SendChunksRequest]


class Sink(aggregator_pb2_grpc.AggregatorServiceServicer):
    """Counts bytes; stores, hashes and checks nothing."""

    async def SendChunks(  # noqa: N802 - the name is the contract's
        self, request_iterator: AsyncIterator[pb.SendChunksRequest], context: grpc.aio.ServicerContext
    ) -> pb.SendChunksResponse:
        """Take the stream to its end."""
        del context
        received = 0
        async for chunk in request_iterator:
            received += len(chunk.data)
        return pb.SendChunksResponse(committed_bytes=received)


async def send(identity: ClientIdentity, address: str, chunks: Chunks) -> float:
    """Seconds that one stream of these chunks takes on a connected channel."""
    credentials = grpc.ssl_channel_credentials(
        identity.authority_pem, identity.tls_key_pem, identity.certificate_pem
    )
    async with grpc.aio.secure_channel(address, credentials) as channel:
        await channel.channel_ready()
        stub = aggregator_pb2_grpc.AggregatorServiceStub(channel)
        clock = asyncio.get_running_loop().time
        started = clock()
        answer = await stub.SendChunks(iter(chunks))
        seconds = clock() - started
    if answer.committed_bytes != sum(len(chunk.data) for chunk in chunks):
        sys.exit("the bare stream lost bytes")
    return seconds


async def serve(directory: Path) -> None:
    """Listen until terminated."""
    identity = ServerIdentity.load(directory)
    server = grpc.aio.server()
    aggregator_pb2_grpc.add_AggregatorServiceServicer_to_server(Sink(), server)
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)], identity.ca_pem, require_client_auth=True
    )
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    print(json.dumps({"event": "listening", "address": f"localhost:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
