"""The engine: what is compiled gives what the network gives, a change is seen, and
what cannot be compiled runs."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from narrowed import exact_head
from networks import ConvNextLike, Dense, Gap, ResNet20, Tokens, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.merging import merge
from unitscope.atlas.scanning import scan
from unitscope.cli.loading import load_model
from unitscope.cli.options import MODEL_OPTIONS
from unitscope.engine import compiled as compiled_module
from unitscope.engine.compiled import ALLOWED, Compiled
from unitscope.engine.frozen import Frozen
from unitscope.engine.passes import ROUNDED, ForwardPass
from unitscope.errors import (
    AtlasError,
    InputError,
    LayerError,
    ModelError,
    NonFiniteError,
    UnitscopeWarning,
)
from unitscope.explorer.documents import Documents
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

pytestmark = pytest.mark.skipif(
    not compiled_module.is_installed(),
    reason="the extra 'fast' is not installed",
)

SHAPE = (3, 32, 32)


def model_of(module: nn.Module) -> Classifier:
    return wrap(module.eval(), preprocessing=Preprocessing(resize=36, crop=32))


def compiled_of(model: Classifier, layers: tuple[str, ...] = ()) -> Compiled:
    compiled = model._forward.compiled(SHAPE, layers)
    assert compiled is not None
    return compiled


@pytest.fixture(scope="module")
def frozen() -> Classifier:
    """A frozen residual network, compiled once for the tests that leave it as it is."""
    return model_of(seeded(ResNet20)).freeze("layer1")


# --- the same numbers ---------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [Dense, ConvNextLike, Tokens], ids=lambda kind: kind.__name__
)
def test_an_explanation_of_a_frozen_network_is_that_of_the_plain_one(
    kind: type[nn.Module], x: Tensor
) -> None:
    model = model_of(seeded(kind))
    plain = model.explain(x)
    with model.frozen(required=True):
        found = model.explain(x)
        assert (
            model.engine() == "onnxruntime"
            and compiled_of(model).error <= ALLOWED
        )
    assert found.exact == plain.exact and found.layer == plain.layer
    for attribute in ("logits", "feature_map", "cams", "contributions"):
        one, other = getattr(found, attribute), getattr(plain, attribute)
        assert torch.allclose(
            one, other, rtol=0, atol=1e-5 * float(other.abs().max())
        ), attribute
    off = found.ablate([1]).logits
    assert torch.allclose(
        off,
        model.forward_without(x, [1]),
        rtol=0,
        atol=1e-5 * float(plain.logits.abs().max()),
    )


def bits(passed: ForwardPass) -> list[Tensor]:
    return passed.tensors()


def test_neither_company_nor_parts_nor_threads_change_a_bit(
    frozen: Classifier, x: Tensor
) -> None:
    compiled = compiled_of(frozen, ("layer1",))
    assert compiled.chunk > 3, "photos go through together"
    together = bits(compiled.run(x))
    alone = zip(
        *(bits(compiled.run(photo)) for photo in torch.split(x, 1)), strict=True
    )
    assert all(
        torch.equal(one, torch.cat(parts))
        for one, parts in zip(together, alone, strict=True)
    )
    torch.set_num_threads(2)
    try:
        with model_of(seeded(ResNet20)).frozen("layer1") as other:
            again = bits(compiled_of(other, ("layer1",)).run(x))
    finally:
        torch.set_num_threads(1)
    assert all(
        torch.equal(one, two) for one, two in zip(together, again, strict=True)
    )


def test_layers_named_beside_the_head_are_compiled_and_others_run_as_they_are(
    frozen: Classifier, x: Tensor
) -> None:
    plain = model_of(seeded(ResNet20))
    for layer in ("layer1", "layer2"):
        found, expected = (
            frozen.units(x, layer, [0, 3]).maps,
            plain.units(x, layer, [0, 3]).maps,
        )
        assert torch.allclose(
            found, expected, rtol=0, atol=1e-5 * float(expected.abs().max())
        )
        assert (frozen._forward.compiled(SHAPE, (layer,)) is None) == (
            layer == "layer2"
        )
    before = frozen.ablate(x, "layer1", [2])
    assert torch.allclose(
        before.after, plain.ablate(x, "layer1", [2]).after, atol=1e-5
    )
    local, expected_local = (
        one.explain(x, layer="layer1") for one in (frozen, plain)
    )
    assert torch.allclose(
        local.cams,
        expected_local.cams,
        rtol=0,
        atol=1e-5 * float(expected_local.cams.abs().max()),
    )


def test_a_layer_that_does_not_exist_is_refused_when_freezing(
    frozen: Classifier,
) -> None:
    with pytest.raises(LayerError, match="there is no layer 'layer9'"):
        model_of(seeded(Gap)).freeze("layer9")


def test_numbers_beyond_float32_are_seen_as_in_the_plain_network(
    frozen: Classifier, x: Tensor
) -> None:
    with pytest.raises(NonFiniteError):
        frozen.explain(x * 1e38)


# --- the promise --------------------------------------------------------------


def written(net: Gap) -> None:
    with torch.no_grad():
        net.fc.weight[0, 0] += 1


def replaced(net: Gap) -> None:
    net.fc.weight = nn.Parameter(net.fc.weight.detach().clone())


def another_module(net: Gap) -> None:
    net.features[0] = copy.deepcopy(net.features[0])


def more_modules(net: Gap) -> None:
    net.features.append(nn.Identity())


def in_training(net: Gap) -> None:
    net.features[1].training = True


def hooked(net: Gap) -> None:
    net.features.register_forward_hook(lambda *_: None)


def buffer(net: Gap) -> None:
    norm = net.features[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    norm.running_mean = norm.running_mean + 1


@pytest.mark.parametrize(
    "change",
    [
        written,
        replaced,
        another_module,
        more_modules,
        in_training,
        hooked,
        buffer,
    ],
    ids=lambda one: one.__name__,
)
def test_what_torch_counts_is_seen_as_a_change(
    change: Callable[[Gap], None], frozen: Classifier
) -> None:
    net, made = seeded(Gap).eval(), []
    state = Frozen(net)

    def compile_() -> Compiled:
        made.append(True)
        return compiled_of(frozen)

    for _ in range(2):
        state.compiled(net, SHAPE, compile_)
    assert len(made) == 1
    change(net)
    with pytest.warns(
        UnitscopeWarning, match=r"the frozen network has changed.*call thaw\(\)"
    ):
        state.compiled(net, SHAPE, compile_)
    state.compiled(net, SHAPE, compile_)
    assert len(made) == 2


def test_another_module_and_hooks_of_all_modules_are_changes(
    frozen: Classifier, x: Tensor
) -> None:
    model = model_of(seeded(Gap)).freeze()
    model.explain(x)
    model.module = seeded(Gap, 1).eval()
    with torch.no_grad(), pytest.warns(UnitscopeWarning, match="has changed"):
        assert torch.allclose(
            model.explain(x).logits, model.module(x), atol=1e-5
        )
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda *_: None
    )
    try:
        with pytest.warns(UnitscopeWarning) as caught:
            model.explain(x)
        assert [str(one.message)[:26] for one in caught] == [
            "the frozen network has cha",
            "the network runs as it is,",
        ]
    finally:
        handle.remove()


def test_threads_share_a_frozen_network(x: Tensor) -> None:
    model = model_of(seeded(Gap))
    expected = model.explain(x).logits
    model.freeze()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(model.explain, x) for _ in range(8)]
        others = [
            pool.submit(model.units, x, "features.0", [0]) for _ in range(4)
        ]
        found = [job.result() for job in jobs]
        for other in others:
            other.result()
    assert all(torch.allclose(one.logits, expected, atol=1e-5) for one in found)
    assert all(
        type(parameter) is nn.Parameter
        for parameter in model.module.parameters()
    )


def test_a_changed_network_is_explained_as_it_is_now(x: Tensor) -> None:
    net = seeded(Gap)
    model = model_of(net).freeze()
    before = model.explain(x).logits
    written(net)
    with pytest.warns(UnitscopeWarning, match="compiled anew"):
        found = model.explain(x)
    with torch.no_grad():
        assert torch.allclose(found.logits, net(x), atol=1e-5)
    assert not torch.allclose(found.logits, before, atol=1e-3)
    # What torch does not count is in the user's hand.
    net.fc.weight.data[0] += 1
    assert torch.equal(model.explain(x).logits, found.logits)
    model.thaw()
    with torch.no_grad():
        assert torch.allclose(model.explain(x).logits, net(x), atol=1e-5)


def test_a_library_users_network_runs_as_it_is_until_it_is_frozen(
    x: Tensor,
) -> None:
    net = seeded(Gap)
    model = model_of(net)
    for _ in range(12):
        model.explain(x)
    assert model.engine() == "torch"
    net.fc.weight.data.zero_()  # past everything that torch counts
    assert torch.equal(
        model.explain(x).logits, net.fc.bias.detach().expand(3, -1)
    )


def test_contexts_leave_the_model_as_it_was(frozen: Classifier) -> None:
    state = frozen._forward.frozen
    with frozen.thawed():
        assert frozen.engine() == "torch"
        with frozen.frozen("layer2"):
            assert (
                frozen._forward.frozen is not None
                and frozen._forward.frozen is not state
            )
    assert frozen._forward.frozen is state
    with frozen.frozen("layer1"):
        assert frozen._forward.frozen is state, (
            "the same promise is not compiled twice"
        )
    with contextlib.suppress(ZeroDivisionError), frozen.frozen():
        raise ZeroDivisionError
    assert frozen._forward.frozen is state


@pytest.mark.slow
def test_copies_compile_for_themselves(frozen: Classifier, x: Tensor) -> None:
    expected = frozen.explain(x).logits
    for other in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert (
            other._forward.frozen is not None
            and not other._forward.frozen._compiled
        )
        assert torch.equal(other.explain(x).logits, expected)


class Keeping(Gap):
    """Keeps its last input on itself, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        self.seen = self.seen + 1
        return super().forward(x)


