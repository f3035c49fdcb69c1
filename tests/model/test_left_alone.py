"""The user's network, tensors and random state are as before: after success, after an
error, after Ctrl-C."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from networks import (
    Dense,
    Failing,
    Gap,
    Mlp,
    Module,
    OneRelu,
    Runs,
    Tokens,
    seeded,
)
from unitscope.accounts.account import Account
from unitscope.errors import ModelError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.kernels import filters
from unitscope.model import Classifier, wrap

PREPROCESSING = Preprocessing(resize=32, crop=32)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def well_used(net: Module) -> Module:
    """A network in the middle of a person's work: modes mixed, parameters frozen,
    gradients waiting, hooks set."""
    for index, module in enumerate(net.modules()):
        module.training = index % 3 != 1
    for index, parameter in enumerate(net.parameters()):
        parameter.requires_grad = index % 4 != 2
        parameter.grad = (
            torch.full_like(parameter, index) if index % 2 else None
        )
    for module in net.modules():
        module.register_forward_hook(lambda _module, _inputs, output: None)
        module.register_forward_pre_hook(lambda _module, _inputs: None)
    return net


def state_of(net: nn.Module) -> list[Any]:
    """Everything about a network that a person could notice."""
    state: list[Any] = []
    for name, module in net.named_modules():
        hooks = [value for key, value in vars(module).items() if "hooks" in key]
        state.append(
            (
                name,
                id(module),
                type(module),
                module.training,
                [len(hook) for hook in hooks],
                sorted(vars(module)),
            )
        )
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        gradient = (
            None
            if tensor.grad is None
            else (id(tensor.grad), tensor.grad.tolist())
        )
        about = (
            tensor.requires_grad,
            tensor.dtype,
            tensor.device,
            tensor.is_contiguous(),
            tensor._version,
            tensor.grad_fn,
        )
        state.append(
            (
                name,
                id(tensor),
                tensor.data_ptr(),
                about,
                gradient,
                tensor.tolist(),
            )
        )
    return state


def random_state() -> list[Any]:
    numpy: Any = np.random.get_state()
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy[0],
        numpy[1].tolist(),
        numpy[2:],
    ]


def settings() -> list[Any]:
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.overrides._get_current_function_mode_stack(),  # type: ignore[no-untyped-call]
        torch.nn.modules.module._global_forward_hooks,
    ]


def local_answer(model: Classifier) -> object:
    explanation = model.explain(X, method="hirescam")
    return (
        explanation.cams_of([0, 1]),
        explanation.ablate([1]).cams_of(0),
        explanation.ablate_each(units=[0, 1]),
    )


VERBS: dict[str, Callable[[Classifier], object]] = {
    "head": lambda model: model.head_or_refusal(),
    "layers": lambda model: (model.layers(), model.stages(), model.labels),
    "explain": lambda model: model.explain(X),
    "local answer": local_answer,
    "units": lambda model: model.units(X, model.layers()[0].name, [1]),
    "ablate": lambda model: model.ablate(X, model.layers()[0].name, [0, 1]),
    "ablate the last map": lambda model: model.ablate(X, None, [0, 1]),
    "forward without": lambda model: model.forward_without(X, [0]),
    "filters": lambda model: filters(model, 0),
    "account": lambda model: Account.of(model, model.explain(X)),
    "screen": lambda model: model.screen(X, verify=2),
    "full gradient": lambda model: model.fullgrad(X, [0, 1]),
    "inputs of a unit": lambda model: model.inputs_of(
        X[:1], model.layers()[0].name, 1
    ),
}


@pytest.mark.usefixtures(
    "unchecked"
)  # the type checker itself draws random numbers
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("make", [Gap, Dense, OneRelu, Mlp, Tokens, Runs])
def test_success_leaves_everything_as_it_was(
    verb: str, make: type[nn.Module]
) -> None:
    net = well_used(seeded(make))
    before, chances, around = state_of(net), random_state(), settings()
    x = X.clone()
    model = wrap(net, preprocessing=PREPROCESSING)
    VERBS[verb](model)
    assert state_of(net) == before
    assert random_state() == chances
    assert settings() == around
    assert torch.equal(X, x) and X.grad is None and not X.requires_grad


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no"),
        ZeroDivisionError(),
        KeyError("dog"),
        KeyboardInterrupt(),
        SystemExit(),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.usefixtures("unchecked")
def test_an_error_halfway_leaves_everything_as_it_was(
    verb: str, error: BaseException, late: bool
) -> None:
    net = well_used(seeded(Failing))
    model = wrap(net, preprocessing=PREPROCESSING)
    if late:
        assert model.head.error < 1e-6
        explanation = model.explain(X)
    net.error = error
    before, chances, around = state_of(net), random_state(), settings()
    expected = (
        KeyboardInterrupt
        if isinstance(error, KeyboardInterrupt)
        else ModelError
    )
    if verb == "filters" or (
        late and verb in ("head", "layers")
    ):  # these need no forward pass (any more)
        VERBS[verb](model)
    else:
        with pytest.raises(expected):
            Account.of(
                model, explanation
            ) if late and verb == "account" else VERBS[verb](model)
    assert state_of(net) == before
    assert random_state() == chances
    assert settings() == around


def test_a_forward_pass_that_fails_is_told_in_one_line() -> None:
    net = seeded(Failing)
    net.error = KeyError("dog")
    with pytest.raises(
        ModelError, match=r"the network failed on an input of 3×32×32 .*dog"
    ) as failure:
        wrap(net, preprocessing=PREPROCESSING).explain(X)
    assert isinstance(failure.value.__cause__, KeyError) and "\n" not in str(
        failure.value
    )


def test_statistics_of_batch_normalisation_are_not_updated_in_training_mode() -> (
    None
):
    net = seeded(Gap).train()
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
    wrap(net, preprocessing=PREPROCESSING).explain(X)
    assert all(
        torch.equal(buffer, statistics[name])
        for name, buffer in net.named_buffers()
    )
    assert all(module.training for module in net.modules())


def test_spectral_norm_is_not_iterated_by_looking_at_filters() -> None:
    net = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    ).train()
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    shown = filters(net, "0")
    assert all(
        torch.equal(buffer, buffers[name])
        for name, buffer in net.named_buffers()
    )
    net.eval()
    weight = net[0].weight
    assert isinstance(weight, Tensor)
    np.testing.assert_allclose(shown.weights, weight.detach().numpy())


@pytest.mark.filterwarnings("ignore:the input requires gradients")
def test_a_users_gradients_still_flow_afterwards() -> None:
    net = seeded(Gap)
    model = wrap(net, preprocessing=PREPROCESSING)
    x = X.clone().requires_grad_()
    explanation = model.explain(x)
    assert (
        not explanation.logits.requires_grad
        and not explanation.feature_map.requires_grad
    )
    net(x).sum().backward()
    assert x.grad is not None and all(
        parameter.grad is not None for parameter in net.parameters()
    )


def test_autocasting_around_it_rounds_nothing() -> None:
    net = seeded(Gap)
    expected = wrap(net, preprocessing=PREPROCESSING).explain(X)
    with torch.autocast("cpu", torch.bfloat16):
        found = wrap(net, preprocessing=PREPROCESSING).explain(X)
        assert net(X).dtype == torch.bfloat16
        for attribute in ("logits", "cams", "contributions"):
            assert torch.equal(
                getattr(found, attribute), getattr(expected, attribute)
            )
        assert torch.equal(
            found.ablate([1]).logits, expected.ablate([1]).logits
        )
        assert torch.equal(found.ablate_each(), expected.ablate_each())


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, torch.enable_grad]
)
def test_it_works_inside_the_users_contexts(context: Callable[[], Any]) -> None:
    net = seeded(Gap)
    with context():
        explanation = wrap(net, preprocessing=PREPROCESSING).explain(X)
        assert not explanation.logits.requires_grad
    assert explanation.ablate(0).logits.shape == (2, 5)


def test_a_forward_pass_that_reads_the_mode_sees_evaluation_everywhere() -> (
    None
):
    modes: list[bool] = []

    class Watching(Gap):
        def forward(self, x: Tensor) -> Tensor:
            modes.extend(module.training for module in self.modules())
            return super().forward(x)

    class Stubborn(Watching):
        def train(
            self, mode: bool = True
        ) -> NoReturn:  # as networks that never unfreeze their statistics
            raise AssertionError("the user's train() is not ours to call")

    wrap(seeded(Stubborn), preprocessing=PREPROCESSING).explain(X)
    assert modes and not any(modes)


def test_the_users_photo_is_left_alone(tmp_path: Path) -> None:
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    )
    before = image.tobytes()
    wrap(seeded(Gap), preprocessing=PREPROCESSING).explain(image)
    assert image.tobytes() == before and image.size == (50, 40)


def test_memory_does_not_grow_in_loops() -> None:
    import gc

    model = wrap(seeded(Gap), preprocessing=PREPROCESSING)
    model.explain(X).ablate([1]).ablate_each()

    def living() -> int:
        gc.collect()
        return sum(
            type(thing) in (Tensor, nn.Parameter) for thing in gc.get_objects()
        )

    before = living()
    for _ in range(10):
        model.explain(X).ablate([1]).ablate_each()
        model.ablate(X, "features.0", [1])
        with pytest.raises(ModelError):
            model.explain(X[:, :1])
    assert living() <= before + 3  # what was learnt of the second shape
