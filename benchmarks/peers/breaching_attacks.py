"""breaching 0.1.2's own DLG and inverting gradients, as published, run on this project's torch.

breaching's package as a whole imports torchvision, hydra and lpips, which these attackers need none of. So
the wheel is unpacked without its dependencies into ``.venv-peers/breaching``, and its attackers' modules are
imported under package objects that have breaching's paths and none of its top levels. Their settings are
those of its ``config/attack``, but for the number of iterations.
"""

from __future__ import annotations

import copy
import fcntl
import importlib
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from attacks.inversion.exposure import Exposure
from benchmarks.peers.environments import HOME, own_packages

PIN = "breaching==0.1.2"
FOLDER = HOME / "breaching"
_PACKAGES = ("breaching", "breaching.attacks", "breaching.cases", "breaching.cases.models")


class _Settings(dict[str, Any]):
    """What stands in for hydra's: keys are attributes, too; a section that is missing has no keys."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _settings(nested: Mapping[str, Any]) -> _Settings:
    return _Settings({k: _settings(v) if isinstance(v, dict) else v for k, v in nested.items()})


_COMMON: dict[str, Any] = {
    "type": "default",
    "label_strategy": None,
    "text_strategy": "run-embedding",
    "token_recovery": "from-labels",
    "objective": {"type": "euclidean", "scale": 1.0, "task_regularization": 0.0},
    "restarts": {"num_trials": 1, "scoring": "euclidean"},
    "init": "randn",
    "normalize_gradients": False,
    "augmentations": {},
    "differentiable_augmentations": False,
    "regularization": {},
    "impl": {"dtype": "float", "mixed_precision": False, "JIT": None},
}
_OPTIM: dict[str, Any] = {
    "signed": None,
    "step_size_decay": None,
    "langevin_noise": 0.0,
    "warmup": 0,
    "grad_clip": None,
    "callback": 1_000_000,
}
PUBLISHED: Mapping[str, dict[str, Any]] = {
    "dlg": {
        **_COMMON,
        "attack_type": "joint-optimization",
        "optim": {
            **_OPTIM,
            "optimizer": "L-BFGS",
            "step_size": 1.0,
            "boxed": False,
            "max_iterations": 1_200,
        },
    },
    "inverting-gradients": {
        **_COMMON,
        "attack_type": "optimization",
        "objective": {"type": "cosine-similarity", "scale": 1.0, "task_regularization": 0.0},
        "restarts": {"num_trials": 1, "scoring": "cosine-similarity"},
        "regularization": {"total_variation": {"scale": 0.2, "inner_exp": 1, "outer_exp": 1}},
        "optim": {
            **_OPTIM,
            "optimizer": "adam",
            "signed": "hard",
            "step_size": 0.1,
            "boxed": True,
            "step_size_decay": "step-lr",
            "max_iterations": 24_000,
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What breaching made of an exposure.

    Args:
        inputs: [B, channels, height, width] in [0, 1] if the attack has a box.
        seconds: wall clock of its ``reconstruct``.
        iterations: its steps; one of L-BFGS holds up to 20 inner ones.
    """

    inputs: torch.Tensor
    seconds: float
    iterations: int


def install() -> None:
    """Unpack the wheel if it isn't there; the file ``pins`` is written last, as in ``environments``.

    Raises:
        subprocess.CalledProcessError: pip failed; its output is on stderr.
    """
    HOME.mkdir(exist_ok=True)
    finished = FOLDER / "pins"
    with (HOME / "breaching.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if finished.exists() and finished.read_text() == PIN:
            return
        shutil.rmtree(FOLDER, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER), PIN]
        subprocess.run(pip, check=True, stdout=sys.stderr, cwd=HOME, env=own_packages())
        finished.write_text(PIN)


def attackers() -> Mapping[str, Any]:
    """breaching's attacker classes by its types of attack; it is installed first if need be."""
    if "breaching" not in sys.modules:
        install()
        for name in _PACKAGES:
            package = ModuleType(name)
            package.__path__ = [str(FOLDER.joinpath(*name.split(".")))]
            sys.modules[name] = package
    with warnings.catch_warnings():
        # It compiles its distances in a way that newer releases of torch deprecate.
        warnings.simplefilter("ignore")
        plain = importlib.import_module("breaching.attacks.optimization_based_attack")
        joint = importlib.import_module("breaching.attacks.optimization_with_label_attack")
    return {
        "optimization": plain.OptimizationBasedAttacker,
        "joint-optimization": joint.OptimizationJointAttacker,
    }


def attack(name: str, exposure: Exposure, *, iterations: int, seed: int) -> Found:
    """One of breaching's attacks on a gradient of which all is visible, in float32.

    DLG looks for labels, too; inverting gradients is told them. breaching draws from torch's global
    generator, whose state is put back.

    Args:
        name: of ``PUBLISHED``.
        exposure: of a single gradient.
        iterations: instead of the published number; schedules are as long.
        seed: of the starting point.
    """
    settings = copy.deepcopy(dict(PUBLISHED[name]))
    settings["optim"]["max_iterations"] = iterations
    victim = exposure.victim
    shape = victim.shape
    parameters = list(victim.named(exposure.parameters).values())
    module = copy.deepcopy(victim.module)
    payload = {
        "parameters": parameters,
        "buffers": list(module.buffers()) or None,
        "metadata": _Metadata(shape=shape, classes=victim.classes),
    }
    shared = {
        "gradients": [part.clone() for part in victim.named(exposure.visible).values()],
        "buffers": None,
        "metadata": {
            "num_data_points": exposure.batch_size,
            "labels": None if name == "dlg" else exposure.labels,
            "local_hyperparams": None,
        },
    }
    kind = attackers()[settings["attack_type"]]
    setup = {"dtype": torch.float32, "device": victim.device}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        peer = kind(module, nn.CrossEntropyLoss(), _settings(settings), setup)
        started = time.perf_counter()
        found, stats = peer.reconstruct([payload], [shared], server_secrets={})
        seconds = time.perf_counter() - started
    return Found(inputs=found["data"].detach(), seconds=seconds, iterations=len(stats["Trial_0_Val"]))


class _Metadata(SimpleNamespace):
    """breaching reads some of it as attributes and some by key."""

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(
            shape=shape,
            classes=classes,
            modality="vision",
            task="classification",
            mean=(0.0,) * shape[0],
            std=(1.0,) * shape[0],
        )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)
