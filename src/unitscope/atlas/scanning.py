"""Scan: one pass over a data set that can be stopped, gone on with, split and merged, and what it leaves: an atlas."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.dissection import dissect
from unitscope.atlas.findings import (
    rows_of,
    write_ablation,
    write_concepts,
    write_findings,
)
from unitscope.atlas.matching import Matching, matched
from unitscope.atlas.observing import Observer, ShardWork, digest_of
from unitscope.atlas.runners import LocalRunner, Runner
from unitscope.atlas.storage import (
    MANIFEST,
    POOLED,
    ROWS,
    SCHEMA,
    SUMMARIES,
    WORK,
    AtlasLayer,
    StoredAtlas,
    identity_of,
    parquet,
    read_table,
    rows_file,
    same_answers,
    shards_in,
    write_head,
    write_manifest,
    write_summaries,
)
from unitscope.atlas.summaries.concepts import DETECTOR_THRESHOLD
from unitscope.attribution.head import Head
from unitscope.datasets import (
    Dataset,
    DatasetSource,
    MaskedDataset,
    open_dataset,
    open_masks,
)
from unitscope.errors import (
    AtlasError,
    InputError,
    MissingExtraError,
    OutputError,
    UnitscopeError,
)
from unitscope.files import make_folder, output_error
from unitscope.labels import LabelsSource
from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts
from unitscope.tracing.layers import find_layer, find_map_layer

_RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Progress:
    """How far a scan is: images done and skipped since it was started, of `total` that were left then."""

    stage: str
    done: int
    skipped: int
    total: int


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
    runner: Runner | None = None,
    engine: str | None = None,
    concepts: str | os.PathLike[str] | MaskedDataset | None = None,
    concept_names: LabelsSource | None = None,
    concept_split: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Atlas:
    """Scan a data set: what every unit of some layers responds to, in one pass, as an atlas in the folder `out`.

    `source`, `split` and `classes` are those of `open_dataset`. `layers` are names, the
    head's feature map where none is given. Kept are the `top` images of every unit (20)
    by maximum and by mean, a uniform `sample` of images (48), and a threshold T with
    P(a ≥ T) ≤ `quantile` (0.005). Images go through in batches of `batch_size` (32),
    and every `shard_size` (1024) of them are committed together.

    Where `out` holds such a scan that was stopped, it goes on, with that scan's
    parameters; the result is the same as without the stop, and does not depend on the
    number of `workers`. `part` (1, 4) scans the first quarter of the shards: `merge`
    puts parts together. Images that cannot be read are skipped, and listed with the
    reason.

    The model is frozen meanwhile. `engine` is what runs it, "onnxruntime" or "torch":
    by default that of the scan that is gone on with; for a new one ONNX Runtime where
    it is installed and can run the network, else torch, with a warning. The manifest
    names it. With the same engine the same scan gives the same bytes.

    `concepts` are photos with masks, as `open_masks` opens them (`concept_names` and
    `concept_split` are its `names` and `split`): at the units' thresholds their IoU
    with every concept is measured, over those photos, with a permutation null. They can
    be added to an atlas that is there, by the same command with them.

    Raises DatasetError, LayerError, what `explain` raises, and AtlasError where `out`
    belongs to another scan, or is being scanned by another process.
    """
    dataset = (
        source
        if isinstance(source, Dataset)
        else open_dataset(source, split=split, classes=classes)
    )
    masked = _masked(concepts, concept_names, concept_split)
    folder = Path(out)
    given = {
        "top": top,
        "sample": sample,
        "quantile": quantile,
        "batch_size": batch_size,
        "shard_size": shard_size,
    }
    runner = runner or LocalRunner(workers)
    settings = _settings(folder, given, len(dataset))
    chosen = _layers(model, [layers] if isinstance(layers, str) else layers)
    with _engine(model, chosen, folder, engine) as engine:
        plan = _Plan.of(model, dataset, chosen, settings, engine)
        todo = plan.shards(part)
        # Before anything is made, and again when nobody else can write there.
        _check_same(folder, plan)
        made = not folder.exists()
        with _locked(folder):
            nothing = _scanned(folder, plan, todo, masked, runner, progress, workers)
    if nothing:
        for path in (
            [folder]
            if made
            else [
                folder / name
                for name in (MANIFEST, SUMMARIES, POOLED, ROWS, _RUNS, WORK)
            ]
        ):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(
                missing_ok=True
            )
        raise AtlasError(nothing)
    return Atlas.open(folder)


def _scanned(
    folder: Path,
    plan: _Plan,
    shards: Sequence[int],
    masked: MaskedDataset | None,
    runner: Runner,
    progress: Callable[[Progress], None] | None,
    workers: int,
) -> str:
    """Scan what is left of some shards, and finish; says what to tell where not one image could be read."""
    _check_same(folder, plan)
    _check_unchanged(folder, plan.dataset)
    done = shards_in(folder)
    todo = [shard for shard in shards if shard not in done]
    started = time.time()
    if todo:
        write_manifest(folder, plan.manifest("scanning", 0, 0))
        counts = plan.run(folder, todo, done, runner, progress)
        _log(folder, "scan", started, counts, workers)
    unfinished = Atlas.open(folder).manifest["status"] == "scanning"
    nothing = _nothing_read(folder) if unfinished else ""
    if unfinished and not nothing:
        _finish(folder, plan)
    if not nothing and masked is not None:
        _add_concepts(folder, plan.model, masked, runner, progress, workers)
    return nothing


@contextlib.contextmanager
def _engine(
    model: Classifier, layers: Sequence[AtlasLayer], folder: Path, asked: str | None
) -> Iterator[str]:
    """A `with` inside which the model runs on the engine asked for, else that of the scan begun, else the best."""
    if asked not in (None, "onnxruntime", "torch"):
        raise InputError(
            f"there is no engine '{asked}': choose 'onnxruntime' or 'torch'"
        )
    begun = _manifest(folder)
    wanted = asked or (None if begun is None else identity_of(begun)["engine"])
    names = [layer.name for layer in layers if not layer.is_head]
    with (
        model.thawed()
        if wanted == "torch"
        else model.frozen(names, required=wanted is not None)
    ):
        yield model.engine()


def _nothing_read(folder: Path) -> str:
    """What to say where not one image could be read; nothing where one was."""
    images, first = 0, ""
    for rows in rows_of(folder):
        reasons = rows.column("reason").to_pylist()
        if not all(reasons):
            return ""
        images, first = images + len(reasons), first or reasons[0]
    return f"none of the {images} images could be read; the first: {first}"


def _masked(
    concepts: str | os.PathLike[str] | MaskedDataset | None,
    names: LabelsSource | None,
    split: str | None,
) -> MaskedDataset | None:
    if concepts is None or isinstance(concepts, MaskedDataset):
        if names is not None and concepts is None:
            raise InputError(
                "names of concepts were given, and no photos with masks: give both"
            )
        return concepts
    return open_masks(concepts, split=split, names=names)


def _add_concepts(
    folder: Path,
    model: Classifier,
    masked: MaskedDataset,
    runner: Runner,
    progress: Callable[[Progress], None] | None,
    workers: int,
) -> None:
    """Measure concepts, unless this was done for these masks and these summaries."""
    atlas, started = Atlas.open(folder), time.time()
    key = hashlib.sha256(
        f"{masked.fingerprint()} {digest_of((folder / SUMMARIES).read_bytes())}".encode()
    ).hexdigest()
    if (atlas.manifest["concepts"] or {}).get("identity") == key:
        return

    def tell(done: int, skipped: int, total: int) -> None:
        if progress is not None:
            progress(Progress("concepts", done, skipped, total))

    counts, facts = dissect(atlas, model, masked, runner, key, tell)
    detectors = write_concepts(atlas, counts, masked.concepts)
    manifest = dict(atlas.manifest)
    manifest["concepts"] = {
        "identity": key,
        "source": _absolute(masked.source),
        "kind": masked.kind,
        "notes": list(masked.notes),
        "threshold": DETECTOR_THRESHOLD,
        **facts,
        "detectors": detectors,
    }
    write_manifest(folder, manifest)
    _log(folder, "concepts", started, (facts["photos"], len(facts["skipped"])), workers)


@dataclass
class _Plan:
    """What is scanned, and how: all that two scans must have in common to be one."""

    model: Classifier
    dataset: Dataset
    layers: list[AtlasLayer]
    settings: dict[str, Any]
    matching: Matching
    engine: str
    identity: dict[str, Any]
    probe: list[float]

    @classmethod
    def of(
        cls,
        model: Classifier,
        dataset: Dataset,
        layers: Sequence[AtlasLayer],
        settings: dict[str, Any],
        engine: str,
    ) -> _Plan:
        """The plan for a model that runs on an engine, a data set and layers."""
        head = model.head_or_refusal()[0]
        exact = head if isinstance(head, Head) else None
        chosen, probe = _with_scales(model, layers)
        matching = matched(dataset, model.labels)
        identity = {
            "model": fingerprint(model),
            "labels": hashlib.sha256("\n".join(model.labels).encode()).hexdigest(),
            "preprocessing": model.preprocessing.describe(),
            "data set": dataset.fingerprint(),
            "layers": [layer.name for layer in chosen],
            "head": exact is not None,
            "parameters": settings,
            "engine": engine,
        }
        return cls(model, dataset, chosen, settings, matching, engine, identity, probe)

    @property
    def shard_count(self) -> int:
        return -(-len(self.dataset) // int(self.settings["shard_size"]))

    def shards(self, part: tuple[int, int] | None) -> list[int]:
        """The shards to scan: all, or those of a part."""
        if part is None:
            return list(range(self.shard_count))
        which, of = part
        if not 1 <= which <= of:
            raise InputError(
                f"part {which} of {of} does not exist: parts are numbered 1 to their "
                "number"
            )
        if of > self.shard_count:
            raise InputError(
                f"the data set has {self.shard_count} shards of "
                f"{self.settings['shard_size']} images, which make no "
                f"{of} parts: choose fewer parts or a smaller shard size"
            )
        bounds = [place * self.shard_count // of for place in range(of + 1)]
        return list(range(bounds[which - 1], bounds[which]))

    def run(
        self,
        folder: Path,
        todo: Sequence[int],
        done: Sequence[int],
        runner: Runner,
        progress: Callable[[Progress], None] | None,
    ) -> tuple[int, int]:
        """Scan shards and commit each; returns how many images were seen and skipped."""
        size = int(self.settings["shard_size"])
        total = sum(
            min((shard + 1) * size, len(self.dataset)) - shard * size for shard in todo
        )
        images = skipped = 0
        alone = runner.alone

        def tell(more: int, lost: int) -> None:
            nonlocal images, skipped
            images, skipped = images + more, skipped + lost
            if progress is not None:
                progress(Progress("scan", images, skipped, total))

        atlas, committed = StoredAtlas.open(folder), set(done)
        summaries = {
            one.name: atlas.summary(one.name) if done else atlas.empty_summary(one)
            for one in self.layers
        }
        observer = Observer(
            self.model, self.dataset, self.layers, int(self.settings["batch_size"])
        )
        labelled = self.matching.labelled
        fresh = {name: summary.following() for name, summary in summaries.items()}
        work = ShardWork(
            observer, folder, size, labelled, fresh, told=tell if alone else None
        )
        for result in runner.run(work, todo):
            for name, summary in result.summaries.items():
                summaries[name].merge(summary)
            committed.add(result.shard)
            write_summaries(folder, summaries, committed)
            if not alone:
                tell(result.images, result.skipped)
            del result  # not to be kept while the next shard is scanned
        return images, skipped

    def manifest(self, status: str, images: int, skipped: int) -> dict[str, Any]:
        """The atlas's manifest; documented in docs/atlas.md."""
        facts = NetworkFacts.of(self.model)
        head = self.model.head
        norm = head.readout.norm if isinstance(head, Head) else None
        return {
            "schema": SCHEMA,
            "status": status,
            "identity": self.identity,
            "probe": self.probe,
            "model": {
                "spec": facts.provenance.spec,
                "weights": facts.provenance.weights,
                "sha256": facts.provenance.sha256,
                "notes": list(facts.provenance.notes),
                "architecture": facts.architecture,
                "parameters": facts.parameters,
                "labels": list(self.model.labels),
                "input_shape": list(facts.input_shape),
                "preprocessing": facts.preprocessing,
                "head": None
                if not isinstance(head, Head)
                else {
                    "kind": head.kind,
                    "layer": head.layer,
                    "layer_is_map": head.layer_is_map,
                    "norm": None
                    if norm is None
                    else {"kind": norm.kind, "eps": norm.eps},
                    "error": head.error,
                },
            },
            "data": {
                "source": _absolute(self.dataset.source),
                "paths": list(self.dataset.given),
                "split": self.dataset.split,
                "kind": self.dataset.kind,
                "images": len(self.dataset),
                "notes": [*self.dataset.notes, *self.matching.notes],
                "labels": "given" if self.matching.labelled else "predicted",
                "classes": list(self.matching.classes),
                "targets": list(self.matching.targets),
            },
            "layers": [layer.plain() for layer in self.layers],
            "parameters": {**self.settings, "shards": self.shard_count},
            "scanned": {"images": images, "skipped": skipped},
            "concepts": None,
            "ablation": None,
            "engine": {"name": self.engine, "version": version(self.engine)},
            "versions": dict(facts.versions),
        }


