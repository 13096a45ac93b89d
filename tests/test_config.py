"""What must hold of configuration files: checked whole, and refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from secagg.config import FederationConfig, parse_toml, settings_text, split_address
from secagg.errors import Code, ConfigError
from secagg.plan import Protection, ProtectionMode, Significance


def config(**settings: Any) -> FederationConfig:
    return parse_toml(FederationConfig, {"name": "hospitals", **settings})


def test_full_encryption_is_the_default() -> None:
    """Who sets nothing gets everything encrypted, the mean and an automatic profile."""
    plain = config()
    assert plain.protection == Protection.full()
    assert (plain.rule, plain.profile, plain.host, plain.port) == ("mean", "auto", "localhost", 8440)


@pytest.mark.parametrize(
    ("settings", "protection"),
    [
        ({"protect": "plain"}, Protection.plain()),
        (
            {"protect": "selective", "ratio": 0.1, "significance": "magnitude"},
            Protection.selective(significance=Significance.MAGNITUDE, ratio=0.1),
        ),
        (
            {"protect": "selective", "significance": "layers", "layers": ["fc.weight"]},
            Protection.selective(significance=Significance.LAYERS, layers=("fc.weight",)),
        ),
    ],
)
def test_settings_become_the_protection_they_name(settings: dict[str, Any], protection: Protection) -> None:
    """Plain, selective by score and selective by layer."""
    assert config(**settings).protection == protection


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rond": 3}, "rond is 3; unknown field, did you mean rounds?"),
        ({"zzz": 3}, "zzz is 3; unknown field, known are address"),
        ({"min_clients": 0}, "min_clients is 0; it must be a whole number ≥ 1 and ≤ 10000"),
        ({"max_aborted_rounds": -1}, "max_aborted_rounds is -1; it must be a whole number ≥ 0"),
        ({"rounds": "3"}, "rounds is '3'; it must be a whole number ≥ 1 and ≤ 1000000"),
        ({"rounds": True}, "rounds is True; it must be a whole number"),
        ({"rounds": 1.5}, "rounds is 1.5; it must be a whole number"),
        ({"protect": "half"}, "protect is 'half'; it must be one of plain, full, selective"),
        (
            {"profile": "fast"},
            "profile is 'fast'; it must be one of auto, compact, compact-10, robust, precise, nvflare",
        ),
        ({"significance": "x"}, "significance is 'x'; it must be one of magnitude, random, layers"),
        ({"collect_timeout_s": 0}, "collect_timeout_s is 0; it must be a number > 0 and ≤ 604800"),
        ({"ballot_timeout_s": float("inf")}, "ballot_timeout_s is inf; it must be a number"),
        ({"ratio": float("nan")}, "ratio is nan; it must be a number ≥ 0 and ≤ 1"),
        (
            {"protect": "selective", "significance": "random", "ratio": 0},
            "ratio is 0.0; with protect = selective it must be in (0, 1]",
        ),
        ({"protect": "selective", "significance": "random"}, "ratio is missing"),
        ({"protect": "full", "ratio": 0.5}, "ratio is 0.5; with protect = full it is 1.0"),
        ({"protect": "plain", "significance": "random"}, "significance must be"),
        ({"protect": "selective", "ratio": 0.1}, "significance must be one of"),
        ({"protect": "selective", "significance": "layers"}, "layers must name at least one"),
        (
            {"protect": "selective", "significance": "layers", "layers": ["a"], "ratio": 0.5},
            "ratio is 0.5; with significance = layers",
        ),
        ({"layers": "fc"}, "layers is 'fc'; it must be a list"),
        ({"layers": [1]}, "layers.0 is 1; it must be text"),
        ({"address": "localhost"}, "address is 'localhost'; it must be host:port"),
        ({"address": "localhost:70000"}, "port is 70000; it must be 0 to 65535"),
        ({"name": ""}, "name is ''; it must be text of length ≥ 1"),
        ({"name": "two\nlines"}, "name is 'two\\nlines'"),
        ({"rounds": 0, "min_clients": 0}, "(and 1 more)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], expected: str) -> None:
    """Field, value and what is allowed, on one line."""
    with pytest.raises(ConfigError) as refusal:
        config(**settings)
    assert refusal.value.code is Code.CONFIG_INVALID
    assert expected in refusal.value.message
    assert "\n" not in refusal.value.message


def test_a_missing_name_is_named() -> None:
    """The one field without a default."""
    with pytest.raises(ConfigError, match="name is missing"):
        parse_toml(FederationConfig, {})


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b'name = "a"\nname = "b"'])
def test_what_is_no_toml_is_refused_with_the_file(tmp_path: Path, content: bytes) -> None:
    """The file is named, on one line."""
    path = tmp_path / "federation.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"federation\.toml: not valid TOML") as refusal:
        parse_toml(FederationConfig, path)
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    "content",
    ["layers = " + "[" * 5000 + "]" * 5000, ".".join("a" * 5000) + " = 1", "layers = " + "[" * 33 + "]" * 33],
    ids=["lists", "tables", "one_level_more"],
)
def test_what_is_nested_too_deep_is_refused_with_the_file(tmp_path: Path, content: str) -> None:
    """Neither reading it nor telling what is wrong with it may run out of stack."""
    path = tmp_path / "federation.toml"
    path.write_text(f'name = "x"\n{content}\n')
    with pytest.raises(ConfigError, match=r"federation\.toml: .* nested deeper than 32 levels") as refusal:
        parse_toml(FederationConfig, path)
    assert refusal.value.code is Code.CONFIG_INVALID and "\n" not in refusal.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """No traceback for a typing error."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        parse_toml(FederationConfig, tmp_path / "nowhere.toml")


