"""One row: a round of clients with the same model under one scheme, each role in processes of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secagg.aggregate import aggregate_bytes
from secagg.config import FederationConfig
from secagg.custody.dealing import INITIAL_MODEL_FILE, deal
from secagg.custody.enrolment import enroll_local
from secagg.custody.federation import init_federation
from secagg.errors import Code, SecaggError
from secagg.model_file import save_model
from secagg.overhead.processes import Role
from secagg.overhead.schemes import Scheme
from secagg.overhead.task import CLIENT, Task
from secagg.rule import RuleLoader
from secagg.selection.layout import FLOAT32_BYTES
from secagg.update import Manifest

Note = Callable[[str], None]

_ROLES = (
    ("seal", "client_role", "a client seals"),
    ("serve", "server_role", "the server sums"),
    ("open", "client_role", "a client opens"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a round of one model costs under one scheme; seconds are medians.

    Args:
        model: its name.
        values: of one update.
        scheme: as ``Scheme.parse`` reads it.
        clients: how many updates the server checks and sums.
        updates: how many of them are really sealed; the rest are the same files again.
        workers: processes for each step.
        repeat: how often each step was timed.
        bytes_up, bytes_down: one client's payload, and the aggregate that it opens.
        seal_s, open_s: one client's; from and to bytes in memory.
        check_s, sum_s: the server's for all clients: see that each payload is well formed; sum them.
        aggregate_s: both.
        client_peak_mib, server_peak_mib: the largest resident set of that role, interpreter, libraries and
            all its processes included; the client's is the larger of ``seal_peak_mib`` and ``open_peak_mib``.
        baseline_mib: what interpreter and imports alone take.
        vector_mib: the update itself, as float32.
        seal_over_vector_mib: ``seal_peak_mib`` without the update.
        seal_over_baseline_mib: and without interpreter and imports of one process.
        max_error, error_bound: of hidden values against the exact weighted mean, and what theory allows.
        up_ratio, down_ratio: bytes against the update as plain float32.
    """

    model: str
    values: int
    scheme: str
    clients: int
    updates: int
    workers: int
    repeat: int
    bytes_up: int
    bytes_down: int
    seal_s: float
    check_s: float
    sum_s: float
    aggregate_s: float
    open_s: float
    client_peak_mib: float
    server_peak_mib: float
    seal_peak_mib: float
    open_peak_mib: float
    baseline_mib: float
    vector_mib: float
    seal_over_vector_mib: float
    seal_over_baseline_mib: float
    max_error: float
    error_bound: float
    up_ratio: float
    down_ratio: float

    def flat(self) -> dict[str, object]:
        """As it is written to ``result.json``; ``peer`` is null, as it is for no other system."""
        fields = {name: _rounded(value) for name, value in asdict(self).items()}
        names = list(fields)
        front = {name: fields[name] for name in names[:3]}
        return {**front, "peer": None, **{name: fields[name] for name in names[3:]}}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for all rows.

    Args:
        clients, seed, repeat, workers: as in ``Task``.
        scratch: folder for payloads and the like; what is left there belongs to no row.
        rules: loads the federation's rule, for dealing keys.
    """

    clients: int
    seed: int
    repeat: int
    workers: int
    scratch: Path
    rules: RuleLoader

    @classmethod
    @contextmanager
    def opened(
        cls, out: Path, *, clients: int, seed: int, repeat: int, workers: int, rules: RuleLoader
    ) -> Iterator[Setting]:
        """A setting whose scratch folder, inside ``out``, is there within the block."""
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=out) as folder:
            yield cls(
                clients=clients,
                seed=seed,
                repeat=repeat,
                workers=workers,
                scratch=Path(folder),
                rules=rules,
            )


def measure(
    model: str,
    manifest: Manifest,
    scheme: Scheme,
    setting: Setting,
    *,
    sample_counts: tuple[int, ...] | None = None,
    note: Note = lambda _text: None,
) -> Row:
    """Seal, check and sum, open; see that sizes are exact and that the opened mean is right.

    Args:
        model: what the row calls it.
        sample_counts: of the updates that are sealed; None: as many updates as there are repetitions or
            clients, whichever are fewer, of one sample each.
        note: told what happens next.

    Raises:
        ConfigError: CONFIG_INVALID if the scheme has no room for so many clients.
        SecaggError: INTERNAL if a role fails, or its result is wrong.
    """
    scheme.check_clients(setting.clients)
    with _prepared(manifest, scheme, setting, sample_counts) as task:
        figures = _play(task, _ROLES, lambda happening: note(f"{model} {scheme.name}: {happening}"))
        up, down = _sizes(task)
        updates = len(task.sample_counts)
    sealed, served, opened = (figures[role] for role in ("seal", "serve", "open"))
    plain = FLOAT32_BYTES * manifest.size
    vector_mib = plain / 2**20
    return Row(
        model=model,
        values=manifest.size,
        scheme=scheme.name,
        clients=setting.clients,
        updates=updates,
        workers=setting.workers,
        repeat=setting.repeat,
        bytes_up=up,
        bytes_down=down,
        seal_s=sealed["seal_s"],
        check_s=served["check_s"],
        sum_s=served["sum_s"],
        aggregate_s=served["check_s"] + served["sum_s"],
        open_s=opened["open_s"],
        client_peak_mib=max(sealed["peak_mib"], opened["peak_mib"]),
        server_peak_mib=served["peak_mib"],
        seal_peak_mib=sealed["peak_mib"],
        open_peak_mib=opened["peak_mib"],
        baseline_mib=sealed["baseline_mib"],
        vector_mib=vector_mib,
        seal_over_vector_mib=sealed["peak_mib"] - vector_mib,
        seal_over_baseline_mib=sealed["peak_mib"] - vector_mib - sealed["baseline_mib"],
        max_error=opened["max_error"],
        error_bound=opened["error_bound"],
        up_ratio=up / plain,
        down_ratio=down / plain,
    )


def measure_sealing(manifest: Manifest, scheme: Scheme, setting: Setting) -> dict[str, object]:
    """Only the client's way up: the fields of ``Row`` that say what sealing takes. Nothing is opened."""
    with _prepared(manifest, scheme, setting, None) as task:
        figures = _play(task, _ROLES[:1], lambda _happening: None)["seal"]
    vector_mib = FLOAT32_BYTES * manifest.size / 2**20
    return {
        "values": manifest.size,
        "scheme": scheme.name,
        "seal_s": figures["seal_s"],
        "seal_peak_mib": figures["peak_mib"],
        "baseline_mib": figures["baseline_mib"],
        "vector_mib": vector_mib,
        "seal_over_vector_mib": figures["peak_mib"] - vector_mib,
        "seal_over_baseline_mib": figures["peak_mib"] - vector_mib - figures["baseline_mib"],
    }


