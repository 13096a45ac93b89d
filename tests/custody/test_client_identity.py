"""What must hold of certificates and the private keys beside them."""

from __future__ import annotations

import pickle
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secagg.config import FederationConfig
from secagg.custody.authority import Authority
from secagg.custody.federation import FederationFolder, init_federation
from secagg.custody.identity import ClientIdentity, key_to_pem
from secagg.custody.server_identity import ServerIdentity
from secagg.custody.trust import CLIENT_KEYS_OID, TrustAnchor, extension_keys, peer_from_certificate
from secagg.envelope import Domain, sign, verify
from secagg.errors import Code, ConfigError, CustodyError


def alice_of(federation: FederationFolder) -> ClientIdentity:
    return ClientIdentity.load(federation.clients / "alice")


def test_certificate_binds_all_three_keys_to_the_name(federation: FederationFolder) -> None:
    """Who sees the certificate knows the name, and which keys sign and receive for it."""
    alice = alice_of(federation)
    peer = peer_from_certificate(alice.certificate_pem)
    assert (peer.name, peer.fingerprint) == ("alice", alice.fingerprint)
    verify(peer.signing_public_key, Domain.UPDATE, b"x", sign(alice, Domain.UPDATE, b"x"))
    assert peer.hpke_public_key == alice.hpke_key.public_key()
    extension = alice.certificate.extensions.get_extension_for_oid(CLIENT_KEYS_OID)
    assert not extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value[:3] == bytes([0x04, 65, 1])


def test_certificates_can_do_their_job_and_no_other(federation: FederationFolder) -> None:
    """The authority signs leaves only; a client is no server and a server no client."""
    anchor = alice_of(federation).anchor.certificate
    server = x509.load_pem_x509_certificate(ServerIdentity.load(federation.server).certificate_pem)
    client = alice_of(federation).certificate
    constraints = anchor.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = anchor.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    for leaf, purpose in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH),
        (client, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.digital_signature
        assert not usage.key_cert_sign
        assert leaf.not_valid_after_utc <= anchor.not_valid_after_utc
    assert len({anchor.serial_number, server.serial_number, client.serial_number}) == 3


def test_server_certificate_names_its_hosts(tmp_path: Path) -> None:
    """The configured host, the defaults and what was added."""
    config = FederationConfig(name="x", address="fl.example.org:8440")
    folder = init_federation(tmp_path / "f", config, hosts=("localhost", "10.0.0.7", "::1"))
    certificate = x509.load_pem_x509_certificate(ServerIdentity.load(folder.server).certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]


@pytest.mark.parametrize("hosts", [(), ("münchen.example",)])
def test_a_host_that_fits_no_certificate_is_refused(hosts: tuple[str, ...]) -> None:
    """None at all, and one that would have to be written in punycode."""
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigError, match="host"):
        Authority.generate("x").certify_server(key.public_key(), hosts)


@pytest.mark.parametrize("days", [0, -1, 40_000])
def test_a_validity_that_cannot_be_is_refused(days: int) -> None:
    """The limits are named."""
    with pytest.raises(ConfigError, match=f"valid_days is {days}; it must be 1 to 36525"):
        Authority.generate("x", valid_days=days)


def test_a_leaf_does_not_outlive_its_authority() -> None:
    """Whatever is asked for."""
    authority = Authority.generate("x", valid_days=30)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_pem_x509_certificate(
        authority.certify_server(key.public_key(), ["localhost"], valid_days=3000)
    )
    assert certificate.not_valid_after_utc == authority.anchor.certificate.not_valid_after_utc


def test_private_keys_are_for_their_owner_only(federation: FederationFolder) -> None:
    """Files 0600 in folders 0700, everywhere in a federation."""
    secrets = [p for p in federation.root.rglob("*.key") if p.name != "ckks_public.key"]
    assert {p.name for p in secrets} == {
        *("ca.key", "dealer.key", "ckks.key", "server.key"),
        *("tls.key", "signing.key", "hpke.key"),
    }
    for path in secrets:
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.parent.stat().st_mode & 0o777 == 0o700, path.parent
    assert not list(federation.root.rglob(".*")), "temporary files are left"


@pytest.mark.parametrize("file", ["tls.key", "signing.key", "hpke.key"])
def test_a_key_file_that_others_may_read_is_refused(federation: FederationFolder, file: str) -> None:
    """As ssh does; the way out is in the message."""
    path = federation.clients / "alice" / file
    path.chmod(0o640)
    with pytest.raises(CustodyError, match=rf"{file} has mode 0640.*chmod 600") as refusal:
        alice_of(federation)
    assert refusal.value.code is Code.IDENTITY_INVALID


@pytest.mark.parametrize("file", ["tls.key", "signing.key", "hpke.key"])
def test_anothers_key_beside_the_certificate_is_refused(federation: FederationFolder, file: str) -> None:
    """All three keys must be the ones the certificate binds."""
    shutil.copy(federation.clients / "bob" / file, federation.clients / "alice" / file)
    with pytest.raises(CustodyError, match="not for the keys in"):
        alice_of(federation)