def fingerprint(model: Classifier) -> str:
    """A SHA-256 over the network's structure and all its numbers: other weights have another one."""
    # Where a function is shown, so is where it lies in memory this time.
    structure = re.sub(r" at 0x[0-9a-fA-F]+", "", str(model.network))
    digest = hashlib.sha256(structure.encode())
    for name, tensor in model.network.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(
                tensor.detach()
                .cpu()
                .contiguous()
                .flatten()
                .view(torch.uint8)
                .numpy()
                .data
            )
    return digest.hexdigest()


def _layers(model: Classifier, names: Sequence[str] | None) -> list[AtlasLayer]:
    """The layers to scan, the head's feature map always among them where a head is exact."""
    head = model.head_or_refusal()[0]
    exact = head if isinstance(head, Head) else None
    found: dict[str, AtlasLayer] = {}
    layers = model.layers()
    if names is None and exact is None:
        if head is None:
            raise InputError(
                "the network has no layer to speak of that a scan could begin with: "
                "name layers"
            )
        names = [head.layer]
    for name in names or ():
        layer = find_map_layer(layers, name)
        # A container's map is that of the last layer in it: the head's layer may go by
        # several names.
        is_head = (
            exact is not None
            and exact.layer_is_map
            and find_layer(layers, exact.layer).call == layer.call
        )
        units, rows, cols = layer.shape
        found[name] = AtlasLayer(
            name, layer.kind, units, (rows, cols), layer.grid, is_head, 1.0
        )
    if exact is not None and not any(layer.is_head for layer in found.values()):
        # Where a function still follows the layer, its map is another than the layer's
        # own.
        name = exact.layer if exact.layer_is_map else f"{exact.layer}+"
        kind = next((layer.kind for layer in layers if layer.name == exact.layer), "")
        units, rows, cols = exact.map_shape
        found[name] = AtlasLayer(name, kind, units, (rows, cols), exact.grid, True, 1.0)
    return list(found.values())


