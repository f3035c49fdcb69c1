"""Layout: the names of the files and tables in an atlas's folder."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "atlas.json"
SUMMARIES = "summaries.safetensors"
HEAD = "head.safetensors"
POOLED = "pooled"
ROWS = "rows"
RUNS = "runs.jsonl"
WORK = ".scan"

TABLES = (
    "images",
    "skipped",
    "classes",
    "units",
    "unit_classes",
    "top_images",
    "sample_images",
    "concepts",
    "unit_concepts",
    "unit_ablation",
    "class_ablation",
    "set_ablation",
)


def table_file(folder: Path, table: str) -> Path:
    """One of an atlas's tables."""
    name = f"{table}.parquet"
    return folder / name


def rows_file(folder: Path, shard: int) -> Path:
    """The table of a shard's images in an atlas's folder."""
    name = f"{shard:05d}.parquet"
    return folder / ROWS / name


def pooled_file(folder: Path, shard: int) -> Path:
    """The pooled units of a shard's images in an atlas's folder."""
    name = f"{shard:05d}.safetensors"
    return folder / POOLED / name


def stamps_file(folder: Path, shard: int) -> Path:
    """The modification times of a shard's images: of this scan, not of the atlas."""
    name = f"stamps-{shard:05d}.parquet"
    return folder / WORK / name
