"""Every way to name a model, for real: networks, files, Python modules, a web server."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legacy_checkpoint import places365_checkpoint, save_as_python2
from local_server import Site, running_site
from refusals import refusal
from unitscope.errors import (
    DownloadError,
    LabelsError,
    MissingExtraError,
    PreprocessingError,
    WeightsError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier
from unitscope.scenes import WEIGHTS
from unitscope.sources import SCHEMES, load, usages
from unitscope.sources.weights import match_names

torchvision = pytest.importorskip(
    "torchvision", reason="torchvision is not installed"
)

DATA = Path(os.environ.get("UNITSCOPE_DATA", "../shared/data"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "simplenet.py"
SMALL = "squeezenet1_1"
PLACES = [
    f"/{name[0]}/{name} {index}"
    for index, name in enumerate(
        f"{chr(97 + i % 26)}_scene_{i}" for i in range(365)
    )
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("UNITSCOPE_PLACES365_URL", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


def network(name: str, classes: int = 1000, **options: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=classes, **options
        )
    return made.eval()


def agree(classifier: Classifier, other: nn.Module, side: int = 64) -> bool:
    x = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    with torch.no_grad():
        return torch.equal(classifier.module(x), other(x))


# Specifications


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "torchvison:resnet50",
            "unknown kind of model 'torchvison' in 'torchvison:resnet50' (did you mean "
            "'torchvision'",
        ),
        (
            "torchvision:resnet5o",
            "torchvision has no classifier 'resnet5o' (did you mean 'resnet50'",
        ),
        ("torchvision:ResNet50", "(did you mean 'resnet50'"),
        ("resnet50", "did you mean 'torchvision:resnet50'?"),
        ("ResNet-50", "did you mean 'torchvision:resnet50'?"),
        ("scene", "unknown model 'scene' (did you mean 'scenes'?)"),
        ("miniplace", "(did you mean 'miniplaces' or 'miniplaces-vit'?)"),
        (
            "nothing like it",
            "use miniplaces (bundled; also scenes), miniplaces-vit (bundled), ",
        ),
        ("", "does not name a model"),
        ("torchvision:", "write torchvision:NAME"),
        ("miniplaces:x", "says too much"),
        ("model.pth", "use 'checkpoint:model.pth' with arch"),
        ("net.py", "use 'python:net.py:Name'"),
        ("folder/model", "does not name a model"),
        (
            "C:\\models\\net.pth",
            "use 'checkpoint:C:\\models\\net.pth' with arch",
        ),
        (
            "torchvision:fcn_resnet50",
            "is one of torchvision's segmentation networks",
        ),
        (
            "torchvision:fasterrcnn_resnet50_fpn",
            "is one of torchvision's detection networks",
        ),
        ("torchvision:r3d_18", "is one of torchvision's video networks"),
        (
            "torchvision:quantized_resnet18",
            "is one of torchvision's quantized networks",
        ),
        (
            "places365:resnet34",
            "Places365 has no network 'resnet34' (did you mean 'resnet50'",
        ),
        ("python:net.py", "is not complete: write python:net.py:Net"),
    ],
)
def test_a_wrong_specification_says_what_was_probably_meant(
    spec: str, message: str
) -> None:
    assert message in refusal(spec)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            f"torchvision:{SMALL}",
            {"arch": "x"},
            "takes no arch: it goes with checkpoint:FILE",
        ),
        (
            f"torchvision:{SMALL}",
            {"base_url": "x"},
            "takes no base_url: it goes with places365:NAME and checkpoint:FILE",
        ),
        (
            "miniplaces",
            {"weights": "x.pth"},
            "'miniplaces' takes no weights: it goes with torchvision:NAME",
        ),
        ("places365:resnet18", {"num_classes": 10}, "takes no num_classes"),
        ("checkpoint:x.pth", {"weights": "y.pth"}, "takes no weights"),
        (
            f"torchvision:{SMALL}",
            {"num_classes": 0},
            "num_classes must be at least 1, not 0",
        ),
        (
            f"torchvision:{SMALL}",
            {"input_size": (0, 3)},
            "input_size must be positive pixels",
        ),
        (
            f"torchvision:{SMALL}",
            {"preprocessing": "squash-224"},
            "only places365 names its preprocessings",
        ),
        (
            f"torchvision:{SMALL}",
            {"input_size": 64, "preprocessing": Preprocessing(crop=32)},
            "input_size 64 and the preprocessing's (32, 32) disagree",
        ),
    ],
)
def test_options_that_do_not_belong_are_refused(
    spec: str, options: dict[str, Any], message: str
) -> None:
    assert message in refusal(spec, **options)


def test_every_scheme_is_named_by_its_usage_and_has_a_loader() -> None:
    assert all(name in scheme.usage for name, scheme in SCHEMES.items())
    assert all(callable(scheme.loader()) for scheme in SCHEMES.values())


def test_the_documentation_lists_every_scheme() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name in SCHEMES:
        assert any(f"`{name}" in row for row in rows), (
            f"docs/models.md lacks {name}"
        )


def test_the_help_of_the_command_line_lists_every_scheme() -> None:
    from click.testing import CliRunner

    from unitscope.cli import cli

    shown = CliRunner().invoke(cli, ["explain", "--help"]).output
    assert all(usage in shown for usage in usages() if ":" in usage)


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("unitscope.sources", "torch"),
        ("unitscope.sources.specification", "torchvision"),
    ],
)
def test_libraries_are_imported_only_when_they_are_needed(
    module: str, library: str
) -> None:
    code = f"import sys, {module}; print({library!r} in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        == "False\n"
    )


def test_without_torchvision_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert refusal("torchvision:resnet18", MissingExtraError).endswith(
        "pip install 'unitscope[torchvision]'"
    )
    assert "did you mean 'torchvision:resnet50'?" in refusal("resnet50")


# torchvision


def test_random_weights_are_the_same_each_time_and_leave_the_random_state_alone() -> (
    None
):
    state = torch.get_rng_state()
    first, second = load(f"torchvision:{SMALL}"), load(f"torchvision:{SMALL}")
    other = load(f"torchvision:{SMALL}", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert agree(first, second.module) and not agree(first, other.module)
    assert (
        first.provenance.weights == "random initialisation, seed 0"
        and "seed 1" in other.provenance.weights
    )
    assert (
        first.provenance.sha256 is None
        and "predictions and maps mean nothing" in first.provenance.notes[0]
    )
    assert (
        first.labels[:2] == ("class 0", "class 1") and not first.module.training
    )


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "mnasnet0_5"])
def test_networks_with_peculiar_builders_are_built_without_a_warning(
    name: str,
) -> None:
    with torch.no_grad():
        assert load(f"torchvision:{name}", num_classes=7).module(
            torch.zeros(1, 3, 96, 96)
        ).shape == (1, 7)


def test_the_number_of_labels_is_compared_with_the_number_of_classes() -> None:
    message = refusal(
        f"torchvision:{SMALL}", LabelsError, labels=["cat", "dog"]
    )
    assert (
        "2 labels were given for 1000 classes" in message
        and "num_classes=2" in message
    )
    assert load(
        f"torchvision:{SMALL}", labels=["cat", "dog"], num_classes=2
    ).labels == ("cat", "dog")


def test_an_input_size_changes_the_preprocessing_and_networks_that_depend_on_it() -> (
    None
):
    assert load(f"torchvision:{SMALL}").preprocessing.input_size == (224, 224)
    half = load(f"torchvision:{SMALL}", input_size=112).preprocessing
    assert (
        isinstance(half, Preprocessing)
        and (half.resize, half.crop) == (128, 112)
        and "as asked" in half.note
    )
    oblong = load(f"torchvision:{SMALL}", input_size=(64, 96)).preprocessing
    assert isinstance(oblong, Preprocessing) and (
        oblong.resize,
        oblong.crop,
    ) == (
        (64, 96),
        None,
    )
    vit = load("torchvision:vit_b_32", input_size=64, num_classes=3)
    with torch.no_grad():
        assert vit.module(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert "needs a square input" in refusal(
        "torchvision:vit_b_32", input_size=(64, 96)
    )


def test_a_local_file_brings_its_number_of_classes_and_preset(
    tmp_path: Path,
) -> None:
    trained = network(SMALL, 7)
    torch.save(
        {
            "state_dict": {
                f"module.{name}": t for name, t in trained.state_dict().items()
            }
        },
        tmp_path / "w.pth",
    )
    classifier = load(
        f"torchvision:{SMALL}",
        weights=tmp_path / "w.pth",
        labels=[f"c{i}" for i in range(7)],
    )
    assert agree(classifier, trained) and len(classifier.labels) == 7
    assert (
        classifier.provenance.weights == "w.pth"
        and len(classifier.provenance.sha256 or "") == 64
    )
    assert classifier.preprocessing.describe().startswith(
        "shorter side to 256 (bilinear), centre crop 224×224"
    )
    assert any(
        "preprocessing is assumed" in note
        for note in classifier.provenance.notes
    )
    assert (
        load(f"torchvision:{SMALL}", weights=str(tmp_path / "w.pth")).labels[0]
        == "class 0"
    )


def test_a_local_file_of_a_thousand_classes_is_assumed_to_be_imagenets(
    tmp_path: Path,
) -> None:
    torch.save(network(SMALL).state_dict(), tmp_path / "w.pth")
    classifier = load(f"torchvision:{SMALL}", weights=tmp_path / "w.pth")
    assert classifier.labels[:2] == ("tench", "goldfish")
    assert any(
        "labels are assumed to be ImageNet's" in note
        for note in classifier.provenance.notes
    )


def test_a_file_with_auxiliary_heads_fits_the_network_without_them(
    tmp_path: Path,
) -> None:
    trained = network(
        "googlenet",
        5,
        aux_logits=True,
        init_weights=False,
        transform_input=True,
    )
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    assert agree(
        load("torchvision:googlenet", weights=tmp_path / "w.pth"), trained
    )


def test_an_unknown_name_of_weights_lists_the_known(tmp_path: Path) -> None:
    message = refusal(
        f"torchvision:{SMALL}", WeightsError, weights="IMAGENET1K_V9"
    )
    assert (
        "(did you mean 'IMAGENET1K_V1'" in message
        and "use DEFAULT, IMAGENET1K_V1, or the path" in message
    )
    assert "there is no weights file" in refusal(
        f"torchvision:{SMALL}", WeightsError, weights="nowhere.pth"
    )
    other = torchvision.models.ResNet18_Weights.DEFAULT
    assert "does not belong to" in refusal(
        f"torchvision:{SMALL}", WeightsError, weights=other
    )


@pytest.fixture
def published(site: Site, tmp_path: Path) -> Iterator[nn.Module]:
    """A torchvision classifier of our own, registered, with weights on our server."""
    import hashlib

    from torchvision.models._api import (
        BUILTIN_MODELS,
        Weights,
        WeightsEnum,
        register_model,
    )
    from torchvision.transforms._presets import ImageClassification

    trained = network(SMALL, 4)
    torch.save(trained.state_dict(), tmp_path / "published.pth")
    body = (tmp_path / "published.pth").read_bytes()
    address = site.serve(
        f"tiny-{hashlib.sha256(body).hexdigest()[:8]}.pth", body
    )
    meta = {
        "categories": ["a", "b", "c", "d"],
        "min_size": (1, 1),
        "recipe": "https://recipe",
    }

    class Tiny_Weights(WeightsEnum):  # type: ignore[misc]
        IMAGENET1K_V1 = Weights(
            address,
            lambda: ImageClassification(crop_size=48, resize_size=56),
            meta,
        )
        DEFAULT = IMAGENET1K_V1

    def tiny(
        *, weights: Tiny_Weights | None = None, num_classes: int = 1000
    ) -> nn.Module:
        assert weights is None, (
            "torchvision's own loading reads pickles without weights_only"
        )
        return network(SMALL, num_classes)

    tiny.__annotations__["weights"] = Tiny_Weights | None
    tiny.__module__ = "torchvision.models.tiny"
    register_model()(tiny)
    yield trained
    del BUILTIN_MODELS["tiny"]


@pytest.mark.parametrize(
    "name", ["DEFAULT", "IMAGENET1K_V1", "Tiny_Weights.DEFAULT"]
)
def test_torchvisions_own_weights_come_with_transforms_and_categories(
    name: str, published: nn.Module, site: Site, cache: Path
) -> None:
    for _ in range(2):
        classifier = load("torchvision:tiny", weights=name)
    assert agree(classifier, published) and classifier.labels == (
        "a",
        "b",
        "c",
        "d",
    )
    assert classifier.preprocessing.input_size == (48, 48)
    assert (
        classifier.provenance.weights == "IMAGENET1K_V1"
        and "recipe: https://recipe" in classifier.provenance.notes
    )
    assert len(site.requests) == 1
    assert load(
        "torchvision:tiny", weights=name, labels=list("wxyz")
    ).labels == (
        "w",
        "x",
        "y",
        "z",
    )
    assert "is for 4 classes, not 5" in refusal(
        "torchvision:tiny", WeightsError, weights=name, num_classes=5
    )
    assert "3 labels were given for 4" in refusal(
        "torchvision:tiny", LabelsError, weights=name, labels=list("abc")
    )


def test_what_torch_hub_has_downloaded_already_is_used(
    published: nn.Module, site: Site, tmp_path: Path
) -> None:
    (name,) = site.files
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints" / name[1:]).write_bytes(
        site.files[name].body
    )
    assert (
        agree(load("torchvision:tiny", weights="DEFAULT"), published)
        and not site.requests
    )


def test_torchvisions_weights_are_checked_against_the_published_hash(
    published: nn.Module, site: Site
) -> None:
    (file,) = site.files.values()
    file.body = file.body[:-1] + b"!"
    assert "is not the file that was published" in refusal(
        "torchvision:tiny", DownloadError, weights="DEFAULT"
    )


# checkpoint


def test_a_checkpoint_is_loaded_into_its_architecture(tmp_path: Path) -> None:
    trained = network(SMALL, 3)
    file = tmp_path / "DEFAULT"
    torch.save(
        {
            "arch": SMALL,
            "state_dict": trained.half().state_dict(),
            "optimizer": {},
        },
        file,
    )
    classifier = load(
        f"checkpoint:{file}",
        arch=f"torchvision:{SMALL}",
        labels=["a", "b", "c"],
        input_size=64,
    )
    assert agree(classifier, trained.float()) and classifier.labels == (
        "a",
        "b",
        "c",
    )
    assert (
        classifier.provenance.spec == f"checkpoint:{file}"
        and classifier.provenance.weights == "DEFAULT"
    )
    assert (
        classifier.provenance.notes[0] == f"Architecture: torchvision:{SMALL}."
    )
    assert any(
        "converted from float16" in note for note in classifier.provenance.notes
    )
    assert classifier.preprocessing.input_size == (64, 64)
    assert refusal(f"checkpoint:{file}").endswith(
        f"the file says '{SMALL}', so arch 'torchvision:{SMALL}'"
    )
    assert "'miniplaces' takes no weights" in refusal(
        f"checkpoint:{file}", arch="miniplaces"
    )
    assert "did you mean 'torchvision:resnet18'?" in refusal(
        f"checkpoint:{file}", arch="resnet18"
    )
    assert "does not fit ResNet" in refusal(
        f"checkpoint:{file}", WeightsError, arch="torchvision:resnet18"
    )
    assert "no weights file" in refusal(
        "checkpoint:nowhere.pth", WeightsError, arch="torchvision:resnet18"
    )


# python


def module_file(folder: Path, code: str, name: str = "net.py") -> Path:
    file = folder / name
    file.write_text("import torch\nfrom torch import nn\n" + code)
    return file


NET = """
class Net(nn.Module):
    def __init__(self, num_classes=4, width=8):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width, num_classes)
    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))
