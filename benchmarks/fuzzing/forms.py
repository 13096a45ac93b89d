"""Every form that the server or a client reads from a network, each through its whole path."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzzing import content
from benchmarks.fuzzing.content import MANIFEST, ROUND, Source
from benchmarks.fuzzing.form import Form
from benchmarks.fuzzing.signed import RATIO, ballot_of, decoded, header_of, signed_forms
from benchmarks.fuzzing.statistics import statistics_forms
from secagg._proto import aggregator_pb2 as pb
from secagg.aggregate import (
    Additions,
    AggregateFile,
    Onto,
    Shares,
    WeightedUpdates,
    open_aggregate,
    write_aggregate,
)
from secagg.ckks import (
    Opener,
    PublicKey,
    SealedOperand,
    SecretKey,
    gram_pairs,
    product_sums,
    profile,
    weighted_sum,
)
from secagg.ckks.tenseal_form import read_tenseal_vector
from secagg.custody.descriptor import Descriptor
from secagg.envelope import Ballot, UpdateHeader
from secagg.model_file import model_to_bytes, read_model
from secagg.payload import UpdateFile
from secagg.plan import RoundState, plan_from_proto, plan_to_proto
from secagg.selection import Mask
from secagg.server.admission import check_against_plan
from secagg.update import Manifest, TensorSpec

PAYLOADS = (
    ("robust", "layers"),
    ("robust", "full"),
    ("compact", "full"),
    ("compact-10", "layers"),
    ("precise", "full"),
    ("nvflare", "full"),
    ("robust", "plain"),
)
"""Profiles and protections whose payloads and aggregates are read."""
MODEL_MAX_BYTES = 2**22
DIVISOR = 512


def forms(folder: Path) -> list[Form]:
    """All forms; parsers that read files put them into the folder."""
    return [
        *(_payload(name, protection, folder) for name, protection in PAYLOADS),
        *(_aggregate(name, protection, folder) for name, protection in PAYLOADS),
        _differences(folder),
        *statistics_forms(folder),
        _header(),
        _ballot(),
        _scalar("linear", 1),
        _scalar("bilinear", 2),
        *_keys(),
        _tenseal(),
        _manifest(),
        _mask(),
        _plan(),
        _descriptor(),
        _model(),
        *signed_forms(folder),
    ]


def _payload(name: str, protection: str, folder: Path) -> Form:
    plan, path = content.plan_of(name, protection), folder / "payload"
    layout, used = content.layout_of(plan), profile(name)
    honest = content.write(folder / f"honest {name} {protection}", content.payload_of(plan, "honest"))

    def parse(data: bytes) -> None:
        """What the server checks, and then computes on."""
        file = UpdateFile(path=content.write(path, data), layout=layout, profile=used)
        file.check()
        other = UpdateFile(path=honest, layout=layout, profile=used)
        for block, values in enumerate(layout.hidden_counts):
            count = used.ciphertext_count(values)
            readers = [file.ciphertexts(block), other.ciphertexts(block), file.ciphertexts(block)]
            for _ in weighted_sum(readers, [1, 2, 3], used, ciphertexts=range(count)):
                pass
            if values and used.inner_products:
                operands = [SealedOperand(reader=reader) for reader in readers[:2]]
                product_sums(operands, gram_pairs(2), values, used)

    return Form(
        name=f"payload {name} {protection}",
        messages=tuple(content.payload_of(plan, f"payload {seed}") for seed in range(2)),
        parse=parse,
    )


def _aggregate(name: str, protection: str, folder: Path) -> Form:
    plan = content.plan_of(name, protection)
    layout, used, scales = content.layout_of(plan), profile(name), content.scales_of(plan)
    made = []
    for number in range(2):
        paths = [
            content.write(folder / f"update-{place}", content.payload_of(plan, f"aggregate {number} {place}"))
            for place in range(2)
        ]
        updates = WeightedUpdates(
            round=ROUND,
            paths=tuple(paths),
            weights=(3, 4),
            layout=layout,
            profile=used,
            shares=Shares(unit=plan.count_unit, scales=scales) if scales else None,
        )
        write_aggregate(folder / "aggregate", updates)
        made.append((folder / "aggregate").read_bytes())
    opener = Opener(content.secret_key(used)) if any(layout.hidden_counts) else None
    return Form(
        name=f"aggregate {name} {protection}",
        messages=tuple(made),
        parse=lambda data: open_aggregate(data, round=ROUND, layout=layout, profile=used, opener=opener),
    )


def _differences(folder: Path) -> Form:
    """An aggregate of differences, onto an earlier one."""
    plan, used = content.plan_of("robust", "layers"), profile("robust")
    layout, opener, made = content.layout_of(plan), Opener(content.secret_key(used)), []
    for number in range(2):
        before = None
        for round in (ROUND - 1, ROUND):
            path = content.write(folder / "update", content.payload_of(plan, f"difference {number} {round}"))
            out = folder / f"differences-{round}"
            updates = WeightedUpdates(
                round=round,
                paths=(path,),
                weights=(DIVISOR,),
                layout=layout,
                profile=used,
                additions=Additions(divisor=DIVISOR, since=0, before=before),
            )
            write_aggregate(out, updates)
            before = AggregateFile(path=out, round=round, layout=layout, profile=used)
        made.append(out.read_bytes())
    onto = Onto(since=0, model=Source("initial").floats(MANIFEST.size), divisor=DIVISOR)
    return Form(
        name="aggregate of differences",
        messages=tuple(made),
        parse=lambda data: open_aggregate(
            data, round=ROUND, layout=layout, profile=used, opener=opener, onto=onto
        ),
    )


def _header() -> Form:
    plan = content.plan_of("compact", "full")
    payloads = [content.payload_of(plan, f"header {seed}") for seed in range(2)]

    def parse(data: bytes) -> object:
        header = UpdateHeader.from_bytes(data)
        check_against_plan(header, plan)
        return header

    return Form(
        name="header",
        messages=tuple(header_of(plan, payload).to_bytes() for payload in payloads),
        parse=parse,
    )


def _ballot() -> Form:
    return Form(name="ballot", messages=(ballot_of("one", 3), ballot_of("two", 100)), parse=Ballot.from_bytes)


def _scalar(name: str, kind: int) -> Form:
    opener = Opener(content.secret_key(profile("robust")))
    messages = tuple(content.scalar_of(kind, f"scalar {seed}") for seed in range(2))
    return Form(name=f"scalar {name}", messages=messages, parse=opener.open_scalar)


def _keys() -> list[Form]:
    profiles = [profile("robust"), profile("nvflare"), profile("compact")]
    return [
        Form(
            name="secret key",
            messages=tuple(content.secret_key(used).to_bytes() for used in profiles),
            parse=lambda data: SecretKey.from_bytes(data).to_bytes(),
        ),
        Form(
            name="public key",
            messages=tuple(content.public_key(used).to_bytes() for used in profiles),
            parse=lambda data: PublicKey.from_bytes(data).key_id,
        ),
    ]


def _tenseal() -> Form:
    used, values = profile("nvflare"), 5000
    opener = Opener(content.secret_key(used))
    return Form(
        name="tenseal vector",
        messages=content.tenseal_vectors(values),
        parse=lambda data: opener.open_vector(read_tenseal_vector(data, values, used), values),
    )


def _manifest() -> Form:
    tensors = tuple(TensorSpec(name=f"layer{n}.weight", shape=(n + 1, 3, 5, 7)) for n in range(20))
    other = Manifest(tensors=tensors)
    return Form(
        name="manifest",
        messages=(MANIFEST.to_bytes(), other.to_bytes()),
        parse=lambda data: Manifest.from_bytes(data).digest,
    )


def _mask() -> Form:
    made = (Mask(content.hidden(f"mask {seed}", MANIFEST.size, RATIO)) for seed in range(2))
    return Form(
        name="mask",
        messages=tuple(mask.to_bytes() for mask in made),
        parse=lambda data: Mask.from_bytes(data).digest,
    )


def _plan() -> Form:
    plans = (content.plan_of("compact", "full"), content.plan_of("robust", "layers", statistics=True))
    messages = (plan_to_proto(plan, state=RoundState.COLLECTING, collect_remaining_s=30.0) for plan in plans)
    return Form(
        name="plan",
        messages=tuple(message.SerializeToString() for message in messages),
        parse=lambda data: plan_from_proto(decoded(pb.RoundPlan, data)),
    )


def _descriptor() -> Form:
    messages = (content.descriptor_of(name).to_bytes() for name in ("compact", "robust"))
    return Form(name="descriptor", messages=tuple(messages), parse=Descriptor.from_bytes)


def _model() -> Form:
    tensors = MANIFEST.unflatten(Source("model").floats(MANIFEST.size))
    return Form(
        name="model",
        messages=(model_to_bytes(tensors),),
        parse=lambda data: read_model(data, max_bytes=MODEL_MAX_BYTES),
    )
