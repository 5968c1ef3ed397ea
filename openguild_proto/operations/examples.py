"""Builds examples of bodies from the examples of their members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openguild_proto.operations.component_schemas import Schema
from openguild_proto.schemas.fields import (
    EVENT_ID_EXAMPLE,
    EVENT_ID_PATTERN,
    ID_EXAMPLE,
    LAST,
    LOG_NAME_PATTERN,
    SCHEMA_PREFIX,
    UUID_PATTERN,
)

TEXT = "text"
BY_PATTERN = {
    LOG_NAME_PATTERN: f"guild:{ID_EXAMPLE}",
    f"^{UUID_PATTERN}$": ID_EXAMPLE,
    EVENT_ID_PATTERN: EVENT_ID_EXAMPLE,
}


def example_of(schema: Schema, schemas: Mapping[str, Schema]) -> Any:
    """Return a value that fits `schema`. An object has its required members and those with an example of their own."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].removeprefix(SCHEMA_PREFIX)], schemas)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema and "properties" not in schema:
        return example_of(schema["anyOf"][0], schemas)
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())  # for `anyOf`, the members with examples satisfy one
            return {
                name: example_of(member, schemas)
                for name, member in schema.get("properties", {}).items()
                if name in required or "examples" in member
            }
        case "array":
            return [example_of(schema["items"], schemas)]
        case "integer":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case "number":
            return 1.5
    return BY_PATTERN.get(schema.get("pattern", "").removesuffix(LAST), TEXT)
