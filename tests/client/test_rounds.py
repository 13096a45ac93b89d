"""Whole rounds as clients live them: modes, rules, rounds that fail, plans that must not be followed."""

from dataclasses import replace

import numpy as np
import pytest
from live_federation import in_threads
from mean_bound import mean_bound

from attacks.poisoning import View, load_attack
from defenses import DDFed, load_rule
from secagg import (
    CiphertextError,
    Client,
    Code,
    ConfigError,
    RoundError,
    RoundState,
    SecaggError,
    UpdateError,
)
from secagg.ckks import profile
from secagg.rule import statistics_of
from secagg.weights import countable_weights

RNG = np.random.default_rng(11)
LARGEST = 1.0
"""No model here has a larger entry."""
ROUNDING = float(np.spacing(np.float32(LARGEST))) / 2
MODEL = {"w": RNG.normal(0, 0.1, (10, 40)).astype(np.float32), "b": np.zeros(10, np.float32)}


def client(fed, name, **options):
    return Client.load(
        fed.identity(name), server=fed.address, **({"patience_s": 60.0, "rules": load_rule} | options)
    )


def moved(model, seed):
    """A model near the given one: what training would give, in miniature. Float32 tensors."""
    rng = np.random.default_rng(seed)
    return {n: (t + 0.05 + rng.normal(0, 0.02, t.shape)).astype(np.float32) for n, t in model.items()}


def take_part(fed, name, seed, samples):
    """All rounds of one client: what it sent, what it got, and the final model."""
    sent, results = [], []
    with client(fed, name) as one:
        for upcoming in one.rounds():
            sent.append(moved(upcoming.model, seed + upcoming.number))
            results.append(upcoming.contribute(sent[-1], sample_count=samples))
        return sent, results, one.final_model()


MODES = [
    {"protect": "plain"},
    {"protect": "full"},
    {"protect": "selective", "significance": "random", "ratio": 0.3},
    {"protect": "selective", "significance": "layers", "layers": ("b",)},
    {"protect": "selective", "significance": "magnitude", "ratio": 0.2},
]


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.get("significance", m["protect"]))
def test_clients_open_the_weighted_mean(federation, mode):
    """Over two rounds every client gets the mean weighted by sample counts, within the profile's bound."""
    fed = federation(MODEL, ["alice", "bob"], rounds=2, min_clients=2, **mode)
    fed.serve()
    alice, bob = in_threads(lambda: take_part(fed, "alice", 100, 30), lambda: take_part(fed, "bob", 200, 10))
    for index in (0, 1):
        base = alice[1][index - 1].model if index else MODEL
        bound = mean_bound(fed.descriptor.profile, base, [30, 10], LARGEST)
        for name, tensor in alice[1][index].model.items():
            mean = 0.75 * alice[0][index][name].astype(np.float64) + 0.25 * bob[0][index][name]
            np.testing.assert_allclose(tensor, mean, rtol=0, atol=bound + ROUNDING)
            np.testing.assert_array_equal(tensor, bob[1][index].model[name])
    assert [r.round for r in alice[1]] == [1, 2]
    assert all(r.state in (RoundState.AGGREGATED, RoundState.CLOSED) for r in alice[1])
    assert all(r.own_weight is None and r.bytes_up > 0 and r.bytes_down > 0 for r in alice[1])
    for name, tensor in alice[2].items():
        np.testing.assert_array_equal(tensor, alice[1][-1].model[name])


class Witness(DDFed):
    """The rule itself; it keeps what it was given and what it answered."""

    def __init__(self):
        super().__init__()
        self.votes = {}

    def decide(self, statistics):
        answer = super().decide(statistics)
        self.votes[statistics.round] = dict(zip(statistics.update_ids, answer.weights.tolist(), strict=True))
        return answer


