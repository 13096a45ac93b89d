"""What certificates say: the federation's trust anchor, and who a peer is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from secagg.envelope import FEDERATION_ID_BYTES, valid_client_name
from secagg.errors import Code, CustodyError

# The 2.25 arc is for UUIDs: anyone may use one without registering it (Rec. ITU-T X.667).
_ARC = "2.25.321569389465268912618773703499557111123"
CLIENT_KEYS_OID = x509.ObjectIdentifier(f"{_ARC}.1")
"""Extension of a client certificate: version byte, Ed25519 verification key, X25519 public key."""
DEALER_KEY_OID = x509.ObjectIdentifier(f"{_ARC}.2")
"""Extension of the authority's certificate: version byte, the dealer's Ed25519 verification key."""
EXTENSION_VERSION = 1
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who a client certificate names, and with which keys.

    Args:
        name: the client's name.
        fingerprint: SHA-256 of the certificate (DER), 64 hexadecimal digits.
        signing_public_key: verifies the client's updates and ballots.
        hpke_public_key: what the client's key grant is sealed to.
        not_valid_after: when the certificate expires, with a time zone.
    """

    name: str
    fingerprint: str
    signing_public_key: Ed25519PublicKey
    hpke_public_key: X25519PublicKey
    not_valid_after: datetime

    def require_unexpired(self) -> None:
        """Refuses a certificate that has expired, be it after its connection was made.

        Raises:
            CustodyError: IDENTITY_INVALID, with the date.
        """
        _require_before(self.not_valid_after, whose=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """The one certificate a client trusts: the authority's, which carries the dealer's key too.

    Args:
        certificate: the authority's certificate.
        dealer_public_key: verifies descriptors and grants.
    """

    certificate: x509.Certificate
    dealer_public_key: Ed25519PublicKey

    @classmethod
    def from_pem(cls, pem: bytes) -> TrustAnchor:
        """Reads an authority certificate.

        Raises:
            CustodyError: IDENTITY_INVALID if it is no authority certificate of this project, is not
                signed by itself, or has expired.
        """
        certificate = certificate_from_pem(pem)
        try:
            certificate.verify_directly_issued_by(certificate)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
            raise _invalid("the authority certificate is not a self-signed certificate authority") from None
        if not constraints.ca:
            raise _invalid("the authority certificate may not sign others")
        check_validity(certificate, whose="the authority")
        (dealer,) = extension_keys(certificate, DEALER_KEY_OID, 1)
        return cls(certificate=certificate, dealer_public_key=Ed25519PublicKey.from_public_bytes(dealer))

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate (DER), 64 hexadecimal digits; what people compare by voice."""
        return fingerprint(self.certificate)

    @property
    def federation_id(self) -> bytes:
        """16 bytes: the first half of the fingerprint, so no other authority can claim the id."""
        return bytes.fromhex(self.fingerprint)[:FEDERATION_ID_BYTES]

    def check_issued(self, certificate: x509.Certificate, *, whose: str) -> None:
        """Checks that this authority signed the certificate and that it is valid today.

        Raises:
            CustodyError: IDENTITY_INVALID.
        """
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            raise _invalid(
                f"the certificate of {whose} was not signed by the authority {self.fingerprint[:16]}…"
            ) from None
        check_validity(certificate, whose=whose)


def peer_from_certificate(pem: bytes) -> Peer:
    """Who a client certificate names. Whether the authority signed it is for the TLS layer to check.

    Raises:
        CustodyError: IDENTITY_INVALID if it is no client certificate of this project.
    """
    certificate = certificate_from_pem(pem)
    name = common_name(certificate.subject)
    signing, hpke = extension_keys(certificate, CLIENT_KEYS_OID, 2)
    return Peer(
        name=name,
        fingerprint=fingerprint(certificate),
        signing_public_key=Ed25519PublicKey.from_public_bytes(signing),
        hpke_public_key=X25519PublicKey.from_public_bytes(hpke),
        not_valid_after=certificate.not_valid_after_utc,
    )


def certificate_from_pem(pem: bytes) -> x509.Certificate:
    """One certificate from PEM.

    Raises:
        CustodyError: IDENTITY_INVALID.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise _invalid("these bytes are not one X.509 certificate in PEM") from None


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER form, 64 hexadecimal digits."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def common_name(subject: x509.Name) -> str:
    """The client name in a certificate's or request's subject.

    Raises:
        CustodyError: IDENTITY_INVALID unless the subject is exactly one valid client name.
    """
    names = [str(attribute.value) for attribute in subject]
    if len(names) != 1 or [a.oid for a in subject] != [NameOID.COMMON_NAME]:
        raise _invalid("a client certificate's subject must be exactly one common name")
    check_client_name(names[0])
    return names[0]


def check_client_name(name: str) -> None:
    """Refuses names that are not safe as file names.

    Raises:
        CustodyError: IDENTITY_INVALID.
    """
    if not valid_client_name(name):
        raise _invalid(
            f"client name {name[:70]!r} is not allowed; use 1 to 64 characters of a-z 0-9 . _ - "
            "that don't begin with . or -"
        )


def check_validity(certificate: x509.Certificate, *, whose: str) -> None:
    """Checks a certificate's dates against this machine's clock.

    Raises:
        CustodyError: IDENTITY_INVALID, with the date that was missed.
    """
    _require_before(certificate.not_valid_after_utc, whose=whose)
    if datetime.now(UTC) < certificate.not_valid_before_utc:
        raise _invalid(
            f"the certificate of {whose} is not valid before "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check this machine's clock"
        )


def _require_before(end: datetime, *, whose: str) -> None:
    if datetime.now(UTC) > end:
        raise _invalid(f"the certificate of {whose} expired on {end:%Y-%m-%d}; enrol again")


def keys_extension(
    oid: x509.ObjectIdentifier, *keys: Ed25519PublicKey | X25519PublicKey
) -> x509.ExtensionType:
    """The extension that binds further public keys to a certificate: version byte, 32 bytes per key.

    The value is wrapped in a DER OCTET STRING, as every extension's value has to be DER.
    """
    raw = bytes([EXTENSION_VERSION]) + b"".join(k.public_bytes(Encoding.Raw, PublicFormat.Raw) for k in keys)
    return x509.UnrecognizedExtension(oid, bytes([0x04, len(raw)]) + raw)


def extension_keys(
    source: x509.Certificate | x509.CertificateSigningRequest, oid: x509.ObjectIdentifier, count: int
) -> tuple[bytes, ...]:
    """The raw public keys in such an extension, 32 bytes each.

    Raises:
        CustodyError: IDENTITY_INVALID if it is absent or of another form.
    """
    try:
        extension = source.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise _invalid("the certificate lacks the keys that secagg binds to it") from None
    length = 1 + count * KEY_BYTES
    raw = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    if len(raw) != length + 2 or raw[:3] != bytes([0x04, length, EXTENSION_VERSION]):
        raise _invalid("the keys that secagg binds to the certificate have an unknown form")
    return tuple(raw[3 + i * KEY_BYTES : 3 + (i + 1) * KEY_BYTES] for i in range(count))


def same_public_key(a: EllipticCurvePublicKey, b: object) -> bool:
    """True if both are the same key."""
    return isinstance(b, EllipticCurvePublicKey) and a.public_numbers() == b.public_numbers()


def _invalid(message: str) -> CustodyError:
    return CustodyError(Code.IDENTITY_INVALID, message)
