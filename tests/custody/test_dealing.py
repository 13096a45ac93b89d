"""What must hold when keys are dealt: each client opens its own grant, and the server opens none."""

from __future__ import annotations

import hashlib
import pickle
import struct
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from defenses import load_rule
from secagg.canonical import Reader
from secagg.ckks.keys import PublicKey, SecretKey
from secagg.config import FederationConfig, parse_toml, settings_text
from secagg.custody.authority import Authority
from secagg.custody.dealing import choose_profile, deal
from secagg.custody.descriptor import Descriptor, SignedDescriptor, load_descriptor
from secagg.custody.enrolment import enroll_local, revoke
from secagg.custody.federation import FederationFolder
from secagg.custody.grant import open_grant, seal_grant
from secagg.custody.identity import ClientIdentity
from secagg.custody.shared import open_custody
from secagg.custody.trust import peer_from_certificate
from secagg.envelope import Domain, sign
from secagg.errors import Code, ConfigError, CustodyError
from secagg.plan import Protection
from secagg.update import Manifest, TensorSpec


def client(federation: FederationFolder, name: str) -> ClientIdentity:
    return ClientIdentity.load(federation.clients / name)


def grant(federation: FederationFolder, name: str) -> bytes:
    return (federation.grants / name).read_bytes()


def descriptor_of(federation: FederationFolder) -> Descriptor:
    anchor = Authority.load(federation.authority).anchor
    return SignedDescriptor.load(federation.server / "descriptor.signed").open(anchor)


def dealt_secret(federation: FederationFolder) -> SecretKey:
    reader = Reader((federation.authority / "ckks.key").read_bytes())
    _, length = reader.unpack(struct.Struct("<BI"))
    reader.take(length)
    return SecretKey.from_bytes(reader.take(reader.left))


def change_settings(federation: FederationFolder, **settings: object) -> None:
    config = parse_toml(FederationConfig, federation.settings)
    changed = FederationConfig.model_validate(config.model_dump() | settings)
    federation.settings.write_text(settings_text(changed))


def test_every_client_opens_the_dealt_key_from_its_own_grant(federation: FederationFolder) -> None:
    """The same key for all, and the one the authority keeps."""
    descriptor = descriptor_of(federation)
    keys = {
        open_grant(client(federation, name), descriptor, grant(federation, name)).to_bytes()
        for name in ("alice", "bob")
    }
    assert keys == {dealt_secret(federation).to_bytes()}


def test_a_dealt_key_seals_and_opens(federation: FederationFolder) -> None:
    """Alice seals, bob opens: the grants hold a key that works."""
    descriptor = descriptor_of(federation)
    alice, bob = (
        open_custody(client(federation, name), descriptor, grant(federation, name))
        for name in ("alice", "bob")
    )
    assert (alice.profile_name, alice.key_id) == (descriptor.profile, descriptor.key_id)
    public = PublicKey.from_bytes((federation.server / "ckks_public.key").read_bytes())
    assert public.key_id == descriptor.key_id
    assert alice.sealer().seal(np.ones(5)) != bob.sealer().seal(np.ones(5))
    assert "coefficients" not in repr(alice)
    with pytest.raises(TypeError):
        pickle.dumps(alice)


def test_a_client_opens_nobody_elses_grant(federation: FederationFolder) -> None:
    """Refused by name, and by the seal itself when the dealer's name is on it."""
    alice, descriptor = client(federation, "alice"), descriptor_of(federation)
    with pytest.raises(CustodyError, match="it is for another certificate_sha256, client") as refusal:
        open_grant(alice, descriptor, grant(federation, "bob"))
    assert refusal.value.code is Code.GRANT_INVALID
    assert refusal.value.ids == {"client": "alice"}


