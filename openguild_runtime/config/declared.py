"""Sections of the configuration: builds pydantic models from the dataclasses that declare them.

A section is a frozen dataclass whose fields are marked with `Setting`. Sections of the core are in openguild_proto/settings,
the others in server_config.py. They alone define the names, defaults, bounds and meanings of keys, and which of them can change
at run time.
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
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Declared:
    """The mark of a field whose type is a section."""

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = model_of(source)

        def fill(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, source):
                return value
            checked = check(value)
            return source(**{name: getattr(checked, name) for name in model.model_fields})

        return core_schema.no_info_wrap_validator_function(fill, handler.generate_schema(model))


class ConfigKey(NamedTuple):
    """A key. Its `name` includes the section, such as `messaging.replay_window`."""

    name: str
    field: FieldInfo

    @property
    def setting(self) -> Setting:
        """The `Setting` of the key."""
        return next(mark for mark in self.field.metadata if isinstance(mark, Setting))

    @property
    def is_list(self) -> bool:
        """Whether the key has a list of values."""
        return get_origin(self.field.annotation) is tuple

    @property
    def flag(self) -> str:
        """The key's flag on the command line. The flag of a list takes one entry."""
        name = self.name.removesuffix("s") if self.is_list else self.name
        return "--" + name.replace(".", "-").replace("_", "-")

    @property
    def is_secret(self) -> bool:
        """Whether the value is a secret, which is never shown."""
        return _mentions(self.field.annotation, SecretStr)


_models: dict[type[Any], type[BaseModel]] = {}


def model_of(section: type[Any]) -> type[BaseModel]:
    """Return the pydantic model of a section. The model of a model is itself."""
    if issubclass(section, BaseModel):
        return section
    if section not in _models:
        _models[section] = _make_model(section)
    return _models[section]


def _make_model(section: type[Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    kinds = get_type_hints(section, include_extras=True)
    for name in dict.fromkeys((*section.__annotations__, *kinds)):  # own fields first, then inherited ones
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
    """Return pydantic's rule for the bounds of the core."""
    named = {name: getattr(bounds, name) for name in ("gt", "ge", "lt", "le") if getattr(bounds, name) is not None}
    return Field(**named, allow_inf_nan=False) if base is float else Field(**named)


def _mentions(kind: Any, wanted: type) -> bool:
    return kind is wanted or any(_mentions(part, wanted) for part in get_args(kind))


def section_of(field: FieldInfo | None) -> type[Any] | None:
    """Return the section that is the type of a field or of its entries, or None for a value."""
    for kind in () if field is None else (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
            return kind
    return None


def is_section(value: Any) -> bool:
    """Return whether a value is an instance of a section."""
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)


@functools.cache
def keys_of(section: type[Any]) -> tuple[ConfigKey, ...]:
    """Return all keys of a section, or of the whole configuration."""
    return tuple(_keys_of(section, ""))


def _keys_of(section: type[Any], prefix: str) -> Iterator[ConfigKey]:
    for name, field in model_of(section).model_fields.items():
        inner = section_of(field)
        if inner is not None and inner is field.annotation:  # not a list of sections
            yield from _keys_of(inner, f"{prefix}{name}.")
        else:
            yield ConfigKey(prefix + name, field)


def values_of(section: Any) -> dict[str, Any]:
    """Return the values of a section by key, without the section's name."""
    kind: type[Any] = type(section)
    return {name: getattr(section, name) for name in model_of(kind).model_fields}


def checked(section: type[T], values: Mapping[str, Any]) -> T:
    """Return a section with `values`. Raises pydantic's ValidationError."""
    adapter: TypeAdapter[T] = TypeAdapter(Annotated[section, Declared()])  # type: ignore[arg-type]  # mypy wants a literal type
    return adapter.validate_python(values)
