"""Upload of sealed bytes through the service, against a bare grpc.aio stream of the same chunks.

Both run over mutual TLS with the same certificates, each server a process of its own; the two take turns. The
service's figure is from ``CreateUpload``'s answer to the last chunk's acknowledgement: checksums of every
chunk at both ends, the spool, the progress. The check of the whole payload in ``FinishUpload`` is printed
beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import bare_stream
from benchmarks.served import connected, make_federation, process, served
from secagg._proto import aggregator_pb2 as pb
from secagg.client.channel import Connection
from secagg.client.outbox import SealedPayload, StateFolder
from secagg.client.transfer import Upload, upload
from secagg.custody.descriptor import DESCRIPTOR_FILE, SignedDescriptor
from secagg.custody.identity import ClientIdentity
from secagg.custody.shared import open_custody
from secagg.envelope import Domain, PayloadKind, UpdateHeader, sign
from secagg.payload import seal_update
from secagg.plan import RoundPlan, plan_from_proto
from secagg.selection.layout import Layout
from secagg.selection.mask import derive_mask
from secagg.simulation.result import write_result

MIB = 2**20
TARGET = 0.60


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds of one pair: through the service, its final check, and the bare stream."""

    service_s: float
    check_s: float
    bare_s: float


def seal(plan: RoundPlan, server: Path, identity: ClientIdentity, folder: StateFolder) -> SealedPayload:
    """Seal one update of zeros into a client's outbox."""
    descriptor = SignedDescriptor.load(server / DESCRIPTOR_FILE).open(identity.anchor)
    grant = (server / "grants" / identity.name).read_bytes()
    sealer = open_custody(identity, descriptor, grant).sealer()
    mask = derive_mask(plan.protection, plan.manifest, identity.anchor.federation_id, plan.round)
    layout = Layout(plan.manifest, mask, plan.statistics_blocks)
    flat = np.zeros(plan.manifest.size, dtype=np.float32)
    return folder.write_payload(seal_update(flat, layout, sealer), plan.chunk_bytes)


def through_service(
    connection: Connection,
    identity: ClientIdentity,
    plan: RoundPlan,
    folder: StateFolder,
    payload: SealedPayload,
) -> tuple[float, float]:
    """Seconds of sending the payload, and of its final check."""
    header = UpdateHeader(
        federation_id=identity.anchor.federation_id,
        round=plan.round,
        client=identity.name,
        kind=PayloadKind.UPDATE,
        profile=plan.profile,
        key_id=plan.key_id,
        manifest_sha256=plan.manifest.digest,
        mask_sha256=plan.mask_sha256,
        scales=b"",
        sample_count=1,
        payload_bytes=plan.payload_bytes,
        content_sha256=payload.sha256,
    ).to_bytes()
    times: dict[str, float] = {}
    connection.on_event = lambda name, _fields: times.setdefault(name, time.perf_counter())
    upload(
        connection,
        Upload(
            round=plan.round,
            kind=pb.PAYLOAD_KIND_UPDATE,
            idempotency_key=secrets.token_bytes(16),
            header=header,
            signature=sign(identity, Domain.UPDATE, header),
            size=plan.payload_bytes,
            open=folder.open_payload,
            chunk_digests=payload.chunk_digests,
        ),
    )
    if "upload_cut" in times:
        sys.exit("the upload was cut; this run says nothing")
    return times["upload_finishing"] - times["upload_started"], times["accepted"] - times["upload_finishing"]


def measure(megabytes: int, runs: int, scratch: Path) -> tuple[list[Run], int]:
    """Paired runs, and the payload's size in bytes."""
    values = int(megabytes * 1e6 / 7.5)
    federation = scratch / "federation"
    identities = make_federation(federation, clients=runs + 1, values=values, profile="precise")
    found: list[Run] = []
    state = StateFolder(scratch / "state")
    with (
        served(federation) as (_, address),
        process(["-m", "benchmarks.bare_stream", str(federation / "server")], scratch / "bare.log") as (
            _,
            bare_address,
        ),
    ):
        # One more client than counted: the first pair warms both servers up.
        for folder in identities:
            identity = ClientIdentity.load(folder)
            with connected(folder, address) as connection:
                answer = connection.call(connection.stub.AwaitPlan, pb.AwaitPlanRequest(wait_s=10))
                plan = plan_from_proto(answer.plan)
                sealed = seal(plan, federation / "server", identity, state)
                service_s, check_s = through_service(connection, identity, plan, state, sealed)
            data = state.payload_path.read_bytes()
            chunks = [
                pb.SendChunksRequest(
                    upload_id="0" * 32, offset=at, data=data[at : at + plan.chunk_bytes], sha256=bytes(32)
                )
                for at in range(0, len(data), plan.chunk_bytes)
            ]
            bare_s = asyncio.run(bare_stream.send(identity, bare_address, chunks))
            found.append(Run(service_s=service_s, check_s=check_s, bare_s=bare_s))
    return found[1:], plan.payload_bytes


def main() -> None:
    """Measure, print, write ``result.json`` if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="sealed bytes per upload (100)")
    parser.add_argument("--runs", type=int, default=5, help="counted pairs (5)")
    parser.add_argument("--out", type=Path, help="folder for result.json")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs, size = measure(asked.megabytes, asked.runs, Path(scratch))
    ratio = median(run.bare_s / run.service_s for run in runs)
    whole = median(run.bare_s / (run.service_s + run.check_s) for run in runs)
    for run in runs:
        print(
            f"service {size / run.service_s / 1e6:6.0f} MB/s   final check {run.check_s:.2f} s   "
            f"bare stream {size / run.bare_s / 1e6:6.0f} MB/s"
        )
    print(
        f"upload of {size / 1e6:.0f} MB sealed bytes: {ratio:.0%} of a bare grpc.aio stream's throughput "
        f"(median of {len(runs)} pairs; at least {TARGET:.0%} wanted); {whole:.0%} with the final check"
    )
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "primitive": "upload",
                "scheme": "service",
                "bytes": size,
                "seconds": run.service_s,
                "check_s": run.check_s,
                "peer": "grpc.aio stream",
                "peer_seconds": run.bare_s,
            }
            for run in runs
        ]
        write_result(asked.out, command=" ".join(sys.argv), seed=0, rows=rows, more={"ratio": ratio})


if __name__ == "__main__":
    main()
