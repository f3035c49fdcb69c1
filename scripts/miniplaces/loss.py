"""How wrong a network is about a batch: beside the labels, and beside its teacher."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from miniplaces.recipe import Recipe
from miniplaces.teacher import Lesson
from unitscope.scenes.transformer import SceneTransformer


class Batch(NamedTuple):
    """What a step learns from: photos (photo, channel, row, column), their classes, and
    what a teacher says of them."""

    inputs: Tensor
    labels: Tensor
    lesson: Lesson | None = None


class Answers(NamedTuple):
    """What a network says of a batch: logits (photo, class), and of a transformer those of
    its patches, (photo · patch, class)."""

    logits: Tensor
    patches: Tensor | None = None


def answers_to(network: nn.Module, batch: Batch) -> Answers:
    """What the network says; layers that it has from its teacher are not computed again."""
    if not isinstance(network, SceneTransformer):
        return Answers(network(batch.inputs).float())
    shared = None if batch.lesson is None else batch.lesson.stem
    stem = network.stem(batch.inputs) if shared is None else shared
    tokens = network.tokens(stem)
    answers = network.head(network.norm(tokens)).float()
    return Answers(answers[:, 0], answers[:, 1:].flatten(0, 1))


def loss_of(answers: Answers, batch: Batch, recipe: Recipe) -> Tensor:
    """The loss that the recipe asks for."""
    lesson = batch.lesson
    loss = F.cross_entropy(
        answers.logits, batch.labels, label_smoothing=recipe.label_smoothing
    )
    if lesson is None or not recipe.distil:
        return loss
    heat = recipe.temperature
    imitation = _unlikeness(answers.logits, lesson.logits, heat)
    loss = (1 - recipe.distil) * loss + recipe.distil * imitation
    if answers.patches is None or not recipe.dense:
        return loss
    # Labels for every patch (Jiang et al., All Tokens Matter, 2021): an idea of what is
    # where takes a transformer long to get from labels of whole photos. Single cells
    # answer in larger numbers than their mean does.
    wanted = lesson.maps.permute(0, 2, 3, 1).flatten(0, 2)
    dense = _unlikeness(answers.patches, wanted, 2 * heat) / 4
    return loss + recipe.dense * dense


def _unlikeness(answers: Tensor, wanted: Tensor, heat: float) -> Tensor:
    """How far answers (answer, class) are from the teacher's.

    Hinton et al. 2015; the square keeps the gradient's size when the temperature changes.
    """
    return heat**2 * F.kl_div(
        F.log_softmax(answers / heat, 1),
        F.log_softmax(wanted / heat, 1),
        log_target=True,
        reduction="batchmean",
    )
