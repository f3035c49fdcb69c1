"""transformers' networks that match photos with texts: CLIP, SigLIP and their kin.

The labels are the classes: texts become vectors once, and the text tower goes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.scores import Scores
from unitscope.errors import LabelsError, ModelError, one_line
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.labels import check_label_count
from unitscope.model import Classifier
from unitscope.sources.class_vectors import class_vectors, read_tokens
from unitscope.sources.prompts import (
    described,
    filled,
    read_templates,
    warn_of_articles,
)
from unitscope.sources.request import Request, seeded
from unitscope.sources.tokenizer import Tokenizer
from unitscope.sources.transformers_fitting import fit
from unitscope.sources.transformers_folder import (
    Origin,
    refuse_without_weights,
    weights_in,
)
from unitscope.sources.transformers_library import quiet, transformers_library
from unitscope.sources.weights import read_weights
from unitscope.sources.zero_shot import (
    ZeroShotClassifier,
    kept_children,
    strip,
)

# Photos and texts on which the classifier is compared with the network it comes from.
_TEXTS_COMPARED = 4
_SIDE = 224
# Relative to the largest logit; rounding gives about 1e-6.
_TOLERANCE = 1e-4


def reads_texts(config: Any) -> bool:
    """Whether a configuration is of a network that matches photos with texts.

    Some types have classifiers, too: then `architectures` says which it is.
    """
    library = transformers_library()
    matching = library.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING
    if type(config) not in matching:
        return False
    if config.architectures:
        name: str = matching[type(config)].__name__
        return bool(config.architectures[0] == name)
    return type(config) not in library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def load_by_texts(
    request: Request,
    config: Any,
    origin: Origin,
    preprocessing: AnyPreprocessing,
    assumptions: Sequence[str],
) -> Classifier:
    """Load such a network as a classifier of the texts that the labels are."""
    texts = _texts(config, origin, request)
    module, name, sha256, notes = _network(config, origin, request)
    scale, bias = _scale_and_bias(module, request)
    scores = _scores(texts.labels, bias, request)
    classifier = _classifier(
        module, texts, (scale, bias), _photo(config), request
    )
    notes += [
        *assumptions,
        f"Classes: {len(texts.labels)} labels as texts, by "
        f"{described(texts.templates)}; vectors made once by the text tower.",
    ]
    if request.scores is None:
        why = "has no bias" if bias is None else "has a bias"
        notes.append(f"Scores: {scores}, since the network's logit {why}.")
    provenance = request.provenance(name, sha256, notes)
    return Classifier(
        classifier, texts.labels, preprocessing, provenance, scores=scores
    )


class _Texts(NamedTuple):
    """What stands for the classes; `sha256` is of all the tokens."""

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    tokenizer: Tokenizer
    sha256: str


def _texts(config: Any, origin: Origin, request: Request) -> _Texts:
    labels = _labels(request)
    templates = read_templates(request.templates)
    warn_of_articles(templates, labels)
    assert origin.folder is not None
    tokenizer = Tokenizer(origin.folder, config)
    sha256 = read_tokens(tokenizer, labels, templates)
    return _Texts(labels, templates, tokenizer, sha256)


def _classifier(
    module: Any,
    texts: _Texts,
    constants: tuple[Tensor, Tensor | None],
    photo: Tensor,
    request: Request,
) -> ZeroShotClassifier:
    """The classifier that a network of two towers becomes, which loses its text tower.

    `constants` are scale and bias. Raises ModelError where its logits of a photo are not
    those of the network.
    """
    scale, bias = constants
    labels, templates, tokenizer, sha256 = texts
    few = labels[:_TEXTS_COMPARED]
    few_vectors = class_vectors(module, tokenizer, few, templates[:1], False)
    expected = _own_logits(
        module, photo, tokenizer.batch(filled(templates[0], few)), request
    )
    vectors = class_vectors(
        module, tokenizer, labels, templates, request.progress
    )
    kept = kept_children(module, photo)
    made_from = _digest(module, kept, sha256, scale, bias)
    strip(module, kept)

    def of(unit_vectors: Tensor) -> ZeroShotClassifier:
        biases = None if bias is None else bias.repeat(len(unit_vectors))
        return ZeroShotClassifier(
            module, unit_vectors * scale, biases, made_from
        ).eval()

    _prove(of(few_vectors), photo, expected, request)
    return of(vectors)


def _labels(request: Request) -> tuple[str, ...]:
    labels = request.own_labels()
    if labels is None:
        raise LabelsError(
            f"'{request.spec}' matches photos with texts, and has no classes of its own: "
            "give labels, the texts of the classes (labels=['cat', 'dog']; --labels FILE)"
        )
    if request.num_classes is not None:
        check_label_count(labels, request.num_classes, "leave num_classes out")
    return labels


def _scores(
    labels: Sequence[str], bias: Tensor | None, request: Request
) -> str:
    """The user's scores, or those that the network was trained with.

    SigLIP's loss is a sigmoid, for which it has a bias; CLIP's is a softmax.
    """
    if request.scores is not None:
        scores = Scores.read(request.scores)
    else:
        scores = Scores.SOFTMAX if bias is None else Scores.SIGMOID
    if scores is Scores.SOFTMAX and len(labels) == 1:
        raise LabelsError(
            f"'{request.spec}' chooses between texts, and one label, '{labels[0]}', "
            "leaves no choice: give a second one ('something else'), or scores 'none' "
            "(--scores) for the bare number"
        )
    return scores


def _network(
    config: Any, origin: Origin, request: Request
) -> tuple[Any, str, str | None, list[str]]:
    """The network with both towers; the name of its weights, their SHA-256, notes."""
    assert origin.folder is not None
    file = request.weights_file()
    weights = weights_in(origin.folder) if file is None else read_weights(file)
    if weights is None:
        notes = refuse_without_weights(origin, request)
        with seeded(request.seed) as seed:
            module = _build(config)
        return module, f"random initialisation, seed {seed}", None, notes
    with seeded(request.seed):
        module = _build(config)
        repairs = fit(module, weights)
    notes = [*origin.notes, *weights.notes, *repairs]
    return module, weights.name, weights.sha256 or None, notes


def _build(config: Any) -> nn.Module:
    """Build both towers for inference, in float32."""
    automatic = transformers_library().AutoModelForZeroShotImageClassification
    try:
        with quiet():
            module: nn.Module = automatic.from_config(
                copy.deepcopy(config), trust_remote_code=False
            )
    except Exception as error:  # Each network has its own way of refusing.
        raise ModelError(
            f"transformers cannot build a {config.model_type} network "
            f"({one_line(error)})"
        ) from None
    return module.to(torch.float32).eval().requires_grad_(False)


def _scale_and_bias(
    module: Any, request: Request
) -> tuple[Tensor, Tensor | None]:
    """What multiplies the cosine of photo and text, and what is added to it."""
    needed = ("logit_scale", "get_image_features", "get_text_features")
    if not all(hasattr(module, name) for name in needed):
        raise _other_kind(request)
    bias = getattr(module, "logit_bias", None)
    return (
        module.logit_scale.detach().exp(),
        None if bias is None else bias.detach().clone().reshape(1),
    )


def _other_kind(request: Request, reason: str = "") -> ModelError:
    because = f" ({reason})" if reason else ""
    return ModelError(
        f"'{request.spec}' does not match a photo with a text by the angle between "
        f"their vectors, as CLIP and SigLIP do{because}: name one of those, or wrap "
        "a module of your own that gives the logits"
    )


def _photo(config: Any) -> Float[Tensor, "1 channel row col"]:
    """An input of the network's own size, always the same."""
    vision = getattr(config, "vision_config", None)
    size = getattr(vision, "image_size", None) or _SIDE
    rows, cols = (size, size) if isinstance(size, int) else size
    return torch.linspace(-1, 1, 3 * rows * cols).view(1, 3, rows, cols)


