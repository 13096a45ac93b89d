"""Models x schemes, one row after the other; what is measured is on disk at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from secagg.errors import Code, ConfigError
from secagg.overhead.measure import Row, Setting, measure
from secagg.overhead.models import manifest_of
from secagg.overhead.schemes import Scheme
from secagg.simulation.result import RESULT_FILE, machine, versions, write_result

Flat = Mapping[str, object]


class Results:
    """Rows as they come, and ``result.json`` with all of them after each.

    Args:
        out: folder of ``result.json``; it exists.
        command: what was called.
        seed: of everything that is drawn.
    """

    def __init__(self, out: Path, *, command: str, seed: int) -> None:
        self._out, self._command, self._seed = out, command, seed
        self.rows: list[Flat] = []
        """Of rounds."""
        self.primitives: list[Flat] = []
        """Of single operations; they stand behind the rounds' in the file."""

    def add(self, row: Flat) -> None:
        """A row is there."""
        self.rows.append(row)
        self.write(complete=False)

    def write(self, *, complete: bool, **more: object) -> None:
        """Write ``result.json``.

        Args:
            complete: False as long as rows are to come.
            more: what stands beside the rows.
        """
        write_result(
            self._out,
            command=self._command,
            seed=self._seed,
            rows=[*self.rows, *self.primitives],
            more={"complete": complete, **more},
        )


def sweep(
    models: Sequence[str],
    schemes: Sequence[Scheme],
    setting: Setting,
    *,
    measured: Collection[tuple[str, str]] = (),
    note: Callable[[str], None],
    done: Callable[[Row], None],
) -> None:
    """Measure each model under each scheme.

    Args:
        models: of ``models.MODELS``.
        setting: what is the same for all.
        measured: model and scheme of rows that are there already.
        note: told what happens next, with how far it is.
        done: given each row.

    Raises:
        SecaggError: as ``measure``; rows that were done are done.
    """
    every = [(model, scheme) for model in models for scheme in schemes]
    cases = [(model, scheme) for model, scheme in every if (model, scheme.name) not in measured]
    for number, (model, scheme) in enumerate(cases, start=1):
        front = f"[{number}/{len(cases)}] "
        done(
            measure(
                model,
                manifest_of(model),
                scheme,
                setting,
                note=lambda text, front=front: note(front + text),  # type: ignore[misc]
            )
        )


def names_in(given: Iterable[str]) -> list[str]:
    """Names from options that may be repeated or hold several with commas between, each once, in order."""
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    return list(dict.fromkeys(names))


def out_folder(path: Path) -> Path:
    """The folder for results, made if it is missing.

    Raises:
        ConfigError: CONFIG_INVALID if it can't be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID, f"out folder {path} can't be written to: {error.strerror}"
        ) from None
    except ValueError as error:  # no path at all, with a zero byte in it say
        raise ConfigError(
            Code.CONFIG_INVALID, f"out folder {str(path)!r} is not a path: {error}; give another"
        ) from None
    return path


def earlier_rows(
    out: Path, setting: Setting, models: Collection[str], schemes: Collection[str]
) -> list[dict[str, object]]:
    """Rows that an interrupted run with the same setting left in ``result.json``; none if there is no such.

    They were measured at another time, perhaps under other load: whoever wants that asks for it.
    """
    try:
        content = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    here = {"machine": machine(), "versions": versions(), "seed": setting.seed}
    if not isinstance(content, dict) or any(content.get(name) != value for name, value in here.items()):
        return []
    wanted = {name: getattr(setting, name) for name in ("clients", "workers", "repeat")}
    return [
        row
        for row in content.get("rows", [])
        if (row.get("model") in models and row.get("scheme") in schemes)
        and all(row.get(name) == value for name, value in wanted.items())
    ]