def test_a_grant_sealed_to_another_key_stays_shut(federation: FederationFolder) -> None:
    """Alice's name on the outside and the dealer's signature don't help: bob's key would open it."""
    alice, descriptor = client(federation, "alice"), descriptor_of(federation)
    mine, others = grant(federation, "alice"), grant(federation, "bob")
    head = 1 + 16 + 16 + 32 + 1 + len(descriptor.profile)
    body = mine[: head + 1 + len("alice")] + others[head + 1 + len("bob") : -64]
    forged = body + sign(Authority.load(federation.authority), Domain.GRANT, body)
    with pytest.raises(CustodyError, match="not sealed to this client's key"):
        open_grant(alice, descriptor, forged)


def test_the_seal_is_bound_to_what_the_grant_says(federation: FederationFolder) -> None:
    """A seal made for the same client under another federation's head does not open."""
    alice, descriptor = client(federation, "alice"), descriptor_of(federation)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    original = grant(federation, "alice")
    head = original[: 1 + 16 + 16 + 32 + 1 + len(descriptor.profile) + 1 + len("alice")]
    secret = dealt_secret(federation).to_bytes()
    for info, opens in ((b"secagg/v1/grant\0" + head, True), (b"secagg/v1/grant\0", False), (b"", False)):
        sealed = suite.encrypt(secret, alice.peer.hpke_public_key, info)
        body = head + struct.pack("<I", len(sealed)) + sealed
        whole = body + sign(Authority.load(federation.authority), Domain.GRANT, body)
        if opens:
            assert open_grant(alice, descriptor, whole).to_bytes() == secret
        else:
            with pytest.raises(CustodyError, match=Code.GRANT_INVALID):
                open_grant(alice, descriptor, whole)


@pytest.mark.parametrize("body", [b"", b"\0", b"not a key"])
def test_a_grant_of_something_else_is_refused(federation: FederationFolder, body: bytes) -> None:
    """Well sealed, well signed, and no key; the message says nothing of the content."""
    alice, descriptor = client(federation, "alice"), descriptor_of(federation)

    class NotAKey:
        def to_bytes(self) -> bytes:
            return body

    sealed = seal_grant(Authority.load(federation.authority), descriptor, alice.peer, NotAKey())  # type: ignore[arg-type]
    with pytest.raises(CustodyError, match=r"the key inside is refused \(KEY_MALFORMED\)"):
        open_grant(alice, descriptor, sealed)


@pytest.fixture(scope="module")
def shared(_dealt: Path) -> tuple[ClientIdentity, Descriptor, bytes]:
    federation = FederationFolder.open(_dealt)
    return client(federation, "alice"), descriptor_of(federation), grant(federation, "alice")


@given(st.data())
def test_a_changed_grant_is_refused(
    shared: tuple[ClientIdentity, Descriptor, bytes], data: st.DataObject
) -> None:
    """Any byte, any bit."""
    alice, descriptor, original = shared
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CustodyError, match=Code.GRANT_INVALID):
        open_grant(alice, descriptor, bytes(changed))


@given(st.data())
def test_a_malformed_grant_is_refused_even_if_the_dealer_signed_it(
    _dealt: Path, shared: tuple[ClientIdentity, Descriptor, bytes], data: st.DataObject
) -> None:
    """The parser stands on its own: a change under a fresh signature gives the typed refusal only."""
    alice, descriptor, original = shared
    body = bytearray(original[:-64])
    cut = data.draw(st.integers(0, len(body)))
    edited = data.draw(
        st.sampled_from([bytes(body[:cut]), bytes(body) + b"\0", bytes(body[:cut]) + b"\xff" * 4])
    )
    if edited == body:
        return
    whole = edited + sign(Authority.load(_dealt / "authority"), Domain.GRANT, edited)
    with pytest.raises(CustodyError, match=Code.GRANT_INVALID):
        open_grant(alice, descriptor, whole)


def test_a_grant_for_another_key_or_federation_is_refused(federation: FederationFolder) -> None:
    """An old grant after a rotation, for instance; the message says what differs and what to do."""
    alice, descriptor = client(federation, "alice"), descriptor_of(federation)
    data = grant(federation, "alice")
    for other, what in (
        (replace(descriptor, key_id=b"x" * 16), "key_id"),
        (replace(descriptor, federation_id=b"x" * 16), "federation_id"),
        (replace(descriptor, profile="precise"), "profile"),
    ):
        with pytest.raises(CustodyError, match=f"it is for another {what}; the dealer has to deal again"):
            open_grant(alice, other, data)


