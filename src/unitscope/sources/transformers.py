"""transformers:REPO: Hugging Face's image classifiers, from its hub or a folder.

A bare type such as "resnet" gives random weights.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError, WeightsError, one_line
from unitscope.inputs.measured import MeasuredPreprocessing
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing
from unitscope.labels import read_labels
from unitscope.model import Classifier
from unitscope.model.wrapping import SCORES_OF_PROBLEMS
from unitscope.sources.image_processor import preprocessing_of, usual_processor
from unitscope.sources.request import Request, resized, seeded
from unitscope.sources.transformers_fitting import fit
from unitscope.sources.transformers_folder import (
    CONFIG_FILE,
    PROCESSOR_FILES,
    Origin,
    find_origin,
    read_config,
    refuse_without_weights,
    weights_in,
)
from unitscope.sources.transformers_library import quiet, transformers_library
from unitscope.sources.transformers_texts import load_by_texts, reads_texts
from unitscope.sources.weights import (
    Weights,
    infer_class_count,
    read_weights,
)

_NUMBERED = re.compile(r"LABEL_\d+")

_IMAGENET_CLASSES = 1000


def load(request: Request) -> Classifier:
    """Load one of transformers' image classifiers; see `unitscope.load`.

    No code of a repository is ever run.
    """
    transformers_library()
    origin = find_origin(request)
    if origin.folder is None:
        config = _default_config(request)
    else:
        config = read_config(origin.folder, request)
    by_texts = reads_texts(config)
    if not by_texts:
        _check_kind(config, request)
    _set_input_size(config, request)
    preprocessing, assumptions = _preprocessing(config, origin, request)
    if by_texts:
        return load_by_texts(
            request, config, origin, preprocessing, assumptions
        )

    weights = _weights(config, origin, request)
    if weights is None:
        return _random(request, config, origin, preprocessing, assumptions)
    classes = _class_count(config, weights, request)
    with seeded(request.seed):
        module = _build(config, classes)
        repairs = fit(module, weights)

    labels = request.labels_for(classes) or _own_labels(config, classes)
    notes = [*origin.notes, *weights.notes, *repairs, *assumptions]
    scores, note = _scores(config, classes, request)
    notes += note
    provenance = request.provenance(weights.name, weights.sha256 or None, notes)
    return Classifier(module, labels, preprocessing, provenance, scores=scores)


def _weights(config: Any, origin: Origin, request: Request) -> Weights | None:
    """The user's weights, or else those in the folder; None where there are none."""
    file = request.weights_file()
    if file is not None:
        return read_weights(file)

    weights = weights_in(origin.folder) if origin.folder else None
    if weights is not None and request.num_classes not in (
        None,
        config.num_labels,
    ):
        raise WeightsError(
            f"the weights of {request.spec} are for {config.num_labels} classes, not "
            f"{request.num_classes}: leave num_classes out, or give your own weights"
        )
    return weights


def _class_count(config: Any, weights: Weights, request: Request) -> int:
    """The user's number of classes, or that of the user's weights, or the folder's."""
    if request.num_classes:
        return request.num_classes
    own: int = config.num_labels
    if request.weights is None:
        return own
    return (
        infer_class_count(lambda count: _build(config, count), weights) or own
    )


def _scores(
    config: Any, classes: int, request: Request
) -> tuple[str | None, list[str]]:
    """The user's scores, or those of the configuration, and a note on these."""
    if request.scores is not None:
        return request.scores, []
    problem = getattr(config, "problem_type", None)
    if problem in SCORES_OF_PROBLEMS:
        scores = SCORES_OF_PROBLEMS[problem]
        return scores, [f"Scores: {scores}, by its problem_type, {problem}."]
    return (Scores.SOFTMAX if classes == _IMAGENET_CLASSES else None), []


def _random(
    request: Request,
    config: Any,
    origin: Origin,
    preprocessing: AnyPreprocessing,
    assumptions: Sequence[str],
) -> Classifier:
    reason = refuse_without_weights(origin, request)
    classes = request.num_classes or config.num_labels
    labels = request.labels_for(classes) or _own_labels(config, classes)
    with seeded(request.seed) as seed:
        module = _build(config, classes)

    notes = [*reason, *assumptions]
    how = f"random initialisation, seed {seed}"
    scores, note = _scores(config, classes, request)
    notes += note
    provenance = request.provenance(how, None, notes)
    return Classifier(module, labels, preprocessing, provenance, scores=scores)


def _default_config(request: Request) -> Any:
    try:
        with quiet():
            return transformers_library().AutoConfig.for_model(request.name)
    except Exception as error:
        raise ModelError(
            f"transformers has no default configuration of {request.name} "
            f"({one_line(error)}): name a folder or a repository"
        ) from None


