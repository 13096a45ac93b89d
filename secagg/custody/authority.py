"""The federation's authority: certifies servers and clients, and holds the dealer's signing key."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secagg.custody.files import read_public
from secagg.custody.identity import AUTHORITY_FILE, key_to_pem, load_private_key
from secagg.custody.trust import (
    CLIENT_KEYS_OID,
    DEALER_KEY_OID,
    TrustAnchor,
    common_name,
    extension_keys,
    keys_extension,
    same_public_key,
)
from secagg.errors import Code, ConfigError, CustodyError

AUTHORITY_KEY_FILE = "ca.key"
DEALER_KEY_FILE = "dealer.key"

DEFAULT_AUTHORITY_DAYS = 3653
DEFAULT_LEAF_DAYS = 731
MAX_DAYS = 36_525
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")
# Machines' clocks differ a little; a certificate must be usable at once on one that is behind.
_CLOCK_SKEW = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The secrets that make a federation: whoever holds them decides who is in it.

    They lie in ``authority/`` and never need to be on the server's machine.

    Args:
        anchor: the authority's own certificate; carries the dealer's verification key.
        key: ECDSA P-256, signs certificates.
        signing_key: the dealer's Ed25519 key, signs descriptors and grants.
    """

    anchor: TrustAnchor
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    signing_key: Ed25519PrivateKey = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")

    @classmethod
    def generate(cls, federation: str, *, valid_days: int = DEFAULT_AUTHORITY_DAYS) -> Authority:
        """A fresh authority.

        Args:
            federation: the federation's name, for people who look at certificates.
            valid_days: how long its certificate lasts, 1 to 36525 days.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        dealer = Ed25519PrivateKey.generate()
        subject = _subject(f"secagg authority of {federation}"[:64])
        certificate = (
            _builder(subject, subject, key.public_key(), valid_days)
            # Path length 0: it signs servers and clients, but no further authority.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(keys_extension(DEALER_KEY_OID, dealer.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(
            anchor=TrustAnchor.from_pem(certificate.public_bytes(Encoding.PEM)), key=key, signing_key=dealer
        )

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Reads ``authority/``.

        Raises:
            CustodyError: IDENTITY_INVALID if a file is missing, readable by others, or not of the others.
        """
        anchor = TrustAnchor.from_pem(read_public(directory / AUTHORITY_FILE))
        key = load_private_key(directory / AUTHORITY_KEY_FILE)
        dealer = load_private_key(directory / DEALER_KEY_FILE)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not same_public_key(
            key.public_key(), anchor.certificate.public_key()
        ):
            raise _invalid(f"{directory / AUTHORITY_KEY_FILE} is not the key of {AUTHORITY_FILE}")
        if not isinstance(dealer, Ed25519PrivateKey) or dealer.public_key() != anchor.dealer_public_key:
            raise _invalid(f"{directory / DEALER_KEY_FILE} is not the dealer key named in {AUTHORITY_FILE}")
        return cls(anchor=anchor, key=key, signing_key=dealer)

    def files(self) -> dict[str, bytes]:
        """Name and content of the two private files."""
        return {AUTHORITY_KEY_FILE: key_to_pem(self.key), DEALER_KEY_FILE: key_to_pem(self.signing_key)}

    def certify_server(
        self,
        public_key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        *,
        valid_days: int = DEFAULT_LEAF_DAYS,
    ) -> bytes:
        """A server certificate in PEM.

        Args:
            public_key: the server's ECDSA P-256 key.
            hosts: DNS names and IP addresses under which clients reach it; at least one.
            valid_days: 1 to 36525 days.

        Raises:
            ConfigError: CONFIG_INVALID for a host that is neither.
        """
        builder = self._leaf(_subject("secagg aggregator"), public_key, valid_days)
        return (
            builder.add_extension(x509.SubjectAlternativeName(_alternative_names(hosts)), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    def certify_client(
        self, request: x509.CertificateSigningRequest, *, valid_days: int = DEFAULT_LEAF_DAYS
    ) -> bytes:
        """A client certificate in PEM for a request whose proofs of possession were checked.

        Only the name and the three public keys are taken from the request.

        Raises:
            CustodyError: IDENTITY_INVALID for a name or key that a client can't have.
        """
        public_key = request.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
            public_key.curve, ec.SECP256R1
        ):
            raise _invalid("a client's TLS key must be ECDSA on P-256")
        name = common_name(request.subject)
        extension_keys(request, CLIENT_KEYS_OID, 2)
        bound = request.extensions.get_extension_for_oid(CLIENT_KEYS_OID).value
        return (
            self._leaf(_subject(name), public_key, valid_days)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(bound, critical=False)
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    def _leaf(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, valid_days: int
    ) -> x509.CertificateBuilder:
        issuer = self.anchor.certificate
        return (
            _builder(subject, issuer.subject, public_key, valid_days, latest=issuer.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )


def _subject(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    valid_days: int,
    *,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    if not 1 <= valid_days <= MAX_DAYS:
        raise ConfigError(Code.CONFIG_INVALID, f"valid_days is {valid_days}; it must be 1 to {MAX_DAYS}")
    now = datetime.now(UTC)
    end = now + timedelta(days=valid_days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        # No certificate outlives the authority that vouches for it.
        .not_valid_after(end if latest is None else min(end, latest))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
            continue
        except ValueError:
            pass
        try:
            names.append(x509.DNSName(host))
        except (ValueError, TypeError):
            raise ConfigError(
                Code.CONFIG_INVALID, f"host is {host!r}; it must be a DNS name or an IP address"
            ) from None
    if not names:
        raise ConfigError(Code.CONFIG_INVALID, "hosts is empty; a server certificate needs at least one")
    return names


def _invalid(message: str) -> CustodyError:
    return CustodyError(Code.IDENTITY_INVALID, message)
