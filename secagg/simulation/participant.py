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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.poisoning import View, load_attack
from defenses import load_rule
from secagg import Client
from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.ckks.profiles import profile
from secagg.client.round import Round
from secagg.errors import Code, RoundError, SecaggError
from secagg.model_file import save_model
from secagg.plan import ProtectionMode
from secagg.rule import Rule
from secagg.simulation.datasets.dataset import Samples
from secagg.simulation.metering import Watch, read_meter
from secagg.simulation.models import build_model
from secagg.simulation.recording import keep_base
from secagg.simulation.task import Task, generator_of, load_samples
from secagg.simulation.training import can_be_sealed, evaluate, train
from secagg.update import Manifest, Tensors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What a participant has to know of a round to train for it.

    Args:
        base: the model it starts from, flat, float32 [d].
        round: its number.
        rule: name of the federation's rule.
        manifest: which tensor is where in the model.
        limit: no value of a model, nor of its difference to the base, may be larger.
    """

    base: NDArray[np.float32]
    round: int
    rule: str
    manifest: Manifest
    limit: float


class Participant:
    """Trains, and lies if its task says so."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._samples = load_samples(Path(task.samples))
        self._coalition = task.coalition
        self._attack = (
            load_attack(self._coalition.attack, self._coalition.strength) if self._coalition else None
        )
        self._members = [
            (load_samples(Path(member.samples)), member.stream)
            for member in (self._coalition.members if self._coalition else ())
        ]
        self._initial: NDArray[np.float32] | None = None
        self._test = load_samples(Path(task.test)) if task.test is not None else None
        self._triggered = _triggered(task.watches, self._test) if self._test and task.watches else None
        self._watch = Watch()
        self._module = build_model(task.model, task.shape, task.classes, seed=0)

    def contribute(self, upcoming: Round) -> None:
        """Take part in one round, and report it."""
        train_s = 0.0

        def trainer(model: dict[str, NDArray[np.float32]], number: int) -> tuple[Tensors, int]:
            nonlocal train_s
            started = time.perf_counter()
            plan = upcoming.plan
            if self._task.bases is not None:
                keep_base(Path(self._task.bases), number, model)
            if self._task.meter and self._watch.wants(upcoming):
                report("meter", round=number, **read_meter(self._task, self._samples, upcoming, model))
            setting = Setting(
                base=plan.manifest.flatten(model),
                round=number,
                rule=plan.rule,
                manifest=plan.manifest,
                limit=_largest_value(upcoming),
            )
            flat, sample_count = self.sends(setting)
            train_s = time.perf_counter() - started
            return plan.manifest.unflatten(flat), sample_count

        result = upcoming.run(trainer)
        quality: dict[str, object] = {}
        if self._test is not None:
            load_tensors(self._module, result.model)
            accuracy, loss = evaluate(self._module, self._test)
            # JSON has no NaN; a diverged model has no loss worth the name.
            quality = {"accuracy": accuracy, "loss": loss if np.isfinite(loss) else None}
            if self._triggered is not None:
                quality["backdoor_success"] = evaluate(self._module, self._triggered)[0]
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

    def rule(self, name: str) -> Rule:
        """The rule it answers statistics by; an attacker's answers may be false."""
        rule = load_rule(name)
        return rule if self._attack is None else self._attack.voter(rule)

    def sends(self, setting: Setting) -> tuple[NDArray[np.float32], int]:
        """The model it hands in, flat, float32 [d], and on how many samples it says it was trained."""
        self._initial = setting.base if self._initial is None else self._initial
        if self._attack is None or not self._attacks(setting.round):
            return self._trained(setting, self._samples, self._task.stream), self._task.sample_count
        return self._forged(setting), self._attack.sample_count(self._task.sample_count)

    def _attacks(self, number: int) -> bool:
        return self._coalition is not None and number >= self._coalition.start_round

    def _trained(self, setting: Setting, samples: Samples, stream: tuple[int, ...]) -> NDArray[np.float32]:
        """The model after training, falsified samples if it attacks, and such that it can be sealed.

        Training that diverges (NaN, infinity, beyond the profile's range) gives the model it started from:
        there is nothing better to offer, and the round needs an answer.
        """
        generator = generator_of(stream, setting.round)
        base, limit = setting.base, setting.limit
        if self._attack is not None and self._attacks(setting.round):
            values, labels = self._attack.falsify(
                samples.values, samples.labels, self._task.classes, generator
            )
            samples = Samples(values=values, labels=labels)
        load_tensors(self._module, setting.manifest.unflatten(base))
        train(self._module, samples, self._task.schedule, generator)
        tensors = tensors_from(self._module)
        diverged = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
        if not diverged:
            flat = setting.manifest.flatten(tensors)
            if can_be_sealed(flat, base, limit):
                return flat
            diverged.append("values beyond the range that can be sealed")
        report("diverged", round=setting.round, tensors=diverged)
        return base

    def _forged(self, setting: Setting) -> NDArray[np.float32]:
        """What this member of the coalition sends, at the edge of what can be sealed if it wants more.

        It trains all members' models, with their samples and random numbers: so all of them see the same
        without a word between them, and each sends its own part of what is forged.
        """
        assert self._coalition is not None and self._attack is not None
        base, limit = setting.base, setting.limit
        own = [self._trained(setting, samples, stream) - base for samples, stream in self._members]
        view = View(
            base=base,
            own=np.stack(own),
            clients=self._coalition.clients,
            round=setting.round,
            initial=self._initial,
            rule=load_rule(setting.rule),
            manifest=setting.manifest,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            forged = self._attack.forge(view, generator_of(self._coalition.stream, setting.round))
        # Half of the range, so that the model and its difference to the base can both be sealed.
        update = np.nan_to_num(forged[self._coalition.place], posinf=limit, neginf=-limit)
        sent: NDArray[np.float32] = np.clip(base + np.clip(update, -limit / 2, limit / 2), -limit, limit)
        return sent


def _triggered(attack: str, test: Samples) -> Samples | None:
    """The samples on which accuracy is the attack's success; None if it is no backdoor."""
    found = load_attack(attack).triggered(test.values, test.labels)
    return None if found is None else Samples(values=found[0], labels=found[1])


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
        task.identity, server=task.server, rules=participant.rule, patience_s=task.patience_s, workers=1
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
