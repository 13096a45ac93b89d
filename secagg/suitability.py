"""Whether a rule can work under a federation's settings, said when they are made, not in mid-round."""

from __future__ import annotations

from secagg.config import FederationConfig
from secagg.errors import Code, ConfigError
from secagg.plan import ProtectionMode
from secagg.rule import CoordinateRule, Rule, StatisticsRequest
from secagg.update import Manifest


def check_settings(config: FederationConfig, rule: Rule) -> None:
    """What can be said without knowing the model.

    Raises:
        ConfigError: RULE_UNSUPPORTED if a round may go on with fewer updates than the rule works with (the
            message has the inequality), or the rule needs to see what is encrypted.
    """
    try:
        rule.require(config.min_clients)
    except ConfigError as error:
        raise ConfigError(error.code, f"{error.message} (min_clients): raise it, or lower f") from None
    if isinstance(rule, CoordinateRule) and config.protect is not ProtectionMode.PLAIN:
        raise ConfigError(
            Code.RULE_UNSUPPORTED,
            f"rule {rule.name} orders the clients' values of each coordinate, which ciphertexts do not show "
            f"and no inner products tell; with protect = {config.protect} choose a rule that works on inner "
            "products (multi-krum, geometric-median, nnm, …), or set protect = plain",
        )


def check_request(config: FederationConfig, manifest: Manifest, rule: Rule) -> StatisticsRequest | None:
    """The rule's request, if it can be met under these settings.

    Raises:
        ConfigError: as ``check_settings``; RULE_UNSUPPORTED also for a rule that compares with earlier models
            where each round hides other entries; CONFIG_INVALID if it needs a root client and none is named,
            or the other way round.
    """
    check_settings(config, rule)
    request = rule.request(manifest)
    compares = request is not None and not request.models and (request.references or request.history)
    if compares and not config.protection.lasting:
        raise ConfigError(
            Code.RULE_UNSUPPORTED,
            f"rule {rule.name} compares with earlier rounds, and significance = {config.significance} hides "
            "other entries in each: use protect = full, significance = layers, or another rule",
        )
    if (request is not None and request.root) != (config.root_client is not None):
        needs = "needs a root client, whose update others are compared with: set root_client = NAME"
        surplus = "has no use for root_client; leave it out"
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"rule {rule.name} {needs if config.root_client is None else surplus}",
        )
    return request
