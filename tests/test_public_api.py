"""What a program that embeds secagg may count on."""

import inspect
import subprocess
import sys

import secagg

PUBLIC = [
    "Answer",
    "CiphertextError",
    "Client",
    "Code",
    "ConfigError",
    "CoordinateRule",
    "CustodyError",
    "FederationEnd",
    "Manifest",
    "Protection",
    "ProtectionMode",
    "Reason",
    "Round",
    "RoundError",
    "RoundPlan",
    "RoundResult",
    "RoundState",
    "Rule",
    "RuleLoader",
    "SecaggError",
    "ServerError",
    "Significance",
    "Statistics",
    "StatisticsRequest",
    "TensorSpec",
    "Tensors",
    "Trainer",
    "TransferError",
    "UpdateError",
    "__version__",
]


def test_public_names_are_exactly_these() -> None:
    """A name that comes or goes is a decision, written down here."""
    assert secagg.__all__ == PUBLIC
    assert dir(secagg) == sorted(PUBLIC)


def test_every_public_name_can_be_imported() -> None:
    """Names are loaded when first used; each of them is there."""
    for name in PUBLIC:
        assert getattr(secagg, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    """The lazy lookup answers as a plain module does."""
    assert not hasattr(secagg, "Aggregator")


def test_client_signatures_stay_as_they_are() -> None:
    """The calls that embedding programs make keep their parameters."""
    load = inspect.signature(secagg.Client.load).parameters
    assert list(load) == ["identity", "server", "rules", "state", "patience_s", "workers", "on_event"]
    assert load["patience_s"].default == 300.0
    assert load["workers"].default == 0
    contribute = inspect.signature(secagg.Round.contribute).parameters
    assert list(contribute) == ["self", "tensors", "sample_count"]
    assert list(inspect.signature(secagg.Client.rounds).parameters) == ["self", "limit"]
    assert list(secagg.RoundResult.__dataclass_fields__) == [
        "round",
        "model",
        "state",
        "own_weight",
        "seal_s",
        "open_s",
        "bytes_up",
        "bytes_down",
        "resumed_at",
    ]


def test_errors_load_without_grpc_or_the_lattice_engine() -> None:
    """A program that only handles errors or plans does not pay for the rest."""
    program = (
        "import sys, secagg.errors, secagg.update\n"
        "heavy = {'grpc', 'tenseal', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
