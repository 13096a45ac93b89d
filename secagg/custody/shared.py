"""The first form of custody: one secret key, shared by all clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from secagg.ckks.crew import Crew
from secagg.ckks.keys import SecretKey
from secagg.ckks.parameters import Slots
from secagg.ckks.vectors import Opener, Sealer
from secagg.custody.custody import Custody
from secagg.custody.descriptor import Descriptor
from secagg.custody.grant import open_grant
from secagg.custody.identity import ClientIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCustody:
    """Every client holds the one secret key, as in DDFed: any of them can open, none is needed.

    Args:
        profile_name: the CKKS profile the key belongs to.
        key_id: 16 bytes.
        secret_key: the key itself.
        crew: the processes that seal and open long vectors with it; None: this one.
    """

    profile_name: str
    key_id: bytes
    secret_key: SecretKey = field(repr=False)
    crew: Crew | None = field(default=None, repr=False)

    def sealer(self) -> Sealer:
        """Seals vectors with the secret key, which gives the short, seeded form."""
        return Sealer(self.secret_key, self.crew)

    def opener(self) -> Opener:
        """Opens with the secret key, at once and alone."""
        return Opener(self.secret_key, self.crew)

    def close(self) -> None:
        """Ends the crew's processes."""
        if self.crew is not None:
            self.crew.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is not pickled")


def open_custody(
    identity: ClientIdentity, descriptor: Descriptor, grant: bytes, *, workers: int = 1
) -> Custody:
    """What a client may do with the key it was dealt.

    Args:
        identity: the client.
        descriptor: the federation's, checked.
        grant: the client's key grant as the aggregator relayed it.
        workers: processes to seal and open long vectors in; 1: this one; 0: one per core.

    Raises:
        CustodyError: GRANT_INVALID.
    """
    secret_key = open_grant(identity, descriptor, grant)
    slots = isinstance(secret_key.profile.encoding, Slots)
    return SharedCustody(
        profile_name=descriptor.profile,
        key_id=descriptor.key_id,
        secret_key=secret_key,
        crew=None if slots else Crew(secret_key, workers),
    )
