"""One cell: rounds of honest training, an attack from some round on, the rule, and what is measured of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.robust.cell import Cell
from benchmarks.robust.coalition import Coalition
from benchmarks.robust.domains import domain_of, warm_domain_of
from benchmarks.robust.federation import Federation
from benchmarks.robust.store import Outcome
from benchmarks.robust.verdict import Domain, Flat, Submissions, Verdict
from defenses import load_rule
from secagg.rule import CoordinateRule, StatisticsRequest

WARM_FOLDER = "warm"
FINAL_EVALUATIONS = 3
"""``accuracy`` is the mean over so many last evaluations: single rounds differ by points on uneven data."""

Note = Callable[[int], None]
"""Called with each round that has ended."""


@dataclass(slots=True, kw_only=True)
class State:
    """Where a federation stands between two rounds."""

    model: Flat
    before: Flat
    history: dict[int, Flat] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it; another process sees nothing or the whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{time.time_ns()}")
        with temporary.open("wb") as file:
            np.savez(
                file,
                model=self.model,
                before=self.before,
                clients=np.array(sorted(self.history), dtype=np.int64),
                history=np.array([self.history[client] for client in sorted(self.history)]),
                curve=np.array(json.dumps(self.curve)),
            )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what ``save`` has written."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                model=arrays["model"],
                before=arrays["before"],
                history=dict(zip(arrays["clients"].tolist(), arrays["history"], strict=True)),
                curve=json.loads(str(arrays["curve"])),
            )


@dataclass(slots=True)
class Tally:
    """What is counted over the rounds from the attack's start on."""

    rejected: int = 0
    caught: int = 0
    malicious: int = 0
    honest: int = 0
    honest_kept: int = 0
    weighted: bool = True
    malicious_weight: list[float] = field(default_factory=list)
    refused: int = 0
    server_s: list[float] = field(default_factory=list)
    weight_gap: float | None = None

    def add(self, verdict: Verdict, size: int, malicious: int) -> None:
        """One round's, whose last ``malicious`` of ``size`` updates are."""
        self.server_s.append(verdict.server_s)
        self.refused += verdict.refused
        if verdict.weight_gap is not None:
            self.weight_gap = max(self.weight_gap or 0.0, verdict.weight_gap)
        if verdict.weights is None:
            self.weighted = False
            return
        if verdict.refused:
            # Nobody is told from anybody: the round does not count among rejections.
            return
        kept = verdict.weights > 0
        bad = np.arange(size) >= size - malicious
        self.rejected += int((~kept).sum())
        self.caught += int((~kept & bad).sum())
        self.malicious += malicious
        self.honest += size - malicious
        self.honest_kept += int((kept & ~bad).sum())
        self.malicious_weight.append(float(verdict.weights[bad].sum() / verdict.weights.sum()))

    def flat(self) -> dict[str, Any]:
        """For a row; None where nothing can be said."""
        weighted = self.weighted and self.honest > 0
        return {
            "precision": self.caught / self.rejected if self.malicious and self.rejected else None,
            "recall": self.caught / self.malicious if self.malicious else None,
            "honest_kept": self.honest_kept / self.honest if weighted else None,
            "malicious_weight": mean(self.malicious_weight) if self.malicious else None,
            "refused_rounds": self.refused,
            "server_s": median(self.server_s),
            "weight_gap": self.weight_gap,
        }