def test_the_secret_key_lies_nowhere_in_the_server_folder(federation: FederationFolder) -> None:
    """Neither raw, hexadecimal nor base64, and no other private key of authority or client either."""
    secret = dealt_secret(federation).to_bytes()
    coefficients = dealt_secret(federation).coefficients
    forms = {
        secret[3:67],
        secret[3:67].hex().encode(),
        *(b64encode(secret[at : at + 48]) for at in (3, 4, 5)),
        coefficients[:64].tobytes(),
        coefficients[:64].astype("<i8").tobytes(),
    }
    for path in (*federation.authority.glob("*.key"), *federation.clients.rglob("*.key")):
        if path.name != "ckks.key":
            # 12 bytes of the secret itself, behind the beginning that all PKCS #8 keys share.
            forms.add(path.read_bytes().splitlines()[1][48:64])
    for path in (*federation.server.rglob("*"), *federation.clients.rglob("*.signed")):
        if path.is_file():
            content = path.read_bytes()
            assert not any(form in content for form in forms), path
    assert secret[3:67] in (federation.authority / "ckks.key").read_bytes()


def test_newcomers_get_the_same_key(federation: FederationFolder) -> None:
    """Dealing again changes neither key nor descriptor, and the old grants' owners still open theirs."""
    before, secret = descriptor_of(federation), dealt_secret(federation).to_bytes()
    enroll_local(federation.root, "carol")
    assert not (federation.grants / "carol").exists()
    assert deal(federation.root, rules=load_rule) == before
    for name in ("alice", "bob", "carol"):
        opened = open_grant(client(federation, name), before, grant(federation, name))
        assert opened.to_bytes() == secret


def test_rotation_makes_a_new_key_and_a_newer_descriptor(federation: FederationFolder) -> None:
    """Old grants are useless under the new descriptor; revoked clients get none."""
    before, old_key = descriptor_of(federation), dealt_secret(federation).to_bytes()
    old_grant = grant(federation, "alice")
    revoke(federation.root, "bob")
    after = deal(federation.root, rules=load_rule, rotate=True)
    assert (after.sequence, before.sequence) == (2, 1)
    assert after.key_id != before.key_id
    alice = client(federation, "alice")
    assert open_grant(alice, after, grant(federation, "alice")).to_bytes() != old_key
    with pytest.raises(CustodyError, match="key_id"):
        open_grant(alice, after, old_grant)
    assert [p.name for p in federation.grants.iterdir()] == ["alice"]
    assert load_descriptor(alice.directory) == SignedDescriptor.load(federation.server / "descriptor.signed")


def test_changed_settings_give_a_newer_descriptor(federation: FederationFolder) -> None:
    """And the server's copy of the settings follows."""
    change_settings(federation, min_clients=1, protect="plain")
    after = deal(federation.root, rules=load_rule)
    assert (after.sequence, after.min_clients, after.protection) == (2, 1, Protection.plain())
    assert (federation.server / "federation.toml").read_bytes() == federation.settings.read_bytes()


def test_descriptor_names_the_initial_model_as_it_is_served(federation: FederationFolder) -> None:
    """A client can check the file it downloads byte for byte."""
    served = (federation.server / "initial_model.npz").read_bytes()
    assert descriptor_of(federation).initial_model_sha256 == hashlib.sha256(served).digest()
    assert served == (federation.root / "initial_model.npz").read_bytes()


def test_a_profile_that_changes_needs_a_rotation(federation: FederationFolder) -> None:
    """Said before anything is written."""
    before = {p: p.read_bytes() for p in federation.root.rglob("*") if p.is_file()}
    change_settings(federation, rule="mean")
    before[federation.settings] = federation.settings.read_bytes()
    with pytest.raises(ConfigError, match=r"'robust'.*'compact'.*--rotate"):
        deal(federation.root, rules=load_rule)
    assert {p: p.read_bytes() for p in federation.root.rglob("*") if p.is_file()} == before
    assert deal(federation.root, rules=load_rule, rotate=True).profile == "compact"


