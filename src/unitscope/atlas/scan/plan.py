"""Plan: a model, a data set, and the parameters of its scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unitscope.atlas.disk.manifest import SCHEMA
from unitscope.atlas.identity import fingerprint, sha256_of
from unitscope.atlas.matching import Matching, matched
from unitscope.atlas.scan.layer_choice import exact_head, with_scales
from unitscope.atlas.scan.options import Parameters
from unitscope.atlas.storage import AtlasLayer
from unitscope.attribution.exact_heads import ExactHead
from unitscope.datasets import Dataset
from unitscope.errors import InputError
from unitscope.inputs.preprocessing import reading_of
from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts


@dataclass(frozen=True)
class ScanPlan:
    """A model on an engine, a data set, layers and parameters.

    `identity` contains the properties that two scans must share to be the same scan.
    `probe` are the logits for noise, which reveal a change of the network's code.
    """

    model: Classifier
    dataset: Dataset
    layers: list[AtlasLayer]
    parameters: Parameters
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
        parameters: Parameters,
        engine: str,
    ) -> ScanPlan:
        """The plan for a model that runs on an engine now."""
        scaled, probe = with_scales(model, layers)
        identity = {
            "model": fingerprint(model),
            "labels": sha256_of("\n".join(model.labels)),
            "preprocessing": model.preprocessing.describe(),
            "output": model.output,
            "data set": dataset.fingerprint(),
            "layers": [layer.name for layer in layers],
            "head": exact_head(model) is not None,
            "parameters": parameters.plain(),
            "engine": engine,
            "kind of scores": str(model.scores),
        }
        return cls(
            model=model,
            dataset=dataset,
            layers=scaled,
            parameters=parameters,
            matching=matched(dataset, model.labels),
            engine=engine,
            identity=identity,
            probe=probe,
        )

    @property
    def shard_count(self) -> int:
        """The number of shards of the data set."""
        return -(-len(self.dataset) // self.parameters.shard_size)

    def images_in(self, shard: int) -> int:
        """The number of images in a shard."""
        size = self.parameters.shard_size
        return min(size, len(self.dataset) - shard * size)

    def shards(self, part: tuple[int, int] | None) -> list[int]:
        """The shards to scan: all, or those of a part."""
        if part is None:
            return list(range(self.shard_count))

        number, parts = part
        if not 1 <= number <= parts:
            raise InputError(
                f"part {number} of {parts} does not exist: choose a part from 1 to "
                f"{parts}"
            )
        if parts > self.shard_count:
            raise InputError(
                f"the data set has {self.shard_count} shards of "
                f"{self.parameters.shard_size} images, too few for {parts} parts: "
                "choose fewer parts or a smaller shard size"
            )
        first = (number - 1) * self.shard_count // parts
        end = number * self.shard_count // parts
        return list(range(first, end))

    def manifest(self, status: str) -> dict[str, Any]:
        """The atlas's manifest before the scan; documented in docs/atlas.md."""
        facts = NetworkFacts.of(self.model)
        return {
            "schema": SCHEMA,
            "status": status,
            "identity": self.identity,
            "probe": self.probe,
            "model": self._model_facts(facts),
            "data": self._data_facts(),
            "layers": [layer.plain() for layer in self.layers],
            "parameters": {
                **self.parameters.plain(),
                "shards": self.shard_count,
            },
            "scanned": {"images": 0, "skipped": 0, "notes": []},
            "concepts": None,
            "ablation": None,
            "engine": {"name": self.engine, "version": version(self.engine)},
            "versions": dict(facts.versions),
        }

    def _model_facts(self, facts: NetworkFacts) -> dict[str, Any]:
        provenance = facts.provenance
        head = exact_head(self.model)
        reading = reading_of(self.model.preprocessing)
        return {
            "spec": provenance.spec,
            "weights": provenance.weights,
            "sha256": provenance.sha256,
            "notes": list(facts.notes),
            "scores": str(facts.scores),
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "labels": list(self.model.labels),
            "input_shape": list(facts.input_shape),
            "preprocessing": facts.preprocessing,
            "reading": {"white": reading.white, "original": reading.original},
            "output": facts.output,
            "head": None if head is None else _head_facts(head),
        }

    def _data_facts(self) -> dict[str, Any]:
        dataset = self.dataset
        matching = self.matching
        return {
            "source": absolute(dataset.source),
            "paths": list(dataset.opened_paths),
            "split": dataset.split,
            "kind": dataset.kind,
            "images": len(dataset),
            "notes": [*dataset.notes, *matching.notes],
            "labels": "given" if matching.labelled else "predicted",
            "classes": list(matching.classes),
            "targets": list(matching.targets),
        }


def _head_facts(head: ExactHead) -> dict[str, Any]:
    norm = head.readout.norm
    return {
        "kind": head.kind,
        "layer": head.layer,
        "layer_is_map": head.layer_is_map,
        "sources": head.as_json()["sources"],
        "norm": None if norm is None else {"kind": norm.kind, "eps": norm.eps},
        "error": head.error,
    }


def absolute(source: str) -> str:
    """A source as an absolute path where it is a path, else unchanged."""
    path = Path(source)
    return str(path.absolute()) if path.exists() else source