class Play:
    """A cell being played."""

    def __init__(self, cell: Cell, federation: Federation) -> None:
        self._cell, self._federation = cell, federation
        self._coalition = Coalition(cell, federation)
        self._request = _request(cell, federation)

    def run(self, folder: Path, note: Note) -> Outcome:
        """All rounds. The state before the attack is taken from, or left in, ``folder``."""
        started, setting = time.perf_counter(), self._cell.setting
        state = self._warm(folder, note)
        tally, domain = Tally(), domain_of(self._cell, self._federation.manifest)
        try:
            for round in range(setting.start_round, setting.rounds + 1):
                verdict = self._round(state, domain, round, self._cell.malicious)
                tally.add(verdict, setting.per_round, self._cell.malicious)
                note(round)
        finally:
            domain.close()
        return self._outcome(state, tally, time.perf_counter() - started)

    def _warm(self, folder: Path, note: Note) -> State:
        """The state when the attack starts; equal for all attacks on a rule."""
        setting, initial = self._cell.setting, self._federation.initial
        path = folder / WARM_FOLDER / f"{self._cell.warm_key}.npz"
        if setting.start_round > 1 and path.exists():
            return State.load(path)
        state = State(model=initial, before=initial)
        if setting.start_round == 1:
            return state
        domain = warm_domain_of(self._cell, self._federation.manifest)
        try:
            for round in range(1, setting.start_round):
                self._round(state, domain, round, 0)
                note(round)
        finally:
            domain.close()
        state.save(path)
        return state

    def _round(self, state: State, domain: Domain, round: int, malicious: int) -> Verdict:
        """Train, forge, judge, and go on from the new model."""
        federation = self._federation
        members = federation.members(round, malicious)
        honest = len(members) - malicious
        falsify = self._coalition.falsify if malicious else None
        trained = [
            federation.update(state.model, int(client), round, falsify if place >= honest else None)
            for place, client in enumerate(members)
        ]
        updates = np.stack([update for update, _ in trained])
        if malicious:
            updates[honest:] = self._coalition.forged(state.model, updates, round)
        counts = np.array([count for _, count in trained], dtype=np.int64)
        verdict = domain.round(
            Submissions(
                round=round,
                base=state.model,
                before=state.before,
                updates=updates,
                counts=self._coalition.counts(counts) if malicious else counts,
                root=self._root(state.model, round),
                history=self._history(state, members, updates),
            )
        )
        state.before, state.model = state.model, verdict.model
        self._evaluate(state, round)
        return verdict

    def _root(self, base: Flat, round: int) -> Flat | None:
        wanted = self._request is not None and self._request.root
        return self._federation.root_update(base, round) if wanted else None

    def _history(self, state: State, members: NDArray[np.int64], updates: Flat) -> NDArray[np.float64] | None:
        if self._request is None or not self._request.history:
            return None
        for client, update in zip(members.tolist(), updates, strict=True):
            state.history[client] = state.history.get(client, np.zeros_like(update)) + update
        return np.stack([state.history[client] for client in members.tolist()]).astype(np.float64)

    def _evaluate(self, state: State, round: int) -> None:
        setting = self._cell.setting
        if round % setting.evaluate_every and round not in (setting.rounds, setting.start_round - 1):
            return
        accuracy, loss = self._federation.accuracy(state.model)
        point: dict[str, Any] = {"round": round, "accuracy": accuracy, "loss": loss}
        success = self._coalition.success(state.model)
        state.curve.append(point if success is None else {**point, "attack_success": success})

    def _outcome(self, state: State, tally: Tally, seconds: float) -> Outcome:
        cell, setting = self._cell, self._cell.setting
        last = state.curve[-FINAL_EVALUATIONS:]
        successes = [point["attack_success"] for point in last if "attack_success" in point]
        row = {
            "dataset": Path(setting.dataset).name,
            "rule": cell.resolved_rule,
            "attack": cell.attack,
            "fraction": cell.fraction if cell.malicious else 0.0,
            "domain": cell.domain,
            "accuracy": mean(point["accuracy"] for point in last),
            **tally.flat(),
            "attack_success": mean(successes) if successes else None,
            "assumed_malicious": cell.assumed,
            "start_round": setting.start_round,
            "rounds": setting.rounds,
            "samples": setting.samples,
            "values": self._federation.manifest.size,
            "wall_s": seconds,
        }
        return Outcome(row=row, curve=state.curve, seconds=seconds)


def _request(cell: Cell, federation: Federation) -> StatisticsRequest | None:
    """What the rule wants to know; byzfl's see all and ask for nothing."""
    if cell.domain == "byzfl":
        return None
    rule = load_rule(cell.resolved_rule)
    return None if isinstance(rule, CoordinateRule) else rule.request(federation.manifest)