"""


def test_a_class_a_function_and_a_module_are_loaded(tmp_path: Path) -> None:
    file = module_file(
        tmp_path,
        NET
        + "def build(): return Net(3)\nready = Net(2)\nclass Zoo:\n    make = Net\n",
    )
    path, random = list(sys.path), torch.get_rng_state()
    for name, classes in (
        ("Net", 4),
        ("build", 3),
        ("ready", 2),
        ("Zoo.make", 4),
    ):
        classifier = load(f"python:{file}:{name}")
        assert len(classifier.labels) == classes
        assert "random initialisation, seed 0" in classifier.provenance.weights
    assert sys.path == path and torch.equal(torch.get_rng_state(), random)
    assert len(load(f"python:{file}:Net", num_classes=9).labels) == 9


def test_weights_tell_your_network_how_many_classes_there_are(
    tmp_path: Path,
) -> None:
    file = module_file(tmp_path, NET)
    state = load(
        f"python:{file}:Net", num_classes=6, seed=5
    ).module.state_dict()
    torch.save(
        {"model": {f"module.{name}": t for name, t in state.items()}},
        tmp_path / "w.pt",
    )
    classifier = load(
        f"python:{file}:Net",
        weights=tmp_path / "w.pt",
        preprocessing=Preprocessing(resize=40, crop=32),
    )
    assert len(classifier.labels) == 6 and torch.equal(
        classifier.module.get_parameter("fc.weight"), state["fc.weight"]
    )
    assert classifier.preprocessing.input_size == (32, 32) and not any(
        "assumed" in n for n in classifier.provenance.notes
    )
    through = load(
        f"checkpoint:{tmp_path / 'w.pt'}",
        arch=f"python:{file}:Net",
        labels=list("abcdef"),
    )
    assert through.labels == tuple("abcdef") and any(
        "preprocessing is assumed" in n for n in through.provenance.notes
    )
    assert "5 labels were given for 6" in refusal(
        f"python:{file}:Net",
        LabelsError,
        weights=tmp_path / "w.pt",
        labels=list("abcde"),
    )


def test_your_network_may_import_its_neighbours_and_print(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module_file(tmp_path, NET, "neighbour_of_net.py")
    file = module_file(
        tmp_path,
        "from neighbour_of_net import Net\nprint('hello')\ndef build():\n    "
        "print('there')\n    return Net()\n",
    )
    path = list(sys.path)
    load(f"python:{file}:build")
    assert sys.path == path and capsys.readouterr() == ("", "hello\nthere\n")


def test_a_module_of_a_package_is_found_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package").mkdir()
    module_file(tmp_path / "my_package", NET, "nets.py")
    monkeypatch.chdir(tmp_path)
    assert len(load("python:my_package.nets:Net").labels) == 4
    assert "there is no module 'my_package.nest'" in refusal(
        "python:my_package.nest:Net"
    )


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (NET, "Nett", "has no 'Nett' (did you mean 'Net'?): it has Net"),
        ("Net = 3", "Net", "is a int: name a class or function"),
        (
            "def build(): return 3",
            "build",
            "build gave a int, not a torch.nn.Module",
        ),
        (
            "def build(depth): return None",
            "build",
            "build needs arguments (depth)",
        ),
        (
            "def build(): raise KeyError('x')",
            "build",
            "build failed (KeyError: 'x')",
        ),
        (
            "def build(num_classes): return None",
            "build",
            "give num_classes (or labels)",
        ),
        (
            "import a_module_that_is_nowhere",
            "Net",
            "needs the module 'a_module_that_is_nowhere', which is not installed",
        ),
        ("class Net(:\n", "Net", "cannot be imported (SyntaxError"),
        (
            "import sys; sys.exit('usage: net.py FILE')",
            "Net",
            "(SystemExit: usage: net.py FILE): put what it does",
        ),
    ],
)
def test_what_is_wrong_with_your_file_is_said(
    code: str, name: str, message: str, tmp_path: Path
) -> None:
    path = list(sys.path)
    assert message in refusal(f"python:{module_file(tmp_path, code)}:{name}")
    assert sys.path == path


def test_a_missing_python_file_and_a_refused_option_are_named(
    tmp_path: Path,
) -> None:
    assert "there is no Python file 'nowhere.py'" in refusal(
        "python:nowhere.py:Net"
    )
    file = module_file(tmp_path, NET + "def build(): return Net(3)\n")
    assert (
        "takes no num_classes: give build an argument of that name"
        in refusal(f"python:{file}:build", num_classes=3)
    )


# Places365


def serve_places(
    site: Site, name: str, folder: Path, **behaviour: Any
) -> nn.Module:
    trained = network(name, 365)
    save_as_python2(
        places365_checkpoint(trained.state_dict(), name),
        folder / "made.pth.tar",
    )
    site.serve(
        f"{name}_places365.pth.tar",
        (folder / "made.pth.tar").read_bytes(),
        **behaviour,
    )
    site.serve(
        "categories_places365.txt",
        "\n".join(PLACES).encode(),
        content_type="text/plain; charset=utf-8",
    )
    return trained


def test_places365_is_downloaded_once_resumed_checked_and_labelled(
    site: Site, tmp_path: Path, cache: Path
) -> None:
    trained = serve_places(site, "resnet18", tmp_path, cut=[10_000_000])
    classifier = load("places365:resnet18", base_url=site.url + "/")
    assert agree(classifier, trained)
    assert (
        classifier.labels[:2] == ("a_scene_0", "b_scene_1")
        and len(classifier.labels) == 365
    )
    assert classifier.preprocessing.describe().startswith(
        "squash to 256×256 (bilinear), centre crop 224×224"
    )
    assert [headers.get("Range") for _, headers in site.requests] == [
        None,
        "bytes=10000000-",
        None,
    ]
    notes = " ".join(classifier.provenance.notes)
    assert (
        "under CC BY" in notes
        and "'module.'" in notes
        and "no num_batches_tracked" in notes
    )
    recorded = (
        cache / "places365" / "resnet18_places365.pth.tar.sha256"
    ).read_text()
    assert recorded.startswith(classifier.provenance.sha256 or "none")

    site.files.clear()
    for name in ("squash-224", "resize-256-crop-224"):
        again = load(
            "places365:resnet18", base_url=site.url, preprocessing=name
        )
        assert (
            name in again.preprocessing.describe()
            and again.preprocessing.input_size == (224, 224)
        )
    own = Preprocessing(resize=(227, 227), crop=None)
    assert (
        load(
            "places365:resnet18", base_url=site.url, preprocessing=own
        ).preprocessing
        is own
    )
    message = refusal(
        "places365:resnet18", base_url=site.url, preprocessing="squash-256"
    )
    assert "(did you mean" in message and "'squash-256-crop-224'" in message

    (cache / "places365" / "resnet18_places365.pth.tar").write_bytes(
        b"\x80\x02changed"
    )
    assert "is not the file it was on first use" in refusal(
        "places365:resnet18", DownloadError, base_url=site.url
    )


@pytest.mark.slow
def test_densenets_old_spelling_is_read(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = serve_places(site, "densenet161", tmp_path)
    monkeypatch.setenv("UNITSCOPE_PLACES365_URL", site.url)
    classifier = load("places365:densenet161")
    assert agree(classifier, trained)
    assert any("old spelling" in note for note in classifier.provenance.notes)
    assert "arch 'torchvision:densenet161'" not in " ".join(
        classifier.provenance.notes
    )


def test_alexnets_prefix_in_the_middle_is_taken_off() -> None:
    with torch.device("meta"):
        state = network("alexnet", 365).state_dict()
    published = places365_checkpoint(state, "alexnet")["state_dict"]
    assert (
        "features.module.0.weight" in published
        and "classifier.1.weight" in published
    )
    assert set(match_names(state, published)[0]) == set(state)


def test_a_local_places365_file_needs_no_download(tmp_path: Path) -> None:
    trained = network("resnet18", 365)
    save_as_python2(
        places365_checkpoint(trained.state_dict(), "resnet18"),
        tmp_path / "mine.pth.tar",
    )
    (tmp_path / "labels.txt").write_text("\n".join(PLACES))
    classifier = load(
        "places365:resnet18",
        weights=tmp_path / "mine.pth.tar",
        labels=tmp_path / "labels.txt",
    )
    assert (
        agree(classifier, trained)
        and classifier.provenance.weights == "mine.pth.tar"
    )
    torch.save(network("resnet18", 10).state_dict(), tmp_path / "other.pth")
    message = refusal(
        "places365:resnet18",
        WeightsError,
        weights=tmp_path / "other.pth",
        labels=tmp_path / "labels.txt",
    )
    assert "is a resnet18 for 10 classes, and Places365 has 365" in message


def test_places365_without_a_connection_says_what_to_fetch_by_hand(
    cache: Path, tmp_path: Path
) -> None:
    message = refusal(
        "places365:resnet50", DownloadError, base_url="http://127.0.0.1:9"
    )
    assert message.startswith(
        "http://127.0.0.1:9/resnet50_places365.pth.tar cannot be fetched (Connection "
        "refused)"
    )
    assert message.endswith(
        f"as '{cache / 'places365' / 'resnet50_places365.pth.tar'}'"
    )
    assert "2 labels were given for 365" in refusal(
        "places365:resnet50", LabelsError, labels=["a", "b"]
    )


def test_a_login_page_instead_of_the_weights_is_refused(
    site: Site, cache: Path
) -> None:
    site.serve(
        "resnet50_places365.pth.tar",
        b"<html>Log in</html>",
        content_type="text/html",
    )
    assert "a web page instead of the file" in refusal(
        "places365:resnet50", DownloadError, base_url=site.url
    )
    assert not (cache / "places365" / "resnet50_places365.pth.tar").exists()


# The bundled model


@pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="the bundled weights are not in this checkout"
)
def test_the_bundled_model_is_the_default() -> None:
    default, named = load(), load("scenes")
    assert len(default.labels) == 100 and "abbey" in default.labels
    assert (
        default.provenance.spec == "miniplaces"
        and named.provenance.spec == "scenes"
    )
    assert (
        default.provenance.sha256 == named.provenance.sha256
        and not default.module.training
    )
    assert (
        load("miniplaces", labels=[str(i) for i in range(100)]).labels[99]
        == "99"
    )
    assert "2 labels were given for 100" in refusal(
        "miniplaces", LabelsError, labels=["a", "b"]
    )


def test_a_build_without_the_bundled_model_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "unitscope.sources.bundled.WEIGHTS", tmp_path / "absent.safetensors"
    )
    words = "the bundled model miniplaces is not in this build"
    assert words in refusal("miniplaces")


# What people really have


class OptionA(nn.Module):
    """The parameter-free shortcut of CIFAR's ResNets.

    It takes every other pixel, and adds channels of zeros on both sides.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(
            x[:, :, ::2, ::2], (0, 0, 0, 0, self.units // 4, self.units // 4)
        )


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, units, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        self.shortcut = nn.Identity() if stride == 1 else OptionA(units)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(CifarBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(
            CifarBlock(16, 32, 2), *(CifarBlock(32, 32, 1) for _ in range(2))
        )
        self.layer3 = nn.Sequential(
            CifarBlock(32, 64, 2), *(CifarBlock(64, 64, 1) for _ in range(2))
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        maps = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits


def held(name: str) -> Path:
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"{name} is not in {DATA}: set UNITSCOPE_DATA")
    return file


@pytest.mark.parametrize(
    "name",
    ["miniplaces-simplenet.pth", "miniplaces-simplenet.original.pth.tar"],
)
def test_the_documented_example_of_bringing_your_own_network(name: str) -> None:
    classifier = load(
        f"python:{EXAMPLE}:SimpleNet",
        weights=held(f"weights/{name}"),
        labels=held("miniplaces/categories.txt"),
        preprocessing=Preprocessing(resize=144, crop=128),
    )
    (label, *_), *_ = classifier.explain(held("photos/aquarium.jpg")).top(1)[0]
    assert label == "aquarium"


def test_the_example_is_loaded_without_weights_too() -> None:
    assert len(load(f"python:{EXAMPLE}:SimpleNet").labels) == 100


def test_a_half_precision_squeezenet_recognises_a_dog() -> None:
    classifier = load(
        "torchvision:squeezenet1_1",
        weights=held("weights/squeezenet1_1-imagenet-fp16.pth"),
    )
    best = [
        label
        for label, *_ in classifier.explain(held("photos/dog.jpg")).top(5)[0]
    ]
    assert len(classifier.labels) == 1000 and any(
        word in " ".join(best).lower()
        for word in (
            "terrier",
            "retriever",
            "hound",
            "dog",
            "spaniel",
            "shepherd",
            "beagle",
        )
    ), best


def test_a_cifar_resnet_saved_from_a_gpu_is_loaded() -> None:
    classifier = load(
        f"checkpoint:{held('weights/resnet20-12fca82f.th')}",
        arch=f"python:{__file__}:CifarResNet",
        preprocessing=Preprocessing(resize=32, crop=32),
    )
    assert len(classifier.labels) == 10 and "wrappers' segments" in " ".join(
        classifier.provenance.notes
    )
    assert json.dumps(classifier.provenance.notes)


def test_preprocessings_of_a_wrong_kind_are_refused(tmp_path: Path) -> None:
    file = module_file(tmp_path, NET)
    with pytest.raises(PreprocessingError):
        load(
            f"python:{file}:Net",
            preprocessing=Preprocessing(std=(0.0, 1.0, 1.0)),
        )
