"""What must hold of the certificates on the wire: real handshakes, by gRPC's own TLS stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from secagg.custody.enrolment import enroll_local, revoke
from secagg.custody.federation import FederationFolder
from secagg.custody.identity import ClientIdentity
from secagg.custody.roster import Roster
from secagg.custody.server_identity import ServerIdentity
from secagg.custody.trust import peer_from_certificate
from secagg.errors import CustodyError

METHOD = "/test.Echo/Who"


class _Who(grpc.GenericRpcHandler):
    """Answers with the caller's name, as its certificate and the roster give it."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _: bytes, context: grpc.aio.ServicerContext) -> bytes:
        (pem,) = context.auth_context()["x509_pem_cert"]
        try:
            peer = peer_from_certificate(pem)
            self._roster.require(peer.fingerprint, peer.name)
        except CustodyError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        return peer.name.encode()


@pytest.fixture
async def port(federation: FederationFolder) -> AsyncIterator[int]:
    identity = ServerIdentity.load(federation.server)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Who(identity.roster),))
    credentials = grpc.ssl_server_credentials(
        [(identity.key_pem, identity.certificate_pem)],
        root_certificates=identity.ca_pem,
        require_client_auth=True,
    )
    bound = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield bound
    await server.stop(None)


async def call(port: int, *, root: bytes, key: bytes | None = None, certificate: bytes | None = None) -> str:
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        return (await channel.unary_unary(METHOD)(b"", timeout=5)).decode()


def parts(identity: ClientIdentity) -> dict[str, bytes]:
    return {
        "root": identity.authority_pem,
        "key": identity.tls_key_pem,
        "certificate": identity.certificate_pem,
    }


async def test_an_enrolled_client_is_known_by_its_certificate(
    federation: FederationFolder, port: int
) -> None:
    """The private extension does not disturb the handshake; the name arrives; IPv4 SAN is accepted."""
    for name in ("alice", "bob"):
        assert await call(port, **parts(ClientIdentity.load(federation.clients / name))) == name


async def test_a_client_of_a_foreign_authority_fails_the_handshake(
    federation: FederationFolder, new_federation: FederationFolder, port: int
) -> None:
    """Although it calls itself alice and trusts the right server."""
    foreign = ClientIdentity.load(enroll_local(new_federation.root, "alice"))
    right = ClientIdentity.load(federation.clients / "alice").authority_pem
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(port, **(parts(foreign) | {"root": right}))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_of_a_foreign_authority_is_refused(
    federation: FederationFolder, new_federation: FederationFolder, port: int
) -> None:
    """A client trusts the authority it was enrolled with and no other."""
    alice = ClientIdentity.load(federation.clients / "alice")
    other = ServerIdentity.load(new_federation.server).ca_pem
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(port, **(parts(alice) | {"root": other}))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_certificate_and_a_server_certificate_let_nobody_in(
    federation: FederationFolder, port: int
) -> None:
    """Mutual TLS is always on, and a server's certificate is for servers."""
    server = ServerIdentity.load(federation.server)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(port, root=server.ca_pem)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(port, root=server.ca_pem, key=server.key_pem, certificate=server.certificate_pem)


async def test_a_revoked_client_is_turned_away_by_a_running_server(
    federation: FederationFolder, port: int
) -> None:
    """Its certificate is still good for the handshake; the roster is not."""
    alice = ClientIdentity.load(federation.clients / "alice")
    assert await call(port, **parts(alice)) == "alice"
    revoke(federation.root, "alice")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(port, **parts(alice))
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "NOT_ENROLLED" in (failure.value.details() or "")


def test_paths_are_what_the_server_expects(federation: FederationFolder) -> None:
    """One folder is all that goes to the server's machine."""
    found = sorted(
        str(p.relative_to(federation.server)) for p in Path(federation.server).rglob("*") if p.is_file()
    )
    assert found == sorted(
        [
            *("ca.pem", "server.pem", "server.key", "roster.json", "federation.toml"),
            *("descriptor.signed", "ckks_public.key", "initial_model.npz", "grants/alice", "grants/bob"),
        ]
    )
