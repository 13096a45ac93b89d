"""``secagg run --record``: what is kept is what was sent, and nothing is kept unasked."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from threading import Thread

import numpy as np
import pytest
from rich.console import Console

from secagg.adapters.pytorch import load_tensors, tensors_from
from secagg.ckks.profiles import profile
from secagg.custody.descriptor import DESCRIPTOR_FILE, SignedDescriptor
from secagg.custody.server_identity import ServerIdentity
from secagg.errors import Code, ConfigError
from secagg.model_file import load_model, save_model
from secagg.payload import seal_update
from secagg.plan import Protection, RoundPlan, Significance
from secagg.selection import Layout, Mask, derive_mask
from secagg.server.recording import Received, read_round, recorded_rounds, round_folder, write_round
from secagg.simulation.config import RunConfig
from secagg.simulation.display import PlainLines
from secagg.simulation.launcher import run
from secagg.simulation.models import build_model
from secagg.simulation.recording import RECORDING, Recording
from secagg.simulation.task import Task
from secagg.simulation.training import train
from secagg.update import Manifest, TensorSpec

RATIO = 0.1
MANIFEST = Manifest(
    tensors=(
        TensorSpec(name="a.weight", shape=(3, 2)),
        TensorSpec(name="b.weight", shape=(4,)),
        TensorSpec(name="c.weight", shape=(5,)),
    )
)


@pytest.fixture(scope="module")
def selective(tmp_path_factory) -> Path:
    """Three clients, one of which lies from round 2 on; a tenth of the entries is hidden at random."""
    out = tmp_path_factory.mktemp("selective")
    config = RunConfig(
        clients=3, rounds=2, samples=12, local_epochs=2, batch_size=2, momentum=0.5, model="mlp",
        protect="selective", significance="random", ratio=RATIO, poison="sign-flip:0.34@2", record=True,
        out=str(out),
    )  # fmt: skip
    run(config, PlainLines(Console(quiet=True)))
    return out


def sent_by(out: Path, client: str, number: int) -> np.ndarray:
    """An honest participant's model after training, worked out anew; float32 [d]."""
    recording = Recording.open(out)
    task = Task.load(out / "participants" / f"{client}.json")
    base = recording.base(number)
    module = build_model(task.model, task.shape, task.classes, seed=0)
    load_tensors(module, base)
    generator = np.random.default_rng([*task.stream, number])
    train(module, recording.samples(client), task.schedule, generator)
    return Manifest.of(base).flatten(tensors_from(module))


def test_recorded_values_are_those_that_participants_sent_bit_for_bit(selective):
    """Each honest client's training is repeated from its recorded samples and the recorded model."""
    recording, checked = Recording.open(selective), 0
    assert recording.rounds == [1, 2]
    for number in recording.rounds:
        shared, updates = recording.round(number)
        assert (shared.round, shared.state) == (number, "CLOSED")
        assert (shared.base_round, shared.divisor) == (number - 1, 0)
        assert [update.client for update in updates] == ["client-1", "client-2", "client-3"]
        for update in updates:
            assert update.sample_count == len(recording.samples(update.client)) == 4
            if number < recording.about.attacks_from.get(update.client, 3):
                flat = sent_by(selective, update.client, number)
                assert update.visible.tobytes() == flat[~shared.mask.hidden].tobytes()
                checked += 1
    assert checked == 5


def test_the_recorded_mask_is_the_one_that_follows_from_the_plan(selective):
    """Random masks are a function of federation and round: 10% of the entries, others in each round."""
    server = selective / "federation" / "server"
    descriptor = SignedDescriptor.load(server / DESCRIPTOR_FILE).open(ServerIdentity.load(server).anchor)
    protection = Protection.selective(significance=Significance.RANDOM, ratio=RATIO)
    for number in (1, 2):
        shared, _ = Recording.open(selective).round(number)
        assert shared.protection == protection
        assert shared.mask == derive_mask(protection, shared.manifest, descriptor.federation_id, number)


def test_only_the_operator_can_read_a_recording(selective):
    """It holds samples: folders are 0700, files with values 0600."""
    for path in (selective / RECORDING).rglob("*"):
        if path.is_dir() or path.suffix == ".npz":
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_recording_says_how_everyone_trained(selective):
    about = Recording.open(selective).about
    assert (about.schedule.epochs, about.schedule.batch_size, about.schedule.momentum) == (2, 2, 0.5)
    assert (about.shape, about.classes, about.model) == ((1, 8, 8), 10, "mlp")
    assert list(about.attacks_from.values()) == [2]


