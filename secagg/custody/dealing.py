"""Dealing: the CKKS key pair, a sealed grant per client, and the descriptor that says what it is for."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

from secagg.canonical import Reader
from secagg.ckks.keys import PublicKey, SecretKey, generate
from secagg.ckks.profiles import profile
from secagg.config import SETTINGS_FILE, FederationConfig, parse_toml
from secagg.custody.authority import Authority
from secagg.custody.descriptor import DESCRIPTOR_FILE, Descriptor, SignedDescriptor
from secagg.custody.enrolment import enrolled
from secagg.custody.federation import FederationFolder
from secagg.custody.files import locked, make_private_folder, read_private, read_public, write_file
from secagg.custody.grant import seal_grant
from secagg.custody.identity import CERTIFICATE_FILE
from secagg.errors import Code, ConfigError, CustodyError, SecaggError
from secagg.model_file import read_model
from secagg.plan import ProtectionMode
from secagg.rule import RuleLoader
from secagg.scales import MAX_TENSORS
from secagg.suitability import check_request
from secagg.update import Manifest

PUBLIC_KEY_FILE = "ckks_public.key"
INITIAL_MODEL_FILE = "initial_model.npz"
KEY_FILE_VERSION = 1


def deal(federation: Path | str, *, rules: RuleLoader, rotate: bool = False) -> Descriptor:
    """Makes the federation ready to serve, from its settings, its initial model and its enrolled clients.

    The first time it makes the CKKS key pair; later it seals the same key to whoever is enrolled now, so
    it is run again after each enrolment and each change of the settings. It writes the key pair to
    ``authority/`` and to ``server/`` only what the aggregator may see: the public key, the sealed grants,
    the signed descriptor, the settings and the initial model. Interrupted, it is simply run again.

    There is a key in plain mode as well: a federation can go over to encryption without enrolling anew.

    Args:
        federation: the federation's folder, with its authority.
        rules: finds the configured rule; its request decides which profile ``auto`` means.
        rotate: make a new key pair; the old one is gone, as are grants of it.

    Returns:
        The descriptor that was signed.

    Raises:
        ConfigError: CONFIG_INVALID, RULE_UNKNOWN, RULE_UNSUPPORTED, DATA_MISSING, DATA_MALFORMED;
            nothing was written then.
        CustodyError: IDENTITY_INVALID if the folder is not whole.
    """
    folder = FederationFolder.open(federation)
    with locked(folder.authority):
        authority = Authority.load(folder.authority)
        config = parse_toml(FederationConfig, folder.settings)
        model = _read_initial_model(folder.root / config.initial_model)
        manifest = Manifest.of(read_model(model))
        names = {peer.name for peer in enrolled(folder.root)}
        if config.root_client is not None and config.root_client not in names:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"root_client is {config.root_client!r}, who is not enrolled: enrol it, or name another",
            )
        profile_name = choose_profile(config, manifest, rules, clients=len(enrolled(folder.root)))
        public, secret = _key_pair(folder, profile_name, rotate=rotate)
        signed, descriptor = _describe(
            folder,
            authority,
            Descriptor(
                federation_id=authority.anchor.federation_id,
                name=config.name,
                sequence=1,
                profile=profile_name,
                key_id=public.key_id,
                manifest_sha256=manifest.digest,
                initial_model_sha256=hashlib.sha256(model).digest(),
                protection=config.protection,
                rule=config.rule,
                min_clients=config.min_clients,
                max_sample_count=config.max_sample_count,
            ),
        )
        _write_grants(folder, authority, descriptor, secret)
        write_file(folder.server / PUBLIC_KEY_FILE, public.to_bytes(), private=False)
        write_file(folder.server / INITIAL_MODEL_FILE, model, private=False)
        write_file(folder.server / SETTINGS_FILE, read_public(folder.settings), private=False)
        # Last: a server whose descriptor is there has all that the descriptor speaks of.
        signed.save(folder.server / DESCRIPTOR_FILE)
        for certificate in folder.clients.glob(f"*/{CERTIFICATE_FILE}"):
            signed.save(certificate.parent / DESCRIPTOR_FILE)
    return descriptor


def choose_profile(config: FederationConfig, manifest: Manifest, rules: RuleLoader, *, clients: int) -> str:
    """The profile's name: the configured one, or for ``auto`` the smallest one that serves the rule.

    ``robust`` where a rule needs inner products; else ``compact``, unless there are more clients or tensors
    than it has room for, or nothing is encrypted and so nothing saved: then ``precise``.

    Args:
        clients: how many are enrolled.

    Raises:
        ConfigError: CONFIG_INVALID if the configured profile can't serve the rule or so many clients, or a
            named layer is not in the manifest; RULE_UNKNOWN, RULE_UNSUPPORTED.
    """
    for layer in config.layers:
        if layer not in {spec.name for spec in manifest.tensors}:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"layers names {layer!r}; it must be one of "
                f"{', '.join(spec.name for spec in manifest.tensors[:20])}",
            )
    needs_statistics = check_request(config, manifest, rules(config.rule)) is not None
    if config.profile == "auto":
        if needs_statistics:
            return "robust"
        fits = clients <= profile("compact").weight_total and len(manifest.tensors) <= MAX_TENSORS
        return "compact" if fits and config.protect is not ProtectionMode.PLAIN else "precise"
    chosen = profile(config.profile)
    if clients > chosen.weight_total:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"profile is {chosen.name!r}, which has headroom for {chosen.weight_total} clients; {clients} "
            "are enrolled: use auto or precise",
        )
    if chosen.quantised and len(manifest.tensors) > MAX_TENSORS:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"profile is {chosen.name!r}, which takes up to {MAX_TENSORS} tensors; the model has "
            f"{len(manifest.tensors)}: use auto or precise",
        )
    if needs_statistics and not chosen.inner_products:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"profile is {config.profile!r}; rule {config.rule!r} needs inner products: use auto or robust",
        )
    return config.profile


def _read_initial_model(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            Code.DATA_MISSING,
            f"initial model {path} can't be read ({error.strerror}); put an .npz of float32 tensors there, "
            "or set initial_model",
        ) from None


def _key_pair(folder: FederationFolder, profile_name: str, *, rotate: bool) -> tuple[PublicKey, SecretKey]:
    """The key pair that was dealt before, or a new one, which is then on disk."""
    if folder.dealt_key.exists() and not rotate:
        public, secret = _parse_key_file(folder.dealt_key)
        if public.profile.name != profile_name:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"the dealt key is for profile {public.profile.name!r} and the settings now ask for "
                f"{profile_name!r}; that takes a new key: secagg deal --rotate",
            )
        return public, secret
    pair = generate(profile(profile_name))
    content = pair.public.to_bytes()
    write_file(
        folder.dealt_key,
        struct.pack("<BI", KEY_FILE_VERSION, len(content)) + content + pair.secret.to_bytes(),
        private=True,
    )
    return pair.public, pair.secret


def _parse_key_file(path: Path) -> tuple[PublicKey, SecretKey]:
    reader = Reader(read_private(path))
    try:
        version, length = reader.unpack(struct.Struct("<BI"))
        if version != KEY_FILE_VERSION:
            raise CustodyError(Code.KEY_MALFORMED, f"{path}: version {version} is unknown")
        return PublicKey.from_bytes(reader.take(length)), SecretKey.from_bytes(reader.take(reader.left))
    except (EOFError, SecaggError) as error:
        raise CustodyError(
            Code.KEY_MALFORMED, f"the dealt key {path} is damaged ({error}); make a new one: --rotate"
        ) from None


def _describe(
    folder: FederationFolder, authority: Authority, wanted: Descriptor
) -> tuple[SignedDescriptor, Descriptor]:
    """Signs the descriptor under the next sequence, unless the last one says the same."""
    if folder.last_descriptor.exists():
        signed = SignedDescriptor.load(folder.last_descriptor)
        last = signed.open(authority.anchor)
        if replace(last, sequence=1) == wanted:
            return signed, last
        wanted = replace(wanted, sequence=last.sequence + 1)
    signed = SignedDescriptor.sign(authority, wanted)
    # Before anybody can see it, so that no sequence ever stands for two descriptors.
    signed.save(folder.last_descriptor)
    return signed, wanted


def _write_grants(
    folder: FederationFolder, authority: Authority, descriptor: Descriptor, secret: SecretKey
) -> None:
    make_private_folder(folder.grants)
    peers = enrolled(folder.root)
    for peer in peers:
        write_file(folder.grants / peer.name, seal_grant(authority, descriptor, peer, secret), private=False)
    for stale in {path.name for path in folder.grants.iterdir()} - {peer.name for peer in peers}:
        (folder.grants / stale).unlink()
