"""Configuration files: what a federation is set to, and one-line errors for what can't be."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from secagg.config_complaint import explain
from secagg.errors import Code, ConfigError
from secagg.plan import Protection, ProtectionMode, Significance

SETTINGS_FILE = "federation.toml"
MAX_SETTINGS_BYTES = 1024 * 1024
MAX_SETTINGS_DEPTH = 32

Model = TypeVar("Model", bound=BaseModel)
ProfileName = Literal["auto", "compact", "compact-10", "robust", "precise", "nvflare"]
Timeout = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]


class FederationConfig(BaseModel):
    """What one federation is set to (``federation.toml``); every field has a default but the name.

    Args:
        name: what people call the federation.
        address: where clients reach the server, ``host:port``; an IPv6 host in brackets.
        protect: plain, full or selective.
        ratio: share of encrypted entries in selective mode, in (0, 1].
        significance: how the mask of a selective round is chosen: magnitude, random or layers.
        layers: names of the tensors to encrypt with significance = layers.
        rule: name of the aggregation rule, with its parameters if it has any.
        root_client: the client whose update others are compared with, under a rule that does (fltrust).
        profile: the CKKS profile; auto takes the smallest one that serves the rule and the clients.
        rounds: how many rounds with an aggregate the federation holds.
        min_clients: a round with fewer accepted updates is aborted.
        collect_timeout_s: from the first accepted update of a round to its sealing, seconds.
        ballot_timeout_s: how long a round waits for ballots, seconds.
        confirm_timeout_s: how long a round waits for clients to confirm, seconds.
        max_aborted_rounds: after so many aborted rounds in a row the federation ends; 0: it goes on, since
            one client that answers alone can have any number of rounds aborted.
        max_sample_count: sample counts above it count as it.
        initial_model: ``.npz`` of float32 tensors, relative to the federation's folder.
        workers: crypto worker processes of the server; 0 is one per core.

    Raises:
        ConfigError: CONFIG_INVALID for a combination that contradicts itself.
        pydantic.ValidationError: for a value out of range; ``parse_toml`` turns it into a ConfigError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
    address: str = "localhost:8440"
    protect: Annotated[ProtectionMode, Field(strict=False)] = ProtectionMode.FULL
    ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    significance: Annotated[Significance, Field(strict=False)] | None = None
    layers: Annotated[tuple[str, ...], Field(strict=False, max_length=4096)] = ()
    rule: Annotated[str, Field(min_length=1, max_length=256)] = "mean"
    root_client: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    profile: ProfileName = "auto"
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    min_clients: Annotated[int, Field(ge=1, le=10_000)] = 2
    collect_timeout_s: Timeout = 600.0
    ballot_timeout_s: Timeout = 120.0
    confirm_timeout_s: Timeout = 120.0
    max_aborted_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    max_sample_count: Annotated[int, Field(ge=1, le=2**53)] = 1_000_000
    initial_model: Annotated[str, Field(min_length=1)] = "initial_model.npz"
    workers: Annotated[int, Field(ge=0, le=1024)] = 0

    @field_validator("address")
    @classmethod
    def _address_has_host_and_port(cls, address: str) -> str:
        split_address(address)
        return address

    @model_validator(mode="after")
    def _protection_is_one(self) -> FederationConfig:
        if self.protect is ProtectionMode.SELECTIVE and self.ratio is None:
            if self.significance is not Significance.LAYERS:
                raise ConfigError(
                    Code.CONFIG_INVALID, "ratio is missing; with protect = selective it must be in (0, 1]"
                )
        elif self.significance is Significance.LAYERS and self.ratio not in (None, 1.0):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"ratio is {self.ratio}; with significance = layers the layers decide: leave it out",
            )
        _ = self.protection  # raises what else contradicts itself
        return self

    @property
    def protection(self) -> Protection:
        """The protection these settings ask for."""
        default = 0.0 if self.protect is ProtectionMode.PLAIN else 1.0
        return Protection(
            mode=self.protect,
            ratio=default if self.ratio is None else self.ratio,
            significance=self.significance,
            layers=self.layers,
        )

    @property
    def host(self) -> str:
        """The host part of the address, without brackets."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port of the address; 0 lets the system choose one."""
        return split_address(self.address)[1]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``.

    Raises:
        ConfigError: CONFIG_INVALID.
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or (":" in host) != bracketed or not port.isascii() or not port.isdigit():
        raise ConfigError(
            Code.CONFIG_INVALID, f"address is {address!r}; it must be host:port, or [IPv6]:port"
        )
    if int(port) > 65_535:
        raise ConfigError(Code.CONFIG_INVALID, f"port is {port}; it must be 0 to 65535")
    return host, int(port)


