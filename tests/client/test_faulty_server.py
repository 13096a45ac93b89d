"""What a client does with a server whose answers are damaged, endless or false."""

import hashlib
from concurrent import futures

import grpc
import pytest

from secagg._proto import aggregator_pb2 as pb
from secagg._proto import aggregator_pb2_grpc as pb_grpc
from secagg.client.channel import Connection
from secagg.client.transfer import Upload, download, upload
from secagg.config import FederationConfig
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import init_federation
from secagg.custody.identity import ClientIdentity
from secagg.custody.server_identity import ServerIdentity
from secagg.errors import Code, SecaggError

CHUNK = 1024 * 1024
CONTENT = bytes(range(256)) * (3 * CHUNK // 256)
LIMIT = 4 * CHUNK


def honest(offset):
    """The answers of a server that has CONTENT, from ``offset`` on."""
    return [
        pb.DownloadResponse(
            offset=at,
            data=CONTENT[at : at + CHUNK],
            sha256=hashlib.sha256(CONTENT[at : at + CHUNK]).digest(),
            total_bytes=len(CONTENT),
            total_sha256=hashlib.sha256(CONTENT).digest(),
        )
        for at in range(offset, len(CONTENT), CHUNK)
    ]


class Faulty(pb_grpc.AggregatorServiceServicer):
    """Spoils the answers of the first ``times`` downloads; answers uploads with ``created``."""

    def __init__(self):
        self.times = 0
        self.spoil = lambda messages: messages
        self.offsets = []
        self.created = pb.CreateUploadResponse()

    def Download(self, request, context):  # noqa: N802
        self.offsets.append(request.offset)
        messages = honest(request.offset)
        if self.times:
            self.times -= 1
            messages = self.spoil(messages)
        yield from messages

    def CreateUpload(self, request, context):  # noqa: N802
        return self.created


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """A TLS server with ``Faulty`` behind it, and a client's connection to it."""
    root = tmp_path_factory.mktemp("faulty") / "federation"
    folder = init_federation(root, FederationConfig(name="faulty"))
    identity = ClientIdentity.load(enroll_local(root, "alice"))
    own = ServerIdentity.load(folder.server)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    servicer = Faulty()
    pb_grpc.add_AggregatorServiceServicer_to_server(servicer, server)
    credentials = grpc.ssl_server_credentials([(own.key_pem, own.certificate_pem)], own.ca_pem, True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    connection = Connection(
        identity, f"localhost:{port}", patience_s=30.0, on_event=lambda name, fields: None
    )
    yield servicer, connection
    connection.close()
    server.stop(None).wait()


def fetch(connection, folder):
    path = download(connection, kind=pb.ARTIFACT_KIND_AGGREGATE, round=1, folder=folder, max_bytes=LIMIT)
    return path.read_bytes()


def change(index, **fields):
    """Spoils one field of one message."""

    def spoil(messages):
        changed = pb.DownloadResponse()
        changed.CopyFrom(messages[index])
        for name, value in fields.items():
            setattr(changed, name, value)
        return [*messages[:index], changed, *messages[index + 1 :]]

    return spoil


PASSING = {
    "a corrupt chunk": (change(1, data=b"x" * CHUNK), [0, CHUNK]),
    "a chunk out of order": (change(1, offset=0), [0, CHUNK]),
    "an early end": (lambda messages: messages[:2], [0, 2 * CHUNK]),
    "no answer": (lambda messages: [], [0, 0]),
    "content that changes": (change(2, total_sha256=bytes(32)), [0, 0]),
}


@pytest.mark.parametrize("fault", PASSING)
def test_passing_fault_costs_only_what_was_damaged(peers, tmp_path, fault):
    """After a fault that passes, the download goes on at the last good byte and ends whole."""
    servicer, connection = peers
    servicer.spoil, expected = PASSING[fault]
    servicer.times, servicer.offsets = 1, []
    assert fetch(connection, tmp_path) == CONTENT
    assert servicer.offsets == expected


LASTING = {
    "corrupt": (change(0, data=b"x" * CHUNK), Code.CHUNK_CORRUPT),
    "false total digest": (
        lambda messages: [_with(m, total_sha256=bytes(32)) for m in messages],
        Code.CONTENT_MISMATCH,
    ),
    "too large": (lambda messages: [_with(m, total_bytes=LIMIT + 1) for m in messages], Code.SIZE_MISMATCH),
    "longer than announced": (
        lambda messages: [_with(m, total_bytes=CHUNK + 1) for m in messages],
        Code.CHUNK_CORRUPT,
    ),
}


def _with(message, **fields):
    changed = pb.DownloadResponse()
    changed.CopyFrom(message)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


@pytest.mark.parametrize("fault", LASTING)
def test_lasting_fault_is_an_error_and_no_file(peers, tmp_path, fault):
    """A server that never gives the right bytes is given up on, with the code of what is wrong."""
    servicer, connection = peers
    servicer.spoil, code = LASTING[fault]
    servicer.times = 1000
    with pytest.raises(SecaggError) as caught:
        fetch(connection, tmp_path)
    servicer.times = 0
    assert caught.value.code is code
    assert not (tmp_path / "aggregate-1").exists()


def test_download_goes_on_with_what_another_process_left(peers, tmp_path):
    """A part on disk is used; one that is no part of the artifact is thrown away."""
    servicer, connection = peers
    servicer.offsets = []
    (tmp_path / "aggregate-1.partial").write_bytes(CONTENT[: 2 * CHUNK])
    assert fetch(connection, tmp_path) == CONTENT
    (tmp_path / "aggregate-1.partial").write_bytes(b"x" * CHUNK)
    assert fetch(connection, tmp_path) == CONTENT
    (tmp_path / "aggregate-1.partial").write_bytes(CONTENT)
    assert fetch(connection, tmp_path) == CONTENT
    assert servicer.offsets == [2 * CHUNK, CHUNK, 0, len(CONTENT), 0]


@pytest.mark.parametrize(
    "answer",
    [
        {"chunk_bytes": 0},
        {"chunk_bytes": 64 * 1024 * 1024},
        {"chunk_bytes": CHUNK, "committed_bytes": 10**9},
    ],
)
def test_impossible_upload_answer_is_refused(peers, tmp_path, answer):
    """Chunk sizes outside 1 to 2 MiB and a commitment beyond the payload are no basis to send on."""
    servicer, connection = peers
    servicer.created = pb.CreateUploadResponse(upload_id="u", **answer)
    payload = tmp_path / "payload"
    payload.write_bytes(b"x" * 100)
    item = Upload(
        round=1,
        kind=pb.PAYLOAD_KIND_UPDATE,
        idempotency_key=bytes(16),
        header=b"h",
        signature=bytes(64),
        size=100,
        open=lambda: payload.open("rb"),
    )
    with pytest.raises(SecaggError) as caught:
        upload(connection, item)
    assert caught.value.code is Code.REQUEST_MALFORMED


def test_method_the_server_lacks_is_not_retried(peers):
    """UNIMPLEMENTED is an answer, not an outage."""
    _, connection = peers
    with pytest.raises(SecaggError) as caught:
        connection.call(connection.stub.GetFederation, pb.GetFederationRequest())
    assert caught.value.code is Code.INTERNAL
