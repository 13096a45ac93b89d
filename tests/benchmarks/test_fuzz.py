"""No mutated message kills a process, and the fuzzer would notice one that does."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz import FORMS, MAX_DEATHS, fuzz, main, names_of, sound
from benchmarks.fuzzing.child import ALLOWANCE_BYTES, message_of, outcome_of
from benchmarks.fuzzing.forms import forms
from benchmarks.fuzzing.mutation import mutated

BROKEN = "tests.benchmarks.broken_forms"
EACH = 60


def test_no_mutated_message_of_any_form_does_what_none_may() -> None:
    """About 2,000 messages through their whole paths; every form is refused, and read, at least once.

    Memory grows by no more than is allowed, and nothing forged is accepted where bytes are signed.
    """
    names = names_of(FORMS)
    found, grown_mib = fuzz(names, EACH, seed=2)
    assert {name: item.faults for name, item in found.items() if item.faults} == {}
    assert sound(found)
    assert grown_mib <= ALLOWANCE_BYTES / 2**20
    for name, item in found.items():
        assert item.messages == EACH
        assert sum(item.refused.values()) > 0, name
        assert item.count("accepted", "unchanged") > 0, name
        assert not (item.authenticated and item.count("accepted")), name


def test_everything_that_must_not_happen_is_noticed() -> None:
    """Each broken parser is reported for what it does, with the message that repeats it; honest ones are not.

    A form that dies is given up after a few processes; the messages before a death are counted all the same.
    """
    names = {name: kind for name, kind in names_of(BROKEN).items() if name not in ("leaves", "hangs")}
    found, _ = fuzz(names, 40, seed=5, module=BROKEN)
    assert not sound(found)
    assert {name for name, item in found.items() if item.faults} == {"forged", "raises", "allocates", "dies"}
    assert found["refuses"].refused.keys() == {"UPDATE_SHAPE"}
    assert found["forged"].count("wrongly accepted") > 0
    assert found["raises"].raised > 0
    assert found["raises"].faults[0][1].startswith("raised KeyError")
    assert found["allocates"].faults[0][1].startswith("raised MemoryError")
    assert found["dies"].faults[0][1] == "died of SIGABRT"
    assert found["dies"].died == min(MAX_DEATHS, sum(len(message) > 64 for message in messages("dies", 40)))


@pytest.mark.parametrize(("name", "what"), [("leaves", "died with exit status 0"), ("hangs", "hung")])
def test_process_that_leaves_or_hangs_is_noticed(name: str, what: str) -> None:
    """With the very message: the first that is not the valid one."""
    found, _ = fuzz({name: False}, 3, seed=5, module=BROKEN, hang_s=1.0)
    first = next(index for index, message in enumerate(messages(name, 3)) if message != bytes(range(64)))
    assert found[name].faults[0] == (first, what)
    assert found[name].messages == 3
    assert not sound(found)


def messages(name: str, count: int, seed: int = 5) -> list[bytes]:
    """A broken form's messages."""
    from tests.benchmarks.broken_forms import forms as broken

    form = next(form for form in broken(Path()) if form.name == name)
    return [message_of(form, seed, index) for index in range(count)]


def test_messages_are_the_same_in_every_process(tmp_path: Path) -> None:
    """A finding can be repeated from seed, form and number alone: their bytes hang on nothing else.

    Valid messages are made without any randomness but that, so the digest of one of each is pinned by making
    them twice.
    """
    first, second = (
        {form.name: sha256(b"".join(form.messages)).digest() for form in forms(tmp_path)} for _ in range(2)
    )
    assert first == second
    assert messages("accepts", 20) == messages("accepts", 20)
    assert messages("accepts", 20) != messages("accepts", 20, seed=6)


@given(message=st.binary(max_size=300), others=st.lists(st.binary(max_size=50), min_size=1), seed=st.text())
def test_any_message_can_be_mutated(message: bytes, others: list[bytes], seed: str) -> None:
    """Also an empty one, and with others of any length; equal seeds give equal bytes."""
    assert mutated(message, others, seed) == mutated(message, others, seed)


def test_mutations_reach_every_part_of_a_message() -> None:
    """Over 2,000 mutations every byte of the front has changed, lengths have grown and shrunk."""
    original = bytes(range(200))
    changed: Counter[int] = Counter()
    lengths = set()
    for number in range(2000):
        found = mutated(original, [bytes(200)], str(number))
        lengths.add(len(found))
        changed.update(at for at, (a, b) in enumerate(zip(original, found, strict=False)) if a != b)
    assert set(changed) == set(range(200))
    assert min(lengths) < 150 < 250 < max(lengths)


def test_command_writes_its_result_and_repeats_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0 where all is well, and rows with what became of each form's messages."""
    with pytest.raises(SystemExit) as ended:
        main(["--messages", "30", "--form", "scalar", "--seed", "3", "--out", str(tmp_path)])
    assert ended.value.code == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["form"] for row in result["rows"]] == ["scalar linear", "scalar bilinear"]
    assert result["messages"] == 30
    assert "scalar bilinear" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["--only", "scalar linear/4", "--seed", "3", "--out", str(tmp_path)])
    assert ended.value.code == 0
    form = next(form for form in forms(tmp_path) if form.name == "scalar linear")
    message = message_of(form, 3, 4)
    assert (tmp_path / "message").read_bytes() == message
    assert capsys.readouterr().out.strip() == outcome_of(form, message, set())