def _own_logits(
    module: Any, photo: Tensor, texts: dict[str, Tensor], request: Request
) -> Float[Tensor, "1 class"]:
    """The network's own logits of a photo for a few texts, from both towers."""
    try:
        with torch.no_grad():
            result = module(pixel_values=photo, **texts)
        logits: Tensor = result.logits_per_image
    except Exception as error:
        raise _other_kind(request, one_line(error)) from None
    return logits


def _prove(
    classifier: ZeroShotClassifier,
    photo: Tensor,
    expected: Tensor,
    request: Request,
) -> None:
    """Raise ModelError unless the classifier gives the logits of the network itself."""
    with torch.no_grad():
        error = (classifier(photo) - expected).abs().max()
    if not bool(error <= _TOLERANCE * expected.abs().max()):
        raise _other_kind(request, f"logits are off by {float(error):.1g}")


def _digest(
    module: nn.Module,
    kept: frozenset[str],
    texts: str,
    scale: Tensor,
    bias: Tensor | None,
) -> str:
    """A SHA-256 of what the class vectors are made from: texts, and the text tower."""
    digest = hashlib.sha256(f"{texts} {float(scale)} {bias}".encode())
    for name, tensor in module.state_dict().items():
        if name.partition(".")[0] not in kept:
            digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
