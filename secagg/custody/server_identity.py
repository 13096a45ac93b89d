"""What the aggregator proves who it is with, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec

from secagg.custody.files import read_public
from secagg.custody.identity import AUTHORITY_FILE, key_to_pem, load_private_key
from secagg.custody.roster import ROSTER_FILE, Roster
from secagg.custody.trust import TrustAnchor, certificate_from_pem, same_public_key
from secagg.errors import Code, CustodyError

SERVER_CERTIFICATE_FILE = "server.pem"
SERVER_KEY_FILE = "server.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """What the aggregator proves who it is with, and whom it lets in.

    Args:
        directory: the ``server/`` folder.
        certificate_pem: the server's certificate.
        key_pem: its private key. Never log it.
        anchor: the authority; the only root the server trusts.
        roster: who is enrolled.
    """

    directory: Path
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    anchor: TrustAnchor
    roster: Roster

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate in PEM."""
        return self.anchor.pem

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")

    @classmethod
    def load(cls, directory: Path | str) -> ServerIdentity:
        """Reads a ``server/`` folder.

        Raises:
            CustodyError: IDENTITY_INVALID if a file is missing, readable by others, or not of the others.
        """
        directory = Path(directory)
        if not (directory / SERVER_CERTIFICATE_FILE).exists():
            raise _invalid(f"{directory} is no server folder; secagg init makes FEDERATION/server")
        anchor = TrustAnchor.from_pem(read_public(directory / AUTHORITY_FILE))
        certificate_pem = read_public(directory / SERVER_CERTIFICATE_FILE)
        certificate = certificate_from_pem(certificate_pem)
        anchor.check_issued(certificate, whose="the server")
        key = load_private_key(directory / SERVER_KEY_FILE)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not same_public_key(
            key.public_key(), certificate.public_key()
        ):
            raise _invalid(f"{directory / SERVER_KEY_FILE} is not the key of {SERVER_CERTIFICATE_FILE}")
        return cls(
            directory=directory,
            certificate_pem=certificate_pem,
            key_pem=key_to_pem(key),
            anchor=anchor,
            roster=Roster(directory / ROSTER_FILE),
        )


def _invalid(message: str) -> CustodyError:
    return CustodyError(Code.IDENTITY_INVALID, message)