def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path):
    """No folder, and samples are gone when the run is over; asking for it later is refused in one line."""
    config = RunConfig(
        clients=2, rounds=1, samples=4, local_epochs=1, model="linear", protect="plain", out=str(tmp_path)
    )
    run(config, PlainLines(Console(quiet=True)))
    assert not (tmp_path / RECORDING).exists() and not list(tmp_path.rglob("round-*"))
    with pytest.raises(ConfigError, match="secagg run --record") as caught:
        Recording.open(tmp_path)
    assert caught.value.code is Code.DATA_MISSING


@pytest.fixture
def copied(selective, tmp_path) -> Path:
    """A recording that a test may damage."""
    copytree(selective / RECORDING, tmp_path / RECORDING)
    return tmp_path


def refused(read: Callable[[], object], code: Code) -> str:
    """What is said of a recording that is refused."""
    with pytest.raises(ConfigError) as caught:
        read()
    assert caught.value.code is code and "\n" not in caught.value.message
    return caught.value.message


def without_a_tensor(path: Path) -> None:
    save_model(path, dict(list(load_model(path).items())[1:]))


def of_one_value_less(path: Path) -> None:
    (name, tensor), *others = load_model(path).items()
    save_model(path, {name: tensor.reshape(-1)[1:], **dict(others)})


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (lambda path: path.unlink(), Code.DATA_MISSING, "choose other rounds"),
        (lambda path: path.write_bytes(b"nothing"), Code.DATA_MALFORMED, "no readable .npz"),
        (lambda path: np.savez(path, w=np.zeros(3)), Code.DATA_MALFORMED, "is float64"),
        (without_a_tensor, Code.DATA_MALFORMED, "another network's"),
        (of_one_value_less, Code.DATA_MALFORMED, "another network's"),
    ],
    ids=["missing", "damaged", "float64", "a tensor less", "a value less"],
)
def test_a_wrong_base_model_is_refused_by_its_file_and_round(copied, fault, code, says):
    path = copied / RECORDING / "client" / "round-2.npz"
    fault(path)
    line = refused(lambda: Recording.open(copied).base(2), code)
    assert says in line and "round 2" in line and str(path) in line


@contextmanager
def pipe_at(path: Path) -> Iterator[None]:
    """A pipe in a file's place; whoever waits for its other end gets nothing from it."""
    path.unlink()
    os.mkfifo(path)
    writer = Thread(target=lambda: path.open("wb").close(), daemon=True)
    writer.start()
    yield
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.join()
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run.json", lambda _: None),
        ("truth/client-1.npz", lambda recording: recording.samples("client-1")),
        ("client/round-1.npz", lambda recording: recording.base(1)),
        ("server/round-1/round.npz", lambda recording: recording.round(1)),
        ("server/round-1/updates/client-2.npz", lambda recording: recording.round(1)),
    ],
)
def test_nothing_is_read_from_a_pipe_in_a_file_s_place(copied, name, read):
    """It could keep a reader for ever."""
    path = copied / RECORDING / name
    with pipe_at(path), pytest.raises(ConfigError, match="it is no regular file") as caught:
        read(Recording.open(copied))
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("take", "says"),
    [
        ("", "{run} can't be attacked: it holds no recorded visible parts, as {run}/recording is missing"),
        ("run.json", "{run}/recording/run.json is missing"),
        ("server", "no round in {run}/recording/server has ended"),
        (
            "truth/client-2.npz",
            "{run}/recording/truth holds samples of 2 participants; client-2.npz of others",
        ),
    ],
)
def test_what_is_missing_of_a_recording_is_named(copied, take, says):
    (copied / RECORDING / take).rename(copied / "elsewhere")
    line = refused(lambda: Recording.open(copied).participants, Code.DATA_MISSING)
    assert says.format(run=copied) in line


def test_the_recording_s_own_folder_is_told_from_the_run_s(copied):
    line = refused(lambda: Recording.open(copied / RECORDING), Code.DATA_MISSING)
    assert f"give the folder it lies in, {copied}" in line


