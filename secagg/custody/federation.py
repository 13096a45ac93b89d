"""A federation's folder: what lies where, and how it comes into being."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from secagg.config import SETTINGS_FILE, FederationConfig, settings_text
from secagg.custody.authority import (
    DEFAULT_AUTHORITY_DAYS,
    DEFAULT_HOSTS,
    DEFAULT_LEAF_DAYS,
    Authority,
)
from secagg.custody.descriptor import DESCRIPTOR_FILE
from secagg.custody.files import make_private_folder, new_folder, write_file
from secagg.custody.identity import AUTHORITY_FILE, key_to_pem
from secagg.custody.roster import ROSTER_FILE, write_roster
from secagg.custody.server_identity import SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE
from secagg.errors import Code, CustodyError


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationFolder:
    """Paths inside the folder that ``secagg init`` makes.

    ``authority/`` holds what decides over the federation and stays with whoever founded it; ``server/`` is
    all the aggregator's machine needs; ``clients/NAME/`` are identities enrolled on this machine.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """What the federation is set to."""
        return self.root / SETTINGS_FILE

    @property
    def authority(self) -> Path:
        """The authority's and the dealer's secrets."""
        return self.root / "authority"

    @property
    def certificates(self) -> Path:
        """One certificate per enrolled client; the roster is made from them."""
        return self.authority / "certificates"

    @property
    def revoked(self) -> Path:
        """Certificates of clients that were enrolled once."""
        return self.authority / "revoked"

    @property
    def dealt_key(self) -> Path:
        """The CKKS key pair that was dealt, secret half included."""
        return self.authority / "ckks.key"

    @property
    def last_descriptor(self) -> Path:
        """The dealer's own copy of the last descriptor it signed."""
        return self.authority / DESCRIPTOR_FILE

    @property
    def server(self) -> Path:
        """All that the aggregator's machine needs; no secret key that opens an update."""
        return self.root / "server"

    @property
    def grants(self) -> Path:
        """One sealed key grant per client."""
        return self.server / "grants"

    @property
    def roster(self) -> Path:
        """Who may take part."""
        return self.server / ROSTER_FILE

    @property
    def clients(self) -> Path:
        """Identities enrolled on this machine."""
        return self.root / "clients"

    @classmethod
    def open(cls, root: Path | str) -> FederationFolder:
        """The folder of an existing federation.

        Raises:
            CustodyError: IDENTITY_INVALID if there is none, or it has no authority.
        """
        folder = cls(root=Path(root))
        if not (folder.authority / AUTHORITY_FILE).exists():
            raise CustodyError(
                Code.IDENTITY_INVALID,
                f"{root} is no federation's folder with an authority; make one with: secagg init {root}",
            )
        return folder


def init_federation(
    directory: Path | str,
    config: FederationConfig,
    *,
    hosts: Sequence[str] = DEFAULT_HOSTS,
    authority_days: int = DEFAULT_AUTHORITY_DAYS,
    leaf_days: int = DEFAULT_LEAF_DAYS,
) -> FederationFolder:
    """Makes a federation: its authority, its server's certificate, its settings, an empty roster.

    Args:
        directory: appears when all of it is there; nothing, or an empty folder, may be there before.
        config: the settings; written to ``federation.toml`` with what each means.
        hosts: names and addresses of the server beside the configured one, for its certificate.
        authority_days: how long the authority's certificate lasts.
        leaf_days: how long the server's certificate lasts.

    Raises:
        CustodyError: IDENTITY_INVALID if something is there already; it is left as it is.
        ConfigError: CONFIG_INVALID for a host or duration that can't be.
    """
    authority = Authority.generate(config.name, valid_days=authority_days)
    server_key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.certify_server(
        server_key.public_key(), (config.host, *hosts), valid_days=leaf_days
    )
    with new_folder(Path(directory), what="secagg init") as root:
        folder = FederationFolder(root=root)
        for private in (folder.certificates, folder.grants, folder.clients):
            make_private_folder(private)
        make_private_folder(folder.authority)
        make_private_folder(folder.server)
        for name, secret in authority.files().items():
            write_file(folder.authority / name, secret, private=True)
        write_file(folder.authority / AUTHORITY_FILE, authority.anchor.pem, private=False)
        write_file(folder.server / AUTHORITY_FILE, authority.anchor.pem, private=False)
        write_file(folder.server / SERVER_CERTIFICATE_FILE, certificate, private=False)
        write_file(folder.server / SERVER_KEY_FILE, key_to_pem(server_key), private=True)
        write_roster(folder.roster, {})
        write_file(folder.settings, settings_text(config).encode(), private=False)
    return FederationFolder(root=Path(directory))
