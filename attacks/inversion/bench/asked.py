"""From flags and a sweep file to one checked configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attacks.inversion.attackers.attacker import Budget
from attacks.inversion.bench.config import Knowledge, SweepConfig
from attacks.inversion.bench.from_run import ATTACKERS, Trial
from attacks.inversion.bench.protected import FILE
from attacks.inversion.protections import Significance
from secagg.config import parse_toml, read_toml
from secagg.errors import Code, ConfigError

DEFAULT_OUT = "runs/leak"
_NAMING = ("layers=", "statistics=")
_OF_A_RUN = ("attacker", "naive", "aware", "labels", "rounds", "effort", "restarts", "processes", "seed")
"""What can be chosen of an attack on a run that took place."""
_RECORDED = "that is as the run recorded it"
_WHY_NOT = {
    "samples": "choose recorded updates by --from-client and --from-round",
    "batch": "it is as the run's own --batch-size was",
    "clients": "it is of a sweep's table of costs; --from-client says whose updates are attacked",
    "candidates": "whose samples they are among others' is not asked of a recorded run",
    "device": "a recorded run is attacked on the processor; --processes says how many at once",
    "ray": "a recorded run is attacked on this machine; --processes says how many at once",
}
"""Of what can't be chosen, where that is not because it was recorded."""
MOST_DIGITS = 9
"""Of a round's number; no federation has a thousand million rounds."""
_NOT_GIVEN = (None, ())
"""Values of flags that were left out."""
_LISTS = ("victim", "significance", "attacker", "perturb", "ratio")


def sweep_config(file: Path | None, flags: Mapping[str, Any], *, out: str | None) -> tuple[SweepConfig, Path]:
    """The sweep that is asked for, and the folder for its results.

    Args:
        file: a TOML file with the fields of ``SweepConfig`` and ``out``; None for none.
        flags: as ``secagg leak`` takes them, None or empty where they are not given; flags win.
        out: likewise.

    Raises:
        ConfigError: CONFIG_INVALID, naming file, field and value.
    """
    values = read_toml(file) if file is not None else {}
    folder = values.pop("out", None)
    if folder is not None and not isinstance(folder, str):
        raise ConfigError(Code.CONFIG_INVALID, f"{file}: out is {folder!r}; it must be a folder's name")
    # A file may give one value where several are possible; so that what is wrong names the file.
    values = _listed(values)
    if file is not None:
        try:
            parse_toml(SweepConfig, values)
        except ConfigError as error:
            raise ConfigError(error.code, f"{file}: {error.message}") from None
    config = parse_toml(SweepConfig, values | _given(flags))
    return config, Path(out or folder or DEFAULT_OUT).expanduser()


def trial_of(flags: Mapping[str, Any], *, clients: Sequence[str], rounds: Sequence[str]) -> Trial:
    """What is attacked of a recorded run, and how.

    Args:
        flags: as ``sweep_config`` takes them; those that only a sweep can mean are refused.
        clients: names, several with commas between; empty for all.
        rounds: numbers likewise.

    Raises:
        ConfigError: CONFIG_INVALID, naming what has no meaning with a recorded run or is out of range.
    """
    beside = [name for name, value in flags.items() if name not in _OF_A_RUN and value not in _NOT_GIVEN]
    if beside:
        named: dict[str, list[str]] = {}
        for name in beside:
            named.setdefault(_WHY_NOT.get(name, _RECORDED), []).append(f"--{name.replace('_', '-')}")
        raise ConfigError(
            Code.CONFIG_INVALID,
            "; ".join(
                f"{', '.join(names)} can't be given with --from: {why}" for why, names in named.items()
            ),
        )
    given = _given(flags)
    config = parse_toml(SweepConfig, given)
    numbers = _several("from-round", rounds) if rounds else ()
    return Trial(
        attackers=config.attacker if "attacker" in given else ATTACKERS,
        knowledge=config.knowledge,
        clients=_several("from-client", clients) if clients else None,
        rounds=[_round(number) for number in numbers] or None,
        together=config.rounds,
        labels_known=given.get("labels") == "known",
        budget=Budget(effort=config.effort, restarts=config.restarts),
        seed=config.seed,
        processes=config.workers,
    )


def split(items: Sequence[str], continues: Callable[[str, str], bool]) -> tuple[str, ...]:
    """Values from options that may be repeated or hold several with commas between, each once, in order.

    Args:
        items: as given.
        continues: whether a part, the second argument, belongs to the value before it, the first.

    >>> split(["a,b=1,c=2", "d"], lambda _before, part: "=" in part and not part.startswith("b"))
    ('a', 'b=1,c=2', 'd')
    """
    found: list[str] = []
    for item in items:
        start = len(found)
        for part in filter(None, (part.strip() for part in item.split(","))):
            if len(found) > start and continues(found[-1], part):
                found[-1] += f",{part}"
            else:
                found.append(part)
    return tuple(dict.fromkeys(found))


def names_tensor(before: str, part: str) -> bool:
    """Whether a part of ``--significance`` is one more tensor of ``layers=`` or ``statistics=``."""
    head = part.partition("+")[0].partition(":")[0].partition("@")[0].partition("/")[0]
    known = head.partition("=")[0] in tuple(Significance) or part.startswith(FILE)
    return any(naming in before for naming in _NAMING) and not known


def is_option(before: str, part: str) -> bool:
    """Whether a part of ``--attacker`` is one more option of the attacker before it."""
    return ":" in before and "=" in part and ":" not in part.partition("=")[0]


_CONTINUES = {"significance": names_tensor, "attacker": is_option}


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value not in _NOT_GIVEN}
    naive, aware = given.pop("naive", False), given.pop("aware", False)
    if naive != aware:
        given["knowledge"] = Knowledge.NAIVE if naive else Knowledge.AWARE
    mask = given.pop("mask", None)
    for name in _LISTS:
        if name in given:
            given[name] = _several(name, given[name])
    if mask is not None:
        given["significance"] = (*given.get("significance", ()), f"{FILE}{mask}")
    if "ratio" in given:
        given["ratio"] = tuple(map(_ratio, given["ratio"]))
    return given


def _several(name: str, items: Sequence[str]) -> tuple[str, ...]:
    """Values of a flag that takes several, at least one."""
    found = split(items, _CONTINUES.get(name, lambda _before, _part: False))
    if not found:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{name} is {','.join(items)!r:.60}; it must name at least one, or be left out",
        )
    return found


def _round(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS and int(text)):
        raise ConfigError(
            Code.CONFIG_INVALID, f"--from-round is {text!r:.60}; rounds are 1, 2, 3, … with commas between"
        )
    return int(text)


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            Code.CONFIG_INVALID, f"ratio is {text!r}; it must be a number between 0 and 1"
        ) from None


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        name: [value] if name in _LISTS and not isinstance(value, list) else value
        for name, value in values.items()
    }
    if "ratio" in found:
        found["ratio"] = [_number(value) for value in found["ratio"]]
    return found | {name: _number(found[name]) for name in ("effort", "learning_rate") if name in found}


def _number(value: Any) -> Any:
    """TOML tells 0 from 0.0; people don't."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