def test_what_desktops_and_editors_leave_is_no_recording(copied):
    """Hidden files, and others than .npz files, are left alone."""
    before = Recording.open(copied)
    names = before.participants, before.clients(1)
    for folder in ("truth", "server/round-1/updates"):
        for name in (".DS_Store", "._client-1.npz", ".client-1.npz.swp", "client-1.npz~", "client-1.new"):
            (copied / RECORDING / folder / name).touch()
    assert (before.participants, before.clients(1)) == names
    assert [update.client for update in before.round(1)[1]] == names[1]


@pytest.mark.parametrize("name", ["client-1 (copy)", "Client-1", "\x1b[31m"])
@pytest.mark.parametrize("folder", ["truth", "server/round-1/updates"])
def test_a_file_that_is_named_like_no_client_s_is_refused(copied, folder, name):
    (copied / RECORDING / folder / f"{name}.npz").touch()

    def read() -> None:
        recording = Recording.open(copied)
        assert recording.participants
        recording.round(1)

    assert f"{name}.npz is named like no client's file" in refused(read, Code.DATA_MALFORMED)


def rewritten(run: Path, **change: object) -> None:
    path = run / RECORDING / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_a_data_set_s_name_moves_no_cursor(copied):
    """It is printed and shown, and may come from anywhere."""
    rewritten(copied, dataset="di\x1b[2Jgits\x07 ü\u202e")
    assert Recording.open(copied).about.dataset == r"di\x1b[2Jgits\x07 ü\u202e"
    rewritten(copied, dataset="")
    assert "dataset is ''" in refused(lambda: Recording.open(copied), Code.DATA_MALFORMED)


@pytest.mark.parametrize("rate", [1e-300, 1e-10, 101])
def test_a_learning_rate_that_no_training_has_is_refused(copied, rate):
    """What was sent is divided by it."""
    schedule = {"epochs": 1, "batch_size": 8, "learning_rate": rate, "momentum": 0.5}
    rewritten(copied, schedule=schedule)
    assert f"learning_rate is {rate}" in refused(lambda: Recording.open(copied), Code.DATA_MALFORMED)


def test_nobody_is_told_to_unpickle(copied):
    """As numpy does of a file that holds Python objects, or claims to."""
    objects = np.array([{}], dtype=object)
    path = copied / RECORDING / "truth" / "client-1.npz"
    np.savez(path, values=objects, labels=objects)
    line = refused(lambda: Recording.open(copied).samples("client-1"), Code.DATA_MALFORMED)
    assert "something else than plain arrays" in line and "pickle" not in line
    path = copied / RECORDING / "server" / "round-1" / "round.npz"
    path.write_bytes(b"\x80\x04K\x01.")
    line = refused(lambda: Recording.open(copied).round(1), Code.DATA_MALFORMED)
    assert "it is no .npz file" in line and "pickle" not in line


def plan_of(protection: Protection, blocks: tuple[tuple[str, ...], ...]) -> RoundPlan:
    return RoundPlan(
        round=7, protection=protection, mask_sha256=b"", profile="robust", key_id=bytes(16),
        manifest=MANIFEST, rule="mean", statistics_blocks=blocks, base_round=6, max_sample_count=9,
        payload_bytes=1, divisor=8,
    )  # fmt: skip


def write_one(folder: Path) -> np.ndarray:
    """Records one update whose middle tensor travels last; the values."""
    plan = plan_of(Protection.plain(), (("b.weight",),))
    layout = Layout(MANIFEST, Mask.all_or_none(MANIFEST.size, hidden=False), plan.statistics_blocks)
    flat = np.arange(MANIFEST.size, dtype=np.float32)
    payload = folder / "payload"
    payload.write_bytes(b"".join(seal_update(flat, layout, None)))
    assert payload.read_bytes() != flat.tobytes()
    write_round(
        folder / "kept", plan, layout, "ABORTED", [Received(client="x", sample_count=3, path=payload)]
    )
    return flat


def test_values_come_in_the_order_of_the_manifest_whatever_blocks_they_travel_in(tmp_path):
    flat = write_one(tmp_path)
    shared, (update,) = read_round(tmp_path / "kept", 7)
    np.testing.assert_array_equal(update.visible, flat)
    assert (update.client, update.sample_count, update.own_weight) == ("x", 3, 1.0)
    assert (shared.state, shared.divisor, shared.profile) == ("ABORTED", 8, profile("robust").name)
    assert recorded_rounds(tmp_path / "kept") == [7]