def _with_scales(
    model: Classifier, layers: Sequence[AtlasLayer]
) -> tuple[list[AtlasLayer], list[float]]:
    """The layers with the power of two next to their largest activation on noise, and the logits on it."""
    names = [layer.name for layer in layers if not layer.is_head]
    noise = torch.randn(
        (2, *model.input_shape),
        generator=torch.Generator().manual_seed(3),
        device="cpu",
    )
    found = model.activations(noise.to(model.like.device, model.like.dtype), names)
    probe = [float(f"{logit:.6g}") for logit in found.logits[0].tolist()]
    scaled = []
    for layer in layers:
        maps = found.feature_map if layer.is_head else found.layers[layer.name]
        assert maps is not None
        largest = float(maps.abs().max())
        unit = 2.0 ** round(math.log2(largest)) if 0 < largest < math.inf else 1.0
        scaled.append(dataclasses.replace(layer, unit=unit))
    return scaled, probe


_DEFAULTS: dict[str, Any] = {
    "top": 20,
    "sample": 48,
    "quantile": 0.005,
    "batch_size": 32,
    "shard_size": 1024,
}


def _settings(folder: Path, given: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The parameters: those given, or those of the scan that is gone on with, or the defaults; checked."""
    most = {
        "top": max(images, 20),
        "sample": max(images, 48),
        "batch_size": 4096,
        "shard_size": 1_000_000,
    }
    begun = _manifest(folder)
    before = _DEFAULTS if begun is None else begun["identity"]["parameters"]
    settings = {
        name: before[name] if value is None else value for name, value in given.items()
    }
    for name in ("top", "sample", "batch_size", "shard_size"):
        least = 0 if name == "sample" else 1
        if settings[name] < least:
            raise InputError(f"{name} is at least {least}, not {settings[name]}")
        if settings[name] > most[name]:
            raise InputError(
                f"{name} is at most {most[name]} here, not {settings[name]}"
            )
    if not 0 < settings["quantile"] < 1:
        raise InputError(
            "quantile is a share of all activations between 0 and 1, not "
            f"{settings['quantile']:g}"
        )
    return settings


def _manifest(folder: Path) -> dict[str, Any] | None:
    return Atlas.open(folder).manifest if (folder / MANIFEST).exists() else None


_REMEDY = "name another folder with --out, or remove this one"


def _check_same(folder: Path, plan: _Plan) -> None:
    """Raise AtlasError unless a folder is not there, is empty, or holds a scan of the same things."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write into '{folder}': it is a file, not a folder: choose another "
            "path"
        )
    begun = _manifest(folder)
    if begun is None:
        others = (
            [path.name for path in folder.iterdir() if path.name != WORK]
            if folder.exists()
            else []
        )
        if others:
            raise AtlasError(
                f"'{folder}' holds other files ({sorted(others)[0]} …) and no atlas: "
                f"{_REMEDY}"
            )
        return
    for what, now in plan.identity.items():
        then = identity_of(begun).get(what)
        if then != now:
            raise AtlasError(
                f"'{folder}' holds a scan of {_difference(what, then, now)}: {_REMEDY}"
            )
    # The fingerprint knows the numbers of a network; what its code does with them is
    # seen in its answers.
    if not same_answers(begun, {"probe": plan.probe}):
        raise AtlasError(
            f"'{folder}' holds a scan of a model that answers otherwise (to noise): "
            f"{_REMEDY}"
        )


