"""Uploads and downloads over a wire that stalls, breaks, and loses answers, to a real server process."""

import threading

import numpy as np
import pytest
from mean_bound import mean_bound

from defenses import load_rule
from secagg import Client, Code, TransferError
from secagg.plan import DEFAULT_CHUNK_BYTES

VALUES = 2_400_000
"""Under CKKS some 9 MB: six chunks."""
MODEL = {"w": np.zeros(VALUES, np.float32)}
TRAINED = {"w": np.random.default_rng(5).normal(0, 0.1, VALUES).astype(np.float32)}
COMMITTED = 3 * DEFAULT_CHUNK_BYTES
BUDGET = COMMITTED + DEFAULT_CHUNK_BYTES
"""TLS and HTTP/2 add less than a chunk to three chunks, so these arrive whole and a fourth doesn't."""

TRAINER = """
import numpy as np

def train(model, round):
    with open("trainings", "a") as log:
        log.write(f"{round}\\n")
    return {"w": np.random.default_rng(5).normal(0, 0.1, model["w"].size).astype(np.float32)}, 10
"""


def client(federation, name="alice", **options):
    return Client.load(
        federation.identity(name),
        server=federation.address,
        rules=load_rule,
        **({"patience_s": 60.0} | options),
    )


def contribute_one(federation, **options):
    """One whole round in this process: the result, and the events it saw."""
    events = []

    def note(name, fields):
        events.append((name, fields))

    with client(federation, on_event=note, **options) as alice:
        for upcoming in alice.rounds(limit=1):
            return upcoming.contribute(TRAINED, sample_count=10), events
    raise AssertionError("the federation ended without a round")


def assert_opened_within_the_bound(federation, result):
    """One client's mean is its own update, up to the profile's noise and the rounding to float32."""
    trained, largest = TRAINED["w"].astype(np.float64), float(np.abs(TRAINED["w"]).max())
    bound = mean_bound(federation.descriptor.profile, MODEL, [10], largest)
    rounding = float(np.spacing(np.float32(largest))) / 2
    assert np.abs(result.model["w"] - trained).max() <= bound + rounding


def sent_bytes(events):
    return sum(fields["size"] for name, fields in events if name == "chunk_sent")


def test_killed_client_resumes_its_upload_at_the_committed_offset(federation, tmp_path):
    """SIGKILL in mid-upload; the next process sends what the server lacks, and trains and seals nothing."""
    fed = federation(MODEL, ["alice"])
    fed.serve()
    (tmp_path / "counting_trainer.py").write_text(TRAINER)
    fed.wire.limit(BUDGET)
    first = fed.join("alice", "counting_trainer:train", tmp_path)
    assert fed.wire.stalled.wait(60)
    fed.wait_committed(COMMITTED)
    first.kill()
    fed.wire.cut()
    size = first.named("sealed")[0]["size"]

    second = fed.join("alice", "counting_trainer:train", tmp_path)
    done = second.wait_for("round_done", round=1)
    assert second.wait() == 0

    (started,) = second.named("upload_started")
    assert started["offset"] == COMMITTED < size
    chunks = second.named("chunk_sent")
    assert [c["offset"] for c in chunks] == list(range(COMMITTED, size, DEFAULT_CHUNK_BYTES))
    assert sum(c["size"] for c in chunks) == size - COMMITTED == done["bytes_up"]
    assert done["resumed_at"] == [COMMITTED]
    assert done["seal_s"] == 0 and not second.named("sealed")
    assert (tmp_path / "trainings").read_text() == "1\n"
    assert len(fed.server.named("accepted")) == 1


@pytest.mark.parametrize("fault", ["cut", "server killed"])
def test_upload_survives_a_cut_and_goes_on_where_it_was(federation, fault):
    """The connection, or the server, goes away in mid-upload; what was committed is not sent again."""
    fed = federation(MODEL, ["alice"])
    fed.serve()
    fed.wire.limit(BUDGET)

    def interfere():
        assert fed.wire.stalled.wait(60)
        fed.wait_committed(COMMITTED)
        if fault == "server killed":
            fed.server.kill()
            fed.serve()
        fed.wire.cut()

    other = threading.Thread(target=interfere, daemon=True)
    other.start()
    result, events = contribute_one(fed)
    other.join()
    size = next(fields["size"] for name, fields in events if name == "sealed")
    assert result.resumed_at == (COMMITTED,)
    assert [fields["offset"] for name, fields in events if name == "upload_started"] == [0, COMMITTED]
    assert result.bytes_up == sent_bytes(events) < 2 * size
    assert_opened_within_the_bound(fed, result)


def test_upload_is_counted_once_when_acknowledgement_is_lost(federation):
    """The server accepts the update, the answer never arrives; asking again gives the same receipt."""
    fed = federation(MODEL, ["alice"])
    fed.serve()
    lost = threading.Event()

    def lose_the_answer(name, fields):
        if name == "upload_finishing" and not lost.is_set():
            lost.set()
            fed.wire.swallow_answers()

    def cut_after_acceptance():
        assert lost.wait(60)
        fed.server.wait_for("accepted", client="alice")
        fed.wire.cut()

    other = threading.Thread(target=cut_after_acceptance, daemon=True)
    other.start()
    with client(fed, on_event=lose_the_answer) as alice:
        (upcoming,) = alice.rounds(limit=1)
        result = upcoming.contribute(TRAINED, sample_count=10)
    other.join()
    assert len(fed.server.named("accepted")) == 1
    assert result.resumed_at == ()
    assert_opened_within_the_bound(fed, result)


