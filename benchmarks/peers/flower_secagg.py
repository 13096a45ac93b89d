"""Flower's SecAgg+, its client's mod and its server's workflow as installed, among clients that all stay.

``SecAggWorkflow`` (SecAgg+ with every client a neighbour of every other) drives the four stages against
``secaggplus_mod``, with the defaults of both: values clipped to 8, 2^22 steps, modulus 2^32. Its strategy is
``FedAvg``, which averages one result per client once more, though the workflow put the same sum in each.
Every client reports the full ``max_weight`` of examples, so the mean is unweighted and least rounded. All
clients really take part, since pairwise masks cancel only then: N clients make N^2 masks in all.

- client 1 is alone in a process; ``seal_s`` is all it does in the four stages: parsing, keys and shares, an
  update into ``FitRes``, quantising, its private and N - 1 pairwise masks, serialising;
- the other clients share a process;
- the server is the script's own process; ``aggregate_s`` is all it does in the four stages, without its
  waiting. Flower's grid hands over all replies of a stage at once, so its peak holds every client's masked
  vector.

``open_s`` is what a client does with the next round's ``FitIns``: parsing it into arrays. Nothing is
encrypted there. ``bytes_up`` and ``bytes_down`` are all of client 1's messages of the round, the next
``FitIns`` included, as the objects Flower pushes to its SuperLink. Replaced is only what carries them: files
stand for the network, and SuperLink and SuperNode, which relay, don't run. Reading and writing those files is
not timed.

A tensor without dimensions (shape []) is opened wrongly by Flower's workflow, off by 8 (N - 1): it takes the
clipping off in place, which for a numpy scalar changes nothing that is kept.
"""

from __future__ import annotations

import logging
import pickle
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.peers.roles import Step, in_own_process, peak_mib
from benchmarks.peers.task import Figures, Task, largest_error, stdout_for_figures

RUN, SERVER, MEASURED, MAX_WEIGHT, THRESHOLD = 1, 1, 1, 1000, 2 / 3


def packed(message: Message) -> tuple[str, dict[str, bytes]]:
    """A message as Flower pushes it: the id of its root object, and every object's bytes by id."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = get_all_nested_objects(message)
        return message.object_id, {key: objects[key].deflate() for key in objects}


def unpacked(root: str, contents: dict[str, bytes]) -> Message:
    """A message from what Flower pulls."""
    message = inflate_object_from_contents(root, contents)
    message.metadata.__dict__["_message_id"] = root
    return message


def write(path: Path, sent: tuple[str, dict[str, bytes]]) -> int:
    """Put a packed message on the wire; its size in bytes."""
    with path.open("wb") as file:
        pickle.dump(sent, file, protocol=pickle.HIGHEST_PROTOCOL)
    return sum(map(len, sent[1].values()))


def read(path: Path) -> tuple[str, dict[str, bytes]]:
    """Take a packed message off the wire."""
    with path.open("rb") as file:
        received: tuple[str, dict[str, bytes]] = pickle.load(file)
    path.unlink()
    return received


def take_part(task: Task, wire: Connection) -> None:
    """A process with clients: answers ``(client, path)`` with ``(seconds, bytes)``, None with its peak."""
    logging.getLogger("flwr").setLevel(logging.WARNING)
    TaskIdentity.run_id, TaskIdentity.task_id = RUN, 0
    draw = lru_cache(maxsize=1)(task.update)
    draw(MEASURED)  # Here, so that drawing it isn't in the measured client's time.
    contexts: dict[int, Context] = {}

    def train(message: Message, context: Context) -> Message:
        """The client's app: its training is done, the update is at hand."""
        parameters = ndarrays_to_parameters(draw(context.node_id))
        result = FitRes(Status(Code.OK, ""), parameters, num_examples=MAX_WEIGHT, metrics={})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)

    for client, path in iter(wire.recv, None):
        TaskIdentity.node_id = client
        context = contexts.setdefault(client, Context(RUN, client, {}, RecordDict(), {}))
        received = read(path)
        started = perf_counter()
        reply = packed(secaggplus_mod(unpacked(*received), context, train))
        seconds = perf_counter() - started
        del received
        wire.send((seconds, write(path, reply)))
        del reply
    wire.send(peak_mib())


