"""One client process of a simulated federation: ``python -m secagg.simulation.participant TASK.json``.

It holds its own identity and its own samples, talks to the server over mutual TLS, and tells the
launcher on standard output how each round went, one JSON line each. Nothing else goes to standard
output; what went wrong goes to standard error.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.poisoning import load_attack
from defenses import load_rule
from secagg import Client
from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.ckks.profiles import profile
from secagg.client.round import Round
from secagg.errors import Code, RoundError, SecaggError
from secagg.model_file import save_model
from secagg.plan import ProtectionMode
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.models import build_model
from secagg.simulation.task import Task, load_samples
from secagg.simulation.training import evaluate, train
from secagg.update import Manifest, Tensors


class Participant:
    """Trains, and lies if its task says so."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._attack = load_attack(task.attack, task.strength) if task.attack else None
        self._samples = load_samples(Path(task.samples))
        if self._attack is not None:
            self._samples = Samples(
                values=self._samples.values, labels=self._attack.labels(self._samples.labels, task.classes)
            )
        self._test = load_samples(Path(task.test)) if task.test is not None else None
        self._module = build_model(task.model, task.shape, task.classes, seed=0)

    def contribute(self, upcoming: Round) -> None:
        """Take part in one round, and report it."""
        train_s = 0.0

        def trainer(model: dict[str, NDArray[np.float32]], number: int) -> tuple[Tensors, int]:
            nonlocal train_s
            started = time.perf_counter()
            tensors = self._train(model, number, _largest_value(upcoming))
            train_s = time.perf_counter() - started
            return tensors, self._task.sample_count

        result = upcoming.run(trainer)
        quality: dict[str, object] = {}
        if self._test is not None:
            load_tensors(self._module, result.model)
            accuracy, loss = evaluate(self._module, self._test)
            # JSON has no NaN; a diverged model has no loss worth the name.
            quality = {"accuracy": accuracy, "loss": loss if np.isfinite(loss) else None}
        report(
            "round",
            round=result.round,
            train_s=train_s,
            seal_s=result.seal_s,
            open_s=result.open_s,
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            **quality,
        )

    def _train(self, model: dict[str, NDArray[np.float32]], number: int, limit: float) -> Tensors:
        """The model to send: trained, falsified if malicious, and such that it can be sealed.

        A client whose training diverges (NaN, infinity, beyond the profile's range) sends back the
        model it was given: it has nothing better to offer, and the round needs an answer. An attacker
        goes to the edge of the range instead.
        """
        manifest = Manifest.of(model)
        base = manifest.flatten(model)
        generator = np.random.default_rng([*self._task.stream, number])
        load_tensors(self._module, model)
        train(self._module, self._samples, self._task.schedule, generator)
        trained = tensors_from(self._module)
        diverged = [name for name, tensor in trained.items() if not np.isfinite(tensor).all()]
        flat = base if diverged else manifest.flatten(trained)
        if self._attack is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                sent = self._attack.model(base, flat, generator)
            flat = np.clip(np.nan_to_num(sent, posinf=limit, neginf=-limit), -limit, limit)
        elif np.abs(flat).max() > limit:
            diverged.append("values beyond the range that can be sealed")
            flat = base
        if diverged:
            report("diverged", round=number, tensors=diverged)
        return manifest.unflatten(flat)


def report(event: str, **fields: object) -> None:
    """One JSON line on standard output for the launcher."""
    sys.stdout.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
    sys.stdout.flush()


def take_part(task: Task) -> None:
    """The whole federation as this participant lives it.

    Raises:
        SecaggError: it can't go on.
    """
    participant = Participant(task)
    # Every participant is a process already; more of them would only wait for a core.
    with Client.load(
        task.identity, server=task.server, rules=load_rule, patience_s=task.patience_s, workers=1
    ) as client:
        report("ready")
        for upcoming in client.rounds():
            try:
                participant.contribute(upcoming)
            except RoundError as error:
                if error.code not in (Code.ROUND_ABORTED, Code.ROUND_CLOSED):
                    raise
                report("missed", round=upcoming.number, code=error.code, message=error.message)
        reason = client.end.reason if client.end is not None else ""
        if task.final_model is not None and client.end is not None and client.end.last_aggregate_round:
            save_model(Path(task.final_model), client.final_model())
        report("end", reason=reason)


def _largest_value(upcoming: Round) -> float:
    """The largest absolute value this round's update may hold."""
    if upcoming.plan.protection.mode is ProtectionMode.PLAIN:
        return float(np.finfo(np.float32).max) / 4
    return profile(upcoming.plan.profile).max_abs


def main() -> None:
    """Entry of the process; exits with 1 and one line on standard error if it can't go on."""
    signal.signal(signal.SIGTERM, _leave)
    torch.set_num_threads(1)
    try:
        take_part(Task.load(Path(sys.argv[1])))
    except SecaggError as error:
        sys.exit(f"{error}")
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
