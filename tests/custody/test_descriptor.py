"""What must hold of the descriptor: only the dealer makes one, none comes back, every plan is held to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from secagg.custody.authority import Authority
from secagg.custody.descriptor import (
    Descriptor,
    SignedDescriptor,
    check_plan,
    load_descriptor,
    remember_descriptor,
)
from secagg.custody.federation import FederationFolder
from secagg.custody.identity import ClientIdentity
from secagg.envelope import Domain, sign
from secagg.errors import Code, CustodyError, RoundError
from secagg.plan import Protection, RoundPlan, Significance
from secagg.update import Manifest, TensorSpec

MANIFEST = Manifest(tensors=tuple(TensorSpec(name=name, shape=(4,)) for name in ("a", "b", "c")))
DESCRIPTOR = Descriptor(
    federation_id=bytes(16),
    name="hospitals",
    sequence=3,
    profile="robust",
    key_id=b"k" * 16,
    manifest_sha256=MANIFEST.digest,
    initial_model_sha256=b"i" * 32,
    protection=Protection.full(),
    rule="ddfed",
    min_clients=3,
    max_sample_count=1000,
)
PLAN = RoundPlan(
    round=4,
    protection=Protection.full(),
    mask_sha256=b"",
    profile="robust",
    key_id=b"k" * 16,
    manifest=MANIFEST,
    rule="ddfed",
    statistics_blocks=(),
    base_round=3,
    max_sample_count=1000,
    payload_bytes=10,
)
MAGNITUDE, RANDOM, LAYERS = Significance.MAGNITUDE, Significance.RANDOM, Significance.LAYERS
selective = Protection.selective

protections = st.one_of(
    st.just(Protection.plain()),
    st.just(Protection.full()),
    st.builds(
        selective,
        significance=st.sampled_from([MAGNITUDE, RANDOM]),
        ratio=st.floats(0, 1, exclude_min=True),
    ),
    st.builds(
        selective,
        significance=st.just(LAYERS),
        layers=st.lists(st.text(max_size=20), min_size=1, max_size=4).map(tuple),
    ),
)
numbers = st.integers(1, 2**63 - 1)
descriptors = st.builds(
    Descriptor,
    federation_id=st.binary(min_size=16, max_size=16),
    name=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=64),
    sequence=numbers,
    profile=st.text("abc", min_size=1, max_size=10),
    key_id=st.binary(min_size=16, max_size=16),
    manifest_sha256=st.binary(min_size=32, max_size=32),
    initial_model_sha256=st.binary(min_size=32, max_size=32),
    protection=protections,
    rule=st.text("abc:=", min_size=1, max_size=30),
    min_clients=numbers,
    max_sample_count=numbers,
)


@given(descriptors)
def test_descriptor_survives_its_bytes(descriptor: Descriptor) -> None:
    """Parsing inverts writing."""
    assert Descriptor.from_bytes(descriptor.to_bytes()) == descriptor


@given(descriptors, st.data())
def test_a_changed_descriptor_is_refused_or_another_one(descriptor: Descriptor, data: st.DataObject) -> None:
    """No two byte strings mean the same, and nothing but the typed refusal comes out."""
    original = descriptor.to_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        parsed = Descriptor.from_bytes(bytes(changed))
    except CustodyError as error:
        assert error.code is Code.DESCRIPTOR_INVALID
    else:
        assert parsed != descriptor
        assert parsed.to_bytes() == changed


def changed(**fields: Any) -> bytes:
    document = json.loads(DESCRIPTOR.to_bytes()[1:])
    for name, value in fields.items():
        if value is None:
            del document[name]
        else:
            document[name] = value
    return b"\x01" + json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02" + DESCRIPTOR.to_bytes()[1:],
        DESCRIPTOR.to_bytes() + b" ",
        DESCRIPTOR.to_bytes().replace(b'"name":', b'"name": '),
        DESCRIPTOR.to_bytes().replace(b'"name":', b'"name":"twice","name":'),
        DESCRIPTOR.to_bytes()[:-1],
        b"\x01" + b"[" * 30_000,
        b"\x01null",
        b"\x01" + b" " * 70_000,
        changed(more=1),
        changed(rule=None),
        changed(rule=""),
        changed(sequence=True),
        changed(sequence=0),
        changed(sequence="3"),
        changed(min_clients=0),
        changed(min_clients=1.0),
        changed(key_id="00"),
        changed(key_id="zz" * 16),
        changed(key_id=("6b" * 16).upper()),
        changed(protection={"mode": "full", "ratio": 1, "significance": None, "layers": []}),
        changed(protection={"mode": "full", "ratio": 0.5, "significance": None, "layers": []}),
        changed(protection={"mode": "half", "ratio": 1.0, "significance": None, "layers": []}),
        changed(protection={"mode": "full", "ratio": 1.0, "significance": None, "layers": [], "x": 1}),
        changed(protection={"mode": "full", "ratio": 1.0, "significance": None, "layers": "a"}),
        changed(protection=[]),
    ],
)
def test_any_other_form_is_refused(data: bytes) -> None:
    """Version, canonical form, exact fields, exact types, ranges."""
    with pytest.raises(CustodyError) as refusal:
        Descriptor.from_bytes(data)
    assert refusal.value.code is Code.DESCRIPTOR_INVALID


@dataclass
class Key:
    signing_key: Ed25519PrivateKey


def resigned(federation: FederationFolder, **fields: Any) -> SignedDescriptor:
    """The federation's descriptor, changed and signed by its dealer."""
    authority = Authority.load(federation.authority)
    last = SignedDescriptor.load(federation.last_descriptor).open(authority.anchor)
    return SignedDescriptor.sign(authority, replace(last, **fields))


