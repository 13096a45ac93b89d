"""Events that a round may meet: wild ones, fitting ones, and those of a round that goes well."""

from __future__ import annotations

from hypothesis import strategies as st

from secagg.errors import Code
from secagg.plan import RoundState
from secagg.rule import Reason, Stage
from secagg.server.events import (
    Acceptance,
    Aggregated,
    BallotCast,
    Cleared,
    Confirmation,
    Confirmed,
    DeadlinePassed,
    Decided,
    Event,
    Failed,
    MaskArrived,
    Round,
    Scored,
    Screened,
    Terms,
    UploadAccepted,
    UploadBegun,
    Vote,
)

CLIENTS = ("a", "b", "c", "d")
DIGESTS = (bytes(32), b"\1" * 32)
S = RoundState


def acceptance(client: str, version: int = 0) -> Acceptance:
    return Acceptance(
        client=client,
        update_id=f"{client}{version}".encode().ljust(16),
        sample_count=10,
        content_sha256=bytes([version]) * 32,
    )


clients = st.sampled_from(CLIENTS)
digests = st.sampled_from(DIGESTS)
states = st.sampled_from(list(S))
weights = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan")]), max_size=4).map(tuple)
reasons = st.lists(st.sampled_from([Reason.KEPT, Reason.NORM, Reason.RULE]), max_size=4).map(tuple)
stages = st.sampled_from(Stage)
events: st.SearchStrategy[Event] = st.one_of(
    st.just(UploadBegun()),
    st.builds(
        UploadAccepted,
        acceptance=st.builds(acceptance, clients, st.integers(0, 1)),
        enrolled=st.frozensets(clients, min_size=1),
    ),
    st.builds(DeadlinePassed, state=states),
    st.builds(Screened, screening_sha256=st.sampled_from([b"", *DIGESTS])),
    st.builds(Cleared, reasons=reasons),
    st.builds(Scored, statistics_sha256=st.sampled_from([b"", *DIGESTS])),
    st.builds(
        BallotCast, vote=st.builds(Vote, client=clients, stage=stages, weights=weights, reasons=reasons)
    ),
    st.builds(Decided, weights=st.lists(st.integers(-1, 3), max_size=4).map(tuple), reasons=reasons),
    st.builds(Aggregated, aggregate_sha256=digests),
    st.builds(
        Confirmed,
        confirmation=st.builds(
            Confirmation, client=clients, next_mask_sha256=st.sampled_from([b"", *DIGESTS])
        ),
    ),
    st.builds(MaskArrived, client=clients, mask_sha256=digests),
    st.builds(Failed, code=st.sampled_from([Code.WORKER_LOST, Code.INTERNAL])),
)
kinds = st.sampled_from([(False, False), (True, False), (True, True)])
terms = st.builds(
    lambda least, kind: Terms(min_clients=least, ballots=kind[0], screens=kind[1]), st.integers(1, 3), kinds
)


def vote(client: str, stage: Stage, *given: float) -> BallotCast:
    """A ballot with these weights and the reasons that go with them."""
    told = tuple(Reason.KEPT if weight else Reason.RULE for weight in given)
    return BallotCast(vote=Vote(client=client, stage=stage, weights=given, reasons=told))


def decided(*integers: int) -> Decided:
    """These weights and the reasons that go with them."""
    return Decided(
        weights=integers, reasons=tuple(Reason.KEPT if weight else Reason.RULE for weight in integers)
    )


def fitting(round_: Round, terms: Terms) -> list[Event]:
    """Events that drive a round forward, so that random walks get further than its first state."""
    n = len(round_.accepted)
    names = [a.client for a in round_.accepted]
    everyone = frozenset(CLIENTS)
    match round_.state:
        case S.ANNOUNCED:
            return [UploadBegun()]
        case S.COLLECTING:
            return [
                *(UploadAccepted(acceptance=acceptance(c), enrolled=everyone) for c in CLIENTS),
                DeadlinePassed(state=S.COLLECTING),
            ]
        case S.SEALED if terms.screens:
            return [Screened(screening_sha256=digest) for digest in DIGESTS]
        case S.SCREENED:
            ballots = [vote(c, Stage.SCREENING, *(1.0,) * n) for c in names]
            cleared = [Cleared(reasons=(Reason.KEPT,) * n)]
            cleared += [
                Cleared(reasons=tuple(Reason.NORM if i == j else Reason.KEPT for j in range(n)))
                for i in range(n)
            ]
            return [*ballots, *cleared, DeadlinePassed(state=S.SCREENED)]
        case S.SEALED | S.CLEARED:
            return [Scored(statistics_sha256=DIGESTS[1] if terms.ballots else b"")]
        case S.SCORED:
            ballots = [vote(c, Stage.STATISTICS, *(1.0,) * len(round_.kept)) for c in names]
            known = round_.reasons or (Reason.KEPT,) * n
            integers = tuple(int(reason == Reason.KEPT) for reason in known)
            return [*ballots, Decided(weights=integers, reasons=known), DeadlinePassed(state=S.SCORED)]
        case S.DECIDED:
            return [Aggregated(aggregate_sha256=d) for d in DIGESTS]
        case S.AGGREGATED:
            confirmations = [
                Confirmed(confirmation=Confirmation(client=c, next_mask_sha256=d))
                for c in names
                for d in (b"", *DIGESTS)
            ]
            masks = [MaskArrived(client=c, mask_sha256=d) for c in names for d in DIGESTS]
            return [*confirmations, *masks, DeadlinePassed(state=S.AGGREGATED)]
        case _:
            return [UploadBegun()]


def straight(data: st.DataObject, terms: Terms) -> list[Event]:
    """The first so many events of a round that goes well, from where a random walk goes on."""
    names = data.draw(st.lists(clients, unique=True, min_size=terms.min_clients))
    dropped = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1)) if terms.screens else set()
    kept = [name for name in names if name not in dropped]
    known = tuple(Reason.NORM if name in dropped else Reason.KEPT for name in names)
    accepted: list[Event] = [
        UploadAccepted(acceptance=acceptance(name), enrolled=frozenset(CLIENTS)) for name in names
    ]
    sealing: list[Event] = [] if len(names) == len(CLIENTS) else [DeadlinePassed(state=S.COLLECTING)]
    screening: list[Event] = [
        Screened(screening_sha256=DIGESTS[1]),
        *(vote(name, Stage.SCREENING, *(1.0,) * len(names)) for name in names),
        Cleared(reasons=known),
    ]
    scoring: list[Event] = [vote(name, Stage.STATISTICS, *(1.0,) * len(kept)) for name in kept]
    script: list[Event] = [
        UploadBegun(),
        *accepted,
        *sealing,
        *(screening if terms.screens else []),
        Scored(statistics_sha256=DIGESTS[1] if terms.ballots else b""),
        *(scoring if terms.ballots else []),
        Decided(weights=tuple(int(name in kept) for name in names), reasons=known),
        Aggregated(aggregate_sha256=DIGESTS[0]),
    ]
    return script[: data.draw(st.integers(0, len(script)))]
