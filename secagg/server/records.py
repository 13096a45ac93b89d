"""What the journal gives back beside rounds: uploads, rounds with their plans, and repetitions."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.plan import RoundState
from secagg.server.events import Round


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """An announced upload: what the client signed, and whether the payload was accepted.

    Args:
        kind: 1 an update, 2 a mask (``secagg.v1.PayloadKind``).
        header: canonical bytes of the envelope header; ``signature`` is the client's over it.
    """

    upload_id: str
    round: int
    client: str
    kind: int
    idempotency_key: bytes
    header: bytes
    signature: bytes
    accepted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalledRound:
    """A round with its plan (serialised ``secagg.v1.RoundPlan``)."""

    plan: bytes
    round: Round


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """An accepted update that another one repeats.

    Args:
        state: its round's.
        released: whether numbers computed from it were released.
    """

    round: int
    client: str
    update_id: bytes
    state: RoundState
    released: bool