def _check_kind(config: Any, request: Request) -> None:
    if request.templates is not None:
        raise ModelError(
            f"'{request.spec}' has classes of its own, and reads no texts: leave "
            "templates out"
        )
    classifiers = transformers_library().MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(config) not in classifiers:
        raise ModelError(
            f"'{request.spec}' is a network of type '{config.model_type}', of which "
            "transformers has no image classifier: name one that classifies images"
        )


def _sized(config: Any) -> Any:
    """The part of a configuration that holds the input's size; None without one."""
    for part in (config, getattr(config, "vision_config", None)):
        if getattr(part, "image_size", None):
            return part
    return None


def _image_size(config: Any) -> tuple[int, int] | None:
    """(rows, cols) of the network's input; None where it takes any size."""
    sized = _sized(config)
    if sized is None:
        return None
    sides = sized.image_size
    if isinstance(sides, int):
        return sides, sides
    return int(sides[0]), int(sides[-1])


def _set_input_size(config: Any, request: Request) -> None:
    sized = _sized(config)
    if request.sides is not None and sized is not None:
        rows, cols = request.sides
        sized.image_size = rows if rows == cols else [rows, cols]


def _preprocessing(
    config: Any, origin: Origin, request: Request
) -> tuple[AnyPreprocessing, tuple[str, ...]]:
    """The preprocessing, and a note where it is assumed.

    It is the user's, or else the folder's, or else what transformers does for the type.
    """
    if request.preprocessing is not None:
        return request.chosen_preprocessing(None), ()

    processor = _processor_in(origin.folder, config) if origin.folder else None
    notes: tuple[str, ...] = ()
    if processor is not None:
        preprocessing = preprocessing_of(processor, f"as {request.spec} says")
    else:
        preprocessing = _usual_preprocessing(config, request)
        notes = (f"The preprocessing is assumed: {preprocessing.describe()}.",)

    measured = isinstance(preprocessing, MeasuredPreprocessing)
    if measured and request.sides not in (None, preprocessing.input_size):
        raise ModelError(
            f"{request.spec} is preprocessed by {preprocessing.describe()}, which "
            f"cannot be taken to input_size {request.input_size}: give a preprocessing"
        )
    return request.chosen_preprocessing(preprocessing), notes


def _processor_in(folder: Path, config: Any) -> Any:
    """Read the image processor of a folder; None where it has none."""
    files = [name for name in PROCESSOR_FILES if (folder / name).is_file()]
    # timm keeps it in config.json.
    if not files and config.model_type != "timm_wrapper":
        return None
    try:
        with quiet():
            return transformers_library().AutoImageProcessor.from_pretrained(
                str(folder), trust_remote_code=False
            )
    except Exception as error:
        file = folder / (files[0] if files else CONFIG_FILE)
        raise ModelError(
            f"'{file}' cannot be read as an image processor ({one_line(error)}): "
            "correct it, or give a preprocessing"
        ) from None


def _usual_preprocessing(config: Any, request: Request) -> AnyPreprocessing:
    """What transformers does by default for such networks, at the network's size."""
    sides = request.sides or _image_size(config)
    with quiet():
        processor = usual_processor(config, sides)
    if processor is None:
        preprocessing: AnyPreprocessing = Preprocessing(
            note="ImageNet's convention, since transformers has none for the type"
        )
    else:
        note = f"the defaults of {type(processor).__name__}"
        preprocessing = preprocessing_of(processor, note)

    if sides is None or not isinstance(preprocessing, Preprocessing):
        return preprocessing
    why = "as asked" if request.sides else "which is the network's"
    return resized(preprocessing, sides, why)


def _build(config: Any, classes: int) -> nn.Module:
    """Build the network of a configuration for inference, in float32."""
    config = copy.deepcopy(config)
    if config.num_labels != classes:
        config.num_labels = classes
    # By this transformers chooses among the several classifiers of one type (DeiT), and
    # does not expect None.
    config.architectures = config.architectures or []
    if getattr(config, "model_args", None):
        # timm writes its number of classes there too, and transformers passes both.
        config.model_args = {
            name: value
            for name, value in config.model_args.items()
            if name != "num_classes"
        }
    try:
        with quiet():
            automatic = transformers_library().AutoModelForImageClassification
            module: nn.Module = automatic.from_config(
                config, trust_remote_code=False
            )
    except Exception as error:  # Each network has its own way of refusing.
        raise ModelError(
            f"transformers cannot build a {config.model_type} network for {classes} "
            f"classes ({one_line(error)})"
        ) from None
    # A configuration may ask for half precision, which is for running on a GPU.
    return module.to(torch.float32).eval()


def _own_labels(config: Any, classes: int) -> tuple[str, ...] | None:
    """The configuration's names of the classes.

    None where they are only numbered, or are not as many as the classes.
    """
    numbered = sorted((config.id2label or {}).items())
    names = [str(name) for _, name in numbered]
    if len(names) != classes or all(map(_NUMBERED.fullmatch, names)):
        return None
    return read_labels(names)
