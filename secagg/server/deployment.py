"""What one server serves: a federation's settings, identity, roster, descriptor, rule, checked as one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from secagg.ckks.keys import PublicKey
from secagg.ckks.parameters import Profile
from secagg.ckks.profiles import profile
from secagg.config import SETTINGS_FILE, FederationConfig, parse_toml
from secagg.custody.dealing import INITIAL_MODEL_FILE, PUBLIC_KEY_FILE
from secagg.custody.descriptor import DESCRIPTOR_FILE, Descriptor, SignedDescriptor
from secagg.custody.roster import Roster
from secagg.custody.server_identity import ServerIdentity
from secagg.errors import Code, ConfigError, CustodyError
from secagg.model_file import load_model
from secagg.plan import ProtectionMode
from secagg.rule import Rule, RuleLoader, StatisticsRequest
from secagg.server.spool import digest_of
from secagg.suitability import check_request
from secagg.update import Manifest

GRANTS_FOLDER = "grants"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A federation's server folder, read and checked.

    Args:
        directory: the folder.
        config: the settings.
        identity: the server's certificate and key, and the trust anchor.
        roster: who is enrolled; reads its file again when that changes.
        signed_descriptor: what clients are shown; ``descriptor`` is its content.
        manifest: of the initial model, and so of every update.
        request: what the rule needs to see, or None.
        public_key: the CKKS public key, with which released scalars are re-randomised.
    """

    directory: Path
    config: FederationConfig
    identity: ServerIdentity
    roster: Roster
    signed_descriptor: SignedDescriptor
    descriptor: Descriptor
    profile: Profile
    manifest: Manifest
    rule: Rule
    request: StatisticsRequest | None
    public_key: PublicKey

    @classmethod
    def load(cls, directory: Path, *, rules: RuleLoader) -> Deployment:
        """Reads a server folder as ``secagg init``, ``enroll`` and ``deal`` leave it.

        Raises:
            ConfigError: CONFIG_INVALID if settings and signed descriptor disagree, DATA_MISSING or
                DATA_MALFORMED for the initial model, RULE_UNKNOWN, RULE_UNSUPPORTED.
            CustodyError: DESCRIPTOR_INVALID, IDENTITY_INVALID.
            CiphertextError: KEY_MALFORMED.
        """
        settings = directory / SETTINGS_FILE
        if not settings.exists():
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{settings} is missing: give the server folder of a federation that was dealt (secagg deal)",
            )
        config = parse_toml(FederationConfig, settings)
        identity = ServerIdentity.load(directory)
        signed = SignedDescriptor.load(directory / DESCRIPTOR_FILE)
        descriptor = signed.open(identity.anchor)
        model = load_model(directory / INITIAL_MODEL_FILE)
        manifest = Manifest.of(model)
        rule = rules(config.rule)
        request = check_request(config, manifest, rule)
        deployment = cls(
            directory=directory,
            config=config,
            identity=identity,
            roster=identity.roster,
            signed_descriptor=signed,
            descriptor=descriptor,
            profile=profile(descriptor.profile),
            manifest=manifest,
            rule=rule,
            request=request,
            public_key=PublicKey.from_bytes((directory / PUBLIC_KEY_FILE).read_bytes()),
        )
        deployment._check()
        return deployment

    @property
    def initial_model_path(self) -> Path:
        """The model the federation starts from."""
        return self.directory / INITIAL_MODEL_FILE

    @property
    def hides(self) -> bool:
        """True if updates carry ciphertexts."""
        return self.config.protection.mode is not ProtectionMode.PLAIN

    @property
    def divisor(self) -> int:
        """What sums of differences are divided by, 0 if models travel; half of the headroom is left for steps
        that are longer than the mean's."""
        differences = self.request is not None and not self.request.models
        return self.profile.weight_total // 2 if differences else 0

    def grant_path(self, client: str) -> Path:
        """Where a client's sealed copy of the secret key lies; the name is one a certificate may carry."""
        return self.directory / GRANTS_FOLDER / client

    def _check(self) -> None:
        config, descriptor = self.config, self.descriptor
        for name, set_to, signed in (
            ("protection", config.protection, descriptor.protection),
            ("rule", config.rule, descriptor.rule),
            ("min_clients", config.min_clients, descriptor.min_clients),
            ("max_sample_count", config.max_sample_count, descriptor.max_sample_count),
            ("manifest", self.manifest.digest.hex(), descriptor.manifest_sha256.hex()),
            (
                "initial model",
                digest_of(self.initial_model_path).hex(),
                descriptor.initial_model_sha256.hex(),
            ),
        ):
            if set_to != signed:
                _disagree(f"{name} is {set_to}, the signed descriptor says {signed}")
        if self.public_key.key_id != descriptor.key_id:
            raise CustodyError(
                Code.KEY_MISMATCH,
                f"{self.directory / PUBLIC_KEY_FILE} is not the key the descriptor names; run: secagg deal",
            )
        if config.root_client is not None and config.root_client not in self.roster.names:
            _disagree(f"root_client is {config.root_client!r}, who is not enrolled")
        products = self.request is not None and self.hides
        if len(self.roster.names) > self.profile.weight_total:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{len(self.roster.names)} clients are enrolled; profile {self.profile.name} has headroom "
                f"for {self.profile.weight_total}: set profile = precise and deal a new key "
                "(secagg deal --rotate)",
            )
        if products and not self.profile.inner_products:
            _disagree(f"rule {config.rule} needs inner products; profile {self.profile.name} has none")


def _disagree(what: str) -> NoReturn:
    raise ConfigError(Code.CONFIG_INVALID, f"{SETTINGS_FILE}: {what}; run: secagg deal")
