"""One line for people out of what pydantic says about a refused value: field, value, what is allowed."""

from __future__ import annotations

import difflib
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MAX_SHOWN = 60

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list"}
_KINDS |= {list: "a list", dict: "a table"}


def explain(model: type[BaseModel], complaint: ErrorDetails) -> str:
    """One line for one complaint.

    Args:
        model: what was asked for.
        complaint: one of ``ValidationError.errors()``.
    """
    if complaint["type"] == "extra_forbidden":
        return _unknown_field(model, complaint)
    where, field, deeper = _locate(model, complaint["loc"])
    if complaint["type"] == "missing":
        return f"{where} is missing; {_allowed(field) or 'it must be given'}"
    said = complaint["msg"].replace("Input should be", "it must be").replace("Value error, ", "")
    if complaint["type"] == "string_pattern_mismatch" and field is not None and field.description:
        said = f"it must be {field.description}"
    # Pydantic's own words are the better ones inside a table and for the form of a text.
    own = deeper or complaint["type"] in ("string_pattern_mismatch", "value_error")
    return f"{where} is {_shown(complaint['input'])}; {said if own else _allowed(field) or said}"


def briefly(error: ValidationError) -> str:
    """One line for what is wrong with a program's own file: the first place, value and reason."""
    first, *others = error.errors(include_url=False, include_context=False)
    where = ".".join(map(str, first["loc"])) or "the content"
    said = first["msg"][:1].lower() + first["msg"][1:]
    more = f" (and {len(others)} more)" if others else ""
    return f"{where} is {_shown(first['input'])}; {said.replace('input should be', 'it must be')}{more}"


def _unknown_field(model: type[BaseModel], complaint: ErrorDetails) -> str:
    *parents, name = complaint["loc"]
    owner: type[BaseModel] | None = model
    for parent in parents:
        owner = _submodel(owner.model_fields.get(str(parent))) if owner else None
    known = sorted((owner or model).model_fields)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{'.'.join(map(str, complaint['loc']))} is {_shown(complaint['input'])}; unknown field, {hint}"


def _locate(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, FieldInfo | None, bool]:
    """Dotted name, field or item of a list, and whether the complaint is about something deeper in it."""
    owner: type[BaseModel] | None = model
    field: FieldInfo | None = None
    names: list[str] = []
    deeper = False
    for part in location:
        if owner is not None and isinstance(part, str) and part in owner.model_fields:
            field = owner.model_fields[part]
            owner = _submodel(field)
            names.append(part)
        elif isinstance(part, int):
            names.append(str(part))
            field = _item(field)
            owner, deeper = _submodel(field), field is None
        # Any other part names a member of a union and is nothing a person wrote.
    return ".".join(names) or "the configuration", field, deeper


def _item(field: FieldInfo | None) -> FieldInfo | None:
    """What each item of a list must be; None for a list whose items differ."""
    annotation = None if field is None else field.annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    alike = origin is list or (origin is tuple and arguments[1:] == (...,))
    return FieldInfo.from_annotation(arguments[0]) if alike and arguments else None


def _submodel(field: FieldInfo | None) -> type[BaseModel] | None:
    candidates = [] if field is None else _plain_types(field.annotation)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _allowed(field: FieldInfo | None) -> str:
    """What a field may hold, read from its annotation; empty if that says nothing simple."""
    if field is None:
        return ""
    if choices := _choices(field.annotation):
        return f"it must be one of {', '.join(choices)}"
    types = _plain_types(field.annotation)
    kind = " or ".join(dict.fromkeys(text for plain, text in _KINDS.items() if plain in types))
    limits = _limits([*field.metadata, *_inner_metadata(field.annotation)])
    return f"it must be {' '.join(filter(None, (kind, limits)))}" if kind or limits else ""


def _limits(bounds: list[Any]) -> str:
    texts = []
    for bound in bounds:
        match bound:
            case annotated_types.Ge(value):
                texts.append(f"≥ {value}")
            case annotated_types.Gt(value):
                texts.append(f"> {value}")
            case annotated_types.Le(value):
                texts.append(f"≤ {value}")
            case annotated_types.Lt(value):
                texts.append(f"< {value}")
            case annotated_types.MinLen(value):
                texts.append(f"of length ≥ {value}")
            case annotated_types.MaxLen(value):
                texts.append(f"of length ≤ {value}")
            case _:
                pass
    return " and ".join(texts)


def _plain_types(annotation: Any) -> list[Any]:
    """The types a union or annotated type is made of, without their parameters."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_types(arguments[0])
    if origin in (tuple, list, dict, Literal):
        return [origin]
    if arguments:
        return [plain for argument in arguments for plain in _plain_types(argument)]
    return [annotation]


def _inner_metadata(annotation: Any) -> list[Any]:
    """Bounds inside a union or annotated type; those of a list's items are not the list's."""
    found: list[Any] = []
    if get_origin(annotation) in (tuple, list, dict):
        return found
    for argument in get_args(annotation):
        if isinstance(argument, FieldInfo):
            found.extend(argument.metadata)
        elif get_args(argument):
            found.extend(_inner_metadata(argument))
        elif isinstance(argument, annotated_types.BaseMetadata):
            found.append(argument)
    return found


def _choices(annotation: Any) -> list[str]:
    """The values of an enumeration or literal, also inside a union."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return [choice for argument in get_args(annotation) for choice in _choices(argument)]
