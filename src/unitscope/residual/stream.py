"""Stream: the residual stream of some photos, and what changes when heads are off."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.rounding import relative_difference
from unitscope.attribution.suffix import check_same, same_enough
from unitscope.errors import InputError
from unitscope.interrupts import unbroken
from unitscope.residual.account import StreamAccount, head_maps
from unitscope.residual.grounds import Attention
from unitscope.residual.path import (
    Change,
    StreamPath,
    as_variants,
    check_fits,
)
from unitscope.residual.replacement import Replacement
from unitscope.tracing.calling import Calling
from unitscope.tracing.layers import evaluating

# Copies of a photo that go through the network at a time.
_COPIES = 16


@dataclass(frozen=True, eq=False)
class Stream(Replacement):
    """The residual stream of some photos: what was read of it in a pass of the network.

    `inputs` are the photos, `keep` is 1 for heads that were on in that pass, 0 for others.
    `read` is what every step reads, of attention what the token took from the heads.
    `calling` says what the network is given beside the photos.
    """

    module: nn.Module = field(repr=False)
    path: StreamPath = field(repr=False)
    inputs: Float[Tensor, "photo channel row col"] = field(repr=False)
    read: tuple[Any, ...] = field(repr=False)
    account: StreamAccount = field(repr=False)
    logits: Float[Tensor, "photo class"]
    keep: Float[Tensor, " unit"]
    calling: Calling = field(repr=False, default_factory=Calling)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        path: StreamPath,
        x: Tensor,
        calling: Calling,
        keep: Tensor | None = None,
    ) -> Stream:
        """The stream of some photos, from one forward pass.

        The module must run already: in evaluation mode, with its other inputs. Raises
        HeadError where the network takes another path than before.
        """
        if keep is None:
            keep = torch.ones(len(path.heads))
        passed = path.run(module, x, Change(keep[None]))
        return cls(
            module,
            path,
            x,
            as_variants(passed.read),
            StreamAccount.of(path, passed),
            passed.logits,
            keep,
            calling,
        )

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, image: int) -> Stream:
        """The stream of one photo, as a batch of one."""
        photo = slice(image, image + 1)
        read = [
            own[photo] if step.of_photos and isinstance(own, Tensor) else own
            for step, own in zip(self.path.steps, self.read, strict=True)
        ]
        return dataclasses.replace(
            self,
            inputs=self.inputs[photo],
            read=tuple(read),
            account=self.account.cut(photo),
            logits=self.logits[photo],
            calling=self.calling.rows([image]),
        )

    def joined(self, others: Sequence[Stream]) -> Stream:
        """The stream of these photos and, behind them, those of others."""
        every = [self, *others]
        read = []
        for place, step in enumerate(self.path.steps):
            own = [each.read[place] for each in every]
            is_each = step.of_photos and isinstance(own[0], Tensor)
            read.append(torch.cat(own) if is_each else own[0])
        return dataclasses.replace(
            self,
            inputs=torch.cat([each.inputs for each in every]),
            read=tuple(read),
            account=self.account.joined([each.account for each in others]),
            logits=torch.cat([each.logits for each in every]),
            calling=self.calling.joined([each.calling for each in others]),
        )

    def direct_logits(
        self,
        keep: Float[Tensor, "variant unit"],
        by: Replacement | None = None,
    ) -> Float[Tensor, "photo variant class"]:
        """The logits when only what heads write to the logits changes, all else held.

        Later blocks do not see the change; the divisors of normalisations follow it. In
        every variant each head is multiplied by its number in `keep`; of what is missing
        to 1, what `by` took from the head is put in its place.
        """
        if by is not None:
            by.check_usable(self.path)
        variants = []
        units = self.path.units_by_call
        for place, step in enumerate(self.path.steps):
            own = self.read[place]
            if isinstance(step, Attention):
                share = keep[:, units[step.index], None].to(own)
                other = torch.zeros(()).to(own)
                if by is not None:
                    other = by.taken(self.path, place).to(own)
                    check_fits(other, own[0])
                own = own * share + other * (1 - share)
            variants.append(own)
        with unbroken(torch.no_grad()), without_autocast(self.logits):
            return self.path.logits(variants)

    def without(self, units: Sequence[int]) -> Stream:
        """The stream of a real pass with heads off, beside those that are off already."""
        keep = self._keep_without(units)
        with self._running():
            self._check_unchanged()
            return Stream.of(
                self.module, self.path, self.inputs, self.calling, keep
            )

    def total_logits(
        self, units: Sequence[int], by: Replacement | None = None
    ) -> Float[Tensor, "photo class"]:
        """The logits of a real pass with heads off, or with what `by` took there."""
        keep = self._keep_without(units)
        with self._running():
            self._check_unchanged()
            change = Change(keep[None], self._put_in(by))
            return self.path.logits_with(self.module, self.inputs, change)

    def total_logits_each(
        self, units: Sequence[int], by: Replacement | None = None
    ) -> Float[Tensor, "photo unit class"]:
        """The same with each head alone, by real passes; some heads at a time."""
        outputs = self._put_in(by)
        with self._running():
            photos = [self[image] for image in range(len(self))]
            return torch.stack(
                [photo._without_each(units, outputs) for photo in photos]
            )

    def taken(
        self, path: StreamPath, place: int
    ) -> Float[Tensor, "1 head unit"]:
        """See Replacement."""
        taken: Tensor = self.read[place]
        return taken.mean(dim=0)

    def check_usable(self, path: StreamPath) -> None:
        """See Replacement: only a stream along the same path may.

        Raises ModelError where the network no longer gives its logits.
        """
        if path is not self.path:
            raise InputError(
                "heads cannot be replaced by those of another network, or of inputs of "
                "another size, or of the network before it changed: explain the other "
                "photos with the same classifier, in the same size"
            )
        with self._running():
            self._check_unchanged()

    def outputs(self) -> list[Float[Tensor, "1 _ _ _"]]:
        """What all tokens take from the heads of every block, on average over the photos."""
        with self._running():
            outputs = self.path.outputs(self.module, self.inputs)
        return [each.mean(dim=0, keepdim=True) for each in outputs]

    def head_maps(
        self, units: Sequence[int], classes: Sequence[int]
    ) -> Float[Tensor, "photo unit class row col"]:
        """What the patches give through single heads, signed: a map whose mean is their part.

        One more forward pass.
        """
        keep = Change(self.keep[None])
        with self._running():
            passed = self.path.run(self.module, self.inputs, keep)
        check_same(passed.logits, self.logits, self.inputs.dtype)
        return head_maps(self.path, passed, units, classes)

    def neurons(
        self, mlp: int, classes: Sequence[int]
    ) -> Float[Tensor, "photo neuron class"]:
        """What every neuron of an MLP writes to the logits of some classes.

        The MLP is given by its number. One more forward pass.
        """
        index, place = list(self.path.mlps.items())[mlp]
        path = self.path.with_neurons(place)
        with self._running():
            passed = path.run(self.module, self.inputs, Change(self.keep[None]))
        check_same(passed.logits, self.logits, self.inputs.dtype)
        with without_autocast(self.logits):
            return path.sums(passed.read, classes).written[index][:, :-1]

    def _keep_without(self, units: Sequence[int]) -> Float[Tensor, " unit"]:
        keep = self.keep.clone()
        keep[list(units)] = 0
        return keep

    def _put_in(self, by: Replacement | None) -> list[Tensor] | None:
        """What all tokens take instead, by block; None where heads fall silent."""
        if by is None:
            return None
        by.check_usable(self.path)
        return list(by.outputs())

    def _without_each(
        self, units: Sequence[int], by: list[Tensor] | None
    ) -> Float[Tensor, "unit class"]:
        """The logits of one photo with each head alone off."""
        at_once = 1 if self._mixes_batch() else _COPIES
        starts = range(0, len(units), at_once)
        chunks = [
            self._without_in_turn(units[start : start + at_once], by)
            for start in starts
        ]
        if not chunks:
            return self.logits.new_empty((0, self.logits.shape[1]))
        return torch.cat(chunks)

    def _without_in_turn(
        self, units: Sequence[int], by: list[Tensor] | None
    ) -> Float[Tensor, "unit class"]:
        keep = self.keep.repeat(len(units), 1)
        keep[range(len(units)), list(units)] = 0
        return self._copied(Change(keep, by))

    def _copied(self, change: Change) -> Float[Tensor, "copy class"]:
        """The logits of copies of one photo, each with its own heads changed."""
        copies = len(change.keep)
        x = self.inputs.expand(copies, *self.inputs.shape[1:])
        calling = self.calling.rows([0] * copies)
        with calling.installed(self.module):
            return self.path.logits_with(self.module, x, change)

    def _mixes_batch(self) -> bool:
        """Whether a photo's logits depend on what else is in the batch.

        Raises ModelError where the network has changed.
        """
        heads = len(self.keep)
        keep = torch.stack([self.keep, torch.zeros(heads)])
        alone = self._copied(Change(keep[:1]))
        check_same(alone, self.logits, self.inputs.dtype)
        difference = relative_difference(
            self._copied(Change(keep))[:1], self.logits
        )
        return float(difference) > same_enough(self.inputs.dtype)

    def _check_unchanged(self) -> None:
        """Raise ModelError where the network no longer gives the logits."""
        change = Change(self.keep[None])
        rerun = self.path.logits_with(self.module, self.inputs, change)
        check_same(rerun, self.logits, self.inputs.dtype)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with evaluating(self.module), self.calling.installed(self.module):
            yield