@pytest.mark.parametrize("content", [None, b"", b"not a zip"])
def test_a_missing_or_damaged_initial_model_is_named(
    federation: FederationFolder, content: bytes | None
) -> None:
    """What is missing and where it belongs."""
    model = federation.root / "initial_model.npz"
    model.unlink()
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(ConfigError, match=r"initial model|model file") as refusal:
        deal(federation.root, rules=load_rule)
    assert refusal.value.code is (Code.DATA_MISSING if content is None else Code.DATA_MALFORMED)


@pytest.mark.parametrize("damage", [b"", b"\x02" + bytes(100), None])
def test_a_damaged_dealt_key_is_refused(federation: FederationFolder, damage: bytes | None) -> None:
    """With the way out; the content is not quoted."""
    path = federation.authority / "ckks.key"
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(CustodyError, match=Code.KEY_MALFORMED):
        deal(federation.root, rules=load_rule)


MANIFEST = Manifest(tensors=(TensorSpec(name="w", shape=(2, 3)), TensorSpec(name="b", shape=(3,))))


@pytest.mark.parametrize(
    ("rule", "configured", "chosen"),
    [
        ("mean", "auto", "compact"),
        ("ddfed", "auto", "robust"),
        ("mean", "robust", "robust"),
        ("ddfed", "robust", "robust"),
    ],
)
def test_profile_follows_from_what_the_rule_needs(rule: str, configured: str, chosen: str) -> None:
    """Sums alone take the smallest one; inner products need the robust one."""
    config = parse_toml(FederationConfig, {"name": "x", "rule": rule, "profile": configured})
    assert choose_profile(config, MANIFEST, load_rule, clients=10) == chosen


def test_sums_without_room_in_the_smallest_profile_take_the_precise_one() -> None:
    """More clients or tensors than it holds, or nothing that would be encrypted."""
    config = parse_toml(FederationConfig, {"name": "x"})
    assert choose_profile(config, MANIFEST, load_rule, clients=180) == "compact"
    assert choose_profile(config, MANIFEST, load_rule, clients=181) == "precise"
    many = Manifest(tensors=tuple(TensorSpec(name=f"t{i}", shape=(1,)) for i in range(8193)))
    assert choose_profile(config, many, load_rule, clients=2) == "precise"
    plain = parse_toml(FederationConfig, {"name": "x", "protect": "plain"})
    assert choose_profile(plain, MANIFEST, load_rule, clients=2) == "precise"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rule": "ddfed", "profile": "precise"}, "needs inner products: use auto or robust"),
        (
            {"protect": "selective", "significance": "layers", "layers": ["v"]},
            "layers names 'v'; it must be one of w, b",
        ),
        ({"rule": "nonsense"}, Code.RULE_UNKNOWN),
        ({"profile": "compact-10"}, "headroom for 70 clients; 100 are enrolled: use auto or precise"),
    ],
)
def test_settings_that_fit_no_rule_or_model_are_refused(settings: dict[str, object], complaint: str) -> None:
    """At dealing, before a round could fail on them."""
    config = parse_toml(FederationConfig, {"name": "x", **settings})
    with pytest.raises(ConfigError, match=complaint):
        choose_profile(config, MANIFEST, load_rule, clients=100)


def test_grants_go_to_the_authoritys_certificates(federation: FederationFolder) -> None:
    """A roster changed on the server's side gives nobody the key."""
    federation.roster.write_text('{"version": 1, "clients": {"mallory": "' + "0" * 64 + '"}}')
    (federation.grants / "mallory").write_bytes(b"left over")
    deal(federation.root, rules=load_rule)
    assert sorted(p.name for p in federation.grants.iterdir()) == ["alice", "bob"]
    certificate = (federation.certificates / "alice.pem").read_bytes()
    assert peer_from_certificate(certificate).fingerprint == client(federation, "alice").fingerprint