@pytest.mark.parametrize("file", ["tls.key", "signing.key", "hpke.key"])
@pytest.mark.parametrize("content", [b"", b"not a key", None])
def test_a_damaged_or_wrong_key_file_is_refused(
    federation: FederationFolder, file: str, content: bytes | None
) -> None:
    """Garbage, and a key of another kind; the file is named, its content is not."""
    key = ec.generate_private_key(ec.SECP256R1()) if file != "tls.key" else Ed25519PrivateKey.generate()
    (federation.clients / "alice" / file).write_bytes(key_to_pem(key) if content is None else content)
    with pytest.raises(CustodyError, match=file):
        alice_of(federation)


def test_a_certificate_of_a_foreign_authority_is_refused(
    federation: FederationFolder, new_federation: FederationFolder
) -> None:
    """The pinned authority decides, not the one a certificate happens to come with."""
    shutil.copy(new_federation.server / "ca.pem", federation.clients / "alice" / "ca.pem")
    with pytest.raises(CustodyError, match="was not signed by the authority"):
        alice_of(federation)


def test_a_server_folder_with_parts_of_another_is_refused(
    federation: FederationFolder, new_federation: FederationFolder
) -> None:
    """Key, certificate and authority must belong together."""
    shutil.copy(new_federation.server / "server.key", federation.server / "server.key")
    with pytest.raises(CustodyError, match=r"server\.key is not the key of"):
        ServerIdentity.load(federation.server)
    shutil.copy(new_federation.server / "server.pem", federation.server / "server.pem")
    with pytest.raises(CustodyError, match="was not signed by the authority"):
        ServerIdentity.load(federation.server)


def test_an_authority_folder_with_parts_of_another_is_refused(
    federation: FederationFolder, new_federation: FederationFolder
) -> None:
    """The dealer's key and the authority's are the ones its certificate names."""
    for file in ("dealer.key", "ca.key"):
        shutil.copy(new_federation.authority / file, federation.authority / file)
        with pytest.raises(CustodyError, match=file):
            Authority.load(federation.authority)


def test_a_server_certificate_names_no_client(federation: FederationFolder) -> None:
    """A server that calls itself as a client is let in nowhere."""
    with pytest.raises(CustodyError, match=r"common name|not allowed|lacks the keys"):
        peer_from_certificate(ServerIdentity.load(federation.server).certificate_pem)


@pytest.mark.parametrize(
    ("subject", "extension"),
    [
        ("../evil", b"\x04\x41\x01" + bytes(64)),
        ("alice", b"\x04\x41\x02" + bytes(64)),
        ("alice", b"\x04\x40\x01" + bytes(63)),
        ("alice", bytes(65)),
        ("alice", None),
    ],
)
def test_a_certificate_of_another_form_names_nobody(subject: str, extension: bytes | None) -> None:
    """An unsafe name, an unknown version, a wrong length, no extension."""
    with pytest.raises(CustodyError, match=Code.IDENTITY_INVALID):
        peer_from_certificate(_self_signed(subject, extension))


@pytest.mark.parametrize("pem", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n"])
def test_bytes_that_are_no_certificate_are_refused(pem: bytes) -> None:
    """Without a traceback from the parser."""
    with pytest.raises(CustodyError, match=r"not one X\.509 certificate"):
        peer_from_certificate(pem)


def test_an_expired_certificate_says_so(federation: FederationFolder) -> None:
    """With the date, so that nobody searches for a network problem."""
    past = datetime.now(UTC) - timedelta(days=3)
    with pytest.raises(CustodyError, match=f"expired on {past + timedelta(days=1):%Y-%m-%d}"):
        TrustAnchor.from_pem(_self_signed("x", None, ca=True, start=past))
    future = datetime.now(UTC) + timedelta(days=3)
    with pytest.raises(CustodyError, match="check this machine's clock"):
        TrustAnchor.from_pem(_self_signed("x", None, ca=True, start=future))


def test_a_leaf_is_no_trust_anchor(federation: FederationFolder) -> None:
    """A client can't make itself the authority."""
    for pem, reason in (
        (alice_of(federation).certificate_pem, "is not a self-signed certificate authority"),
        (_self_signed("x", None), "may not sign others"),
        (_self_signed("x", None, ca=True), "lacks the keys"),
    ):
        with pytest.raises(CustodyError, match=reason):
            TrustAnchor.from_pem(pem)


def test_secrets_show_in_no_repr_and_in_no_pickle(federation: FederationFolder) -> None:
    """Neither of the client's, the authority's nor the server's."""
    alice, server = alice_of(federation), ServerIdentity.load(federation.server)
    authority = Authority.load(federation.authority)
    for holder in (alice.keys, server, authority, alice):
        assert "PRIVATE" not in repr(holder)
        with pytest.raises(TypeError):
            pickle.dumps(holder)
    assert alice.tls_key_pem.decode() not in repr(alice)


def test_extension_holds_the_raw_keys_in_order(federation: FederationFolder) -> None:
    """Verification key first, then the key that grants are sealed to."""
    alice = alice_of(federation)
    assert extension_keys(alice.certificate, CLIENT_KEYS_OID, 2) == tuple(
        key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        for key in (alice.signing_key, alice.hpke_key)
    )


def _self_signed(
    subject: str, extension: bytes | None, *, ca: bool = False, start: datetime | None = None
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    start = start or datetime.now(UTC) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(CLIENT_KEYS_OID, extension), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
