"""Runs one federation on this machine: a server process, one process per client, and the report."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secagg.errors import Code, RoundError, SecaggError
from secagg.simulation.children import Children, Message
from secagg.simulation.config import RunConfig
from secagg.simulation.display import Display
from secagg.simulation.preparation import Preparation, prepare, write_tasks
from secagg.simulation.result import write_result
from secagg.simulation.rows import Row, Rows, detection

SERVER = "server"
EXPECTED_REFUSALS = frozenset({Code.ROUND_CLOSED, Code.UPLOAD_UNKNOWN})
"""What a client hears that is late with a mask or an update nobody waits for any more; not worth a line."""
START_TIMEOUT_S = 120.0
"""How long the server may take to listen; it loads keys and starts its crypto workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run measured.

    Args:
        config: what was run.
        profile: the CKKS profile that the federation was dealt.
        rows: one per round with an aggregate.
        precision, recall: of the rejections against the malicious clients, over all rounds; None where
            nobody was rejected, or nobody attacked.
        completed: False if the run was cut short.
        meter: what one client measured of its own plan, in words and figures; None if none was asked to.
    """

    config: RunConfig
    profile: str
    rows: tuple[Row, ...]
    precision: float | None
    recall: float | None
    completed: bool
    meter: Mapping[str, Any] | None = None

    @property
    def final_accuracy(self) -> float | None:
        """Accuracy after the last round."""
        return self.rows[-1].accuracy if self.rows else None

    @property
    def backdoor_success(self) -> float | None:
        """The backdoor's success after the last round; None where none is attempted."""
        return self.rows[-1].backdoor_success if self.rows else None

    def summary(self) -> dict[str, object]:
        """What stands beside the rows in ``result.json``."""
        config = self.config
        names = config.names
        return {
            "final_accuracy": self.final_accuracy,
            "backdoor_success": self.backdoor_success,
            "malicious": [names[i] for i in config.malicious],
            "protect": config.protect.value,
            "rule": config.rule,
            "profile": self.profile,
            "precision": self.precision,
            "recall": self.recall,
            "completed": self.completed,
            "meter": self.meter,
            "dataset": config.dataset,
            "poison": config.poison,
            "config": config.model_dump(mode="json"),
        }


def run(config: RunConfig, display: Display, *, command: Sequence[str] = ()) -> RunResult:
    """One federation from data to ``result.json`` and ``model.npz`` in ``config.out``.

    Whatever happens, no process is left behind, and the rows that were measured are written.

    Args:
        command: what to write as the command; default this program's arguments.

    Raises:
        ConfigError: as ``prepare``.
        RoundError: ROUND_ABORTED if the federation ended before its last round.
        SecaggError: INTERNAL if a process crashed or fell silent; the message has its log's tail.
    """
    display.note(f"preparing {config.clients} clients on {config.dataset}")
    ready = prepare(config)
    rows: list[Row] = []
    completed = False
    federation = _Federation(config, ready, display, rows)
    try:
        asyncio.run(federation.run())
        completed = True
    except asyncio.CancelledError:  # SIGTERM
        raise KeyboardInterrupt from None
    finally:
        ready.discard_samples()
        precision, recall = detection(rows, [config.names[i] for i in config.malicious])
        result = RunResult(
            config=config,
            profile=ready.profile,
            rows=tuple(rows),
            precision=precision,
            recall=recall,
            completed=completed,
            meter=federation.meter,
        )
        write_result(
            ready.out,
            command=shlex.join(command or ["secagg", *sys.argv[1:]]),
            seed=config.seed,
            rows=[row.flat() for row in rows],
            more=result.summary(),
        )
    return result


