"""A client of one federation: load it, iterate over its rounds, contribute to each."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from google.protobuf.message import DecodeError

from secagg._proto import aggregator_pb2 as pb
from secagg.client.channel import Connection, OnEvent
from secagg.client.federation import Federation
from secagg.client.opening import Opening
from secagg.client.outbox import Entry, StateFolder
from secagg.client.result import FederationEnd, Model
from secagg.client.round import RESUMABLE, Round
from secagg.custody.descriptor import Descriptor
from secagg.custody.identity import ClientIdentity
from secagg.errors import Code, ConfigError, RoundError, SecaggError
from secagg.plan import RoundState
from secagg.rule import RuleLoader

DEFAULT_PATIENCE_S = 300.0

_log = logging.getLogger("secagg.client")


class Client:
    """One enrolled client, connected to its aggregator; made by ``load``, closed by ``close`` or ``with``.

    It blocks in the caller's thread and is not to be used from two threads at once.
    """

    def __init__(
        self,
        identity: ClientIdentity,
        connection: Connection,
        folder: StateFolder,
        rules: RuleLoader,
        *,
        workers: int = 0,
    ) -> None:
        self._identity = identity
        self._connection = connection
        self._folder = folder
        self._rules = rules
        self._federation = Federation(identity, connection)
        self._opening = Opening(self._federation, folder, workers=workers)
        self._end: FederationEnd | None = None
        self._seen = 0
        self._offered: Round | None = None

    @classmethod
    def load(
        cls,
        identity: Path | str,
        *,
        server: str,
        rules: RuleLoader,
        state: Path | str | None = None,
        patience_s: float = DEFAULT_PATIENCE_S,
        workers: int = 0,
        on_event: OnEvent | None = None,
    ) -> Client:
        """A client from its identity folder. Connects when first needed.

        Args:
            identity: the folder ``secagg enroll`` made.
            server: ``HOST:PORT``; HOST must be named in the server's certificate.
            rules: name -> rule; ``defenses.load_rule`` knows those of this project.
            state: where the sealed update is kept until its round is over; default ``identity/state``.
                Needs room for one payload and one aggregate; one client process per folder.
            patience_s: seconds without progress before SERVER_UNREACHABLE; > 0.
            workers: processes that seal and open long vectors; 0: one per core; 1: this one. They start with
                the first vector of 64 ciphertexts or more, and end with the client.
            on_event: ``on_event(name, fields)`` is told what happens; it may be called from a gRPC thread.

        Raises:
            CustodyError: IDENTITY_INVALID.
            ConfigError: CONFIG_INVALID for a server that isn't HOST:PORT, a patience that isn't positive,
                or a state folder that can't be used.
        """
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ConfigError(
                Code.CONFIG_INVALID, f"server is {server!r}; give HOST:PORT with a port in [1, 65535]"
            )
        if not 0 < patience_s < float("inf"):
            raise ConfigError(Code.CONFIG_INVALID, f"patience_s is {patience_s}; it must be positive")
        loaded = ClientIdentity.load(Path(identity))
        folder = StateFolder(Path(state) if state is not None else Path(identity) / "state")
        connection = Connection(loaded, server, patience_s=patience_s, on_event=on_event or _log_event)
        return cls(loaded, connection, folder, rules, workers=workers)

    @property
    def name(self) -> str:
        """The name in this client's certificate."""
        return self._identity.name

    @property
    def descriptor(self) -> Descriptor:
        """What the federation is, signed by its dealer. Raises as ``rounds``."""
        return self._federation.descriptor

    @property
    def end(self) -> FederationEnd | None:
        """How the federation ended, once ``rounds`` has run out for that reason; None before."""
        return self._end

    def rounds(self, limit: int | None = None) -> Iterator[Round]:
        """The rounds to take part in, in order, as they come; ends with the federation.

        A round whose update an earlier process had sealed comes first and is ``resuming``, if it is still
        under way.

        Args:
            limit: stop after so many rounds; None for no limit.

        Raises:
            CustodyError: DESCRIPTOR_INVALID, NOT_ENROLLED.
            RoundError: PLAN_BELOW_POLICY and the like: going on would break what the dealer promised.
            TransferError: SERVER_UNREACHABLE.
            SecaggError: a plan that makes no sense.
        """
        given = 0
        while limit is None or given < limit:
            upcoming = self._resume() or self._next()
            if upcoming is None:
                return
            given += 1
            self._offered = upcoming
            yield upcoming

    def final_model(self) -> Model:
        """The model the federation ended with (after ``rounds`` ran out).

        Raises:
            RoundError: STATE_INVALID if the federation has not ended, as far as this client knows.
        """
        if self._end is None:
            raise RoundError(
                Code.STATE_INVALID, "the federation has not ended; exhaust rounds() before final_model()"
            )
        return self._opening.final_model(self._end.last_aggregate_round, self._rules)

    def close(self) -> None:
        """End the connection and let go of the state folder; safe to repeat."""
        self._opening.close()
        self._connection.close()
        self._folder.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resume(self) -> Round | None:
        """The round of the pending update, if it can still be gone on with; else the outbox is emptied."""
        entry = self._folder.pending()
        if entry is None:
            return None
        last = self._offered
        # A resuming round that the caller passed over must not come back for ever.
        passed_over = last is not None and last.number == entry.round and not last.tried
        if passed_over or not self._open_for(entry):
            self._connection.on_event("outbox_stale", {"round": entry.round})
            self._folder.discard()
            return None
        self._seen = max(self._seen, entry.round)
        try:
            return self._round(pb.RoundPlan.FromString(entry.plan), entry)
        except (SecaggError, DecodeError) as error:
            if isinstance(error, SecaggError) and error.code in RESUMABLE:
                raise
            # The dealer dealt anew since it was sealed, say; it fits no plan any more.
            self._connection.on_event("outbox_stale", {"round": entry.round, "reason": str(error)})
            self._folder.discard()
            return None

    def _open_for(self, entry: Entry) -> bool:
        """Whether the server still waits for this update, or for what its sender does next."""
        try:
            status = self._federation.status(entry.round)
        except RoundError as error:
            if error.code is Code.ROUND_UNKNOWN:
                return False
            raise
        if status.state.ended:
            if status.state is RoundState.CLOSED and status.contributor:
                self._folder.feedback.forget()
            return False
        return status.contributor or status.state <= RoundState.COLLECTING

    def _next(self) -> Round | None:
        """Wait for the next plan; None when the federation has ended."""
        while True:
            answer = self._federation.await_plan(self._seen)
            if isinstance(answer, FederationEnd):
                self._end = answer
                self._connection.on_event(
                    "end", {"rounds_closed": answer.rounds_closed, "reason": answer.reason}
                )
                return None
            if answer is not None:
                if answer.round <= self._seen:
                    raise RoundError(
                        Code.ROUND_MISMATCH,
                        f"the server hands out round {answer.round} after round {self._seen}",
                        round=answer.round,
                    )
                self._seen = answer.round
                if answer.state <= RoundState.COLLECTING:
                    return self._round(answer, None)
                # This client's update is in, but what it needs to go on was lost with its state folder.

    def _round(self, message: pb.RoundPlan, entry: Entry | None) -> Round:
        self._connection.on_event("plan", {"round": message.round, "resuming": entry is not None})
        return Round(
            message,
            federation=self._federation,
            opening=self._opening,
            folder=self._folder,
            rules=self._rules,
            entry=entry,
        )


def _log_event(name: str, fields: dict[str, object]) -> None:
    """What happens goes to the log if the caller doesn't ask for it."""
    _log.debug("%s %s", name, fields)
