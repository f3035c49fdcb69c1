"""Options: the parameters of a scan, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from unitscope.atlas.shards.pool import ShardPool
from unitscope.errors import InputError

_MOST_IN_BATCH = 4096
_MOST_IN_SHARD = 1_000_000


@dataclass(frozen=True)
class Progress:
    """The progress of a scan: images done and skipped since its start.

    `total` is the number of images that were left at its start. `stage` is "scan" or
    "concepts".
    """

    stage: str
    done: int
    skipped: int
    total: int


@dataclass(frozen=True)
class Parameters:
    """The parameters on which an atlas depends.

    An atlas has the `top` images of every unit by maximum and by mean, a uniform
    `sample` of images, and for every unit a threshold T with P(a ≥ T) ≤ `quantile`.
    Images go through the network in batches of `batch_size`, and every `shard_size` of
    them are committed together.
    """

    top: int = 20
    sample: int = 48
    quantile: float = 0.005
    batch_size: int = 32
    shard_size: int = 1024

    def plain(self) -> dict[str, Any]:
        """The parameters as plain data."""
        return asdict(self)

    def check(self, images: int) -> None:
        """Raise InputError unless the parameters suit a data set of some images."""
        _check_range("top", self.top, 1, max(images, 20))
        _check_range("sample", self.sample, 0, max(images, 48))
        _check_range("batch_size", self.batch_size, 1, _MOST_IN_BATCH)
        _check_range("shard_size", self.shard_size, 1, _MOST_IN_SHARD)
        if not 0 < self.quantile < 1:
            raise InputError(
                "quantile is a share of all activations between 0 and 1, not "
                f"{self.quantile:g}"
            )


class ParameterChoice(NamedTuple):
    """The parameters that a caller sets; None for those of the scan to resume."""

    top: int | None = None
    sample: int | None = None
    quantile: float | None = None
    batch_size: int | None = None
    shard_size: int | None = None

    def completed(
        self, before: Mapping[str, Any] | None, images: int
    ) -> Parameters:
        """All parameters for a data set of some images, checked.

        Where the caller sets none, that of the scan `before` is used, or the default.
        """
        values = dict(before) if before is not None else {}
        for name, value in self._asdict().items():
            if value is not None:
                values[name] = value
        parameters = Parameters(**values)
        parameters.check(images)
        return parameters


@dataclass(frozen=True)
class ScanOptions:
    """How a data set is scanned.

    `layers` are names, by default that of the head's feature map. `part` (1, 4) scans
    the first quarter of the shards; `merge` joins parts. `pool` processes the shards
    (`runner` in `scan`), by default in `workers` processes of this machine; the result
    does not depend on it. `progress` is called after every batch, or after every shard
    where other processes do the work.

    `engine` runs the network, "onnxruntime" or "torch". By default it is that of the
    scan to resume, else ONNX Runtime where it is installed and can run the network,
    else torch, with a warning. With the same engine a scan gives the same bytes.
    """

    layers: str | Sequence[str] | None
    part: tuple[int, int] | None
    parameters: ParameterChoice
    workers: int
    pool: ShardPool
    engine: str | None
    progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        """Check the engine."""
        if self.engine not in (None, "onnxruntime", "torch"):
            raise InputError(
                f"there is no engine '{self.engine}': choose 'onnxruntime' or 'torch'"
            )

    @property
    def layer_names(self) -> list[str] | None:
        """The names of the layers, None where none is set."""
        if self.layers is None:
            return None
        return (
            [self.layers] if isinstance(self.layers, str) else list(self.layers)
        )

    def report(self, stage: str, done: int, skipped: int, total: int) -> None:
        """Report the progress of a stage."""
        if self.progress is not None:
            self.progress(Progress(stage, done, skipped, total))


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if value < least:
        raise InputError(f"{name} is at least {least}, not {value}")
    if value > most:
        raise InputError(f"{name} is at most {most} here, not {value}")
