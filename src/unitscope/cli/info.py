"""The verb info: a network's layers and its head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.loading import load_model
from unitscope.cli.options import JSON, model_options
from unitscope.cli.output import print_document, say

if TYPE_CHECKING:
    from unitscope.accounts.verification import Verification
    from unitscope.attribution.head import Head
    from unitscope.network_facts import NetworkFacts
    from unitscope.residual.head import ResidualHead
    from unitscope.tracing.layers import Layer


_ANSWERS = {
    "exact": "exact: maps + bias add up to the logits, and switching units off is algebra",
    "residual": "residual: parts add up to the logits, of which the maps are one; direct effects "
    "of attention heads are algebra, total ones real forward passes",
    "local": "local: maps that do not add up to the logits; switching units off is measured",
}


@click.command()
@model_options
@JSON
def info(as_json: bool, **source: Any) -> None:
    """Show a network's layers and shapes, its head, and how well the head's algebra holds.

    \b
    unitscope info --model torchvision:densenet121
    """
    from unitscope.accounts import record
    from unitscope.accounts.verification import verify
    from unitscope.network_facts import NetworkFacts

    model = load_model(source)
    verification = verify(model)
    facts = NetworkFacts.of(model)

    if as_json:
        content = record.of_network(facts)
        content["verification"] = record.of_verification(verification)
        print_document("network", **content)
        return
    for name, text in _facts(facts, verification):
        say(f"{name:<14} {text}")
    _print_layers(facts.layers)


def _facts(
    facts: NetworkFacts, verification: Verification
) -> Iterator[tuple[str, str]]:
    provenance = facts.provenance
    parameters = f"{facts.parameters:,} parameters, {facts.classes} classes"
    yield "model", f"{provenance.spec} ({facts.architecture}, {parameters})"

    hash_key = f", sha256 {provenance.sha256}" if provenance.sha256 else ""
    yield "weights", f"{provenance.weights}{hash_key}"

    shape = "×".join(map(str, facts.input_shape))
    place = f"{facts.dtype} on {facts.device}"
    yield "input", f"{shape} (channel × row × col), {place}"

    yield "preprocessing", facts.preprocessing
    yield "scores", facts.scores.describe()
    if facts.output is not None:
        yield "logits", f"output '{facts.output}', of several"
    yield from _head_facts(facts.head, verification)
    for note in facts.notes:
        yield "note", note


def _head_facts(
    head: Head | None, verification: Verification
) -> Iterator[tuple[str, str]]:
    """The head and its error; of a local one the reason and the remainder."""
    from unitscope.residual.head import ResidualHead

    if head is None:
        yield "head", f"none: {verification.reason}"
        return

    yield "answer", _ANSWERS.get(head.kind, _ANSWERS["exact"])
    yield "head", head.describe()
    on = f"on {head.tried_on()}"
    if isinstance(head, ResidualHead):
        yield from _stream_facts(head)
    if head.exact:
        accuracy = _accuracy(head.error)
        yield (
            "verified",
            f"{head.kind}: mean of every map + bias = logit {accuracy}, {on}",
        )
    elif head.adds_up:
        yield "no exact map", verification.reason
        yield (
            "verified",
            f"{head.kind}: all parts add up to the logit {_accuracy(head.error)}, {on}",
        )
    else:
        yield "not exact", verification.reason
        remainder = (
            f"its maps leave out up to {head.error:.0%} of the largest logit"
        )
        yield "measured", f"{head.kind}: {remainder}, {on}"

    if verification.ablation_error is not None:
        accuracy = _accuracy(verification.ablation_error)
        statement = (
            f"{verification.tried} random units switched off one by one = real forward "
            "passes without them"
        )
        if head.maps_are_a_part:
            statement = (
                f"with each of {verification.tried} random heads silent, all parts of a "
                "real forward pass add up to its logits"
            )
        yield "ablation", f"{statement}, {accuracy}"

    found = f"found and verified in {verification.seconds:.1f} s"
    forward = f"one forward pass takes {verification.forward_seconds:.2f} s"
    yield "time", f"{found}; {forward}"


def _stream_facts(head: ResidualHead) -> Iterator[tuple[str, str]]:
    """Blocks, heads and tokens of a residual stream."""
    first, last = head.blocks[0], head.blocks[-1]
    yield "blocks", f"{len(head.blocks)}, from {first} to {last}"
    names = f"{head.unit_names[0]} to {head.unit_names[-1]}"
    yield "heads", f"{len(head.unit_names)}, called block.head: {names}"
    _, rows, cols = head.map_shape
    read = "one token is" if head.tokens == 1 else f"{head.tokens} tokens are"
    yield "tokens", f"{rows}×{cols} patches; {read} read"
    if head.held:
        yield "held", "numbers that the photo sets multiply the stream"


def _accuracy(error: float) -> str:
    return f"to {error:.1e} of the largest logit" if error else "exactly"


def _print_layers(layers: Sequence[Layer]) -> None:
    say("\nlayers, in order of execution (unit × row × col):")
    width = max(len(layer.name) for layer in layers)
    for layer in layers:
        say(
            f"  {layer.name:<{width}}  {layer.kind:<20} {layer.describe_shape()}"
        )
