"""Bundle: the pages' modules as one classic script, and what may not be joined."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from unitscope.explorer.bundle import bundle

STATIC = resources.files("unitscope.explorer") / "static"
COPY = {"data.js": "data-scripts.js"}


def read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def modules() -> list[str]:
    return sorted(
        file.name for file in STATIC.iterdir() if file.name.endswith(".js")
    )


def joined(
    texts: dict[str, str],
    gives: list[str] | None = None,
    instead: dict[str, str] | None = None,
) -> str:
    return bundle(texts.__getitem__, "main.js", "all", gives or [], instead)


def test_all_modules_are_asked_for_at_once() -> None:
    # One that the page does not name is asked for only when another that needs it was
    # read.
    named = re.findall(
        r'<link rel="modulepreload" href="static/([\w-]+\.js)">',
        read("index.html"),
    )
    assert named == [name for name in modules() if name != "data-scripts.js"]


@pytest.mark.parametrize("instead", [COPY, {}], ids=["copy", "live"])
def test_all_modules_are_joined_each_after_those_that_it_needs(
    instead: dict[str, str],
) -> None:
    script = bundle(read, "main.js", "unitscope", [], instead)
    order = re.findall(r"^// ([\w-]+\.js)$", script, re.MULTILINE)
    left = {"data.js", "data-scripts.js"} - set(order)
    assert sorted([*order, *left]) == modules() and len(left) == 1
    for place, name in enumerate(order):
        for needed in re.findall(
            r'^import \{[^}]*\} from "\./([\w-]+\.js)"',
            read(name),
            re.MULTILINE,
        ):
            assert order.index(instead.get(needed, needed)) < place
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert len(re.findall(r"^\S", script, re.MULTILINE)) > 100, (
        "what stands at the top of a module stays there"
    )


def test_live_and_copied_documents_are_had_in_the_same_way() -> None:
    (names,) = COPY.items()
    live, copied = (
        set(
            re.findall(r"^export (?:const|let) (\w+)", read(name), re.MULTILINE)
        )
        for name in names
    )
    assert copied - live == {"add"} and live <= copied


def test_pages_put_in_names_as_text_only() -> None:
    for name in modules():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new "
            r"Function",
            read(name),
        )


def test_only_what_is_given_is_left_outside() -> None:
    texts = {
        "main.js": 'import {\n  one,\n  two,\n} from "./a.js";\nconst mine = one;\n',
        "a.js": 'import { three } from "./b.js";\nexport let one = 1;\nexport const two = three;\n',
        "b.js": "export async function three() {}\n",
    }
    assert joined(texts, ["mine", "two"]) == (
        '"use strict";\nconst all = (() => {\n'
        "// b.js\nasync function three() {}\n\n// a.js\nlet one = 1;\nconst two = "
        "three;\n\n"
        "// main.js\nconst mine = one;\n\nreturn { mine, two };\n})();\n"
    )


def test_types_are_left_out() -> None:
    texts = {
        "main.js": '/** @import { A } from "./a.js" */\n\n'
        '/**\n * @param {import("./b.js").B} b\n */\n'
        "const one = (b) => {\n  /** @type {A} */\n  const a = b / 2;\n"
        '  return /** @type {A} */ (a) + "/** text */";\n};\n'
        "const two =\n  /** @type {A} */ (one(2));\n/** Three. */\nconst three = 3;\n",
    }
    assert joined(texts) == (
        '"use strict";\nconst all = (() => {\n// main.js\n'
        "const one = (b) => {\n  const a = b / 2;\n"
        '  return /** @type {A} */ (a) + "/** text */";\n};\n'
        "const two =\n  /** @type {A} */ (one(2));\nconst three = 3;\n\n"
        "return {  };\n})();\n"
    )


MAIN, A = 'import { a } from "./a.js";\n', "export const a = 1;\n"
REFUSED = {
    "twice": (
        MAIN + "const b = 1;\n",
        A + "const b = 2;\n",
        "b in a.js and main.js",
    ),
    "parts": (
        MAIN + "const [c, b] = [1, 2];\n",
        A + "function b() {}\n",
        "b in a.js and main.js",
    ),
    "circle": (
        MAIN,
        'import { b } from "./main.js";\n' + A,
        "main.js → a.js → main.js",
    ),
    "renamed": (
        'import { a as b } from "./a.js";\n',
        A,
        "imports 'a as b' of a.js",
    ),
    "unknown": (
        'import { b } from "./a.js";\n',
        A,
        "exports nothing of that name",
    ),
    "default": (MAIN, A + "export default a;\n", "a.js: 'export default a;'"),
    "all": ('import * as a from "./a.js";\n', A, "main.js: 'import"),
    "later": ('const a = () => import("./a.js");\n', A, r"main.js: 'import\('"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_joined_is_refused(name: str) -> None:
    main, other, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        joined({"main.js": main, "a.js": other})


def test_what_is_to_be_given_must_be_there() -> None:
    with pytest.raises(ValueError, match="no module has nothing"):
        joined({"main.js": "const a = 1;\n"}, ["a", "nothing"])


def test_some_modules_stand_in_for_others() -> None:
    texts = {"main.js": MAIN, "a.js": "", "other.js": "export const a = 2;\n"}
    assert "const a = 2" in joined(texts, ["a"], {"a.js": "other.js"})
