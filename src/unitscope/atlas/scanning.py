"""Scanning: a data set into an atlas, in one pass that can be paused and split."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.disk.manifest import (
    existing_manifest,
    identity_of,
    write_manifest,
)
from unitscope.atlas.findings.ablation_tables import write_ablation_tables
from unitscope.atlas.findings.scan_tables import write_findings
from unitscope.atlas.scan.concept_scan import add_concepts, opened_masks
from unitscope.atlas.scan.folder import (
    check_same,
    check_unchanged,
    locked,
    nothing_read,
    remove_scan,
    remove_tables,
)
from unitscope.atlas.scan.layer_choice import chosen_layers, exact_head
from unitscope.atlas.scan.options import ParameterChoice, Progress, ScanOptions
from unitscope.atlas.scan.plan import ScanPlan
from unitscope.atlas.scan.run_log import Run
from unitscope.atlas.scan.shard_scan import scan_shards
from unitscope.atlas.shards.pool import LocalPool, ShardPool
from unitscope.atlas.storage import AtlasLayer, shards_in, write_head
from unitscope.datasets import (
    Dataset,
    DatasetSource,
    MaskedDataset,
    open_dataset,
)
from unitscope.errors import AtlasError, ModelError, warn_user
from unitscope.labels import LabelsSource
from unitscope.model import Classifier

__all__ = ["Progress", "scan"]


def scan(
    model: Classifier,
    source: DatasetSource | Dataset,
    out: str | os.PathLike[str],
    *,
    layers: str | Sequence[str] | None = None,
    split: str | None = None,
    classes: LabelsSource | None = None,
    part: tuple[int, int] | None = None,
    top: int | None = None,
    sample: int | None = None,
    quantile: float | None = None,
    batch_size: int | None = None,
    shard_size: int | None = None,
    workers: int = 1,
    runner: ShardPool | None = None,
    engine: str | None = None,
    concepts: str | os.PathLike[str] | MaskedDataset | None = None,
    concept_names: LabelsSource | None = None,
    concept_split: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Atlas:
    """Scan a data set into an atlas: what every unit of some layers responds to.

    It takes one pass, which can be paused, resumed, split and merged. Where the folder
    `out` has a scan of the same things, that scan is resumed with its parameters; the
    result is the same as without the pause. `source`, `split` and `classes` are those
    of `open_dataset`. `concepts` are photos with masks (`open_masks`, with
    `concept_names` as `names` and `concept_split` as `split`); they can be added to a
    finished atlas. In `unitscope.atlas.scan.options`, `Parameters` describes `top`,
    `sample`, `quantile`, `batch_size` and `shard_size`, and `ScanOptions` describes
    `layers`, `part`, `workers`, `runner`, `engine` and `progress`.

    The model is frozen during the scan. Images that cannot be read are skipped and
    listed with the reason. Raises DatasetError, LayerError, what `explain` raises, and
    AtlasError where `out` belongs to another scan or another process scans into it.
    """
    dataset = _opened(source, split, classes)
    masked = opened_masks(concepts, concept_names, concept_split)
    parameters = ParameterChoice(top, sample, quantile, batch_size, shard_size)
    pool = runner or LocalPool(workers)
    options = ScanOptions(
        layers, part, parameters, workers, pool, engine, progress
    )
    return _scan(model, dataset, masked, Path(out), options)


def _scan(
    model: Classifier,
    dataset: Dataset,
    masked: MaskedDataset | None,
    folder: Path,
    options: ScanOptions,
) -> Atlas:
    existing = existing_manifest(folder)
    before = None if existing is None else existing["identity"]["parameters"]
    parameters = options.parameters.completed(before, len(dataset))
    layers = chosen_layers(model, options.layer_names)

    with _engine(model, layers, folder, options.engine) as engine:
        plan = ScanPlan.of(model, dataset, layers, parameters, engine)
        shards = plan.shards(options.part)
        # Check before anything is written, and again under the lock.
        check_same(folder, plan)
        is_new = not folder.exists()
        with locked(folder):
            failure = _scan_locked(folder, plan, shards, options)
            if not failure and masked is not None:
                add_concepts(folder, model, masked, options)

    if failure:
        remove_scan(folder, with_folder=is_new)
        raise AtlasError(failure)
    return Atlas.open(folder)


def _opened(
    source: DatasetSource | Dataset,
    split: str | None,
    classes: LabelsSource | None,
) -> Dataset:
    if isinstance(source, Dataset):
        return source
    return open_dataset(source, split=split, classes=classes)


@contextlib.contextmanager
def _engine(
    model: Classifier,
    layers: Sequence[AtlasLayer],
    folder: Path,
    engine: str | None,
) -> Iterator[str]:
    """Run the model on an engine; yields its name.

    It is the one asked for, else that of the scan to resume, else the fastest.
    """
    existing = existing_manifest(folder)
    if engine is None and existing is not None:
        engine = identity_of(existing)["engine"]

    names = [layer.name for layer in layers if not layer.is_head]
    if any(layer.heads is not None for layer in layers):
        if engine == "onnxruntime":
            raise ModelError(
                "attention is read in passes of the network as it is, and not by "
                "onnxruntime: leave the engine out, or scan other layers (--layer)"
            )
        engine = "torch"
    if engine == "torch":
        running = model.thawed()
    else:
        running = model.frozen(names, required=engine is not None)
    with running:
        yield model.engine()


def _scan_locked(
    folder: Path, plan: ScanPlan, shards: Sequence[int], options: ScanOptions
) -> str:
    """Scan the remaining shards, and finish.

    Returns an error message where no image could be read, else an empty string.
    """
    check_same(folder, plan)
    check_unchanged(folder, plan.dataset)

    committed = shards_in(folder)
    todo = [shard for shard in shards if shard not in committed]
    if todo:
        run = Run.start("scan", options.workers)
        write_manifest(folder, plan.manifest("scanning"))
        # Those of an earlier part know nothing of the shards that come now.
        remove_tables(folder)
        images, skipped = scan_shards(folder, plan, todo, options)
        run.log(folder, images, skipped)

    if Atlas.open(folder).manifest["status"] != "scanning":
        return ""
    failure = nothing_read(folder)
    if not failure:
        _finish(folder, plan)
    return failure


def _finish(folder: Path, plan: ScanPlan) -> None:
    """Write the tables, and then the manifest that says the scan is finished."""
    head = exact_head(plan.model)
    if head is not None:
        write_head(folder, head.readout)

    atlas = Atlas.open(folder)
    scanned = write_findings(atlas)
    for note in scanned["notes"]:
        warn_user(note)
    ablation = write_ablation_tables(atlas)
    complete = len(shards_in(folder)) == plan.shard_count
    status = "complete" if complete else "part"
    manifest = plan.manifest(status)
    findings = {"scanned": scanned, "ablation": ablation}
    write_manifest(folder, manifest | findings)
