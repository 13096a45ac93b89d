"""What is measured in a run: one row per round, put together from what its processes say."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One round of a run.

    Args:
        round: 1, 2, 3, …
        accuracy, loss: of the new global model on the held-out samples, measured by an honest client
            after opening it; share in [0, 1] and mean cross entropy. None if that client missed the round.
        backdoor_success: share in [0, 1] of the held-out samples of other classes that a backdoor's trigger
            turns into its target, measured by the same client; None where no backdoor is attempted.
        accepted: how many updates were summed.
        rejected: how many arrived and got weight 0.
        rejected_clients: their names, separated by spaces.
        reasons: why, in the same order (``secagg.rule.Reason``, in small letters).
        bytes_up, bytes_down: payload bytes per client, mean.
        train_s, seal_s, open_s: seconds per client, mean.
        aggregate_s: seconds the server spent on statistics and sum.
        wall_s: seconds since the round before, as the launcher saw it.
    """

    round: int
    accuracy: float | None
    loss: float | None
    accepted: int
    rejected: int
    rejected_clients: str
    reasons: str
    bytes_up: int
    bytes_down: int
    train_s: float
    seal_s: float
    aggregate_s: float
    open_s: float
    wall_s: float
    backdoor_success: float | None = None

    def flat(self) -> dict[str, object]:
        """The row as it is written to ``result.json``."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class _Pending:
    weights: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    server_s: float = 0.0
    reports: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    missed: set[str] = field(default_factory=set)


class Rows:
    """Collects events until a round's row is complete.

    Args:
        clients: names of all participants; a round is complete when each has reported or missed it.
        clock: seconds, monotonic.
    """

    def __init__(self, clients: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = frozenset(clients)
        self._clock = clock
        self._pending: dict[int, _Pending] = {}
        self._since: float | None = None

    def begin(self) -> None:
        """The first participant is ready: the first round's time starts."""
        if self._since is None:
            self._since = self._clock()

    def decided(self, round_: int, weights: Mapping[str, float], reasons: Mapping[str, str]) -> None:
        """The server has settled each contributor's weight, and why it is 0 where it is."""
        # The root update was never meant to be summed: it is neither accepted nor rejected.
        pending = self._at(round_)
        pending.weights = {name: w for name, w in weights.items() if reasons.get(name) != "root"}
        pending.reasons = reasons

    def server_time(self, round_: int, seconds: float) -> None:
        """The server has spent so long on a round's statistics or sum."""
        self._at(round_).server_s += seconds

    def reported(self, client: str, fields: Mapping[str, Any]) -> Row | None:
        """A participant has opened a round's aggregate; the row, if it was the last one."""
        pending = self._at(int(fields["round"]))
        pending.reports[client] = fields
        return self._complete(int(fields["round"]))

    def missed(self, client: str, round_: int) -> Row | None:
        """A participant has no part in a round that ended; the row, if it was the last one."""
        self._at(round_).missed.add(client)
        return self._complete(round_)

    def _at(self, round_: int) -> _Pending:
        return self._pending.setdefault(round_, _Pending())

    def _complete(self, round_: int) -> Row | None:
        pending = self._pending[round_]
        if self._clients - pending.reports.keys() - pending.missed or not pending.reports:
            return None
        del self._pending[round_]
        now = self._clock()
        wall_s, self._since = now - (now if self._since is None else self._since), now
        reports = list(pending.reports.values())
        judged = next((r for r in reports if "accuracy" in r), {})
        rejected = sorted(name for name, weight in pending.weights.items() if not weight > 0)
        return Row(
            round=round_,
            accuracy=judged.get("accuracy"),
            loss=judged.get("loss"),
            accepted=len(pending.weights) - len(rejected),
            rejected=len(rejected),
            rejected_clients=" ".join(rejected),
            reasons=" ".join(pending.reasons.get(name, "rule") for name in rejected),
            bytes_up=round(fmean(r["bytes_up"] for r in reports)),
            bytes_down=round(fmean(r["bytes_down"] for r in reports)),
            train_s=_mean(reports, "train_s"),
            seal_s=_mean(reports, "seal_s"),
            aggregate_s=round(pending.server_s, 6),
            open_s=_mean(reports, "open_s"),
            wall_s=round(wall_s, 6),
            backdoor_success=judged.get("backdoor_success"),
        )


def detection(rows: Collection[Row], malicious: Collection[str]) -> tuple[float | None, float | None]:
    """Precision and recall of the rejections over all rounds; None where there is nothing to divide by."""
    rejected = [name for row in rows for name in row.rejected_clients.split()]
    hits = sum(name in malicious for name in rejected)
    attacks = len(malicious) * len(rows)
    return (hits / len(rejected) if rejected else None, hits / attacks if attacks else None)


def _mean(reports: Collection[Mapping[str, Any]], name: str) -> float:
    return round(fmean(float(r[name]) for r in reports), 6)