def test_what_a_network_keeps_on_itself_holds_real_numbers_afterwards(
    x: Tensor,
) -> None:
    model = model_of(seeded(Keeping))
    with model.frozen(required=True):
        model.engine()
        assert (
            type(model.module.last) is Tensor
            and type(model.module.seen) is Tensor
        )
        assert torch.isfinite(model.module.last).all()


# --- what cannot be compiled --------------------------------------------------


class Mixing(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True))


class Branching(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return (
            super().forward(x) if float(x.sum()) < 1e9 else super().forward(-x)
        )


class Counting(Gap):
    """Gives a lone photo other numbers, and keeps what it saw in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.history.append(x.mean())
        return super().forward(x * (2.0 if x.shape[0] == 1 else 1.0))


@pytest.mark.filterwarnings(
    "ignore:the network's logits for a photo depend",
    "ignore:the network gives other logits each time",
)
def test_a_network_that_asks_how_many_photos_there_are_is_not_compiled(
    x: Tensor,
) -> None:
    net = seeded(Counting)
    model = model_of(net)
    with pytest.warns(UnitscopeWarning, match="not compiled"), model.frozen():
        with torch.no_grad():
            assert torch.allclose(
                model.explain(x).logits, model.module(x), atol=1e-5
            )
            assert torch.allclose(
                model.explain(x[:1]).logits, model.module(x[:1]), atol=1e-5
            )
    assert all(type(one) is Tensor for one in net.history)


class Drawing(Gap):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand_like(x))


def with_hook() -> nn.Module:
    net = seeded(Gap)
    net.features.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.filterwarnings(
    "ignore:the network's logits for a photo depend",
    "ignore:the network gives other logits each time",
)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: seeded(Mixing), "off by"),
        (lambda: seeded(Branching), "torch.export failed"),
        (lambda: seeded(Drawing), ""),
        (lambda: seeded(Gap).double(), "float64, not float32"),
        (with_hook, "forward hooks"),
    ],
    ids=["mixing", "branching", "drawing", "float64", "hooked"],
)
def test_what_cannot_be_compiled_runs_as_it_is_with_one_word(
    make: Callable[[], nn.Module], reason: str, x: Tensor
) -> None:
    model = model_of(make())
    expected = model.explain(x).logits
    model.freeze()
    with pytest.warns(
        UnitscopeWarning,
        match=f"the network runs as it is, not compiled: .*{reason}",
    ):
        assert torch.equal(model.explain(x).logits, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model.explain(x).logits, expected)
    assert model.engine() == "torch"
    with (
        pytest.raises(
            ModelError, match=f"cannot be compiled here, since .*{reason}"
        ),
        model.frozen(required=True),
    ):
        model.explain(x)


def test_without_the_extra_the_note_says_how_to_get_it(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        compiled_module, "_PACKAGES", ("onnxruntime", "no_such_package")
    )
    model = model_of(seeded(Gap)).freeze()
    with pytest.warns(
        UnitscopeWarning,
        match=r"ONNX Runtime is not installed: pip install 'unitscope\[fast\]'",
    ):
        model.explain(x)


@pytest.mark.slow
def test_it_is_compiled_inside_the_users_contexts_too(x: Tensor) -> None:
    with torch.inference_mode():
        model = model_of(seeded(Gap)).freeze()
        assert model.engine() == "onnxruntime"
        found = model.explain(x).logits
    model.thaw()
    assert torch.allclose(found, model.explain(x).logits, atol=1e-5)


def test_the_command_line_freezes_where_many_photos_are_to_come() -> None:
    source = dict.fromkeys(MODEL_OPTIONS)
    assert load_model(source, 255)._forward.frozen is None
    frozen = load_model(source, 256, "layer4")._forward.frozen
    assert frozen is not None and frozen.layers == ("layer4",)


def test_the_explorer_compiles_only_where_it_was_asked_to(
    tmp_path: Path,
) -> None:
    for freezes in (False, True):
        model = model_of(seeded(Gap))
        Documents(model, folder=tmp_path, freezes=freezes).freeze()
        assert model.engine() == ("onnxruntime" if freezes else "torch")


# --- bfloat16 -----------------------------------------------------------------


def test_bfloat16_says_how_far_it_is_rounded(x: Tensor) -> None:
    model = model_of(seeded(ResNet20))
    plain, found = model.explain(x), model.explain(x, precision="bfloat16")
    assert 0 < found.rounded <= ROUNDED
    off = (found.logits - plain.logits).abs().max() / plain.logits.abs().max()
    assert float(off) <= found.rounded + 1e-6
    assert torch.allclose(
        found.cams.mean((2, 3)) + exact_head(found.head).bias,
        found.logits,
        atol=1e-4,
    )
    assert (
        model.explain(x[:1], precision="bfloat16").rounded == found.rounded
    ), "measured on the first photos"


def test_bfloat16_is_measured_against_a_frozen_network_that_gives_out_layers(
    x: Tensor,
) -> None:
    model = model_of(seeded(Dense))
    rounded = model.explain(x, precision="bfloat16").rounded
    frozen = model_of(seeded(Dense)).freeze(model.layers()[1].name)
    assert frozen.explain(x, precision="bfloat16").rounded == pytest.approx(
        rounded, rel=1e-2
    )


def test_bfloat16_that_cannot_be_had_is_warned_of(x: Tensor) -> None:
    model = model_of(seeded(Gap).double())
    with pytest.warns(
        UnitscopeWarning, match=r"bfloat16 was asked for.*float32 weights"
    ):
        found = model.explain(x, precision="bfloat16")
    assert found.rounded == 0


# --- scans --------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(14):
        small = (
            np.random.default_rng(number)
            .integers(0, 256, (6, 6, 3))
            .astype(np.uint8)
        )
        path = root / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(small).resize((40, 36), Image.Resampling.BICUBIC).save(
            path
        )
    return root


OPTIONS: dict[str, Any] = {
    "layers": ["layer1"],
    "batch_size": 4,
    "shard_size": 5,
    "top": 3,
    "sample": 4,
}


def files_of(atlas: Atlas) -> dict[str, str]:
    return {
        str(path.relative_to(atlas.path)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(atlas.path.rglob("*"))
        if path.is_file() and path.name not in ("runs.jsonl", "lock")
    }


def test_a_scan_is_compiled_names_its_engine_and_leaves_the_model(
    photos: Path, tmp_path: Path
) -> None:
    model = model_of(seeded(Gap))
    options = {**OPTIONS, "layers": ["features.2"]}
    whole = scan(model, photos, tmp_path / "whole", **options)
    assert (
        whole.manifest["engine"]["name"]
        == whole.manifest["identity"]["engine"]
        == "onnxruntime"
    )
    assert model._forward.frozen is None
    # Of the same photos torch finds the same, but for the last digits.
    plain = scan(model, photos, tmp_path / "plain", engine="torch", **options)
    assert plain.manifest["engine"]["name"] == "torch"
    for name in ("units", "images"):
        one, other = (atlas.table(name).to_pydict() for atlas in (whole, plain))
        for column in one:
            if isinstance(one[column][0], float):
                assert np.allclose(
                    one[column],
                    other[column],
                    rtol=1e-3,
                    atol=1e-4,
                    equal_nan=True,
                ), column


@pytest.mark.slow
def test_a_compiled_scan_is_the_same_however_it_is_done(
    photos: Path, tmp_path: Path
) -> None:
    model = model_of(seeded(ResNet20))
    whole = scan(model, photos, tmp_path / "whole", **OPTIONS)
    shared = scan(model, photos, tmp_path / "shared", workers=2, **OPTIONS)
    assert files_of(shared) == files_of(whole)
    parts = [
        scan(
            model, photos, tmp_path / f"part{which}", part=(which, 2), **OPTIONS
        )
        for which in (1, 2)
    ]
    assert files_of(
        merge([part.path for part in parts], tmp_path / "merged")
    ) == files_of(whole)


def test_a_scan_goes_on_with_the_engine_that_it_began_with(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(seeded(Gap))
    options = {**OPTIONS, "layers": None}
    scan(
        model,
        photos,
        tmp_path / "plain",
        part=(1, 2),
        engine="torch",
        **options,
    )
    assert (
        scan(model, photos, tmp_path / "plain").manifest["engine"]["name"]
        == "torch"
    )
    scan(model, photos, tmp_path / "compiled", part=(1, 2), **options)
    with pytest.raises(
        AtlasError,
        match=r"holds a scan of another engine \(onnxruntime, not torch\)",
    ):
        scan(model, photos, tmp_path / "compiled", engine="torch")
    with pytest.raises(InputError, match="there is no engine 'openvino'"):
        scan(model, photos, tmp_path / "compiled", engine="openvino")
    monkeypatch.setattr(compiled_module, "_PACKAGES", ("no_such_package",))
    with pytest.raises(
        ModelError,
        match=r"cannot be compiled here.*pip install 'unitscope\[fast\]'",
    ):
        scan(model, photos, tmp_path / "compiled")
    with pytest.warns(
        UnitscopeWarning, match="not compiled: ONNX Runtime is not installed"
    ):
        assert (
            scan(model, photos, tmp_path / "new", **options).manifest["engine"][
                "name"
            ]
            == "torch"
        )


def test_an_atlas_of_before_there_were_engines_is_torchs(
    photos: Path, tmp_path: Path
) -> None:
    model = model_of(seeded(Gap))
    atlas = scan(
        model,
        photos,
        tmp_path / "old",
        part=(1, 2),
        engine="torch",
        **{**OPTIONS, "layers": None},
    )
    manifest = json.loads((atlas.path / "atlas.json").read_text())
    for newer in ("engine", "kind of scores"):
        del manifest["identity"][newer]
    (atlas.path / "atlas.json").write_text(json.dumps(manifest))
    assert scan(model, photos, atlas.path).complete


@pytest.mark.parametrize(("labels", "classes"), [(None, 5), (["no", "yes"], 1)])
def test_a_last_sigmoid_is_looked_through_when_compiled(
    labels: list[str] | None, classes: int
) -> None:
    net = nn.Sequential(seeded(lambda: Gap(classes=classes)), nn.Sigmoid())
    small = Preprocessing(resize=36, crop=32)
    model = wrap(net.eval(), labels, small)
    x = torch.randn(3, *SHAPE)
    plain = model.explain(x)
    with model.frozen(required=True):
        compiled = model.explain(x)
        assert model.engine() == "onnxruntime"
    assert compiled.scores == "sigmoid" and compiled.exact
    torch.testing.assert_close(compiled.logits, plain.logits)
    rounded = model.explain(x, precision="bfloat16")
    assert rounded.logits.shape == plain.logits.shape
