"""A key grant: the CKKS secret key, sealed so that one client can open it and nobody on the way can."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from secagg.canonical import Reader, counted
from secagg.ckks.keys import SecretKey
from secagg.custody.descriptor import Descriptor
from secagg.custody.identity import ClientIdentity
from secagg.custody.trust import Peer
from secagg.envelope import FEDERATION_ID_BYTES, SIGNATURE_BYTES, Domain, Signer, sign, verify
from secagg.errors import Code, CustodyError, SecaggError, UpdateError
from secagg.plan import KEY_ID_BYTES

GRANT_VERSION = 1
MAX_GRANT_BYTES = 1024 * 1024

# RFC 9180: base mode. The dealer's signature over the whole grant says who sealed it.
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_INFO = b"secagg/v1/grant\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantHead:
    """What a grant belongs to; bound into the seal (HPKE ``info``) and covered by the signature.

    Args:
        federation_id: 16 bytes.
        key_id: 16 bytes, the key that is granted.
        certificate_sha256: fingerprint of the certificate it is sealed to, 32 bytes.
        profile: name of the key's CKKS profile.
        client: the client's name.
    """

    federation_id: bytes
    key_id: bytes
    certificate_sha256: bytes
    profile: str
    client: str

    def to_bytes(self) -> bytes:
        """Version u8, federation_id, key_id, certificate_sha256; profile and client: u8 length, ASCII."""
        return b"".join(
            (
                bytes([GRANT_VERSION]),
                self.federation_id,
                self.key_id,
                self.certificate_sha256,
                counted(self.profile.encode()),
                counted(self.client.encode()),
            )
        )


def seal_grant(dealer: Signer, descriptor: Descriptor, peer: Peer, secret_key: SecretKey) -> bytes:
    """Seals the secret key to one client.

    Form: the head, u32 length and bytes of the HPKE ciphertext (X25519, HKDF-SHA256, ChaCha20-Poly1305;
    RFC 9180), the dealer's Ed25519 signature over all of it.
    """
    head = _expected_head(descriptor, peer).to_bytes()
    sealed = _SUITE.encrypt(secret_key.to_bytes(), peer.hpke_public_key, _INFO + head)
    body = head + struct.pack("<I", len(sealed)) + sealed
    return body + sign(dealer, Domain.GRANT, body)


def open_grant(identity: ClientIdentity, descriptor: Descriptor, data: bytes) -> SecretKey:
    """The secret key from the grant that was sealed to this client.

    Raises:
        CustodyError: GRANT_INVALID if the dealer did not sign it, it is for another federation, client,
            certificate, key or profile, or it was tampered with. Nothing of it is used then.
    """
    if not SIGNATURE_BYTES < len(data) <= MAX_GRANT_BYTES:
        _invalid(identity, f"it has {len(data)} bytes")
    body, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    try:
        verify(identity.anchor.dealer_public_key, Domain.GRANT, body, signature)
    except UpdateError:
        _invalid(identity, "it was not signed by this federation's dealer")
    head, sealed = _parse(identity, body)
    expected = _expected_head(descriptor, identity.peer)
    if head != expected:
        wrong = [name for name in GrantHead.__slots__ if getattr(head, name) != getattr(expected, name)]
        _invalid(identity, f"it is for another {', '.join(wrong)}; the dealer has to deal again")
    try:
        return SecretKey.from_bytes(_SUITE.decrypt(sealed, identity.hpke_key, _INFO + head.to_bytes()))
    except InvalidTag:
        _invalid(identity, "it is not sealed to this client's key")
    except SecaggError as error:
        _invalid(identity, f"the key inside is refused ({error.code})")


def _expected_head(descriptor: Descriptor, peer: Peer) -> GrantHead:
    return GrantHead(
        federation_id=descriptor.federation_id,
        key_id=descriptor.key_id,
        certificate_sha256=bytes.fromhex(peer.fingerprint),
        profile=descriptor.profile,
        client=peer.name,
    )


def _parse(identity: ClientIdentity, body: bytes) -> tuple[GrantHead, bytes]:
    reader = Reader(body)
    try:
        version = reader.take(1)[0]
        if version != GRANT_VERSION:
            _invalid(identity, f"its version {version} is unknown; this build reads {GRANT_VERSION}")
        head = GrantHead(
            federation_id=reader.take(FEDERATION_ID_BYTES),
            key_id=reader.take(KEY_ID_BYTES),
            certificate_sha256=reader.take(32),
            profile=reader.counted().decode("ascii"),
            client=reader.counted().decode("ascii"),
        )
        sealed = reader.take(reader.unpack(struct.Struct("<I"))[0])
    except (EOFError, ValueError) as error:
        _invalid(identity, str(error))
    if reader.left:
        _invalid(identity, f"{reader.left} bytes follow its end")
    return head, sealed


def _invalid(identity: ClientIdentity, reason: str) -> NoReturn:
    raise CustodyError(
        Code.GRANT_INVALID, f"key grant of {identity.name!r}: {reason}", client=identity.name
    ) from None
