"""NVFlare's homomorphic encryption, put together as its recipe ``FedAvgRecipeWithHE`` does.

Everything is the installed package's: its provisioning makes signed startup kits (``HEBuilder``'s defaults:
CKKS, degree 8192, primes [60, 40, 40], scale 2^40, symmetric encryption), ``SecurityContentService`` checks
and loads the keys from them, and then, in three processes,

- client: a ``DXO`` of weights becomes a ``Shareable``, ``HEModelEncryptor`` filters it, FOBS serialises it;
- server: FOBS parses each client's bytes, ``HEInTimeAccumulateWeightedAggregator`` accepts them one after the
  other and aggregates, ``HEModelShareableGenerator`` makes model and next task of it, FOBS serialises that
  once;
- client: FOBS parses it, ``HEModelDecryptor`` filters it.

Replaced is only what surrounds them: files stand for the network (reading and writing them is not timed),
what the communicator writes into a ``Shareable`` (who sent it, the round it answers) is written here, and an
engine without listeners takes the events that components fire when they log a warning. One client's update is
really sealed; the server parses its bytes anew for every client. Every client reports one local step, so the
mean is unweighted. Left out, in NVFlare's favour: saving the model each round, and serialising the next task
once for each client.

A tensor of more than about 37 million values makes it fail, as it does TenSEAL.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from nvflare import __version__
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import HEInTimeAccumulateWeightedAggregator
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.fuel.utils import fobs
from nvflare.lighter.constants import CtxKey
from nvflare.lighter.entity import Project
from nvflare.lighter.impl.cert import CertBuilder
from nvflare.lighter.impl.he import HEBuilder
from nvflare.lighter.impl.signature import SignatureBuilder
from nvflare.lighter.impl.static_file import StaticFileBuilder
from nvflare.lighter.impl.workspace import WorkspaceBuilder
from nvflare.lighter.provisioner import Provisioner

from benchmarks.peers.roles import Step, in_own_process, peak_mib
from benchmarks.peers.task import Figures, Task, largest_error, stdout_for_figures

SERVER, CLIENT, ROUND = "server1", "site-1", 0


class Engine:
    """Who components report events to; nobody listens to them here."""

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Do nothing."""


def provision(folder: Path) -> Path:
    """The folder with one startup kit per participant, made by NVFlare's own builders."""
    project = Project("peer", "one server, one client", props={"api_version": 3})
    project.set_server(SERVER, "org", {})
    project.add_client(CLIENT, "org", {})
    builders = [WorkspaceBuilder(), StaticFileBuilder(), CertBuilder(), HEBuilder(), SignatureBuilder()]
    return Path(Provisioner(str(folder), builders).provision(project)[CtxKey.CURRENT_PROD_DIR])


def at_work(kits: Path, name: str, peer: str) -> FLContext:
    """The context of a participant's run; its components load their keys from its startup kit."""
    logging.disable(logging.INFO)
    fobs.loads(fobs.dumps({}))  # FOBS's first use imports all its decomposers: no round's cost.
    SecurityContentService.initialize(str(kits / name / "startup"))
    context = FLContextManager(engine=Engine(), identity_name=name, job_id="job").new_context()
    context.set_peer_context(FLContextManager(identity_name=peer, job_id="job").new_context())
    context.set_prop(AppConstants.CURRENT_ROUND, ROUND)
    return context


def seal(task: Task, kits: Path, wire: Path) -> Step:
    """The client's way up: an update becomes the bytes of a task's result."""
    context = at_work(kits, CLIENT, SERVER)
    encryptor = HEModelEncryptor()
    encryptor.handle_event(EventType.START_RUN, context)
    seconds = []
    for _ in range(task.repeat):
        named = {f"tensor{index}": tensor for index, tensor in enumerate(task.update(0))}
        started = perf_counter()
        result = DXO(DataKind.WEIGHTS, data=named, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1}).to_shareable()
        result.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)
        sent = fobs.dumps(encryptor.process(result, context), buffer_list=True, fobs_ctx={})
        seconds.append(perf_counter() - started)
        del named, result
    with wire.open("wb") as file:
        file.writelines(sent)
    return Step(seconds=median(seconds), peak_mib=peak_mib(), size=wire.stat().st_size)


def aggregate(task: Task, kits: Path, up: Path, down: Path) -> Step:
    """The server's round: all clients' bytes become the bytes of the next task."""
    context = at_work(kits, SERVER, CLIENT)
    aggregator = HEInTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHTS)
    generator = HEModelShareableGenerator()
    for component in (aggregator, generator):
        component.handle_event(EventType.START_RUN, context)
    seconds = []
    for _ in range(task.repeat):
        context.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable({}, {}))
        spent = 0.0
        for client in range(task.clients):
            received = up.read_bytes()
            started = perf_counter()
            result = fobs.loads(received, fobs_ctx={})
            result.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{client + 1}"})
            if not aggregator.accept(result, context):
                raise RuntimeError(f"NVFlare's aggregator refused the update of site-{client + 1}")
            del result
            spent += perf_counter() - started
            del received
        started = perf_counter()
        model = generator.shareable_to_learnable(aggregator.aggregate(context), context)
        sent = fobs.dumps(generator.learnable_to_shareable(model, context), buffer_list=True, fobs_ctx={})
        seconds.append(spent + perf_counter() - started)
        del model
    with down.open("wb") as file:
        file.writelines(sent)
    return Step(seconds=median(seconds), peak_mib=peak_mib(), size=down.stat().st_size)


def unseal(task: Task, kits: Path, down: Path) -> Step:
    """The client's way down: the bytes of a task become lists of numbers, checked against the update."""
    context = at_work(kits, CLIENT, SERVER)
    decryptor = HEModelDecryptor()
    decryptor.handle_event(EventType.START_RUN, context)
    seconds = []
    for _ in range(task.repeat):
        received = down.read_bytes()
        started = perf_counter()
        parsed: Shareable = fobs.loads(received, fobs_ctx={})
        opened = from_shareable(decryptor.process(parsed, context)).data
        seconds.append(perf_counter() - started)
        del received, parsed
    peak = peak_mib()
    # All clients sent the first one's update, so that it is the exact mean.
    exact = [tensor.astype(np.float64) for tensor in task.update(0)]
    means = [np.asarray(opened[f"tensor{index}"], dtype=np.float64) for index in range(len(exact))]
    return Step(seconds=median(seconds), peak_mib=peak, error=largest_error(means, exact))


def main() -> None:
    """Provision, then run the three steps, each in a process of its own."""
    task = Task.from_command_line(__doc__)
    with stdout_for_figures() as stdout, tempfile.TemporaryDirectory() as scratch:
        kits = in_own_process(provision, Path(scratch))
        up, down = Path(scratch) / "up", Path(scratch) / "down"
        sealed = in_own_process(seal, task, kits, up)
        summed = in_own_process(aggregate, task, kits, up, down)
        opened = in_own_process(unseal, task, kits, down)
        Figures.of(f"nvflare {__version__}", task, sealed, summed, opened).write(stdout)


if __name__ == "__main__":
    main()
