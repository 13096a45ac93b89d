"""What must hold when clients are enrolled, here or over there, and when one is revoked."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from secagg.config import FederationConfig
from secagg.custody.descriptor import load_descriptor
from secagg.custody.enrolment import accept, approve, enroll_local, enrolled, make_request, revoke
from secagg.custody.federation import FederationFolder, init_federation
from secagg.custody.identity import ClientIdentity, ClientKeys
from secagg.custody.roster import Roster
from secagg.custody.server_identity import ServerIdentity
from secagg.custody.trust import CLIENT_KEYS_OID, keys_extension
from secagg.envelope import Domain, sign
from secagg.errors import Code, CustodyError


def request_for(
    name: str, *, keys: ClientKeys | None = None, prover: ClientKeys | None = None, curve: Any = None
) -> bytes:
    """A request, well formed but for what the arguments change."""
    keys = keys or ClientKeys.generate()
    tls = keys.tls_key if curve is None else ec.generate_private_key(curve)
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(
            keys_extension(CLIENT_KEYS_OID, keys.signing_key.public_key(), keys.hpke_key.public_key()), False
        )
        .sign(tls, hashes.SHA256())
    )
    proof = sign(prover or keys, Domain.ENROLMENT, csr.public_bytes(Encoding.DER))
    return document(csr=csr.public_bytes(Encoding.PEM).decode(), signing_key_proof=b64encode(proof).decode())


def document(**fields: Any) -> bytes:
    return json.dumps({"version": 1, **fields}).encode()


def test_a_request_with_a_key_that_nothing_can_be_sealed_to_is_refused(federation: FederationFolder) -> None:
    """One such client would make every later deal fail for all of them."""
    keys = ClientKeys.generate()
    small_order = X25519PublicKey.from_public_bytes(bytes(32))
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mallory")]))
        .add_extension(keys_extension(CLIENT_KEYS_OID, keys.signing_key.public_key(), small_order), False)
        .sign(keys.tls_key, hashes.SHA256())
    )
    proof = sign(keys, Domain.ENROLMENT, csr.public_bytes(Encoding.DER))
    request = document(
        csr=csr.public_bytes(Encoding.PEM).decode(), signing_key_proof=b64encode(proof).decode()
    )
    with pytest.raises(CustodyError, match="X25519") as caught:
        approve(federation.root, request)
    assert caught.value.code is Code.IDENTITY_INVALID
    assert "mallory" not in [peer.name for peer in enrolled(federation.root)]


def test_a_client_elsewhere_is_enrolled_by_two_files_without_a_secret(
    federation: FederationFolder, tmp_path: Path
) -> None:
    """Request there, approval here, acceptance there; what travels holds no private key."""
    request = make_request(tmp_path / "carol", "carol").read_bytes()
    peer, welcome = approve(federation.root, request)
    carol = accept(tmp_path / "carol", welcome, fingerprint=peer_anchor(federation))
    assert carol == ClientIdentity.load(tmp_path / "carol")
    assert (carol.name, carol.fingerprint) == ("carol", peer.fingerprint)
    Roster(federation.roster).require(carol.fingerprint, "carol")
    assert load_descriptor(tmp_path / "carol") is not None
    fields = json.loads(request) | json.loads(welcome)
    travelled = [
        request,
        welcome,
        x509.load_pem_x509_csr(fields["csr"].encode()).public_bytes(Encoding.DER),
        carol.certificate.public_bytes(Encoding.DER),
        b64decode(fields["descriptor"]["data"]),
    ]
    tls_secret = carol.keys.tls_key.private_numbers().private_value.to_bytes(32, "big")
    for secret in (carol.signing_key.private_bytes_raw(), carol.hpke_key.private_bytes_raw(), tls_secret):
        assert not any(secret in content or secret.hex().encode() in content for content in travelled)


def peer_anchor(federation: FederationFolder) -> str:
    return ServerIdentity.load(federation.server).anchor.fingerprint


def test_a_client_that_waits_for_its_certificate_is_told_so(tmp_path: Path) -> None:
    """Not a missing-file traceback."""
    make_request(tmp_path / "carol", "carol")
    with pytest.raises(CustodyError, match="waits for its certificate"):
        ClientIdentity.load(tmp_path / "carol")
    with pytest.raises(CustodyError, match="no identity folder"):
        ClientIdentity.load(tmp_path / "nobody")


def test_approving_the_same_request_again_gives_the_same_certificate(
    federation: FederationFolder, tmp_path: Path
) -> None:
    """A lost welcome file is sent again; nobody is enrolled twice."""
    request = make_request(tmp_path / "carol", "carol").read_bytes()
    first, second = approve(federation.root, request), approve(federation.root, request)
    assert first == second


@pytest.mark.parametrize("how", ["another key's", "garbled", "absent"])
def test_a_request_without_its_signing_keys_proof_is_refused(federation: FederationFolder, how: str) -> None:
    """Nobody registers a verification key of someone else."""
    if how == "another key's":
        request = request_for("carol", prover=ClientKeys.generate())
    else:
        fields = json.loads(request_for("carol"))
        fields["signing_key_proof"] = b64encode(bytes(64)).decode() if how == "garbled" else ""
        request = json.dumps(fields).encode()
    with pytest.raises(CustodyError, match="possession of its signing key"):
        approve(federation.root, request)
    assert "carol" not in Roster(federation.roster)


def test_a_request_without_its_tls_keys_proof_is_refused(federation: FederationFolder) -> None:
    """The CSR's own signature must be good."""
    fields = json.loads(request_for("carol"))
    der = bytearray(x509.load_pem_x509_csr(fields["csr"].encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    body = b64encode(bytes(der)).decode()
    fields["csr"] = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(CustodyError, match="possession of its TLS key"):
        approve(federation.root, json.dumps(fields).encode())


def test_a_proof_is_bound_to_its_request(federation: FederationFolder) -> None:
    """The same signing key's proof for another request is worth nothing."""
    keys = ClientKeys.generate()
    mine, other = (json.loads(request_for(name, keys=keys)) for name in ("carol", "dave"))
    mine["signing_key_proof"] = other["signing_key_proof"]
    with pytest.raises(CustodyError, match="possession of its signing key"):
        approve(federation.root, json.dumps(mine).encode())


@pytest.mark.parametrize("name", ["../x", "Carol", ".carol", "a" * 65, "car ol"])
def test_a_name_that_is_no_safe_file_name_is_refused(
    federation: FederationFolder, tmp_path: Path, name: str
) -> None:
    """At the client, at the authority and at a local enrolment alike; nothing is written."""
    before = sorted(federation.root.rglob("*"))
    for attempt in (
        lambda: make_request(tmp_path / "new", name),
        lambda: enroll_local(federation.root, name),
        lambda: revoke(federation.root, name),
    ):
        with pytest.raises(CustodyError, match="is not allowed"):
            attempt()
    with pytest.raises((CustodyError, ValueError)):
        approve(federation.root, request_for(name))
    assert sorted(federation.root.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_a_tls_key_on_another_curve_is_refused(federation: FederationFolder) -> None:
    """gRPC's TLS stack takes P-256."""
    with pytest.raises(CustodyError, match="P-256"):
        approve(federation.root, request_for("carol", curve=ec.SECP384R1()))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b"{" + b" " * 300_000 + b"}",
        document(csr="x", signing_key_proof="x"),
        document(csr=1, signing_key_proof="x"),
        document(csr="x"),
        document(csr="x", signing_key_proof="x", more=1),
        json.dumps({"version": 2, "csr": "x", "signing_key_proof": "x"}).encode(),
    ],
)
def test_bytes_that_are_no_request_or_welcome_are_refused(
    federation: FederationFolder, tmp_path: Path, content: bytes
) -> None:
    """With the one code, whatever the form."""
    make_request(tmp_path / "carol", "carol")
    for attempt in (
        lambda: approve(federation.root, content),
        lambda: accept(tmp_path / "carol", content),
    ):
        with pytest.raises(CustodyError) as refusal:
            attempt()
        assert refusal.value.code is Code.IDENTITY_INVALID


def test_a_name_is_given_once_until_it_is_revoked(federation: FederationFolder) -> None:
    """A second alice is refused, and gets the name when the first one lost it."""
    with pytest.raises(CustodyError, match="enrolled already"):
        approve(federation.root, request_for("alice"))
    with pytest.raises(CustodyError, match="enrolled already"):
        enroll_local(federation.root, "alice")
    first = revoke(federation.root, "alice")
    second, _ = approve(federation.root, request_for("alice"))
    assert first.fingerprint != second.fingerprint
    with pytest.raises(CustodyError, match=Code.NOT_ENROLLED):
        Roster(federation.roster).require(first.fingerprint, "alice")


def test_a_revoked_client_is_off_the_roster_and_has_no_grant(federation: FederationFolder) -> None:
    """The others stay; revoking twice says that there is nobody."""
    assert (federation.grants / "alice").exists()
    revoke(federation.root, "alice")
    assert Roster(federation.roster).names == ("bob",)
    assert [peer.name for peer in enrolled(federation.root)] == ["bob"]
    assert not (federation.grants / "alice").exists()
    with pytest.raises(CustodyError, match=Code.NOT_ENROLLED):
        revoke(federation.root, "alice")


def test_a_welcome_with_another_fingerprint_is_refused(federation: FederationFolder, tmp_path: Path) -> None:
    """A client that was told the fingerprint can't be lured to another authority."""
    request = make_request(tmp_path / "carol", "carol").read_bytes()
    _, welcome = approve(federation.root, request)
    right = peer_anchor(federation)
    for wrong in ("0" * 64, right[:15], "", right + "0"):
        with pytest.raises(CustodyError, match="the authority's fingerprint is"):
            accept(tmp_path / "carol", welcome, fingerprint=wrong)
    assert not (tmp_path / "carol" / "certificate.pem").exists()
    colons = ":".join(right[i : i + 2] for i in range(0, 64, 2)).upper()
    accept(tmp_path / "carol", welcome, fingerprint=colons)
    with pytest.raises(CustodyError, match="has its certificate already"):
        accept(tmp_path / "carol", welcome)


def test_a_welcome_for_someone_else_is_refused(federation: FederationFolder, tmp_path: Path) -> None:
    """Certificate and keys must fit; the folder stays as it was."""
    make_request(tmp_path / "carol", "carol")
    before = sorted((tmp_path / "carol").iterdir())
    _, welcome = approve(federation.root, request_for("dave"))
    with pytest.raises(CustodyError, match="not for the keys in"):
        accept(tmp_path / "carol", welcome)
    assert sorted((tmp_path / "carol").iterdir()) == before


def test_a_welcome_with_a_forged_descriptor_is_refused(federation: FederationFolder, tmp_path: Path) -> None:
    """The descriptor in it counts only with the dealer's signature."""
    request = make_request(tmp_path / "carol", "carol").read_bytes()
    _, welcome = approve(federation.root, request)
    fields = json.loads(welcome)
    data = b64decode(fields["descriptor"]["data"]).replace(b'"min_clients":2', b'"min_clients":1')
    fields["descriptor"]["data"] = b64encode(data).decode()
    with pytest.raises(CustodyError, match=Code.DESCRIPTOR_INVALID):
        accept(tmp_path / "carol", json.dumps(fields).encode())
    assert not (tmp_path / "carol" / "certificate.pem").exists()


def test_nothing_that_exists_is_overwritten(federation: FederationFolder) -> None:
    """Neither a federation nor an identity; what is there stays byte for byte."""
    before = {p: p.read_bytes() for p in federation.root.rglob("*") if p.is_file()}
    with pytest.raises(CustodyError, match="exists already"):
        init_federation(federation.root, FederationConfig(name="other"))
    with pytest.raises(CustodyError, match="exists already"):
        make_request(federation.clients / "alice", "alice")
    assert {p: p.read_bytes() for p in federation.root.rglob("*") if p.is_file()} == before


def test_a_failed_init_leaves_nothing(tmp_path: Path) -> None:
    """A folder appears whole or not at all."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(CustodyError, match="exists already"):
        init_federation(blocked, FederationConfig(name="x"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_identity_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while writing, neither the folder nor a half-made one is there."""

    def interrupt(_: ClientKeys) -> dict[str, bytes]:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClientKeys, "files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_request(tmp_path / "carol", "carol")
    assert not list(tmp_path.iterdir())


def test_server_folder_can_enrol_nobody_for_good(federation: FederationFolder) -> None:
    """Whoever can write to server/ changes a roster that the authority's next step makes anew."""
    written = json.loads(federation.roster.read_text())
    written["clients"]["mallory"] = "0" * 64
    federation.roster.write_text(json.dumps(written))
    enroll_local(federation.root, "carol")
    assert Roster(federation.roster).names == ("alice", "bob", "carol")


def test_a_folder_without_authority_can_enrol_nobody(tmp_path: Path) -> None:
    """The server's machine, for instance."""
    (tmp_path / "server").mkdir()
    with pytest.raises(CustodyError, match="no federation's folder with an authority"):
        enroll_local(tmp_path, "alice")


def test_signing_key_of_a_request_is_an_ed25519_key() -> None:
    """The proof is made by the key that the request binds."""
    assert isinstance(ClientKeys.generate().signing_key, Ed25519PrivateKey)
