"""Enrolment: a client makes its keys and a request, the authority approves it, the client accepts.

Private keys never leave the folder in which they were made. A request proves possession of the TLS key
(its own signature) and of the signing key (a signature over the request).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from secagg.custody.authority import DEFAULT_LEAF_DAYS, Authority
from secagg.custody.descriptor import SignedDescriptor, remember_descriptor
from secagg.custody.federation import FederationFolder
from secagg.custody.files import locked, make_private_folder, new_folder, read_public, write_file
from secagg.custody.identity import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    REQUEST_FILE,
    ClientIdentity,
    ClientKeys,
)
from secagg.custody.roster import write_roster
from secagg.custody.trust import (
    CLIENT_KEYS_OID,
    Peer,
    TrustAnchor,
    check_client_name,
    common_name,
    extension_keys,
    keys_extension,
    peer_from_certificate,
)
from secagg.envelope import Domain, sign, verify
from secagg.errors import Code, CustodyError, UpdateError

REQUEST_VERSION = 1
WELCOME_VERSION = 1
MAX_DOCUMENT_BYTES = 256 * 1024


def make_request(directory: Path | str, name: str) -> Path:
    """Makes a client's keys in a new folder, and the request that goes to the authority.

    Args:
        directory: the identity folder; nothing, or an empty folder, may be there before.
        name: the client's name, 1 to 64 characters of a-z 0-9 . _ -.

    Returns:
        The request's file; it holds no secret.

    Raises:
        CustodyError: IDENTITY_INVALID for the name, or if the folder holds something.
    """
    check_client_name(name)
    directory = Path(directory)
    with new_folder(directory, what="secagg enroll") as folder:
        _write_request(folder, name)
    return directory / REQUEST_FILE


def approve(
    federation: Path | str, request: bytes, *, valid_days: int = DEFAULT_LEAF_DAYS
) -> tuple[Peer, bytes]:
    """Certifies the client of a request and puts it on the roster.

    Repeating it with the same request answers with the same certificate.

    Args:
        federation: the federation's folder, with its authority.
        request: content of the request's file.
        valid_days: how long the certificate lasts.

    Returns:
        Who was enrolled, and the welcome: the file the client accepts. It holds no secret.

    Raises:
        CustodyError: IDENTITY_INVALID if a proof of possession fails or the name is taken.
    """
    folder = FederationFolder.open(federation)
    authority = Authority.load(folder.authority)
    csr = _checked_request(request)
    name = common_name(csr.subject)
    with locked(folder.authority):
        path = folder.certificates / f"{name}.pem"
        if path.exists():
            pem = read_public(path)
            if x509.load_pem_x509_certificate(pem).public_key() != csr.public_key():
                raise _invalid(f"client {name!r} is enrolled already; first: secagg enroll revoke … {name}")
        else:
            pem = authority.certify_client(csr, valid_days=valid_days)
            write_file(path, pem, private=False)
        _publish_roster(folder)
    return peer_from_certificate(pem), _welcome(folder, authority.anchor, pem)


def accept(directory: Path | str, welcome: bytes, *, fingerprint: str | None = None) -> ClientIdentity:
    """Takes over the authority's answer: from now on the client trusts this authority and no other.

    Args:
        directory: the identity folder that made the request.
        welcome: content of the welcome file.
        fingerprint: the authority's fingerprint as told over another channel, or its beginning of at least
            16 digits; None trusts the file.

    Raises:
        CustodyError: IDENTITY_INVALID if the certificate is not for this folder's keys, not signed by the
            authority beside it, or that authority has another fingerprint; the folder is unchanged then.
    """
    directory = Path(directory)
    document = _document(welcome, "welcome", WELCOME_VERSION, {"certificate", "authority", "descriptor"})
    anchor = TrustAnchor.from_pem(_text(document["authority"]))
    if fingerprint is not None:
        told = fingerprint.lower().replace(":", "")
        if len(told) < 16 or not anchor.fingerprint.startswith(told):
            raise _invalid(f"the authority's fingerprint is {anchor.fingerprint}, not {fingerprint}")
    if (directory / CERTIFICATE_FILE).exists():
        raise _invalid(f"{directory} has its certificate already; a renewed identity gets a new folder")
    identity = ClientIdentity.bind(
        directory, ClientKeys.load(directory), _text(document["certificate"]), anchor
    )
    if document["descriptor"] is not None:
        remember_descriptor(identity, _signed_descriptor(document["descriptor"]))
    write_file(directory / AUTHORITY_FILE, anchor.pem, private=False)
    # Last: an identity folder is complete when its certificate is there.
    write_file(directory / CERTIFICATE_FILE, identity.certificate_pem, private=False)
    return identity


def enroll_local(federation: Path | str, name: str, *, valid_days: int = DEFAULT_LEAF_DAYS) -> Path:
    """Request, approval and acceptance in one, for a client on the authority's own machine.

    Returns:
        The identity folder, ``clients/NAME`` in the federation's.

    Raises:
        CustodyError: IDENTITY_INVALID for the name, or if it is enrolled already.
    """
    check_client_name(name)
    folder = FederationFolder.open(federation)
    if (folder.certificates / f"{name}.pem").exists():
        raise _invalid(f"client {name!r} is enrolled already; first: secagg enroll revoke … {name}")
    target = folder.clients / name
    with new_folder(target, what="secagg enroll") as partial:
        _, welcome = approve(federation, _write_request(partial, name), valid_days=valid_days)
        accept(partial, welcome)
    return target


def revoke(federation: Path | str, name: str) -> Peer:
    """Takes a client off the roster; the server refuses its next call.

    The client keeps the CKKS key it was dealt: deal a new one (``deal(…, rotate=True)``) so that it can
    open nothing that is sealed from then on.

    Raises:
        CustodyError: NOT_ENROLLED if there is no such client.
    """
    check_client_name(name)
    folder = FederationFolder.open(federation)
    with locked(folder.authority):
        path = folder.certificates / f"{name}.pem"
        if not path.exists():
            raise CustodyError(Code.NOT_ENROLLED, f"client {name!r} is not enrolled", client=name)
        peer = peer_from_certificate(read_public(path))
        make_private_folder(folder.revoked)
        path.replace(folder.revoked / f"{name}-{peer.fingerprint[:16]}.pem")
        _publish_roster(folder)
        (folder.grants / name).unlink(missing_ok=True)
    return peer


def enrolled(federation: Path | str) -> list[Peer]:
    """The enrolled clients, by name, as the authority's own certificates say."""
    folder = FederationFolder.open(federation)
    return [peer_from_certificate(read_public(p)) for p in sorted(folder.certificates.glob("*.pem"))]