@contextmanager
def _prepared(
    manifest: Manifest, scheme: Scheme, setting: Setting, sample_counts: tuple[int, ...] | None
) -> Iterator[Task]:
    """A task whose folder is there within the block."""
    with tempfile.TemporaryDirectory(prefix="round-", dir=setting.scratch) as folder:
        task = Task(
            folder=Path(folder),
            federation=_federation(scheme, setting),
            scheme=scheme.name,
            clients=setting.clients,
            sample_counts=sample_counts or (1,) * min(setting.repeat, setting.clients),
            seed=setting.seed,
            repeat=setting.repeat,
            workers=setting.workers,
        )
        task.prepare(manifest)
        yield task


def _play(task: Task, cast: Sequence[tuple[str, str, str]], note: Note) -> dict[str, dict[str, Any]]:
    """Each role's figures. The processes start together; each waits for its turn."""
    with ExitStack() as stack:
        roles = {
            name: stack.enter_context(Role(f"secagg.overhead.{module}", name, task.folder / f"{name}.log"))
            for name, module, _ in cast
        }
        for role in roles.values():
            role.get_ready()
        figures = {}
        for name, _, happening in cast:
            note(happening)
            figures[name] = roles[name].play(task.to_json())
        return figures


def _sizes(task: Task) -> tuple[int, int]:
    """Bytes of payload and aggregate, which must be what the formulas say."""
    layout, form = task.layout(), task.parsed.profile
    found = task.payload_path(0).stat().st_size, task.aggregate_path.stat().st_size
    expected = layout.payload_bytes(form), aggregate_bytes(layout, form)
    if found != expected:
        raise SecaggError(
            Code.INTERNAL, f"scheme {task.scheme}: files of {found} bytes where {expected} belong"
        )
    return found


def _federation(scheme: Scheme, setting: Setting) -> Path:
    """A federation with one client whose key is of the scheme's profile; made once.

    Its initial model is one value: keys do not depend on the model.
    """
    folder = setting.scratch / f"federation-{scheme.profile.name}"
    if not folder.exists():
        config = FederationConfig.model_validate(
            {"name": "overhead", "address": "localhost:0", "min_clients": 1, "profile": scheme.profile.name}
        )
        init_federation(folder, config)
        save_model(folder / INITIAL_MODEL_FILE, {"value": np.zeros(1, dtype=np.float32)})
        enroll_local(folder, CLIENT)
        deal(folder, rules=setting.rules)
    return folder


def _rounded(value: object) -> object:
    """Digits beyond what any clock or page shows are noise."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
