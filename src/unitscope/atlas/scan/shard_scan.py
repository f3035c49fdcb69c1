"""Shard scan: the shards of a data set, scanned and committed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitscope.atlas.scan.options import ScanOptions
from unitscope.atlas.scan.plan import ScanPlan
from unitscope.atlas.shards.observing import Observer
from unitscope.atlas.shards.scan_task import ScanTask
from unitscope.atlas.storage import StoredAtlas, shards_in, write_summaries
from unitscope.atlas.summaries.layer import LayerSummary


def scan_shards(
    folder: Path, plan: ScanPlan, shards: Sequence[int], options: ScanOptions
) -> tuple[int, int]:
    """Scan shards and commit each; returns the numbers of images seen and skipped."""
    total = sum(plan.images_in(shard) for shard in shards)
    seen = skipped = 0

    def report(more_seen: int, more_skipped: int) -> None:
        nonlocal seen, skipped
        seen += more_seen
        skipped += more_skipped
        options.report("scan", seen, skipped, total)

    committed = set(shards_in(folder))
    summaries = _summaries(folder, plan)
    task = _task(folder, plan, summaries)
    pool = options.pool
    if pool.in_process:
        task.on_progress = report

    for result in pool.run(task, shards):
        _merge(summaries, result.summaries)
        committed.add(result.shard)
        write_summaries(folder, summaries, committed)
        if not pool.in_process:
            report(result.images, result.skipped)
        # Free the result's memory before the next shard is scanned.
        del result
    return seen, skipped


def _merge(
    summaries: dict[str, LayerSummary], others: dict[str, LayerSummary]
) -> None:
    for name, other in others.items():
        summaries[name].merge(other)


def _summaries(folder: Path, plan: ScanPlan) -> dict[str, LayerSummary]:
    """The summaries of the shards committed so far."""
    atlas = StoredAtlas.open(folder)
    if atlas.shards():
        return {layer.name: atlas.summary(layer.name) for layer in plan.layers}
    return {layer.name: atlas.empty_summary(layer) for layer in plan.layers}


def _task(
    folder: Path, plan: ScanPlan, summaries: dict[str, LayerSummary]
) -> ScanTask:
    observer = Observer(
        plan.model,
        plan.dataset,
        plan.layers,
        plan.parameters.batch_size,
    )
    return ScanTask(
        observer=observer,
        folder=folder,
        shard_size=plan.parameters.shard_size,
        labelled=plan.matching.labelled,
        fresh={
            name: summary.following() for name, summary in summaries.items()
        },
    )
