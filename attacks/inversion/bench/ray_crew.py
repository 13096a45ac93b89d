"""A Ray cluster that plays cells, for sweeps that outgrow one machine (Moritz et al., OSDI 2018)."""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from attacks.inversion.bench.cell import Cell
from attacks.inversion.bench.crew import Ended, Player, played
from attacks.inversion.bench.store import Outcome
from secagg.errors import Code, ConfigError

LOCAL = "local"
"""The address that starts a cluster on this machine."""
_CONNECTED_WITHIN = {"RAY_DISABLE_IMPORT_WARNING": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayCrew:
    """Actors of one core each, as many as the cluster has cores; one that dies costs its cell.

    The cluster's machines need this package, and the data sets under the same path or in $SECAGG_DATA.

    Args:
        address: ``host:port``, ``ray://host:port``, ``auto``, or ``local`` to start a cluster here.
        player: sent to each actor.
        gpus: that an actor takes.
        count: how many cores a local cluster has; 0: all.

    Raises:
        ConfigError: DEPENDENCY_MISSING if Ray is not installed.
    """

    def __init__(
        self, address: str, player: Player[Cell, Outcome], *, gpus: float = 0.0, count: int = 0
    ) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise ConfigError(
                Code.DEPENDENCY_MISSING, "--ray needs ray, which is not installed: pip install 'secagg[ray]'"
            ) from None
        self._address, self._player, self._gpus, self._count = address, player, gpus, count
        self._actors: list[Any] = []

    def __enter__(self) -> RayCrew:
        for name, value in _CONNECTED_WITHIN.items():
            os.environ.setdefault(name, value)
        local = self._address == LOCAL
        usual = {
            "log_to_driver": False,
            "include_dashboard": False if local else None,
            "configure_logging": False,
        }
        try:
            if local:
                self._ray.init(num_cpus=self._count or None, **usual)
            else:
                self._ray.init(address=self._address, **usual)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(
                Code.CONFIG_INVALID, f"no Ray cluster answers at {self._address}: {reason}"
            ) from None
        self._count = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        if self._gpus:
            gpus = self._ray.cluster_resources().get("GPU", 0)
            self._count = max(1, min(self._count, int(gpus / self._gpus)))
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._ray.shutdown()

    @property
    def count(self) -> int:
        """How many it plays at once."""
        return self._count

    def play(self, cells: Sequence[Cell]) -> Iterator[Ended[Cell, Outcome]]:
        """Play cells, the first ones first; they come as they end."""
        waiting, playing, idle = deque(cells), dict[Any, tuple[Cell, Any]](), list(self._actors)
        while waiting or playing:
            while waiting and (idle or len(self._actors) < self._count):
                actor = idle.pop() if idle else self._started()
                cell = waiting.popleft()
                playing[actor.play.remote(cell)] = (cell, actor)
            (reference, *_), _ = self._ray.wait(list(playing), num_returns=1)
            cell, actor = playing.pop(reference)
            try:
                yield self._ray.get(reference)
                idle.append(actor)
            except self._ray.exceptions.RayError as error:
                self._actors.remove(actor)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                yield Ended(cell, None, f"its process ended: {reason}")

    def _started(self) -> Any:
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus)(_Actor)
        actor = kind.remote(self._player)
        self._actors.append(actor)
        return actor


class _Actor:
    """In a process of the cluster."""

    def __init__(self, player: Player[Cell, Outcome]) -> None:
        import torch

        torch.set_num_threads(1)
        self._player = player

    def play(self, cell: Cell) -> Ended[Cell, Outcome]:
        return played(self._player.play, cell)