class Part:
    """One client's part in a federation under ddfed; an attacker sends g − 3·(w − g), w its honest model.

    Per round: the ``plans``, ``base``, ``sent`` and ``opened`` models, its update's ``ids``, its vote on its
    ``own``, and the ``votes`` its rule gave each update id.
    """

    def __init__(self, fed, name, seed, *, attacks):
        self.plans, self.base, self.sent, self.opened = {}, {}, {}, {}
        self.ids, self.own = {}, {}
        witness = Witness()

        def on_event(event, fields):
            if event == "accepted":
                # A proposed mask is accepted, too, and has no update id.
                self.ids.setdefault(fields["round"], fields["update_id"])

        with client(fed, name, rules=lambda _: witness, on_event=on_event) as one:
            for upcoming in one.rounds():
                number = upcoming.number
                self.plans[number], self.base[number] = upcoming.plan, upcoming.model
                trained = moved(upcoming.model, 10 * seed + number)
                if attacks:
                    trained = self._flipped(upcoming.plan.manifest, self.base[number], trained)
                self.sent[number] = trained
                result = upcoming.contribute(self.sent[number], sample_count=SAMPLES[name])
                self.opened[number], self.own[number] = result.model, result.own_weight
        self.votes = witness.votes

    @staticmethod
    def _flipped(manifest, base, trained):
        start = manifest.flatten(base)
        view = View(base=start, own=(manifest.flatten(trained) - start)[None], clients=len(SAMPLES))
        (update,) = load_attack("sign-flip", 3.0).forge(view, np.random.default_rng(0))
        return manifest.unflatten(start + update)


DEEPER = {"first": RNG.normal(0, 0.1, (90, 100)).astype(np.float32)} | MODEL
"""The rule compares w: the last tensor with two dimensions."""
SAMPLES = {"alice": 10, "bob": 20, "carol": 30, "mallory": 40}


def ddfed_on_plaintext(parts, number):
    """Ballot and integer weights by name, of the rule on the models themselves, in float64."""
    names = sorted(parts)
    g = parts["alice"].base[number]["w"].astype(np.float64).ravel()
    rows = np.array([parts[n].sent[number]["w"].astype(np.float64).ravel() for n in names]) - g
    counts = np.array([SAMPLES[n] for n in names])
    vote = DDFed().decide(statistics_of(rows, base=g, sample_counts=counts.tolist(), round=number))
    settled = DDFed().settle([vote] * len(names), len(names), counts).weights
    total = profile(parts["alice"].plans[number].profile).weight_total
    integers = countable_weights(settled, total)
    return dict(zip(names, vote.weights.tolist(), strict=True)), dict(
        zip(names, integers.tolist(), strict=True)
    )


@pytest.mark.parametrize(
    "mode",
    [
        {"protect": "plain"},
        {"protect": "full"},
        {"protect": "selective", "significance": "random", "ratio": 0.3},
        {"protect": "selective", "significance": "magnitude", "ratio": 0.2},
    ],
    ids=lambda m: m.get("significance", m["protect"]),
)
def test_clients_vote_a_poisoned_update_out(federation, mode):
    """Under ddfed a boosted sign flip of the update gets no weight, every honest update does, and ciphertexts
    lead to exactly the ballots and weights that the rule finds on the plaintext models.

    Two rounds: the second one's reference is an aggregate, and its mask by magnitude a real one.
    """
    fed = federation(DEEPER, list(SAMPLES), rounds=2, min_clients=4, rule="ddfed", **mode)
    server = fed.serve()
    made = in_threads(
        *(
            lambda name=name, seed=seed: Part(fed, name, seed, attacks=name == "mallory")
            for seed, name in enumerate(SAMPLES)
        )
    )
    parts = dict(zip(SAMPLES, made, strict=True))
    for number in (1, 2):
        decided = server.wait_for("decided", round=number)["weights"]
        assert decided.pop("mallory") == 0
        assert all(weight > 0 for weight in decided.values())
        vote, weights = ddfed_on_plaintext(parts, number)
        assert decided | {"mallory": 0} == weights
        by_id = {parts[name].ids[number]: vote[name] for name in parts}
        for name, part in parts.items():
            assert part.votes[number] == by_id
            assert part.own[number] == vote[name]
            assert_weighted_mean(fed, part.opened[number], parts, weights, number)
    first, second = (parts["alice"].plans[number] for number in (1, 2))
    if mode.get("significance") == "magnitude":
        # Everything is hidden in round 1; then a fifth is, and the layer that is compared.
        assert not first.mask_sha256 and second.mask_sha256
        assert second.payload_bytes < first.payload_bytes


