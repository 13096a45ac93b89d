"""Drives rounds: each step goes through the state machine, into the journal, and only then has effects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from secagg._proto import aggregator_pb2 as pb
from secagg.errors import Code, RoundError, SecaggError, is_shortage
from secagg.plan import RoundPlan, RoundState, plan_from_proto, plan_to_proto
from secagg.server.deployment import Deployment
from secagg.server.events import DeadlinePassed, Event, Failed, Round, Terms, chosen_mask
from secagg.server.journal import Journal
from secagg.server.journal_thread import JournalThread
from secagg.server.machine import ABORTABLE, Effect, pending, step
from secagg.server.observer import Observer, decision
from secagg.server.planning import draft_plan
from secagg.server.progress import Announce, End, still_needed, what_follows
from secagg.server.records import UploadRecord
from secagg.server.recovery import check_settings
from secagg.server.spool import Spool
from secagg.server.stages import Stages
from secagg.server.work import RoundJob, payload_bytes
from secagg.server.workers import Workers

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0

_log = logging.getLogger(__name__)

Stage = Callable[[Round], Coroutine[Any, Any, None]]
P = ParamSpec("P")
T = TypeVar("T")


class Coordinator:
    """Holds the federation's rounds and takes every event about them, one at a time.

    A step is committed to the journal before anyone sees it. What comes after a crash follows from the
    journal alone: ``start`` goes on with the round it finds.
    """

    def __init__(
        self,
        deployment: Deployment,
        journal: JournalThread,
        spool: Spool,
        workers: Workers,
        observer: Observer,
    ) -> None:
        self.deployment = deployment
        self.journal = journal
        self.spool = spool
        self.workers = workers
        self.observer = observer
        request = deployment.request
        self.terms = Terms(
            min_clients=deployment.config.min_clients,
            ballots=request is not None,
            screens=request is not None and request.screened,
            majority=deployment.rule.majority,
        )
        self.end: End | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception when the server can't go on, whatever clients do."""
        self.stopping = False
        self.when_ended: list[Callable[[int], Awaitable[None]]] = []
        """Called in turn with a round's number once it has ended, before its files are deleted."""
        self._plans: dict[int, RoundPlan] = {}
        self._rounds: dict[int, Round] = {}
        self._lock = asyncio.Lock()
        self._following = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._stages = Stages(self)

    async def load(self) -> None:
        """Reads the journal.

        Raises:
            ServerError: JOURNAL_INCOMPATIBLE if what was announced contradicts the settings now.
        """
        for entry in await self.journal.call(Journal.rounds):
            self._rounds[entry.round.number] = entry.round
            self._plans[entry.round.number] = plan_from_proto(pb.RoundPlan.FromString(entry.plan))
        if self._rounds:
            check_settings(self._plans[self.current.number], self.current, self.deployment)

    async def resume(self) -> None:
        """Goes on with the round the journal holds, or announces the first."""
        if not self._rounds:
            await self.follow(None)
            return
        current = self.current
        _log.info("going on with round %d in %s", current.number, current.state.name)
        self.observer.emit("resumed", round=current.number, state=current.state.name)
        for effect in pending(current, self.terms):
            self._perform(effect, current)

    async def stop(self) -> None:
        """Ends all activity; what is committed stays, what is not never happened."""
        self.stopping = True
        self._notify()
        self._cancel_deadline()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def current(self) -> Round:
        """The newest round."""
        return self._rounds[max(self._rounds)]

    @property
    def history(self) -> list[Round]:
        """All rounds, in order."""
        return [self._rounds[number] for number in sorted(self._rounds)]

    def round(self, number: int) -> Round:
        """A round by its number.

        Raises:
            RoundError: ROUND_UNKNOWN.
        """
        found = self._rounds.get(number)
        if found is None:
            raise RoundError(
                Code.ROUND_UNKNOWN,
                f"there is no round {number}; the newest is {self.current.number}",
                round=number,
            )
        return found

    def plan(self, number: int) -> RoundPlan:
        """A round's plan; raises as ``round``."""
        self.round(number)
        return self._plans[number]

    def plan_message(self, number: int) -> pb.RoundPlan:
        """A round's plan as it is sent, with where the round stands."""
        state = self.round(number).state
        left = 0.0
        if state is RoundState.COLLECTING and self._deadline is not None:
            left = max(0.0, self._deadline.when() - asyncio.get_running_loop().time())
        return plan_to_proto(self._plans[number], state=state, collect_remaining_s=left)

    def job(self, number: int) -> RoundJob:
        """What a worker needs to know of a round."""
        plan = self.plan(number)
        return RoundJob(
            plan=plan,
            federation_id=self.deployment.descriptor.federation_id,
            mask_path=self.spool.mask(plan.mask_sha256) if plan.mask_sha256 else None,
        )

    async def wait_for(self, holds: Callable[[], bool], wait_s: float) -> None:
        """Returns once the condition holds, the wait is over or the server stops; looks at every change."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while not holds() and not self.stopping and (left := until - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    async def apply(
        self,
        number: int,
        event: Event,
        *,
        accepted: str | None = None,
        opened: UploadRecord | None = None,
    ) -> Round:
        """Takes one event of a round; the round as it is then, in the journal already.

        A caller that goes away in the middle does not stop the step half way.

        Args:
            accepted: id of the upload that the event accepts.
            opened: the upload that the event begins.

        Raises:
            RoundError: as ``machine.step``, or ROUND_UNKNOWN; nothing has changed then.
        """

        async def locked() -> Round:
            async with self._lock:
                return await self.commit(number, event, accepted=accepted, opened=opened)

        taking = self.spawn(locked())
        taking.add_done_callback(retrieve)
        return await asyncio.shield(taking)

    async def commit(
        self, number: int, event: Event, *, accepted: str | None = None, opened: UploadRecord | None = None
    ) -> Round:
        """``apply`` for whoever holds ``exclusive`` already."""
        before = self.round(number)
        after, effects = step(before, event, self.terms)
        if after is not before or accepted or opened:
            await self.journal.call(Journal.record, before, after, accepted=accepted, opened=opened)
            self._rounds[number] = after
        if after.state is not before.state:
            self._cancel_deadline()
            self._announce_state(after)
        self._notify()
        for effect in effects:
            self._perform(effect, after)
        return after

    @property
    def exclusive(self) -> asyncio.Lock:
        """Held while a step is made."""
        return self._lock

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs something that waits for the disk without stopping the event loop."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs something that must not end with the call that started it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def follow(self, ended: Round | None) -> None:
        """Cleans up after the last round, and announces the next one or ends the federation; once."""
        async with self._following:
            if self.end is None and (ended is None or ended.number == self.current.number):
                await self._follow(ended)

    async def _follow(self, ended: Round | None) -> None:
        config = self.deployment.config
        outcome = what_follows(self.history, rounds=config.rounds, max_aborted=config.max_aborted_rounds)
        base = outcome.base_round if isinstance(outcome, Announce) else outcome.last_aggregate_round
        mask = chosen_mask(self._rounds[base], self._rounds[base].masks) if base else b""
        if ended is not None:
            for told in self.when_ended:
                await told(ended.number)
            if ended.state is RoundState.CLOSED:
                await self.in_thread(self.spool.keep_histories, ended.number)
            needed = still_needed(base, self._plans, self.deployment.request)
            masks = {mask} | {self._plans[number].mask_sha256 for number in needed}
            await self.in_thread(self.spool.clean, ended.number, needed, masks)
        if isinstance(outcome, End):
            self.end = outcome
            self.observer.emit(
                "ended",
                rounds_closed=outcome.rounds_closed,
                last_aggregate_round=outcome.last_aggregate_round,
                reason=outcome.reason,
                traffic=self.observer.traffic(),
            )
        else:
            await self._announce(outcome, mask)
        self._notify()

    async def _announce(self, outcome: Announce, mask_sha256: bytes) -> None:
        draft = draft_plan(self.deployment, outcome, mask_sha256, self._rounds, self._plans)
        job = RoundJob(
            plan=draft,
            federation_id=self.deployment.descriptor.federation_id,
            mask_path=self.spool.mask(draft.mask_sha256) if draft.mask_sha256 else None,
        )
        plan = replace(draft, payload_bytes=await self.workers.run(payload_bytes, job))
        announced = Round(number=plan.round)
        message = plan_to_proto(plan, state=announced.state, collect_remaining_s=0.0)
        await self.journal.call(Journal.announce, message.SerializeToString(deterministic=True), announced)
        self._plans[plan.round], self._rounds[plan.round] = plan, announced
        self._announce_state(announced)

    def _announce_state(self, round_: Round) -> None:
        fields: dict[str, object] = {"round": round_.number, "state": round_.state.name}
        if round_.abort_code is not None:
            fields["abort_code"] = round_.abort_code.value
        if round_.state.ended:
            fields["traffic"] = self.observer.traffic()
        self.observer.emit("state", **fields)
        if round_.state is RoundState.DECIDED:
            self.observer.emit("decided", round=round_.number, **decision(round_))

    def _perform(self, effect: Effect, round_: Round) -> None:
        config = self.deployment.config
        match effect:
            case Effect.AWAIT_UPLOADS:
                self._start_deadline(round_, config.collect_timeout_s)
            case Effect.AWAIT_BALLOTS:
                self._start_deadline(round_, config.ballot_timeout_s)
            case Effect.AWAIT_CONFIRMATIONS:
                self._start_deadline(round_, config.confirm_timeout_s)
            case Effect.SCREEN:
                self._run_stage(self._stages.screen, round_)
            case Effect.SCORE:
                self._run_stage(self._stages.score, round_)
            case Effect.SETTLE:
                self._run_stage(self._stages.settle, round_)
            case Effect.AGGREGATE:
                self._run_stage(self._stages.aggregate, round_)
            case Effect.FINISH:
                self._run_stage(self._stages.finish, round_)

    def _start_deadline(self, round_: Round, timeout_s: float) -> None:
        self._cancel_deadline()
        loop = asyncio.get_running_loop()  # its clock is monotonic
        self._deadline = loop.call_later(timeout_s, lambda: self._run_stage(self._expire, round_))

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    async def _expire(self, round_: Round) -> None:
        async with self._lock:
            # The stage may have ended while this waited for the lock.
            if self.current.number == round_.number and self.current.state is round_.state:
                await self.commit(round_.number, DeadlinePassed(state=round_.state))

    def _run_stage(self, work: Stage, round_: Round) -> None:
        self.spawn(self._persist(work, round_)).add_done_callback(lambda task: self._stage_done(task, round_))

    async def _persist(self, work: Stage, round_: Round) -> None:
        """Repeats a stage for as long as this machine lacks files, disk or memory; every stage can be.

        What follows a round's end has nothing to be aborted, so that it is repeated after any trouble with
        files: nobody but who runs the server can mend that, and the federation must not end with it.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await work(round_)
            except Exception as error:
                if not (is_shortage(error) or (round_.state.ended and isinstance(error, OSError))):
                    raise
                where = (round_.number, round_.state.name)
                _log.warning("round %d can't go on from %s; again in %g s", *where, pause_s, exc_info=error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _stage_done(self, task: asyncio.Task[None], round_: Round) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None or self.stopping:
            return
        number, stage = round_.number, round_.state
        code = error.code if isinstance(error, SecaggError) else Code.INTERNAL
        _log.error("round %d can't go on from %s", number, stage.name, exc_info=error)
        if stage in ABORTABLE:

            async def abort(_: Round) -> None:
                await self.apply(number, Failed(code=code))

            self.spawn(self._persist(abort, round_)).add_done_callback(self._give_up_if_failed)
        else:
            self._give_up(error)

    def _give_up_if_failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def wake(self) -> None:
        """Has everyone who waits look again, after the server has begun to stop."""
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def retrieve(task: asyncio.Task[Any]) -> None:
    """Marks a task's exception as seen: if whoever asked for it went away, nobody else would."""
    if not task.cancelled():
        task.exception()