def _publish_roster(folder: FederationFolder) -> None:
    # Made anew from the authority's certificates: whoever can write to server/ can't enrol anyone for good.
    write_roster(folder.roster, {peer.name: peer.fingerprint for peer in enrolled(folder.root)})


def _write_request(folder: Path, name: str) -> bytes:
    """Fresh keys and their request in a folder; answers with the request."""
    keys = ClientKeys.generate()
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(
            keys_extension(CLIENT_KEYS_OID, keys.signing_key.public_key(), keys.hpke_key.public_key()),
            critical=False,
        )
        .sign(keys.tls_key, hashes.SHA256())
    )
    proof = sign(keys, Domain.ENROLMENT, csr.public_bytes(Encoding.DER))
    request = _json(
        {
            "version": REQUEST_VERSION,
            "csr": csr.public_bytes(Encoding.PEM).decode(),
            "signing_key_proof": b64encode(proof).decode(),
        }
    )
    for file, content in keys.files().items():
        write_file(folder / file, content, private=True)
    write_file(folder / REQUEST_FILE, request, private=False)
    return request


def _checked_request(content: bytes) -> x509.CertificateSigningRequest:
    document = _document(content, "request", REQUEST_VERSION, {"csr", "signing_key_proof"})
    try:
        csr = x509.load_pem_x509_csr(_text(document["csr"]))
        proof = b64decode(_text(document["signing_key_proof"]), validate=True)
        possessed = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _invalid("the request's certificate signing request can't be read") from None
    if not possessed:
        raise _invalid("the request does not prove possession of its TLS key")
    signing, sealing = extension_keys(csr, CLIENT_KEYS_OID, 2)
    try:
        # A point of small order shares no secret: sealing to it would fail, and with it every deal.
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(sealing))
    except ValueError:
        raise _invalid("nothing can be sealed to the request's X25519 key") from None
    try:
        verify(
            Ed25519PublicKey.from_public_bytes(signing),
            Domain.ENROLMENT,
            csr.public_bytes(Encoding.DER),
            proof,
        )
    except UpdateError:
        raise _invalid("the request does not prove possession of its signing key") from None
    return csr


def _welcome(folder: FederationFolder, anchor: TrustAnchor, certificate_pem: bytes) -> bytes:
    descriptor = None
    if folder.last_descriptor.exists():
        signed = SignedDescriptor.load(folder.last_descriptor)
        descriptor = {
            "data": b64encode(signed.data).decode(),
            "signature": b64encode(signed.signature).decode(),
        }
    return _json(
        {
            "version": WELCOME_VERSION,
            "certificate": certificate_pem.decode(),
            "authority": anchor.pem.decode(),
            "descriptor": descriptor,
        }
    )


def _signed_descriptor(value: Any) -> SignedDescriptor:
    if not isinstance(value, dict) or set(value) != {"data", "signature"}:
        raise _invalid("the welcome's descriptor must hold data and signature")
    try:
        data, signature = (b64decode(_text(value[name]), validate=True) for name in ("data", "signature"))
    except ValueError:
        raise _invalid("the welcome's descriptor is not base64") from None
    return SignedDescriptor(data=data, signature=signature)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _document(content: bytes, what: str, version: int, fields: set[str]) -> dict[str, Any]:
    """A JSON object of a known version with exactly these fields."""
    try:
        document = json.loads(content) if len(content) <= MAX_DOCUMENT_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _invalid(f"these bytes are no enrolment {what}")
    if document.get("version") != version:
        raise _invalid(f"the {what}'s version is unknown; this build reads {version}")
    if set(document) != fields | {"version"}:
        raise _invalid(f"an enrolment {what} holds exactly {', '.join(sorted(fields))} and version")
    return document


def _text(value: Any) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        raise _invalid("a field that must be ASCII text is not")
    return value.encode()


def _invalid(message: str) -> CustodyError:
    return CustodyError(Code.IDENTITY_INVALID, message)