def assert_weighted_mean(fed, opened, parts, weights, number):
    """Within the profile's bound, and the rounding to float32."""
    integers = np.array(list(weights.values()), dtype=np.int64)
    bound = mean_bound(fed.descriptor.profile, opened, integers, LARGEST)
    for name, tensor in opened.items():
        mean = sum(w * parts[n].sent[number][name].astype(np.float64) for n, w in weights.items())
        np.testing.assert_allclose(tensor, mean / integers.sum(), rtol=0, atol=bound + ROUNDING)


class OnlyNorms(DDFed):
    """Asks for less than the rule the server runs."""

    def request(self, manifest):
        return replace(super().request(manifest), references=0)


@pytest.mark.parametrize("protect", ["full", "plain"])
def test_statistics_beyond_what_the_rule_asks_for_are_not_answered(federation, protect):
    """The server releases norms and products; a client whose rule asks for norms alone opens neither."""
    fed = federation(MODEL, ["alice"], rule="ddfed", protect=protect)
    server = fed.serve()
    with client(fed, "alice", rules=lambda _: OnlyNorms()) as alice:
        (upcoming,) = alice.rounds(limit=1)
        with pytest.raises(CiphertextError, match="quantities") as caught:
            upcoming.contribute(moved(upcoming.model, 1), sample_count=1)
    assert caught.value.code is Code.STATISTICS_MALFORMED
    assert not server.named("decided")


def test_statistics_of_fewer_updates_than_promised_are_not_answered(federation):
    """A dealer who promised two updates in every sum, a server that goes on with one: no ballot."""
    fed = federation(MODEL, ["alice"], rule="ddfed", min_clients=1)
    server = fed.serve()
    with client(fed, "alice") as alice:
        (upcoming,) = alice.rounds(limit=1)
        # No honest server comes this far below the promise, so the promise is raised behind its back.
        alice._federation._descriptor = replace(alice.descriptor, min_clients=2)
        with pytest.raises(CiphertextError, match="at least 2") as caught:
            upcoming.contribute(moved(upcoming.model, 1), sample_count=1)
    assert caught.value.code is Code.STATISTICS_MALFORMED
    assert not server.named("decided")


def test_own_ballot_is_reported(federation):
    """The result says what this client's own vote gave its own update."""
    fed = federation(MODEL, ["alice", "bob", "carol"], min_clients=3, rule="ddfed")
    fed.serve()
    runs = in_threads(
        *(lambda n=n, s=s: take_part(fed, n, s, 10) for s, n in enumerate(["alice", "bob", "carol"]))
    )
    selected = [results[0].own_weight for _, results, _ in runs if results[0].own_weight]
    assert selected and selected == [pytest.approx(1 / len(selected))] * len(selected)
    assert all(results[0].open_s > 0 and results[0].seal_s > 0 for _, results, _ in runs)


def test_aborted_round_is_an_error_and_the_next_one_comes(federation):
    """Alone in a round for two: ROUND_ABORTED with the server's reason; iterating gives the next round."""
    fed = federation(MODEL, ["alice", "bob"], min_clients=2, collect_timeout_s=0.5)
    fed.serve()
    with client(fed, "alice") as alice:
        rounds = alice.rounds()
        first = next(rounds)
        with pytest.raises(RoundError) as caught:
            first.contribute(moved(first.model, 1), sample_count=1)
        assert caught.value.code is Code.ROUND_ABORTED
        assert caught.value.ids["reason"] == Code.NOT_ENOUGH_CLIENTS
        second = next(rounds)
        assert second.number == 2 and second.plan.base_round == 0 and not second.resuming


