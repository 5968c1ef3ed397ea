"""Sections of the configuration as they are declared: what pydantic checks is made of the dataclass of each.

A section is a frozen dataclass whose fields are marked with `Setting`; those that the core reads stand in
openguild_proto/settings, the others in server_config.py. Names, defaults, bounds, meanings and what applies while serving
are read from there, and listed nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from msgspec import Meta
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, SecretStr, TypeAdapter, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from openguild_proto.settings.setting import Setting
from openguild_runtime.config.values import Number

T = TypeVar("T")


class Strict(BaseModel):
    """Unknown keys are refused; nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Declared:
    """Marks a field whose type is a section."""

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = model_of(source)

        def fill(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, source):
                return value
            checked = check(value)
            return source(**{name: getattr(checked, name) for name in model.model_fields})

        return core_schema.no_info_wrap_validator_function(fill, handler.generate_schema(model))


class ConfigKey(NamedTuple):
    """One key: `name` with its section before it, such as `messaging.replay_window`."""

    name: str
    field: FieldInfo

    @property
    def setting(self) -> Setting:
        """Its marks."""
        return next(mark for mark in self.field.metadata if isinstance(mark, Setting))

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self.field.annotation) is tuple

    @property
    def flag(self) -> str:
        """Its flag on the command line; that of a list takes one entry."""
        name = self.name.removesuffix("s") if self.is_list else self.name
        return "--" + name.replace(".", "-").replace("_", "-")

    @property
    def is_secret(self) -> bool:
        """Whether its value is never shown."""
        return _mentions(self.field.annotation, SecretStr)


_models: dict[type[Any], type[BaseModel]] = {}


def model_of(section: type[Any]) -> type[BaseModel]:
    """The pydantic model of a section; a model's is itself."""
    if issubclass(section, BaseModel):
        return section
    if section not in _models:
        _models[section] = _make_model(section)
    return _models[section]


def _make_model(section: type[Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    kinds = get_type_hints(section, include_extras=True)
    for name in dict.fromkeys((*section.__annotations__, *kinds)):  # its own first, then what it inherits
        kind = kinds[name]
        marks = getattr(kind, "__metadata__", ())
        if any(isinstance(mark, Setting) for mark in marks):
            base = get_args(kind)[0]
            rules = [_rule(mark, base) if isinstance(mark, Meta) else mark for mark in marks]
            if base in (int, float):
                rules.insert(0, Number)
            fields[name] = Annotated[(base, *rules)], getattr(section, name)
    return create_model(section.__name__, __base__=Strict, __doc__=section.__doc__, **fields)


def _rule(bounds: Meta, base: type) -> Any:
    """pydantic's word for the core's bounds."""
    named = {name: getattr(bounds, name) for name in ("gt", "ge", "lt", "le") if getattr(bounds, name) is not None}
    return Field(**named, allow_inf_nan=False) if base is float else Field(**named)


def _mentions(kind: Any, wanted: type) -> bool:
    return kind is wanted or any(_mentions(part, wanted) for part in get_args(kind))


def section_of(field: FieldInfo | None) -> type[Any] | None:
    """The section that a field holds, or holds a list of; None: a value."""
    for kind in () if field is None else (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
            return kind
    return None


def is_section(value: Any) -> bool:
    """Whether a value is a filled section."""
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)


@functools.cache
def keys_of(section: type[Any]) -> tuple[ConfigKey, ...]:
    """Every key below a section or the whole."""
    return tuple(_keys_of(section, ""))


def _keys_of(section: type[Any], prefix: str) -> Iterator[ConfigKey]:
    for name, field in model_of(section).model_fields.items():
        inner = section_of(field)
        if inner is not None and inner is field.annotation:  # and no list of them
            yield from _keys_of(inner, f"{prefix}{name}.")
        else:
            yield ConfigKey(prefix + name, field)


def values_of(section: Any) -> dict[str, Any]:
    """The keys of a filled section, without its name before them, and their values."""
    kind: type[Any] = type(section)
    return {name: getattr(section, name) for name in model_of(kind).model_fields}


def checked(section: type[T], values: Mapping[str, Any]) -> T:
    """A section filled with `values`. Raises pydantic's ValidationError."""
    adapter: TypeAdapter[T] = TypeAdapter(Annotated[section, Declared()])  # type: ignore[arg-type]  # mypy takes no variable for a type
    return adapter.validate_python(values)
