"""What one simulated federation is set to: the fields of ``secagg run``'s TOML file and flags."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from attacks.poisoning import Poison, parse_poison
from defenses import load_rule
from secagg.config import FederationConfig, ProfileName
from secagg.errors import Code, ConfigError
from secagg.plan import ProtectionMode, Significance
from secagg.simulation.partition import parse_partition
from secagg.suitability import check_settings
from secagg.update import Manifest, TensorSpec

ROOT_NAME = "root"
_ANY_MODEL = Manifest(tensors=(TensorSpec(name="any.weight", shape=(2, 2)),))
Real = Annotated[float, Field(allow_inf_nan=False)]
Epochs = Annotated[int, Field(ge=1, le=1_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
LearningRate = Annotated[Real, Field(ge=1e-9, le=100)]
"""A smaller one moves no float32 parameter; what divides by it would divide rounding by nothing."""
Momentum = Annotated[Real, Field(ge=0, lt=1)]


class ModelName(StrEnum):
    """The networks a simulated federation can train."""

    LINEAR = "linear"
    MLP = "mlp"
    CNN = "cnn"


class RunConfig(BaseModel):
    """One federation on this machine. The defaults are those of ``make run`` without poison.

    Args:
        clients: how many client processes.
        rounds: rounds with an aggregate.
        local_epochs: passes over its own samples that a client makes per round.
        batch_size: samples per gradient step.
        learning_rate: of local stochastic gradient descent.
        momentum: of the same; it starts from zero in every round.
        dataset: digits, fashion-mnist, cifar10, pneumonia, a folder of IDX files, or an ``.npz`` file.
        data: folder with the named data sets; default $SECAGG_DATA.
        samples: use only so many training samples, drawn from the seed; default all.
        partition: iid or dirichlet:β.
        model: linear, mlp (one hidden layer of 64) or cnn (two convolutions, two dense layers).
        protect, ratio, significance, layers: as in ``FederationConfig``.
        rule: name of the aggregation rule, with its parameters if it has any.
        profile: as in ``FederationConfig``.
        poison: ATTACK:FRACTION[:STRENGTH][@ROUND], or nothing.
        seed: of the partition, the initial model, the choice of attackers and all local training.
        record: keep what the server receives in the clear, and what it takes to tell what that gives away
            (``secagg.simulation.recording``).
        meter: have a client measure, before its first upload, what its visible part gives away.
        round_timeout_s: a stage of a round, or silence of all processes, that takes longer is an error.
        out: folder for the results.

    Raises:
        ConfigError: CONFIG_INVALID or RULE_UNKNOWN for a combination that can't be run.
        pydantic.ValidationError: for a value out of range; ``parse_toml`` turns it into a ConfigError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    clients: Annotated[int, Field(ge=2, le=200)] = 10
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 20
    local_epochs: Epochs = 5
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 0.05
    momentum: Momentum = 0.9
    dataset: Annotated[str, Field(min_length=1)] = "digits"
    data: Annotated[str, Field(min_length=1)] | None = None
    samples: Annotated[int, Field(ge=2)] | None = None
    partition: str = "iid"
    model: Annotated[ModelName, Field(strict=False)] = ModelName.MLP
    protect: Annotated[ProtectionMode, Field(strict=False)] = ProtectionMode.FULL
    ratio: Annotated[Real, Field(ge=0, le=1)] | None = None
    significance: Annotated[Significance, Field(strict=False)] | None = None
    layers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    rule: str = "mean"
    profile: ProfileName = "auto"
    poison: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    record: bool = False
    meter: bool = False
    round_timeout_s: Annotated[Real, Field(gt=0, le=86_400)] = 900.0
    out: Annotated[str, Field(min_length=1)] = "runs/run"

    @model_validator(mode="after")
    def _parts_fit_together(self) -> RunConfig:
        parse_partition(self.partition)
        _ = self.malicious, self.federation  # each raises what can't be
        check_settings(self.federation, load_rule(self.rule))
        if self.attack is not None and self.attack.start_round > self.rounds:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"poison: it starts in round {self.attack.start_round}; there are {self.rounds} rounds",
            )
        return self

    @property
    def attack(self) -> Poison | None:
        """The parsed ``poison``."""
        return parse_poison(self.poison) if self.poison else None

    @property
    def malicious(self) -> tuple[int, ...]:
        """Indices of the clients that attack, sorted."""
        return self.attack.malicious(self.clients, self.seed) if self.attack else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names, in the order of their indices."""
        width = len(str(self.clients))
        return tuple(f"client-{i + 1:0{width}}" for i in range(self.clients))

    @property
    def root(self) -> str | None:
        """The name of the participant whose update others are compared with; None if the rule needs none.

        It is one more than the clients: it holds a few samples of its own and does not attack.
        """
        request = load_rule(self.rule).request(_ANY_MODEL)
        return ROOT_NAME if request is not None and request.root else None

    @property
    def everyone(self) -> tuple[str, ...]:
        """All participants' names: the clients', and the root's last."""
        return self.names if self.root is None else (*self.names, self.root)

    @property
    def min_clients(self) -> int:
        """More than half, and as many as the rule works with.

        Raises:
            ConfigError: RULE_UNSUPPORTED if that is more than there are.
        """
        rule, everyone = load_rule(self.rule), self.clients + (self.root is not None)
        for count in range(self.clients // 2 + 1, everyone):
            try:
                rule.require(count)
            except ConfigError:
                continue
            return count
        rule.require(everyone)
        return everyone

    @property
    def federation(self) -> FederationConfig:
        """The settings of the federation that this run starts."""
        return FederationConfig(
            name="simulation",
            address="localhost:0",
            protect=self.protect,
            ratio=self.ratio,
            significance=self.significance,
            layers=self.layers,
            rule=self.rule,
            profile=self.profile,
            rounds=self.rounds,
            min_clients=self.min_clients,
            root_client=self.root,
            collect_timeout_s=self.round_timeout_s,
            ballot_timeout_s=self.round_timeout_s,
            confirm_timeout_s=self.round_timeout_s,
            # A run must come to an end: what aborts here aborts again.
            max_aborted_rounds=3,
        )
