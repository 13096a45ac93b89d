"""Where results go."""

from pathlib import Path

import pytest

from secagg.errors import Code, ConfigError
from secagg.overhead.sweep import out_folder


def test_a_missing_folder_is_made_and_left_empty(tmp_path):
    assert list(out_folder(tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", "'a\\x00b' is not a path"),
        ("file/inside", "can't be written to"),
        ("n" * 300, "can't be written"),
    ],
)
def test_what_can_be_no_folder_is_refused_in_one_line(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ConfigError) as refusal:
        out_folder(Path(name))
    assert refusal.value.code is Code.CONFIG_INVALID
    assert said in refusal.value.message and refusal.value.message.isprintable()