def test_late_client_is_told_and_goes_on(federation):
    """A round that closed without it refuses its update; the next round starts from that one's model."""
    fed = federation(MODEL, ["alice", "bob"], rounds=2, min_clients=1, collect_timeout_s=0.5)
    fed.serve()
    with client(fed, "bob") as bob, client(fed, "alice") as alice:
        late_rounds = bob.rounds()
        late = next(late_rounds)
        base = late.model
        (first,) = alice.rounds(limit=1)
        opened = first.contribute(moved(first.model, 1), sample_count=1).model
        with pytest.raises(RoundError) as caught:
            late.contribute(moved(base, 2), sample_count=1)
        assert caught.value.code is Code.ROUND_CLOSED
        following = next(late_rounds)
        assert following.number == 2
        for name, tensor in following.model.items():
            np.testing.assert_array_equal(tensor, opened[name])


BAD_UPDATES = [
    (lambda m: {"w": m["w"]}, 1, Code.MANIFEST_MISMATCH),
    (lambda m: m | {"w": m["w"].T}, 1, Code.UPDATE_SHAPE),
    (lambda m: m | {"w": m["w"].astype(np.float64)}, 1, Code.UPDATE_DTYPE),
    (lambda m: m | {"b": np.full(10, np.nan, np.float32)}, 1, Code.UPDATE_NOT_FINITE),
    (lambda m: m | {"b": np.full(10, 1e9, np.float32)}, 1, Code.UPDATE_OUT_OF_RANGE),
    (lambda m: m, 0, Code.SAMPLE_COUNT_INVALID),
    (lambda m: m, 1.5, Code.SAMPLE_COUNT_INVALID),
    (lambda m: m, True, Code.SAMPLE_COUNT_INVALID),
]


def test_update_that_does_not_fit_is_refused_before_anything_is_sent(federation):
    """Each fault has its code; afterwards the same round still takes a good update."""
    fed = federation(MODEL, ["alice"])
    server = fed.serve()
    with client(fed, "alice") as alice:
        (upcoming,) = alice.rounds(limit=1)
        base = upcoming.model
        for spoil, samples, code in BAD_UPDATES:
            with pytest.raises(UpdateError) as caught:
                upcoming.contribute(spoil(base), sample_count=samples)
            assert caught.value.code is code
        with pytest.raises(RoundError) as nothing:
            upcoming.contribute()
        assert nothing.value.code is Code.STATE_INVALID
        assert not server.named("accepted")
        upcoming.contribute(moved(base, 3), sample_count=1)
    assert len(server.named("accepted")) == 1


def test_training_in_place_does_not_change_the_base(federation):
    """``round.model`` gives copies; the base the client keeps is the federation's."""
    fed = federation(MODEL, ["alice"], protect="plain")
    fed.serve()
    with client(fed, "alice") as alice:
        (upcoming,) = alice.rounds(limit=1)
        upcoming.model["w"][:] = 7.0
        np.testing.assert_array_equal(upcoming.model["w"], MODEL["w"])


def test_server_of_another_federation_is_not_talked_to(federation, tmp_path):
    """A server whose certificate comes from another federation's authority is not talked to."""
    fed = federation(MODEL, ["alice"])
    other = federation(MODEL, ["alice"])
    fed.serve()
    with (
        Client.load(
            other.identity("alice"), server=fed.address, rules=load_rule, patience_s=0.5, state=tmp_path / "s"
        ) as stranger,
        pytest.raises(SecaggError) as caught,
    ):
        next(stranger.rounds())
    assert caught.value.code is Code.SERVER_UNREACHABLE


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"server": "localhost"}, "HOST:PORT"),
        ({"server": "localhost:99999"}, "65535"),
        ({"patience_s": 0.0}, "patience_s is 0.0"),
        ({"patience_s": float("nan")}, "patience_s is nan"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(federation, options, complaint):
    """Before anything is opened or connected."""
    fed = federation(MODEL, ["alice"])
    with pytest.raises(ConfigError, match=complaint) as caught:
        Client.load(fed.identity("alice"), **({"server": fed.address, "rules": load_rule} | options))
    assert caught.value.code is Code.CONFIG_INVALID
