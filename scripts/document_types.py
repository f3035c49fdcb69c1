"""The explorer's documents as TypeScript types: documents.d.ts, generated from documents.schema.json.

Run `python scripts/document_types.py` after changing the schema; a test compares the two.
"""

from __future__ import annotations

import json
import re
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
    """The text of documents.d.ts: a type for each definition, and the type of each document by its name."""
    lines = [HEADING.rstrip("\n")]
    for name, definition in schema["$defs"].items():
        lines += _comment(definition, "  ")
        lines.append(f"  type {name} = {_type(definition, '  ')};")
        lines.append("")

    lines.append("  /** The type of the document of a name. */")
    lines.append("  type Named<Name extends string> =")
    for pattern, document in schema["patternProperties"].items():
        lines.append(
            f"    Name extends {_name_type(pattern)} ? {_type(document, '')} :"
        )
    lines.append("    never;")
    return "\n".join([*lines, "}", ""])


def _type(schema: Schema, indent: str) -> str:
    """A schema as a type; raises ValueError for keywords that this script does not know."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(option, indent) for option in schema["anyOf"])

    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(PRIMITIVES[option] for option in kind)
    if kind == "object":
        return _object(schema, indent)
    if kind == "array":
        return _array(schema, indent)
    if kind in PRIMITIVES:
        return PRIMITIVES[kind]
    raise ValueError(f"no TypeScript type is known for {json.dumps(schema)[:200]}")


def _object(schema: Schema, indent: str) -> str:
    inner = indent + "  "
    lines = ["{"]
    for name, value in schema.get("properties", {}).items():
        lines += _comment(value, inner)
        optional = "" if name in schema.get("required", []) else "?"
        lines.append(f"{inner}{name}{optional}: {_type(value, inner)};")
    for pattern, value in schema.get("patternProperties", {}).items():
        lines.append(f"{inner}{_index(pattern)}: {_type(value, inner)};")
    return "\n".join([*lines, indent + "}"])


def _array(schema: Schema, indent: str) -> str:
    if "prefixItems" in schema:
        items = ", ".join(_type(item, indent) for item in schema["prefixItems"])
        return f"[{items}]"
    item = _type(schema["items"], indent)
    return f"({item})[]" if "|" in item else f"{item}[]"


def _index(pattern: str) -> str:
    """The key of an index signature, or of optional properties for a choice of names."""
    return f"[name: {_name_type(pattern)}]"


def _name_type(pattern: str) -> str:
    r"""The names that a pattern allows, as a type: `units-${number}` for ^units-\d+$."""
    name = pattern.removeprefix("^").removesuffix("$")
    if name == r"\d+":
        return "number"
    template = name.replace(r"\d+", "${number}").replace(".+", "${string}")
    if re.search(r"[\\*+?()|\[\]]", template):
        raise ValueError(f"no TypeScript type is known for names like {pattern}")
    return f"`{template}`" if "$" in template else json.dumps(template)


def _comment(schema: Schema, indent: str) -> list[str]:
    text = schema.get("description")
    return [f"{indent}/** {text} */"] if text else []


if __name__ == "__main__":
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    TYPES.write_text(types_of(schema), encoding="utf-8")
