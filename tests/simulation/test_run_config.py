"""The configuration of a run: one line for whatever can't be run, and what follows from it."""

import pytest

from secagg.config import parse_toml
from secagg.errors import Code, ConfigError
from secagg.plan import ProtectionMode, Significance
from secagg.simulation.config import ModelName, RunConfig


def test_defaults_are_a_full_federation_on_digits():
    config = RunConfig()
    assert (config.dataset, config.clients, config.model) == ("digits", 10, ModelName.MLP)
    assert config.protect is ProtectionMode.FULL and config.malicious == ()


def test_every_field_is_read_from_toml(tmp_path):
    text = """
    clients = 5
    rounds = 3
    local_epochs = 2
    batch_size = 16
    learning_rate = 0.1
    momentum = 0
    dataset = "fashion-mnist"
    data = "/somewhere"
    samples = 100
    partition = "dirichlet:0.5"
    model = "cnn"
    protect = "selective"
    ratio = 0.25
    significance = "magnitude"
    rule = "ddfed"
    poison = "gaussian:0.4:0.5@2"
    seed = 7
    round_timeout_s = 60
    out = "elsewhere"
    """
    (tmp_path / "run.toml").write_text(text)
    config = parse_toml(RunConfig, tmp_path / "run.toml")
    assert config.federation.protection.ratio == 0.25
    assert config.federation.protection.significance is Significance.MAGNITUDE
    assert (config.federation.rounds, config.federation.rule, config.federation.min_clients) == (
        3,
        "ddfed",
        3,
    )
    assert config.attack is not None and (config.attack.strength, config.attack.start_round) == (0.5, 2)
    assert len(config.malicious) == 2 and config.model is ModelName.CNN


@pytest.mark.parametrize(
    ("values", "code", "says"),
    [
        ({"clints": 3}, Code.CONFIG_INVALID, "clients"),
        ({"clients": 1}, Code.CONFIG_INVALID, "≥ 2"),
        ({"clients": "3"}, Code.CONFIG_INVALID, "clients"),
        ({"rounds": 0}, Code.CONFIG_INVALID, "rounds"),
        ({"learning_rate": float("nan")}, Code.CONFIG_INVALID, "learning_rate"),
        ({"momentum": 1.0}, Code.CONFIG_INVALID, "momentum"),
        ({"model": "resnet"}, Code.CONFIG_INVALID, "linear, mlp, cnn"),
        ({"protect": "half"}, Code.CONFIG_INVALID, "plain, full, selective"),
        ({"protect": "selective", "significance": "random"}, Code.CONFIG_INVALID, "ratio"),
        ({"protect": "selective", "ratio": 0.0, "significance": "random"}, Code.CONFIG_INVALID, "ratio"),
        ({"ratio": 0.5}, Code.CONFIG_INVALID, "ratio"),
        ({"significance": "random"}, Code.CONFIG_INVALID, "significance"),
        ({"layers": ["a"]}, Code.CONFIG_INVALID, "layers"),
        ({"partition": "dirichlet"}, Code.CONFIG_INVALID, "dirichlet:β"),
        ({"rule": "krom"}, Code.RULE_UNKNOWN, "mean, ddfed"),
        ({"poison": "sign-flip"}, Code.CONFIG_INVALID, "ATTACK:FRACTION"),
        ({"poison": "sign-flip:0.01"}, Code.CONFIG_INVALID, "at least 1"),
        ({"poison": "sign-flip:0.3@21"}, Code.CONFIG_INVALID, "there are 20 rounds"),
        ({"poison": "sign-flip:0.3@0"}, Code.CONFIG_INVALID, "1, 2, 3"),
        ({"seed": -1}, Code.CONFIG_INVALID, "seed"),
        ({"out": ""}, Code.CONFIG_INVALID, "out"),
    ],
)
def test_impossible_values_are_refused_in_one_line(values, code, says):
    with pytest.raises(ConfigError) as caught:
        parse_toml(RunConfig, values)
    assert caught.value.code is code and says in caught.value.message and "\n" not in caught.value.message


def test_names_sort_in_the_order_of_indices():
    names = RunConfig(clients=12).names
    assert names[0] == "client-01" and list(names) == sorted(names)


def test_the_seed_chooses_the_attackers():
    assert RunConfig(poison="ipm:0.3").malicious == RunConfig(poison="ipm:0.3").malicious
    assert len({RunConfig(poison="ipm:0.3", seed=seed).malicious for seed in range(9)}) > 1


def test_a_run_whose_rounds_are_aborted_ends() -> None:
    """Nobody is there to mend it: three aborted rounds in a row are the end, unlike in a federation."""
    assert RunConfig().federation.max_aborted_rounds == 3


def test_a_rule_gets_as_many_updates_as_it_needs():
    """More than half of the clients, or what the rule's inequality asks for if that is more."""
    assert RunConfig(clients=10).federation.min_clients == 6
    assert RunConfig(clients=10, rule="multi-krum:f=3").federation.min_clients == 9
    with pytest.raises(ConfigError, match=r"n ≥ 2f \+ 3.*with f = 4 at least 11") as caught:
        RunConfig(clients=10, rule="multi-krum:f=4")
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_a_rule_that_orders_coordinates_is_refused_over_ciphertexts():
    assert RunConfig(rule="median", protect="plain").federation.rule == "median"
    with pytest.raises(ConfigError, match="which ciphertexts do not show") as caught:
        RunConfig(rule="median")
    assert caught.value.code is Code.RULE_UNSUPPORTED


def test_fltrust_has_one_participant_more():
    """The root compares and is no client: it holds samples of its own, and does not attack."""
    config = RunConfig(clients=4, rule="fltrust", poison="scaling:0.5")
    assert config.everyone == (*config.names, "root") and config.federation.root_client == "root"
    assert RunConfig(clients=4).everyone == RunConfig(clients=4).names
