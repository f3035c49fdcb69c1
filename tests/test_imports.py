"""Imports point down, heavy libraries load in their leaves, and the command line
starts without them."""

from __future__ import annotations

import ast
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unitscope

ROOT = Path(unitscope.__file__).parent

# From the ground up: a room may import the rooms above it in this list, and a part of a
# room the parts before it. `docs/architecture.md` says what each is for.
ROOMS = {
    "errors": "",
    "files": "",
    "interrupts": "",
    "drawable": "",
    "plurals": "",
    "counts": "",
    "geometry": "",
    "labels": "",
    "inputs": """
        pngs jpegs depths bands large contents decoding photos resizing pictures bars boards
        transformed measured raw mean_images grammar preprocessing processors
        keyword_transforms adapting batches further subjects
        """,
    "tracing": """
        blame functions arguments outputs mode taps ending roles axes function_call reordering
        reshaping selecting windows combining joining axis_rules calls output_words
        output_choice calling trace layers factors sums
        cuts stages
        """,
    "attribution": """
        arrays scores region value map_change readings readout rounding classes
        unit_maps activations methods probes
        places head effects steps head_path pooling refusal constants head_walk exact_heads
        head_search look_through guess
        stand_in suffix local_head local_search
        explained contrast flip flip_search predicted
        explanation exact_explanation local_explanation ablation unit_ablations screening
        replay unit_walk unit_inputs offsets full_gradient
        """,
    "residual": """
        rows mixing fused attention sums step gates grounds token_axis places steps divisors
        projections unfollowed branches patches path walk account head
        search replacement stream explanation
        """,
    "engine": "passes exporting compiled compiled_rest snapshot frozen",
    "model": """
        provenance wrapping failures repeatability network usual_input checks reading
        tensors taking
        scoring structure logits_module forward rest pixels question explaining inner_layers
        intervention head_ablations layer_ablations real_passes ablating screening one_layer_back
        fullgrad
        experiments classifier
        """,
    "network_facts": "",
    "kernels": "",
    "accounts": "checks parts heads rival account verification inner_record record",
    "datasets": """
        base texts patterns classes layout masks files folders index_maps lists
        polygons broden parquet trial tables tar_file sidecars tars
        """,
    "scenes": "network transformer",
    "sources": """
        cache checksums transfers downloads weights request schemes hub bundled
        user_code python torchvision places365 timm specification checkpoint image_processor
        transformers_library transformers_folder transformers_fitting prompts zero_shot
        tokenizer class_vectors transformers_texts transformers
        """,
    "atlas": """
        intervals ablation matching image_hashes summaries disk storage identity shards
        findings neighbours reading atlas scan merging scanning
        """,
    "evaluation": """
        fusion peers pixels maps hiding batch methods nulls measure likeness deletion
        confidence ablations completeness stability randomisation pointing inside boxes measures
        targets photos shard bootstrap evaluation folder evaluating
        """,
    "render": """
        words margins colours stacks views overlays fonts sheets diagram diagram_svg kernel_sheet
        markup figures map_views report_heads report_contrast report_layers
        report_contents report inner_tables fragments reporting
        """,
    "explorer": """
        bundle web limits recent shelf worker tiles atlas_about atlas_tables
        histogram_contents map_contents layer_contents class_contents atlas_documents
        index_contents network_contents filter_contents photo_contents photo_sources
        documents answers guard uploads requests static_files application server
        static_copy
        """,
    "write_up": "",
    "cli": """
        options output loading reader screening unit_inputs scan pages atlas evaluate explain
        pictures each_unit ablate info
        reproduce explore
        """,
}
PARTS = {room: parts.split() for room, parts in ROOMS.items()}

# Module-level imports of heavy libraries: who may have them.
LEAVES = {
    "matplotlib": ("render/",),
    "jinja2": ("render/",),
    "torchvision": ("sources/torchvision.py", "sources/places365.py"),
    "timm": ("sources/timm.py",),
    "transformers": (
        "sources/transformers_library.py",
        "sources/image_processor.py",
    ),
    "huggingface_hub": ("sources/hub.py",),
    "click": ("cli/",),
    "pyarrow": ("datasets/parquet.py", "atlas/disk/tables.py"),
    "starlette": ("explorer/web.py",),
    "uvicorn": ("explorer/web.py",),
    "simplejpeg": ("inputs/jpegs.py",),
    "onnxruntime": (),
    "onnx": (),
    "onnxscript": (),
}

FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.parts[0].removesuffix(".py")


def part_of(file: Path) -> str:
    """The part of its room that a file belongs to; "" for the room's own file."""
    part = file.parts[1].removesuffix(".py") if len(file.parts) > 1 else ""
    return "" if part == "__init__" else part


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def imports(file: Path, only_top: bool = False) -> Iterator[str]:
    """The full names of all modules that a file imports, inside functions too."""
    tree = tree_of(file)
    for node in tree.body if only_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            # `from unitscope import x` names a room, `from unitscope.room import x` a
            # part of it or a name that stands in the room's own file.
            own = (node.module or "").split(".")[0] == "unitscope"
            yield from (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if own
                else [node.module or ""]
            )


def test_every_room_and_part_has_its_place() -> None:
    assert {room_of(file) for file in FILES} - {"__init__", "__main__"} == set(
        ROOMS
    )
    for room, parts in PARTS.items():
        found = {part_of(file) for file in FILES if room_of(file) == room}
        assert found - {""} == set(parts), f"the parts of {room}"


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if room_of(file) not in ("__init__", "__main__")],
    ids=str,
)
def test_imports_point_down(file: Path) -> None:
    room, part = room_of(file), part_of(file)
    rooms = list(ROOMS)
    rooms_below = rooms[: rooms.index(room)]
    # A room's own file stands above its parts.
    parts_below = (
        PARTS[room][: PARTS[room].index(part)] if part else PARTS[room]
    )
    for name in imports(file):
        if not name.startswith("unitscope."):
            continue
        _, other, *rest = name.split(".")
        if other != room:
            assert other in rooms_below, (
                f"{file} imports {name}, not below {room}"
            )
        elif rest and rest[0] in PARTS[room] and rest[0] != part:
            assert rest[0] in parts_below, (
                f"{file} imports {name}, not below {part}"
            )


def test_nothing_imports_the_command_line() -> None:
    importers = [
        file
        for file in FILES
        if any(name.startswith("unitscope.cli") for name in imports(file))
    ]
    assert {room_of(file) for file in importers} == {"__main__", "cli"}


def test_the_one_door_up_is_drawables_to_render() -> None:
    doors = []
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") == "import_module"
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and str(node.args[0].value).startswith("unitscope")
            ):
                doors.append((str(file), node.args[0].value))
    assert set(doors) == {("drawable.py", "unitscope.render")}


@pytest.mark.parametrize("library", LEAVES)
def test_heavy_libraries_are_imported_in_their_leaves_only(
    library: str,
) -> None:
    for file in FILES:
        if any(
            name.split(".")[0] == library
            for name in imports(file, only_top=True)
        ):
            assert str(file).startswith(LEAVES[library]), (
                f"{file} imports {library} at module level"
            )


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.skipif(
    importlib.util.find_spec("unitscope.cli") is None,
    reason="there is no command line yet",
)
def test_the_command_line_starts_without_torch() -> None:
    loaded = modules_after("import unitscope.cli")
    assert not loaded & {
        "torch",
        "torchvision",
        "matplotlib",
        "jinja2",
        "numpy",
        "PIL",
    }


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import unitscope") & {
        "torch",
        "numpy",
        "PIL",
        "matplotlib",
    }


def test_computing_loads_no_drawing() -> None:
    assert not modules_after("import unitscope.accounts.account") & {
        "torchvision",
        "matplotlib",
        "jinja2",
        "unitscope.render",
    }


def test_no_public_name_is_that_of_a_file() -> None:
    # Importing a file unitscope/filters.py would put it in the place of the function
    # unitscope.filters.
    assert not {room_of(file) for file in FILES} & set(unitscope.__all__)


def test_every_public_name_can_be_imported() -> None:
    assert set(unitscope.__all__) == set(unitscope._HOMES) | {
        "__version__"
    } and dir(unitscope) == sorted(unitscope.__all__)
    for name in unitscope.__all__:
        assert getattr(unitscope, name) is not None
    with pytest.raises(
        AttributeError, match="module 'unitscope' has no attribute 'filter'"
    ):
        _ = unitscope.filter
