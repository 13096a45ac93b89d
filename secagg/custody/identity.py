"""A client's identity: three private keys and the certificate that binds their public halves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from secagg.custody.files import read_private, read_public
from secagg.custody.trust import (
    Peer,
    TrustAnchor,
    certificate_from_pem,
    peer_from_certificate,
    same_public_key,
)
from secagg.errors import Code, CustodyError

__all__ = ["ClientIdentity", "ClientKeys", "Peer", "TrustAnchor", "peer_from_certificate"]

TLS_KEY_FILE = "tls.key"
SIGNING_KEY_FILE = "signing.key"
HPKE_KEY_FILE = "hpke.key"
CERTIFICATE_FILE = "certificate.pem"
AUTHORITY_FILE = "ca.pem"
REQUEST_FILE = "request.json"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ClientKeys:
    """The private keys of one client; made where they are used and never sent anywhere.

    Args:
        tls_key: ECDSA P-256, for mutual TLS (gRPC's TLS stack offers no Ed25519 by default).
        signing_key: Ed25519, signs updates and ballots.
        hpke_key: X25519, opens the client's key grant.
    """

    tls_key: ec.EllipticCurvePrivateKey
    signing_key: Ed25519PrivateKey
    hpke_key: X25519PrivateKey

    @classmethod
    def generate(cls) -> ClientKeys:
        """Fresh keys from the operating system's randomness."""
        return cls(
            tls_key=ec.generate_private_key(ec.SECP256R1()),
            signing_key=Ed25519PrivateKey.generate(),
            hpke_key=X25519PrivateKey.generate(),
        )

    @classmethod
    def load(cls, directory: Path) -> ClientKeys:
        """Reads the three key files of an identity folder.

        Raises:
            CustodyError: IDENTITY_INVALID if one is missing, readable by others, or no such key.
        """
        tls, signing, hpke = (
            load_private_key(directory / name) for name in (TLS_KEY_FILE, SIGNING_KEY_FILE, HPKE_KEY_FILE)
        )
        if not isinstance(tls, ec.EllipticCurvePrivateKey):
            raise _invalid(f"{directory / TLS_KEY_FILE} holds no elliptic-curve key")
        if not isinstance(signing, Ed25519PrivateKey):
            raise _invalid(f"{directory / SIGNING_KEY_FILE} holds no Ed25519 key")
        if not isinstance(hpke, X25519PrivateKey):
            raise _invalid(f"{directory / HPKE_KEY_FILE} holds no X25519 key")
        return cls(tls_key=tls, signing_key=signing, hpke_key=hpke)

    def files(self) -> dict[str, bytes]:
        """Name and content (PKCS #8 PEM) of the three private files."""
        return {
            TLS_KEY_FILE: key_to_pem(self.tls_key),
            SIGNING_KEY_FILE: key_to_pem(self.signing_key),
            HPKE_KEY_FILE: key_to_pem(self.hpke_key),
        }

    def __repr__(self) -> str:
        return "ClientKeys(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """An enrolled client: what it needs to prove who it is and to open what is meant for it.

    Args:
        directory: the folder it was read from.
        certificate: signed by the federation's authority; binds all three public keys to the name.
        anchor: the authority this client trusts, pinned at enrolment.
        peer: how others see this client.
        keys: the private keys.
    """

    directory: Path
    certificate: x509.Certificate
    anchor: TrustAnchor
    peer: Peer
    # The certificate binds the keys, so they decide nothing when two identities are compared.
    keys: ClientKeys = field(repr=False, compare=False)

    @classmethod
    def load(cls, directory: Path | str) -> ClientIdentity:
        """Reads an identity folder and checks that keys, certificate and authority belong together.

        Raises:
            CustodyError: IDENTITY_INVALID, naming the file and the way out.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise _invalid(f"there is no identity folder {directory}; make one with: secagg enroll")
        keys = ClientKeys.load(directory)
        if not (directory / CERTIFICATE_FILE).exists():
            raise _invalid(
                f"{directory} waits for its certificate; have {REQUEST_FILE} approved, "
                "then run: secagg enroll accept"
            )
        anchor = TrustAnchor.from_pem(read_public(directory / AUTHORITY_FILE))
        return cls.bind(directory, keys, read_public(directory / CERTIFICATE_FILE), anchor)

    @classmethod
    def bind(
        cls, directory: Path, keys: ClientKeys, certificate_pem: bytes, anchor: TrustAnchor
    ) -> ClientIdentity:
        """Puts the parts together after checking that they belong together.

        Raises:
            CustodyError: IDENTITY_INVALID if the certificate is another authority's or for other keys.
        """
        certificate = certificate_from_pem(certificate_pem)
        peer = peer_from_certificate(certificate_pem)
        anchor.check_issued(certificate, whose=f"client {peer.name!r}")
        if not (
            same_public_key(keys.tls_key.public_key(), certificate.public_key())
            and _raw(peer.signing_public_key) == _raw(keys.signing_key.public_key())
            and _raw(peer.hpke_public_key) == _raw(keys.hpke_key.public_key())
        ):
            raise _invalid(f"the certificate of {peer.name!r} is not for the keys in {directory}")
        return cls(directory=directory, certificate=certificate, anchor=anchor, peer=peer, keys=keys)

    @property
    def name(self) -> str:
        """The client's name, as its certificate gives it."""
        return self.peer.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate (DER), 64 hexadecimal digits."""
        return self.peer.fingerprint

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM, for the TLS handshake."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate in PEM: the only root this client trusts."""
        return self.anchor.pem

    @property
    def tls_key_pem(self) -> bytes:
        """The TLS private key in PKCS #8 PEM, for the TLS handshake. Never log it."""
        return key_to_pem(self.keys.tls_key)

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs updates and ballots (``secagg.envelope.sign``)."""
        return self.keys.signing_key

    @property
    def hpke_key(self) -> X25519PrivateKey:
        """Opens the client's key grant."""
        return self.keys.hpke_key


def key_to_pem(key: PrivateKeyTypes) -> bytes:
    """A private key in unencrypted PKCS #8 PEM; the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(path: Path) -> PrivateKeyTypes:
    """A private key from a file that only its owner may read.

    Raises:
        CustodyError: IDENTITY_INVALID.
    """
    try:
        return load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError):
        raise _invalid(f"{path} is not an unencrypted private key in PEM") from None


def _raw(key: object) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)  # type: ignore[attr-defined,no-any-return]


def _invalid(message: str) -> CustodyError:
    return CustodyError(Code.IDENTITY_INVALID, message)