@pytest.mark.parametrize("settings", ["rounds = 0", 'protect = "full"\nratio = 0.5'])
def test_an_error_inside_a_file_names_the_file(tmp_path: Path, settings: str) -> None:
    """Both for one field and for a combination."""
    path = tmp_path / "federation.toml"
    path.write_text(f'name = "x"\n{settings}\n')
    with pytest.raises(ConfigError, match=r"federation\.toml: (rounds|ratio) is "):
        parse_toml(FederationConfig, path)


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)


@given(texts, st.floats(0.001, 1), st.lists(texts, max_size=3), st.integers(1, 10_000))
def test_written_settings_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, name: str, number: float, layers: list[str], count: int
) -> None:
    """Whatever the strings hold."""
    by_layer = {"protect": "selective", "significance": "layers", "layers": layers}
    by_score = {"protect": "selective", "significance": "random", "ratio": number}
    written = config(
        name=name, min_clients=count, collect_timeout_s=number, **(by_layer if layers else by_score)
    )
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(settings_text(written), encoding="utf-8")
    assert parse_toml(FederationConfig, path) == written


def test_every_setting_is_explained() -> None:
    """A field that is added shows up in the file people edit."""
    text = settings_text(config())
    for field in FederationConfig.model_fields:
        assert f"\n{field} = " in text or f"\n# {field} =" in text


def test_settings_cannot_be_changed_in_place() -> None:
    """They are a value."""
    with pytest.raises(ValueError, match="frozen"):
        config().rounds = 3  # type: ignore[misc]
    assert config(protect="plain").protect is ProtectionMode.PLAIN


@pytest.mark.parametrize(
    ("address", "parts"),
    [("a.example:1", ("a.example", 1)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8440", ("::1", 8440))],
)
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    """Names, IPv4 and bracketed IPv6."""
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", ":1", "a:", "a:-1", "a:1x", "::1:8440", "[a]:1", "a:١"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """Among them an IPv6 host without brackets and a digit that is not ASCII."""
    with pytest.raises(ConfigError, match="address"):
        split_address(address)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: int = Field(3, ge=2)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    inner: Inner = Inner()
    mode: int | str = 1
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.5,), min_length=1, strict=False)
    several: tuple[Inner, ...] = Field((), strict=False)
    colour: str = Field("red", pattern="^(red|blue)$", description="red or blue")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"inner": {"size": 1}}, "inner.size is 1; it must be a whole number ≥ 2"),
        ({"inner": {"sise": 1}}, "inner.sise is 1; unknown field, did you mean size?"),
        ({"mode": []}, "mode is []; it must be a whole number or text"),
        ({"shares": [0.5, 2.0]}, "shares.1 is 2.0; it must be a number ≥ 0 and ≤ 1"),
        ({"several": [{"size": 1}]}, "several.0.size is 1; it must be a whole number ≥ 2"),
        ({"colour": "green"}, "colour is 'green'; it must be red or blue"),
    ],
)
def test_other_models_get_the_same_errors(values: dict[str, Any], expected: str) -> None:
    """The parser serves every configuration of the project, tables inside tables too."""
    with pytest.raises(ConfigError) as refusal:
        parse_toml(Outer, values)
    assert refusal.value.message.startswith(expected)


def test_what_a_list_s_items_must_be_is_not_said_of_the_list() -> None:
    """Only its own length is wrong."""
    with pytest.raises(ConfigError) as refusal:
        parse_toml(Outer, {"shares": []})
    assert refusal.value.message == "shares is []; it must be a list of length ≥ 1"