class _Federation:
    """The processes of one run, and what they say."""

    def __init__(self, config: RunConfig, ready: Preparation, display: Display, rows: list[Row]) -> None:
        self._config = config
        self._ready = ready
        self._display = display
        self._rows = rows
        self._measured = Rows(config.everyone)
        self._stage_began = 0.0
        self._running = set(config.everyone)
        self._reason = ""
        self.meter: Mapping[str, Any] | None = None
        """What one client measured of its own plan."""

    async def run(self) -> None:
        """Start everything, listen until every participant is done, end everything."""
        task = asyncio.current_task()
        assert task is not None  # run by asyncio.run
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with Children(self._ready.logs) as children:
            self._display.note("starting the server")
            await children.start(SERVER, self._serve())
            write_tasks(self._config, self._ready, await self._address(children))
            self._display.note(f"starting {self._config.clients} clients")
            for name in self._config.everyone:
                await children.start(
                    name, ("-m", "secagg.simulation.participant", str(self._ready.task_path(name)))
                )
            while self._running:
                self._hear(children, await children.next_message(2 * self._config.round_timeout_s))
        if self._reason:
            raise RoundError(Code.ROUND_ABORTED, f"the federation ended early: {self._reason}")

    def _serve(self) -> tuple[str, ...]:
        command = ("-m", "secagg.cli", "serve", str(self._ready.server), "--events")
        recording = self._ready.recording
        return command if recording is None else (*command, "--record", str(recording.server))

    async def _address(self, children: Children) -> str:
        while True:
            message = await children.next_message(START_TIMEOUT_S)
            if message.event == "listening":
                return str(message.fields["address"])
            self._hear(children, message)

    def _hear(self, children: Children, message: Message) -> None:
        if message.event == "exit":
            self._ended(children, message)
        elif message.child == SERVER:
            self._server_said(message.event, message.fields)
        else:
            self._client_said(message)

    def _ended(self, children: Children, message: Message) -> None:
        status = message.fields["status"]
        if status == 0 and message.child != SERVER:
            self._running.discard(message.child)
            return
        raise SecaggError(
            Code.INTERNAL,
            f"{message.child} ended with status {status}; the end of {children.log_path(message.child)}: "
            f"{children.tail(message.child)}",
        )

    def _server_said(self, event: str, fields: Mapping[str, Any]) -> None:
        if event == "state":
            self._state(fields)
        elif event == "decided":
            self._measured.decided(int(fields["round"]), fields["weights"], fields["reasons"])
        elif event == "undecided":
            self._display.note(f"round {fields['round']}: {fields['message']}")
        elif event == "refused" and fields.get("code") not in EXPECTED_REFUSALS:
            # Who comes too late says so itself; that one mask proposal was enough is no news.
            self._display.note(
                f"refused: {fields.get('client')}: {fields.get('code')}: {fields.get('message')}"
            )

    def _state(self, fields: Mapping[str, Any]) -> None:
        """The server's own time ends in SCREENED and SCORED (statistics) and in AGGREGATED (sum)."""
        number, state, now = int(fields["round"]), fields["state"], float(fields["t_s"])
        if state in ("SCREENED", "SCORED", "AGGREGATED"):
            self._measured.server_time(number, now - self._stage_began)
        elif state == "ABORTED":
            self._display.note(f"round {number} aborted: {fields.get('abort_code')}")
        self._stage_began = now

    def _client_said(self, message: Message) -> None:
        fields = message.fields
        row = None
        if message.event == "ready":
            self._measured.begin()
        elif message.event == "round":
            row = self._measured.reported(message.child, fields)
        elif message.event == "meter":
            self.meter = {"client": message.child, **fields}
            self._display.note("\n".join(f"{message.child}: {line}" for line in fields["lines"]))
        elif message.event == "missed":
            row = self._measured.missed(message.child, int(fields["round"]))
            self._display.note(f"round {fields['round']}: {message.child} missed it: {fields['code']}")
        elif message.event == "end":
            self._reason = str(fields["reason"]) or self._reason
        if row is not None:
            self._rows.append(row)
            self._display.row(row)
