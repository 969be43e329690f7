"""Checks a value against docs/json.schema.json: as much of JSON Schema as that page uses."""

import json
from functools import cache
from typing import Any

from tests.support.harness import ROOT

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


@cache
def definitions() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "json.schema.json").read_text())["$defs"]


def problems(value: Any, schema: dict[str, Any], at: str = "") -> list[str]:
    """Return what is wrong with a value, nothing where it is valid."""
    if "$ref" in schema:
        return problems(value, definitions()[schema["$ref"].removeprefix("#/$defs/")], at)
    if "anyOf" in schema:
        tried = [problems(value, one, at) for one in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: {value!r} is none of {schema['enum']}"]
    kind = schema["type"]
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{at}: {value!r} is no {kind}"]
    if kind == "array" and "items" in schema:
        return [
            found
            for number, one in enumerate(value)
            for found in problems(one, schema["items"], f"{at}/{number}")
        ]
    return _of_object(value, schema, at) if kind == "object" else []


def _of_object(value: dict[str, Any], schema: dict[str, Any], at: str) -> list[str]:
    known: dict[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    found = [f"{at}/{name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, one in value.items():
        if name in known:
            found += problems(one, known[name], f"{at}/{name}")
        elif others is False:
            found.append(f"{at}/{name} is not in the schema")
        elif others is not True:
            found += problems(one, others, f"{at}/{name}")
    return found


def check(value: Any, name: str) -> None:
    """Fail unless `value` is an answer as `$defs/NAME` says."""
    assert problems(value, definitions()[name], name) == [], json.dumps(value)