def test_download_resumes_where_it_was_cut(federation):
    """The aggregate's stream breaks half-way; the rest is fetched, the beginning is not fetched twice."""
    fed = federation(MODEL, ["alice"])
    fed.serve()
    starts, cut = [], threading.Event()

    def cut_once(name, fields):
        if name == "download_started" and fields["artifact"] == "ARTIFACT_KIND_AGGREGATE":
            starts.append(fields["offset"])
        if name == "chunk_received" and starts == [0] and not cut.is_set():
            cut.set()
            fed.wire.cut()

    with client(fed, on_event=cut_once) as alice:
        (upcoming,) = alice.rounds(limit=1)
        result = upcoming.contribute(TRAINED, sample_count=10)
    assert len(starts) == 2 and starts[0] == 0
    assert starts[1] >= DEFAULT_CHUNK_BYTES
    assert_opened_within_the_bound(fed, result)


def test_unreachable_server_is_reported_after_the_patience(federation):
    """Nobody listens: the typed error comes after patience_s, with what the last attempt met."""
    fed = federation({"w": np.zeros(4, np.float32)}, ["alice"])
    attempts = []
    with (
        client(fed, patience_s=0.5, on_event=lambda name, fields: attempts.append(name)) as alice,
        pytest.raises(TransferError, match=r"no progress for 0\.5 s") as caught,
    ):
        next(alice.rounds())
    assert caught.value.code is Code.SERVER_UNREACHABLE
    assert "retrying" in attempts


def test_update_sealed_before_the_patience_ran_out_is_kept(federation):
    """SERVER_UNREACHABLE in mid-upload loses nothing: a later client on the same folder goes on."""
    fed = federation(MODEL, ["alice"])
    fed.serve()
    fed.wire.limit(BUDGET)

    def server_goes_away():
        assert fed.wire.stalled.wait(60)
        fed.wait_committed(COMMITTED)
        fed.server.kill()
        fed.wire.cut()

    other = threading.Thread(target=server_goes_away, daemon=True)
    other.start()
    with client(fed, patience_s=1.0) as alice:
        (upcoming,) = alice.rounds(limit=1)
        with pytest.raises(TransferError) as caught:
            upcoming.contribute(TRAINED, sample_count=10)
        assert caught.value.code is Code.SERVER_UNREACHABLE
    other.join()
    fed.serve()
    with client(fed) as alice:
        (upcoming,) = alice.rounds(limit=1)
        assert upcoming.resuming
        result = upcoming.run(lambda model, number: pytest.fail("trained again"))
    assert result.resumed_at == (COMMITTED,)
    assert_opened_within_the_bound(fed, result)


def test_client_killed_after_acceptance_goes_on_without_sending_anything(federation, tmp_path):
    """The receipt, or the server's memory of it, is enough: the next process votes, opens and confirms."""
    fed = federation(MODEL, ["alice", "bob"], min_clients=2)
    fed.serve()
    (tmp_path / "counting_trainer.py").write_text(TRAINER)
    first = fed.join("alice", "counting_trainer:train", tmp_path)
    first.wait_for("accepted")
    first.kill()

    second = fed.join("alice", "counting_trainer:train", tmp_path)
    second.wait_for("plan", round=1, resuming=True)
    with client(fed, "bob") as bob:
        (upcoming,) = bob.rounds(limit=1)
        upcoming.contribute(TRAINED, sample_count=10)
    done = second.wait_for("round_done", round=1)
    assert second.wait() == 0
    assert done["bytes_up"] == 0 and done["bytes_down"] > 0
    assert (tmp_path / "trainings").read_text() == "1\n"
    assert [e["client"] for e in fed.server.named("accepted")].count("alice") == 1


def test_update_of_a_round_that_is_over_is_dropped(federation, tmp_path):
    """A client that comes back too late for its sealed update trains for the round there is now."""
    fed = federation(MODEL, ["alice", "bob"], collect_timeout_s=8.0, min_clients=2)
    server = fed.serve()
    for folder in (tmp_path, tmp_path / "bob"):
        folder.mkdir(exist_ok=True)
        (folder / "counting_trainer.py").write_text(TRAINER)
    other = fed.join("bob", "counting_trainer:train", tmp_path / "bob")
    server.wait_for("accepted", round=1, client="bob")
    fed.wire.limit(BUDGET)
    first = fed.join("alice", "counting_trainer:train", tmp_path)
    assert fed.wire.stalled.wait(60)
    first.kill()
    fed.wire.cut()
    server.wait_for("state", round=1, state="ABORTED")

    second = fed.join("alice", "counting_trainer:train", tmp_path)
    second.wait_for("round_done", round=2)
    assert second.wait() == 0 and other.wait() == 0
    assert second.named("outbox_stale") and not second.named("round_missed")
    assert (tmp_path / "trainings").read_text() == "1\n2\n"
