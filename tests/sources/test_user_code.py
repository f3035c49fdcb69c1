"""User code: every file has the neighbours of its own folder, and nobody else gets them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from refusals import refusal
from unitscope.sources import load

# In every folder the same names, and a number that tells the folders apart.
FILES = {
    "net.py": """
import importlib
import os
from torch import nn
from layers import Block, Config
import parts.inner.deep
import parts.inner.deep as deep
from parts import registry
import without_init.thing as thing
class Net(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.block, self.fc = Block(), nn.Linear(Config().width, num_classes)
        self.found = [
            importlib.import_module("parts." + "dynamic").X, deep.X, thing.X,
            parts.inner.deep.X, registry["x"], __import__("parts.dynamic").dynamic.X,
        ]
    def forward(self, x):
        import lazy
        from parts.lazy import X
        return self.fc(self.block(x).mean((2, 3))) * lazy.X * X
if __name__ == "__main__":
    raise SystemExit("the file was run as a program")
""",
    "layers.py": """
from dataclasses import dataclass
from torch import nn
@dataclass
class Config:
    width: "int" = NUMBER
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, Config().width, 3)
    def forward(self, x): return self.conv(x)
""",
    "lazy.py": "X = NUMBER",
    "without_init/thing.py": "X = NUMBER",
    "parts/__init__.py": "from .base import registry\nfrom . import inner",
    "parts/base.py": "registry = {'x': NUMBER}",
    "parts/dynamic.py": "X = NUMBER\nimport net\nfrom parts import registry",
    "parts/lazy.py": "X = NUMBER",
    "parts/inner/__init__.py": "",
    "parts/inner/deep.py": "from ..base import registry\nX = registry['x']",
}


def written(root: Path, number: int, files: dict[str, str] = FILES) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("NUMBER", str(number)))
    return root / "net.py"


def test_files_that_import_the_same_names_get_each_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = types.ModuleType("layers")
    monkeypatch.setitem(sys.modules, "layers", mine)
    before, path = dict(sys.modules), list(sys.path)
    nets = {
        number: load(f"python:{written(tmp_path / str(number), number)}:Net")
        for number in (5, 7)
    }

    x = torch.ones(1, 3, 8, 8)
    for number, model in nets.items():
        net: Any = model.module
        assert (
            net.found == [number] * 6 and net.block.conv.out_channels == number
        )
        pooled = net.block(x).mean((2, 3))
        assert torch.allclose(net(x), net.fc(pooled) * number * number)
        assert model.head.exact
        assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
        assert torch.equal(copy.deepcopy(net)(x), net(x))

    # The user's program keeps what it had, and gets nothing that it may take for its own.
    assert sys.path == path
    assert all(sys.modules[name] is module for name, module in before.items())
    new = {name.split(".")[0] for name in sys.modules.keys() - before.keys()}
    assert new.isdisjoint({"net", "parts", "lazy", "without_init"})
    assert not list(tmp_path.rglob("__pycache__"))


def test_python_and_torch_find_the_code_of_a_class(tmp_path: Path) -> None:
    model = load(f"python:{written(tmp_path, 5)}:Net")
    block: Any = model.module.get_submodule("block")
    kind = type(block)
    assert inspect.getsource(kind).startswith("class Block")
    assert inspect.getsourcefile(kind) == str(tmp_path.resolve() / "layers.py")
    config = sys.modules[kind.__module__].Config
    assert typing.get_type_hints(config) == {"width": int}
    assert dataclasses.replace(config(), width=9).width == 9

    x = torch.ones(2, 3, 8, 8)
    for network in (model.module, block):
        exported = torch.export.export(network, (x,)).module()
        assert torch.allclose(exported(x), network(x), atol=1e-6)


def test_a_file_that_was_changed_is_loaded_as_it_is_now(tmp_path: Path) -> None:
    file = written(tmp_path, 5)
    first: Any = load(f"python:{file}:Net").module
    # As long, and written within the same second.
    written(tmp_path, 7)
    second: Any = load(f"python:{file}:Net").module
    assert (first.found[0], second.found[0]) == (5, 7)
    assert pickle.loads(pickle.dumps(first)).found[0] == 5


def test_what_the_program_has_from_the_same_folder_is_the_same_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, 5)
    monkeypatch.syspath_prepend(str(tmp_path))
    import layers  # type: ignore[import-not-found]

    try:
        assert type(load(f"python:{file}:Net").module.block) is layers.Block
    finally:
        for name in ("layers", "parts", "without_init", "lazy", "net"):
            for module in [*sys.modules]:
                if module.split(".")[0] == name:
                    del sys.modules[module]


@pytest.mark.parametrize("added", ["insert(0, ", "append("])
def test_folders_that_the_file_adds_to_the_path_are_its_own(
    added: str, tmp_path: Path
) -> None:
    code = (
        f"import sys\nsys.path.{added}LIBRARY)\nfrom a_library import WHERE\n"
    )
    code += "from torch import nn\nclass Net(nn.Linear):\n    where = WHERE\n"
    code += "    def __init__(self): super().__init__(2, 2)\n"
    for number in (1, 2):
        folder = tmp_path / str(number)
        written(folder / "lib", number, {"a_library.py": "WHERE = NUMBER"})
        library = str(folder / "lib")
        written(
            folder, number, {"net.py": code.replace("LIBRARY", repr(library))}
        )
    path = list(sys.path)
    for number in (1, 2):
        net: Any = load(f"python:{tmp_path / str(number)}/net.py:Net").module
        assert net.where == number
    assert sys.path == path and "a_library" not in sys.modules


def test_an_installed_module_is_not_hidden_by_a_folder_of_its_name(
    tmp_path: Path,
) -> None:
    files = {
        "jinja2/notes.txt": "a folder without Python",
        "net.py": "import jinja2, sys\nfrom torch import nn\njinja2.Template\n"
        "def build(): return nn.Linear(2, 2)\n",
    }
    assert (
        load(f"python:{written(tmp_path, 1, files)}:build").module is not None
    )


def test_a_file_in_a_package_may_import_that(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "sizes.py": "SIZE = NUMBER",
        "net.py": "from .sizes import SIZE\nfrom my_nets.sizes import SIZE as SAME\n"
        "from torch import nn\ndef build(): return nn.Linear(SIZE, SAME)\n",
    }
    net: Any = load(
        f"python:{written(tmp_path / 'my_nets', 3, files)}:build"
    ).module
    assert net.in_features == net.out_features == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import layers, nowhere_to_be_found",
            "needs the module 'nowhere_to_be_found', which is not installed, nor "
            "beside it: install it, or add its folder to PYTHONPATH",
        ),
        ("import parts.nothing", "needs the module 'parts.nothing', which"),
        (
            "from layers import Blok",
            "(ImportError: cannot import name 'Blok' from 'layers' (",
        ),
        (
            "from ..nets import Net",
            "name it as a part of its package, as in python:package.module:Net",
        ),
    ],
)
def test_errors_name_modules_as_the_file_does(
    code: str, message: str, tmp_path: Path
) -> None:
    written(tmp_path, 5)
    (tmp_path / "other.py").write_text(code)
    assert message in refusal(f"python:{tmp_path / 'other.py'}:Net")


def test_a_module_of_the_same_name_from_another_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = {
        "twice_named.py": "from torch import nn\nclass Net(nn.Linear): pass\n"
    }
    net["twice_named.py"] += "def build(): return Net(2, NUMBER)\n"
    for number in (1, 2):
        written(tmp_path / str(number), number, net)
    monkeypatch.chdir(tmp_path / "1")
    try:
        first: Any = load("python:twice_named:build").module
        assert first.out_features == 1
        monkeypatch.chdir(tmp_path / "2")
        assert "has imported" in refusal("python:twice_named:build")
    finally:
        sys.modules.pop("twice_named", None)
