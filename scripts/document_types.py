"""Generate documents.d.ts, the types of the explorer's documents, from their schema.

Run `python scripts/document_types.py` after changing the schema; a test compares the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EXPLORER = Path(__file__).parents[1] / "src" / "unitscope" / "explorer"
SCHEMA = EXPLORER / "documents.schema.json"
TYPES = EXPLORER / "documents.d.ts"

Schema = dict[str, Any]

HEADING = """\
// Generated from documents.schema.json by scripts/document_types.py: change that, not this.

declare namespace Documents {
"""
PRIMITIVES = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
}


def types_of(schema: Schema) -> str:
    """The text of documents.d.ts: a type for each definition, and one for each name."""
    lines = [HEADING.rstrip("\n")]
    for name, definition in schema["$defs"].items():
        definition_type = _type(definition, "  ")
        lines += _comment(definition, "  ")
        lines.append(f"  type {name} = {definition_type};")
        lines.append("")

    lines.append("  /** The type of the document of a name. */")
    lines.append("  type Named<Name extends string> =")
    for pattern, document in schema["patternProperties"].items():
        names = _name_type(pattern)
        document_type = _type(document, "")
        lines.append(f"    Name extends {names} ? {document_type} :")
    lines.append("    never;")

    lines.append("}")
    return "\n".join(lines) + "\n"


def _type(schema: Schema, indent: str) -> str:
    """A schema as a type; raises ValueError for keywords that this script does not know."""
    if "$ref" in schema:
        return _referred(schema["$ref"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return _union(map(json.dumps, schema["enum"]))
    if "anyOf" in schema:
        return _union(_type(option, indent) for option in schema["anyOf"])

    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(PRIMITIVES[option] for option in kind)
    if kind == "object":
        return _object(schema, indent)
    if kind == "array":
        return _array(schema, indent)
    if kind in PRIMITIVES:
        return PRIMITIVES[kind]

    text = json.dumps(schema)
    raise ValueError(f"no TypeScript type is known for {text[:200]}")


def _union(types: Iterable[str]) -> str:
    return " | ".join(types)


def _referred(reference: str) -> str:
    return reference.removeprefix("#/$defs/")


def _object(schema: Schema, indent: str) -> str:
    inner = indent + "  "
    required = schema.get("required", [])

    lines = ["{"]
    for name, value in schema.get("properties", {}).items():
        key = name if name in required else f"{name}?"
        value_type = _type(value, inner)
        lines += _comment(value, inner)
        lines.append(f"{inner}{key}: {value_type};")

    for pattern, value in schema.get("patternProperties", {}).items():
        names = _name_type(pattern)
        value_type = _type(value, inner)
        lines.append(f"{inner}[name: {names}]: {value_type};")

    lines.append(indent + "}")
    return "\n".join(lines)


def _array(schema: Schema, indent: str) -> str:
    if "prefixItems" in schema:
        types = [_type(item, indent) for item in schema["prefixItems"]]
        items = ", ".join(types)
        return f"[{items}]"

    item = _type(schema["items"], indent)
    if "|" in item:
        item = f"({item})"
    return f"{item}[]"


def _name_type(pattern: str) -> str:
    r"""The names that a pattern allows, as a type: `units-${number}` for ^units-\d+$."""
    name = pattern.removeprefix("^").removesuffix("$")
    if name == r"\d+":
        return "number"

    template = name.replace(r"\d+", "${number}")
    template = template.replace(".+", "${string}")
    if re.search(r"[\\*+?()|\[\]]", template):
        raise ValueError(
            f"no TypeScript type is known for names like {pattern}"
        )

    if "$" in template:
        return f"`{template}`"
    return json.dumps(template)


def _comment(schema: Schema, indent: str) -> list[str]:
    text = schema.get("description")
    return [f"{indent}/** {text} */"] if text else []


if __name__ == "__main__":
    text = SCHEMA.read_text(encoding="utf-8")
    TYPES.write_text(types_of(json.loads(text)), encoding="utf-8")