def parse_toml(model: type[Model], source: Path | str | Mapping[str, Any]) -> Model:
    """A checked configuration from a TOML file, or from values that were read already.

    Args:
        model: a pydantic model that refuses unknown fields.
        source: path of the file, or a mapping (command-line flags over a file's content, say).

    Raises:
        ConfigError: CONFIG_INVALID, one line with file, field, value and what is allowed.
    """
    place = "" if isinstance(source, Mapping) else f"{source}: "
    values = dict(source) if isinstance(source, Mapping) else read_toml(Path(source))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        complaints = error.errors(include_url=False, include_context=False)
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        raise ConfigError(Code.CONFIG_INVALID, place + explain(model, complaints[0]) + more) from None
    except ConfigError as error:
        raise ConfigError(error.code, place + error.message, **error.ids) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: CONFIG_INVALID if it is missing, too large, nested too deep or no TOML.
    """
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise ConfigError(Code.CONFIG_INVALID, f"{path}: larger than {MAX_SETTINGS_BYTES} bytes")
        values: dict[str, Any] | None = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(Code.CONFIG_INVALID, f"can't read {path}: {error.strerror}") from None
    except ValueError as error:  # TOML and UTF-8 errors alike
        reason = str(error).splitlines()[0]
        raise ConfigError(Code.CONFIG_INVALID, f"{path}: not valid TOML: {reason}") from None
    except RecursionError:
        values = None
    if values is None or _deeper(values, MAX_SETTINGS_DEPTH):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path}: tables and lists are nested deeper than {MAX_SETTINGS_DEPTH} levels",
        )
    return values


def _deeper(values: dict[str, Any], most: int) -> bool:
    """Whether tables and lists lie within each other in more levels than that."""
    level: list[Any] = [values]
    for _ in range(most):
        inner = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
        level = [child for child in inner if isinstance(child, dict | list)]
    return bool(level)


def settings_text(config: FederationConfig) -> str:
    """The settings as a TOML file that says what each means; ``parse_toml`` reads the same back."""
    lines = [
        "# Settings of this federation. After a change run `secagg deal` and restart the server.",
        "",
    ]
    for name, meaning in _MEANINGS.items():
        value = getattr(config, name)
        lines.append(f"# {meaning}")
        # What is not set stays in sight, commented out.
        lines.append(f"# {name} =" if value is None else f"{name} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, str):
        # A JSON string without control characters is a TOML basic string; DEL is the one exception.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


_MEANINGS = {
    "name": "What people call this federation.",
    "address": "Where clients reach the server: host:port. Port 0 lets the system choose one.",
    "protect": "plain: nothing is encrypted; full: everything; selective: one common mask of entries.",
    "ratio": 'Share of encrypted entries with protect = "selective", above 0 and up to 1.',
    "significance": 'How the mask is chosen with protect = "selective": magnitude, random or layers.',
    "layers": 'The tensors to encrypt with significance = "layers".',
    "rule": "How updates are weighed: mean, ddfed, …",
    "root_client": 'With rule = "fltrust": the client whose update others are compared with.',
    "profile": "auto, or a CKKS profile that `secagg overhead --profiles` lists.",
    "rounds": "How many rounds with an aggregate are held.",
    "min_clients": "A round with fewer accepted updates is aborted.",
    "collect_timeout_s": "Seconds from a round's first accepted update until it is sealed with whoever came.",
    "ballot_timeout_s": "Seconds a round waits for clients to judge its statistics.",
    "confirm_timeout_s": "Seconds a round waits for clients to say that they have opened the aggregate.",
    "max_aborted_rounds": "After so many aborted rounds in a row the federation ends; 0: it never does.",
    "max_sample_count": "Sample counts above this are counted as this.",
    "initial_model": "The model to start from: .npz of float32 tensors, relative to this folder.",
    "workers": "Crypto worker processes of the server; 0 is one per core.",
}