def _difference(what: str, then: Any, now: Any) -> str:
    if what == "parameters":
        name = next(name for name in now if then.get(name) != now[name])
        return f"other parameters ({name} was {then.get(name)}, not {now[name]})"
    if isinstance(now, str) and len(now) == 64:
        return f"another {what} (fingerprint {str(then)[:8]}, not {now[:8]})"
    return f"another {what} ({then}, not {now})"


def _check_unchanged(folder: Path, dataset: Dataset) -> None:
    """Raise AtlasError where an image that was scanned has other bytes now; files that were only touched are read."""
    for shard in shards_in(folder):
        rows = read_table(
            rows_file(folder, shard), ["image", "size", "stamp", "digest"]
        ).to_pydict()
        for image, size, stamp, digest in zip(*rows.values(), strict=True):
            entry = dataset.entries[image]
            if (entry.size, entry.stamp) != (size, stamp) and digest is not None:
                if digest_of(dataset.read(image)) != digest:
                    raise AtlasError(
                        f"image '{entry.id}' has changed since it was scanned into "
                        f"'{folder}': {_REMEDY}"
                    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else scans into a folder meanwhile; the lock is gone with the process, however it ends."""
    try:
        import filelock
    except ImportError:
        raise MissingExtraError("filelock", "atlas", "a scan") from None
    parquet()  # better now than after the first shard
    make_folder(folder / WORK)
    try:
        with filelock.FileLock(folder / WORK / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise AtlasError(
            f"'{folder}' is being scanned by another process: wait for it, or name "
            "another --out"
        ) from None
    except UnitscopeError:
        raise
    except OSError as error:
        raise output_error(folder, error) from None


def _finish(folder: Path, plan: _Plan) -> None:
    """Write the tables, and last the manifest that says so."""
    head = plan.model.head
    if isinstance(head, Head):
        write_head(folder, head.readout)
    atlas = Atlas.open(folder)
    images, skipped = write_findings(atlas)
    status = "complete" if len(shards_in(folder)) == plan.shard_count else "part"
    write_manifest(
        folder,
        plan.manifest(status, images, skipped) | {"ablation": write_ablation(atlas)},
    )


def _log(
    folder: Path, stage: str, started: float, counts: tuple[int, int], workers: int
) -> None:
    images, skipped = counts
    line = {
        "stage": stage,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "images": images,
        "skipped": skipped,
        "workers": workers,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    with (folder / _RUNS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).exists() else source