def test_a_descriptor_that_the_dealer_did_not_sign_is_refused(federation: FederationFolder) -> None:
    """Neither a client nor the server can change a promise."""
    alice = ClientIdentity.load(federation.clients / "alice")
    good = SignedDescriptor.load(federation.server / "descriptor.signed")
    assert good.open(alice.anchor).name == "hospitals"
    weakened = good.data.replace(b'"min_clients":2', b'"min_clients":1')
    assert weakened != good.data
    for bad in (
        SignedDescriptor(data=weakened, signature=good.signature),
        SignedDescriptor(data=good.data, signature=bytes(64)),
        SignedDescriptor(data=good.data, signature=b""),
        SignedDescriptor.sign(alice, good.open(alice.anchor)),
        # The dealer's signature over the same bytes, made for another purpose.
        SignedDescriptor(
            data=good.data,
            signature=sign(Authority.load(federation.authority), Domain.GRANT, good.data),
        ),
    ):
        with pytest.raises(CustodyError, match="not signed by this federation's dealer") as refusal:
            remember_descriptor(alice, bad)
        assert refusal.value.code is Code.DESCRIPTOR_INVALID
    assert load_descriptor(alice.directory) == good


def test_a_descriptor_of_another_federation_is_refused(federation: FederationFolder) -> None:
    """Even one signed by the right dealer: the id is the authority's fingerprint."""
    alice = ClientIdentity.load(federation.clients / "alice")
    with pytest.raises(CustodyError, match="it is for federation"):
        resigned(federation, federation_id=bytes(16)).open(alice.anchor)


def test_a_newer_descriptor_is_kept_and_an_older_one_never_comes_back(federation: FederationFolder) -> None:
    """A server can't bring back a promise that the dealer has replaced."""
    alice = ClientIdentity.load(federation.clients / "alice")
    old = SignedDescriptor.load(federation.server / "descriptor.signed")
    newer = resigned(federation, sequence=2, min_clients=5)
    assert remember_descriptor(alice, newer).min_clients == 5
    assert load_descriptor(alice.directory) == newer
    with pytest.raises(CustodyError, match="its sequence is 1; this client has seen 2"):
        remember_descriptor(alice, old)
    with pytest.raises(CustodyError, match="two different descriptors"):
        remember_descriptor(alice, resigned(federation, sequence=2, min_clients=1))
    assert load_descriptor(alice.directory) == newer