@dataclass(slots=True, kw_only=True)
class Network:
    """Flower's ``Grid``, as far as the workflow asks for it: carries messages, keeps count of client 1's."""

    folder: Path
    wires: dict[int, Connection]
    away_s: float = 0.0
    client_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Each message's reply, one client after the other; what isn't the server's work counts as away."""
        del timeout
        replies = []
        for message in messages:
            client, path = message.metadata.dst_node_id, self.folder / f"{message.metadata.dst_node_id}"
            sent = packed(message)
            started = perf_counter()
            size = write(path, sent)
            self.wires[client].send((client, path))
            seconds, size_up = self.wires[client].recv()
            received = read(path)
            self.away_s += perf_counter() - started
            if client == MEASURED:
                self.client_s += seconds
                self.bytes_up += size_up
                self.bytes_down += size
            replies.append(unpacked(*received))
        return replies


def run_round(task: Task, network: Network) -> tuple[float, Message]:
    """One round of the workflow: the server's own seconds, and the message that begins the next round."""
    everyone = SimpleClientManager()
    for client in network.wires:
        everyone.register(GridClientProxy(client, network, RUN))
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=task.clients, min_available_clients=task.clients)
    state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 2})})
    nothing = compat.parameters_to_arrayrecord(ndarrays_to_parameters([]), keep_input=False)
    state.array_records[MAIN_PARAMS_RECORD] = nothing
    context = LegacyContext(Context(RUN, SERVER, {}, state, {}), strategy=strategy, client_manager=everyone)
    started = perf_counter()
    SecAggWorkflow(THRESHOLD)(network, context)
    spent = perf_counter() - started - network.away_s
    summed = context.state.array_records[MAIN_PARAMS_RECORD]
    if len(summed) != len(task.shapes):
        raise RuntimeError("Flower's workflow halted; its log is above")
    task_ahead = FitIns(compat.arrayrecord_to_parameters(summed, keep_input=False), {})
    content = compat.fitins_to_recorddict(task_ahead, keep_input=False)
    return spent, Message(content, MEASURED, MessageType.TRAIN, group_id="3")


def unseal(task: Task, path: Path) -> Step:
    """A client's next round begins: the bytes of ``FitIns`` become arrays, checked against the exact mean."""
    seconds = []
    for _ in range(task.repeat):
        with path.open("rb") as file:
            received = pickle.load(file)
        started = perf_counter()
        parameters = compat.recorddict_to_fitins(unpacked(*received).content, keep_input=False).parameters
        opened = parameters_to_ndarrays(parameters)
        seconds.append(perf_counter() - started)
        del received, parameters
    peak = peak_mib()
    exact = [np.zeros(shape) for shape in task.shapes]
    for client in range(MEASURED, MEASURED + task.clients):
        for total, tensor in zip(exact, task.update(client), strict=True):
            total += tensor / np.float64(task.clients)
    return Step(seconds=median(seconds), peak_mib=peak, error=largest_error(opened, exact))


def start(task: Task) -> Connection:
    """A process that takes part; the other end of its wire."""
    near, far = get_context("spawn").Pipe()
    get_context("spawn").Process(target=take_part, args=(task, far), daemon=True).start()
    far.close()
    return near


def main() -> None:
    """Run rounds with this process as the server."""
    task = Task.from_command_line(__doc__)
    if task.clients < 2:
        sys.exit("secure aggregation takes at least 2 clients")
    logging.getLogger("flwr").setLevel(logging.WARNING)
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN, 0, SERVER
    with stdout_for_figures() as stdout, tempfile.TemporaryDirectory() as scratch:
        measured, others = start(task), start(task)
        wires = {MEASURED + client: others if client else measured for client in range(task.clients)}
        seconds, client_seconds = [], []
        for _ in range(task.repeat):
            network = Network(folder=Path(scratch), wires=wires)
            spent, message = run_round(task, network)
            started = perf_counter()
            sent = packed(message)
            seconds.append(spent + perf_counter() - started)
            client_seconds.append(network.client_s)
            size = write(Path(scratch) / "down", sent)
            del message, sent
        measured.send(None)
        Figures.of(
            f"flwr {version('flwr')}",
            task,
            Step(seconds=median(client_seconds), peak_mib=measured.recv(), size=network.bytes_up),
            Step(seconds=median(seconds), peak_mib=peak_mib(), size=network.bytes_down + size),
            in_own_process(unseal, task, Path(scratch) / "down"),
        ).write(stdout)


if __name__ == "__main__":
    main()
