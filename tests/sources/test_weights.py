"""The files people really have: written here as their tools write them, and read back."""

import argparse
import gzip
import io
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from legacy_checkpoint import save_as_python2
from unitscope.errors import NonFiniteError, UnitscopeWarning, WeightsError
from unitscope.sources.weights import (
    Weights,
    fit_weights,
    infer_class_count,
    match_names,
    read_weights,
)

DATA = Path(os.environ.get("UNITSCOPE_DATA", "../shared/data")) / "weights"


class Small(nn.Module):
    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.block = nn.Sequential(
            nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.block(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Small()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.backbone(x)
        return logits


@pytest.fixture
def trained() -> Small:
    torch.manual_seed(1)
    network = Small()
    network.bn1.running_mean = torch.randn(4)
    network.bn1.running_var = torch.rand(4) + 0.5
    return network.eval()


def saved(content: Any, folder: Path, **options: Any) -> Path:
    file = folder / "weights.pth"
    torch.save(content, file, **options)
    return file


def fitted(
    file: Path, network: nn.Module | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    network = Small() if network is None else network
    weights = read_weights(file)
    return network.eval(), (*weights.notes, *fit_weights(network, weights))


def agree(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> bool:
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    with torch.no_grad():
        return torch.allclose(one(x), other(x), rtol=0, atol=tolerance)


def refusal(file: Path, kind: type[Exception] = WeightsError) -> str:
    with pytest.raises(kind) as caught:
        fit_weights(Small(), read_weights(file))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


NESTINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "ordered": lambda state: OrderedDict(state),
    "state_dict": lambda state: {
        "epoch": 3,
        "state_dict": state,
        "optimizer": {"state": {0: torch.ones(2)}},
    },
    "model": lambda state: {
        "model": state,
        "optimizer_state_dict": {"param_groups": []},
        "loss": torch.tensor(0.3),
    },
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "best_acc1": torch.tensor(71.0),
    },
    "net": lambda state: {"net": state, "acc": 91.2},
    "nested twice": lambda state: {
        "checkpoint": {"model": {"state_dict": state}}
    },
    "own name": lambda state: {
        "my_network": state,
        "optimizer": {"momentum": {"fc.weight": torch.ones(1)}},
    },
    "parameters": lambda state: {
        name: nn.Parameter(t, t.is_floating_point())
        for name, t in state.items()
    },
    "module.": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled and parallel": lambda state: prefixed(state, "_orig_mod.module."),
    "lightning": lambda state: {
        "state_dict": {
            **prefixed(state, "model."),
            "loss.weight": torch.ones(5),
        }
    },
    "backbone": lambda state: prefixed(state, "module.net.backbone."),
    "profiled": lambda state: {
        **state,
        "total_ops": torch.zeros(1),
        "conv1.total_params": torch.zeros(1),
    },
    "no counts": lambda state: {
        name: t
        for name, t in state.items()
        if not name.endswith("num_batches_tracked")
    },
    "numpy beside": lambda state: {
        "state_dict": state,
        "best": np.float64(3.5),
        "curve": np.arange(3.0),
    },
    "arguments beside": lambda state: {
        "model": state,
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
    },
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_however_they_are_nested(
    nesting: str, zipped: bool, trained: Small, tmp_path: Path
) -> None:
    content = NESTINGS[nesting](trained.state_dict())
    file = saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
    assert agree(fitted(file)[0], trained)


def test_a_plain_file_is_fitted_without_a_note_and_a_repair_with_one(
    trained: Small, tmp_path: Path
) -> None:
    assert fitted(saved(trained.state_dict(), tmp_path))[1] == ()
    file = saved(
        {"state_dict": prefixed(trained.state_dict(), "model.")}, tmp_path
    )
    assert fitted(file)[1] == ("prefix 'model.' taken off the names",)


def test_safetensors_are_read_with_their_metadata(
    trained: Small, tmp_path: Path
) -> None:
    file = tmp_path / "weights.bin"
    save_file(
        prefixed(trained.state_dict(), "module."), file, {"labels": '["a"]'}
    )
    assert agree(fitted(file)[0], trained)
    assert read_weights(file).metadata == {"labels": '["a"]'}


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64]
)
def test_other_precisions_become_float32_with_a_note(
    dtype: torch.dtype, trained: Small, tmp_path: Path
) -> None:
    state = {
        name: t.to(dtype) if t.is_floating_point() else t
        for name, t in trained.state_dict().items()
    }
    network, notes = fitted(saved(state, tmp_path))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert agree(network, trained, 0.05)
    assert notes == (
        f"13 tensors of weights.pth converted from {str(dtype)[6:]} to float32",
    )


def test_the_sha256_is_the_files(trained: Small, tmp_path: Path) -> None:
    import hashlib

    file = saved(trained.state_dict(), tmp_path)
    assert (
        read_weights(file).sha256
        == hashlib.sha256(file.read_bytes()).hexdigest()
    )


def test_a_python_2_checkpoint_from_a_gpu_is_read(
    trained: Small, tmp_path: Path
) -> None:
    state = OrderedDict(
        (f"module.{name}", t)
        for name, t in trained.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )
    file = tmp_path / "old.pth.tar"
    save_as_python2(
        {
            "epoch": 90,
            "arch": "small",
            "author": "José",
            "state_dict": state,
            "best_prec1": 54.6,
        },
        file,
    )
    with pytest.raises(UnicodeDecodeError):
        torch.load(file, weights_only=True, map_location="cpu")
    network, notes = fitted(file)
    assert agree(network, trained)
    assert read_weights(file).architecture == "small"
    assert [note.split(" (")[0] for note in notes] == [
        "wrappers' segments",
        "old.pth.tar has no num_batches_tracked",
    ]


PLAIN = Small().state_dict()
AVERAGES: dict[str, Callable[..., Any]] = {
    "timm": lambda raw, mean: {"state_dict": raw, "state_dict_ema": mean},
    "nested": lambda raw, mean: {"model": raw, "model_ema": {"module": mean}},
    "AveragedModel": lambda raw, mean: {
        "model": raw,
        "swa": {**prefixed(mean, "module."), "n_averaged": torch.tensor(4)},
    },
    "lightning": lambda raw, mean: {
        "state_dict": {**prefixed(mean, "ema."), **prefixed(raw, "model.")}
    },
    "ema-pytorch": lambda raw, mean: {
        **prefixed(mean, "ema_model."),
        **prefixed(raw, "online_model."),
        "step": torch.tensor([3]),
    },
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_of_raw_and_averaged_weights_both_are_told(
    kind: str, trained: Small, tmp_path: Path
) -> None:
    raw = trained.state_dict()
    file = saved(AVERAGES[kind](raw, PLAIN), tmp_path)
    with pytest.warns(UnitscopeWarning) as warned:
        network = fitted(file)[0]
    assert agree(network, trained)
    (message,) = [str(warning.message) for warning in warned]
    assert re.search(
        r"holds two sets of weights.* were used, not .*(ema|swa).* \(averages\); to use "
        r"the others, save them alone",
        message,
    )
    # Two that are the same are one.
    assert agree(fitted(saved(AVERAGES[kind](raw, raw), tmp_path))[0], trained)


def test_averaged_weights_alone_are_used_with_a_note(
    trained: Small, tmp_path: Path
) -> None:
    network, notes = fitted(
        saved({"ema": {"module": trained.state_dict()}, "epoch": 3}, tmp_path)
    )
    assert (
        agree(network, trained)
        and "the averaged weights 'ema.module' were used" in notes[0]
    )


def test_another_set_beside_lightnings_average_is_told(
    trained: Small, tmp_path: Path
) -> None:
    content = {
        "state_dict": prefixed(trained.state_dict(), "net."),
        "current_model_state": prefixed(PLAIN, "net."),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    }
    with pytest.warns(UnitscopeWarning, match="not 'current_model_state'"):
        assert agree(fitted(saved(content, tmp_path))[0], trained)


def test_what_training_adds_is_left_aside_and_named(
    trained: Small, tmp_path: Path
) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    averaged.update_parameters(trained)
    network, notes = fitted(saved(averaged.state_dict(), tmp_path))
    assert agree(network, trained)
    assert "1 tensor that Small does not have (n_averaged) left aside" in notes
    state = {**trained.state_dict(), "criterion.weight": torch.ones(5)}
    assert (
        "(criterion.weight) left aside" in fitted(saved(state, tmp_path))[1][0]
    )


def test_tensors_that_may_matter_are_left_aside_with_a_warning(
    trained: Small, tmp_path: Path
) -> None:
    state = {**trained.state_dict(), "pre_logits.weight": torch.ones(6, 6)}
    with pytest.warns(
        UnitscopeWarning, match=r"\(pre_logits.weight\), and they were"
    ):
        assert agree(fitted(saved(state, tmp_path))[0], trained)
    # A part of a layer that the network has would change what that computes.
    inside = {**trained.state_dict(), "block.3.weight": torch.ones(6)}
    assert "1 unknown to the network (block.3.weight)" in refusal(
        saved(inside, tmp_path)
    )


def pruned(network: Small) -> None:
    for module in (network.fc, network.conv1):
        prune.l1_unstructured(module, "weight", 0.5)  # type: ignore[no-untyped-call]


def old_weight_norm(network: Small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is deprecated, its files are not.
        nn.utils.weight_norm(network.fc)
        nn.utils.weight_norm(network.conv1, dim=1)
        nn.utils.weight_norm(network.block[0], dim=None)  # type: ignore[arg-type]


def weight_norm(network: Small) -> None:
    parametrizations.weight_norm(network.fc, dim=1)
    parametrizations.weight_norm(network.conv1)
    parametrizations.weight_norm(network.block[0], dim=None)  # type: ignore[arg-type]


def spectral_norm(network: Small) -> None:
    parametrizations.spectral_norm(network.fc)
    parametrizations.spectral_norm(network.conv1, dim=1)


def old_spectral_norm(network: Small) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.spectral_norm(network.fc)
        nn.utils.spectral_norm(network.conv1)
    network.train()(torch.ones(2, 3, 8, 8))
    network.eval()


@pytest.mark.parametrize(
    "change",
    [pruned, old_weight_norm, weight_norm, spectral_norm, old_spectral_norm],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_in_parts_are_computed_as_torch_does(
    change: Callable[[Any], None], prefix: str, trained: Small, tmp_path: Path
) -> None:
    change(trained)
    file = saved(prefixed(trained.state_dict(), prefix), tmp_path)
    network, notes = fitted(file)
    assert agree(network, trained, 1e-6)
    assert "weights computed from their parts" in notes[0]
    assert infer_class_count(Small, read_weights(file)) == 5

    # A network that has the same parts keeps them.
    same = Small()
    change(same)
    file = saved(trained.state_dict(), tmp_path)
    assert fitted(file, same)[1] == () and agree(same.eval(), trained)


def test_parts_of_an_unknown_kind_are_refused_with_the_remedy(
    trained: Small, tmp_path: Path
) -> None:
    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs()

    nn.utils.parametrize.register_parametrization(
        trained.fc, "weight", Symmetric()
    )
    message = refusal(saved(trained.state_dict(), tmp_path))
    assert "parametrize.remove_parametrizations before you save" in message


def test_adapters_and_quantized_weights_are_refused_with_the_remedy(
    trained: Small, tmp_path: Path
) -> None:
    state = trained.state_dict()
    adapter = {**state, "fc.lora_A.default.weight": torch.ones(2, 6)}
    assert "PEFT's merge_and_unload" in refusal(saved(adapter, tmp_path))
    eight_bit = {**state, "fc.weight": state["fc.weight"].to(torch.int8)}
    message = refusal(saved(eight_bit, tmp_path))
    assert (
        "1 of whole numbers (int8); 14 of 15 tensors fit: they are" in message
    )
    imaginary = {**state, "fc.weight": state["fc.weight"].to(torch.complex64)}
    message = refusal(saved(imaginary, tmp_path))
    assert "1 of complex numbers (complex64)" in message
    assert message.endswith("if that is what the network has")


def test_a_prefix_is_added_where_the_network_has_one_more(
    trained: Small, tmp_path: Path
) -> None:
    network, notes = fitted(saved(trained.state_dict(), tmp_path), Wrapper())
    assert agree(network, trained) and notes == (
        "prefix 'backbone.' put before the names",
    )


def test_names_that_fit_are_left_alone() -> None:
    own = ["module.weight", "module.bias"]
    assert match_names(own, own) == ({name: name for name in own}, ())


def test_old_densenet_names_are_renewed() -> None:
    own = [
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock1.denselayer1.conv2.weight",
    ]
    old = [
        "module.features.denseblock1.denselayer1.norm.1.weight",
        "module.features.denseblock1.denselayer1.conv.2.weight",
    ]
    names, notes = match_names(own, old)
    assert names == dict(zip(own, old, strict=True)) and len(notes) == 2


def test_the_number_of_classes_is_read_off_the_weights_and_not_off_their_order(
    tmp_path: Path,
) -> None:
    state = dict(sorted(Small(7).state_dict().items(), reverse=True))
    state_before = torch.get_rng_state()
    weights = read_weights(saved(prefixed(state, "module."), tmp_path))
    assert infer_class_count(Small, weights) == 7
    assert torch.equal(torch.get_rng_state(), state_before)
    assert infer_class_count(lambda count: Small(), weights) is None


def test_weights_that_do_not_fit_say_which_and_how_many(tmp_path: Path) -> None:
    state = Small().state_dict()
    del state["fc.weight"], state["conv1.bias"]
    state["extra"] = torch.ones(1)
    state["block.0.weight"] = torch.ones(6, 9, 1, 1)
    message = refusal(saved({"arch": "big", "state_dict": state}, tmp_path))
    assert message == (
        "'weights.pth' does not fit Small: 2 missing from the file (conv1.bias, "
        "fc.weight), 1 unknown to the network "
        "(extra), 1 of another shape (block.0.weight is 6×9×1×1 in the file, 6×4×1×1 "
        "in the network); 12 of 15 tensors "
        "fit: name the architecture that these weights were trained with (the file "
        "says 'big')"
    )


def test_another_number_of_classes_is_recognised(tmp_path: Path) -> None:
    message = refusal(saved(Small(7).state_dict(), tmp_path))
    assert "fc.weight is 7×6 in the file, 5×6 in the network" in message
    assert message.endswith(
        "the file looks like one for 7 classes, so pass that as "
        "num_classes (command line: --labels with as many names)"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    value: float, trained: Small, tmp_path: Path
) -> None:
    state = trained.state_dict()
    state["fc.weight"] = state["fc.weight"].clone()
    state["fc.weight"][0, :2] = value
    message = refusal(saved(state, tmp_path), NonFiniteError)
    assert (
        "in 1 of 13 tensors (fc.weight: 2 of 30): training diverged" in message
    )


class Attack:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir])
def test_a_malicious_pickle_is_refused_and_not_run(
    function: Any, zipped: bool, trained: Small, tmp_path: Path
) -> None:
    mark = tmp_path / "run"
    argument = (
        str(mark)
        if function is os.mkdir
        else f"__import__('os').mkdir('{mark}')"
    )
    content = {
        "state_dict": trained.state_dict(),
        "extra": Attack(
            function, f"mkdir {mark}" if function is os.system else argument
        ),
    }
    message = refusal(
        saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
    )
    assert not mark.exists()
    assert (
        "is refused: it asks Python to run" in message
        and function.__name__ in message
        and "weights_only=True" in message
    )


def test_a_bare_malicious_pickle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pkl"
    file.write_bytes(
        pickle.dumps(Attack(os.mkdir, str(tmp_path / "run")), protocol=2)
    )
    assert (
        "is refused: it asks Python to run" in refusal(file)
        and not (tmp_path / "run").exists()
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_pickled_network_is_refused_with_the_remedy(
    zipped: bool, trained: Small, tmp_path: Path
) -> None:
    for content in (trained, {"model": trained}):
        message = refusal(
            saved(content, tmp_path, _use_new_zipfile_serialization=zipped)
        )
        assert (
            "test_weights.Small" in message
            and "save network.state_dict() instead" in message
        )


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "there is no weights file" in refusal(tmp_path / "nowhere.pth")
    saved({}, tmp_path)
    assert refusal(tmp_path).endswith(
        f"name the weights file in it, e.g. {tmp_path.name}/weights.pth"
    )


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as opened:
            opened.writestr("readme.txt", "nothing")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as opened:
            opened.addfile(tarfile.TarInfo("weights"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (gzip.compress(b"weights", mtime=0), "compressed with gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"some text", "is not a PyTorch or safetensors file"),
        (archive("tar"), "is a tar archive"),
        (archive("zip"), "is damaged or cut short"),
        (pickle.dumps({"weight": [1.0]}, protocol=2), "that torch.save did not write"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF", "is damaged or cut short"),
        (b"\x20\0\0\0\0\0\0\0{\"a\": 1}", "is not a whole safetensors file"),
    ],
)  # fmt: skip
def test_what_is_not_weights_is_recognised(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    assert message in refusal(file)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(
    form: str, trained: Small, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    if form == "safetensors":
        save_file(trained.state_dict(), file)
    else:
        saved(
            trained.state_dict(),
            tmp_path,
            _use_new_zipfile_serialization=form == "zip",
        )
    whole = file.read_bytes()
    for share in (0.1, 0.3, 0.5, 0.9, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        assert (
            "damaged or cut short" in (message := refusal(file))
            or "not a whole safetensors" in message
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds an empty dictionary and no weights"),
        ([torch.ones(2)], "holds a list and no weights"),
        (torch.ones(2), "holds a Tensor and no weights"),
        (
            {"epoch": 3, "optimizer": {"fc.weight": torch.ones(1)}},
            "holds 'epoch', 'optimizer' and no weights",
        ),
        (
            {"state": {0: torch.ones(1)}, "param_groups": []},
            "holds 'state', 'param_groups' and no weights",
        ),
    ],
)
def test_a_file_without_weights_says_what_it_holds(
    content: Any, message: str, tmp_path: Path
) -> None:
    assert message in refusal(saved(content, tmp_path))


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(
                name.replace("__", "/").replace("_dot_", "."), text
            )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "m.onnx",
            b"\x08\x0a\x12\x07pytorch",
            "an ONNX graph, which has no layers",
        ),
        ("saved_model.pb", b"\x08\x01\x12\xff", "a saved model of TensorFlow"),
        ("m.tflite", b"\x1c\0\0\0TFL3", "a Lite model of TensorFlow"),
        (
            "model.ckpt.index",
            b"\0\0\1",
            "is a file of TensorFlow: unitscope explains",
        ),
        (
            "model.ckpt.data-00000-of-00001",
            b"\x9c\1",
            "is a file of TensorFlow",
        ),
        (
            "index.json",
            b'{"weight_map": {}}',
            "is a JSON file, not weights: name the",
        ),
        (
            "m.keras",
            zipped(config_dot_json="{}", model_dot_weights_dot_h5=""),
            "is a Keras model of TensorFlow",
        ),
        ("w.npz", zipped(a_dot_npy=""), "is an archive of NumPy arrays"),
        (
            "m.pt2",
            zipped(m__archive_format="pt2", m__models__model_dot_json="{}"),
            "is a program that torch.export saved, which is code: where you trust it",
        ),
        (
            "m.pkl",
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x1esklearn.linear_model",
            "is a pickled model of sklearn, not a network's weights",
        ),
        (
            "w.pkl",
            pickle.dumps({"weight": np.ones(3)}, protocol=4),
            "is a pickle that torch.save did not write",
        ),
    ],
)
def test_files_of_other_libraries_are_told_apart(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_an_exported_program_is_told_by_its_real_archive(
    trained: Small, tmp_path: Path
) -> None:
    file = tmp_path / "m.pt2"
    program = torch.export.export(trained, (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, file)
    assert "torch.export.load(FILE).state_dict" in refusal(file)
    # As the remedy says.
    torch.save(torch.export.load(file).state_dict, tmp_path / "w.pth")
    assert agree(fitted(tmp_path / "w.pth")[0], trained)


def test_folders_and_checkpoints_of_others_are_told_apart(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(b"\0")
    assert "a checkpoint of TensorFlow" in refusal(tmp_path / "model.ckpt")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter, not a network: merge it" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_quantized_weights_are_refused(trained: Small, tmp_path: Path) -> None:
    from torch.ao.quantization import quantize_dynamic

    network = quantize_dynamic(trained, {nn.Linear})  # type: ignore[no-untyped-call]
    message = refusal(saved(network.state_dict(), tmp_path))
    assert "holds quantized weights (fc._packed_params" in message


def test_a_torchscript_archive_is_refused(
    trained: Small, tmp_path: Path
) -> None:
    file = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch.jit is on its way out, its files are not.
        traced = torch.jit.trace(trained, torch.zeros(1, 3, 8, 8))  # type: ignore[no-untyped-call]
        traced.save(str(file))
    assert "TorchScript" in refusal(file)


def test_the_files_of_others_are_read() -> None:
    expected = {
        "miniplaces-simplenet.pth": ("features.0.weight", 16, torch.float32),
        "miniplaces-simplenet.original.pth.tar": (
            "features.0.weight",
            16,
            torch.float32,
        ),
        "squeezenet1_1-imagenet-fp16.pth": (
            "classifier.1.weight",
            52,
            torch.float32,
        ),
        "resnet20-12fca82f.th": ("module.conv1.weight", None, torch.float32),
    }
    absent = [name for name in expected if not (DATA / name).is_file()]
    if absent:
        pytest.skip(f"{absent[0]} is not in {DATA}: set UNITSCOPE_DATA")
    for name, (first, count, dtype) in expected.items():
        weights = read_weights(DATA / name)
        assert (
            isinstance(weights, Weights) and weights.state[first].dtype == dtype
        )
        assert count in (None, len(weights.state))


def test_a_device_is_no_weights_file() -> None:
    with pytest.raises(WeightsError, match="'/dev/zero' is a device or a pipe"):
        read_weights("/dev/zero")