@pytest.mark.parametrize("content", [None, b"", b"x" * 64])
def test_a_missing_or_short_descriptor_file_is_named(
    federation: FederationFolder, content: bytes | None
) -> None:
    """With the way out."""
    path = federation.server / "descriptor.signed"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CustodyError, match=Code.DESCRIPTOR_INVALID):
        SignedDescriptor.load(path)


@pytest.mark.parametrize(
    ("promised", "asked"),
    [
        (Protection.full(), Protection.full()),
        (Protection.plain(), Protection.plain()),
        (Protection.plain(), Protection.full()),
        (Protection.plain(), selective(significance=RANDOM, ratio=0.1)),
        (selective(significance=RANDOM, ratio=0.1), Protection.full()),
        (selective(significance=RANDOM, ratio=0.1), selective(significance=RANDOM, ratio=0.1)),
        (selective(significance=RANDOM, ratio=0.1), selective(significance=RANDOM, ratio=0.2)),
        (selective(significance=LAYERS, layers=("a",)), selective(significance=LAYERS, layers=("b", "a"))),
    ],
)
def test_a_plan_that_protects_as_much_or_more_is_taken(promised: Protection, asked: Protection) -> None:
    """The promise is a floor."""
    check_plan(replace(DESCRIPTOR, protection=promised), replace(PLAN, protection=asked))


@pytest.mark.parametrize(
    ("promised", "asked", "what"),
    [
        (Protection.full(), Protection.plain(), "protection"),
        (Protection.full(), selective(significance=RANDOM, ratio=1.0), "protection"),
        (selective(significance=RANDOM, ratio=0.1), Protection.plain(), "protection"),
        (selective(significance=RANDOM, ratio=0.1), selective(significance=RANDOM, ratio=0.09), "ratio"),
        (
            selective(significance=RANDOM, ratio=0.1),
            selective(significance=MAGNITUDE, ratio=0.5),
            "significance",
        ),
        (
            selective(significance=LAYERS, layers=("a", "b")),
            selective(significance=LAYERS, layers=("a", "c")),
            "layers is without b",
        ),
    ],
)
def test_a_plan_that_protects_less_is_refused(promised: Protection, asked: Protection, what: str) -> None:
    """Mode, ratio, significance and layers; the message names what was promised."""
    with pytest.raises(RoundError, match=f"the plan's {what}.* promises ") as refusal:
        check_plan(replace(DESCRIPTOR, protection=promised), replace(PLAN, protection=asked))
    assert refusal.value.code is Code.PLAN_BELOW_POLICY
    assert refusal.value.ids == {"round": "4"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"profile": "precise"}, Code.PROFILE_MISMATCH),
        ({"key_id": b"x" * 16}, Code.KEY_MISMATCH),
        ({"manifest": Manifest(tensors=MANIFEST.tensors[:2])}, Code.MANIFEST_MISMATCH),
        ({"rule": "mean"}, Code.PLAN_BELOW_POLICY),
        ({"max_sample_count": 1001}, Code.PLAN_BELOW_POLICY),
    ],
)
def test_a_plan_about_something_else_is_refused(change: dict[str, Any], code: Code) -> None:
    """Profile, key, manifest, rule and cap."""
    with pytest.raises(RoundError) as refusal:
        check_plan(DESCRIPTOR, replace(PLAN, **change))
    assert refusal.value.code is code


def test_a_lower_cap_on_sample_counts_is_taken() -> None:
    """It gives no client more weight than was promised."""
    check_plan(DESCRIPTOR, replace(PLAN, max_sample_count=1))