def test_a_block_that_is_hidden_whole_counts_as_hidden(tmp_path):
    """The mask names one entry; with it goes all of the tensor whose products are released."""
    hidden = np.zeros(MANIFEST.size, dtype=np.bool_)
    hidden[0] = True
    layout = Layout(MANIFEST, Mask(hidden), (("b.weight",),))
    plan = plan_of(Protection.selective(significance=Significance.RANDOM, ratio=0.05), (("b.weight",),))
    write_round(tmp_path, plan, layout, "CLOSED", [])
    shared, updates = read_round(tmp_path, 7)
    assert np.flatnonzero(shared.mask.hidden).tolist() == [0, 6, 7, 8, 9] and updates == ()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "is no recording"),
        (lambda path: np.savez(path, version=2, about=np.frombuffer(b"{}", np.uint8)), "of version 2"),
        (lambda path: np.savez(path, version=1, about=np.frombuffer(b"{}", np.uint8)), "is no recording"),
        (lambda path: np.savez(path, version=1, about=np.frombuffer(b"[", np.uint8)), "is no recording"),
        (lambda path: np.savez(path, version=np.zeros(2), about=np.zeros(2)), "is no recording"),
        (lambda path: path.write_bytes(b""), "is no recording"),
    ],
    ids=["cut short", "another version", "fields missing", "no JSON", "two versions", "empty"],
)
@pytest.mark.parametrize("name", ["round.npz", "updates/x.npz"])
def test_a_damaged_recording_is_refused_and_named(tmp_path, name, fault, says):
    write_one(tmp_path)
    path = round_folder(tmp_path / "kept", 7) / name
    fault(path)
    with pytest.raises(ConfigError, match=says) as caught:
        read_round(tmp_path / "kept", 7)
    assert caught.value.code is Code.DATA_MALFORMED and str(path) in caught.value.message


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("updates/x.npz", {"sample_count": 0}, "sample_count is 0"),
        ("updates/x.npz", {"sample_count": -1}, "sample_count is -1"),
        ("updates/x.npz", {"sample_count": "x"}, "sample_count is 'x'"),
        ("updates/x.npz", {"sample_count": 1e30}, "sample_count is 1e\\+30"),
        ("updates/x.npz", {"client": "y"}, "of client 'y'"),
        ("updates/x.npz", {"own_weight": 0}, "own_weight is 0"),
        ("updates/x.npz", {"more": 1}, "more is 1"),
        ("round.npz", {"round": 8}, "of round 8"),
        ("round.npz", {"state": "OPEN"}, "state is 'OPEN'"),
        ("round.npz", {"divisor": -1}, "divisor is -1"),
        ("round.npz", {"protection": {"mode": "plain", "ratio": 0.5}}, "ratio is 0.5"),
        ("round.npz", {"protection": None}, "protection is None"),
    ],
)
def test_fields_that_no_round_has_are_refused_and_named(tmp_path, name, change, says):
    write_one(tmp_path)
    path = round_folder(tmp_path / "kept", 7) / name
    with np.load(path) as archive:
        arrays = dict(archive)
    about = {**json.loads(arrays["about"].tobytes()), **change}
    np.savez(path, **{**arrays, "about": np.frombuffer(json.dumps(about).encode(), np.uint8)})
    with pytest.raises(ConfigError, match=says) as caught:
        read_round(tmp_path / "kept", 7)
    assert caught.value.code is Code.DATA_MALFORMED and str(path) in caught.value.message


@pytest.mark.parametrize("name", ["round-abc", "round-", "round-1_0", "round-07"])
def test_a_folder_that_names_no_round_is_refused(tmp_path, name):
    """Where a copy was put aside by hand, nobody guesses which round it is of."""
    write_one(tmp_path)
    stray = tmp_path / "kept" / name
    stray.mkdir()
    (stray / "round.npz").write_bytes((round_folder(tmp_path / "kept", 7) / "round.npz").read_bytes())
    with pytest.raises(ConfigError, match=name) as caught:
        recorded_rounds(tmp_path / "kept")
    assert caught.value.code is Code.DATA_MALFORMED


def test_values_that_do_not_match_the_mask_are_refused(tmp_path):
    write_one(tmp_path)
    path = round_folder(tmp_path / "kept", 7) / "updates" / "x.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "visible": arrays["visible"][1:]})
    with pytest.raises(ConfigError, match="not float32"):
        read_round(tmp_path / "kept", 7)
