"""Resuming: interrupted, split and distributed scans end in the same atlas."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scans import (
    CLASSES,
    OPTIONS,
    PHOTOS,
    Stop,
    contents,
    make,
    stopping_at,
)
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.disk.manifest import (
    MERGING,
    read_manifest,
    write_manifest,
)
from unitscope.atlas.merging import merge
from unitscope.atlas.scan.options import Progress
from unitscope.atlas.scanning import scan
from unitscope.errors import (
    AtlasError,
    OutputError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier


@pytest.mark.parametrize("photos", [1, 17, 30, 44])
def test_a_scan_interrupted_anywhere_resumes_to_the_same_atlas(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path, photos: int
) -> None:
    out = tmp_path / "out"
    layers = ["features.2", "features.4"]
    with pytest.raises(Stop):
        scan(
            model,
            folder,
            out,
            layers=layers,
            progress=stopping_at(photos),
            **OPTIONS,
        )
    again = scan(
        make(Preprocessing(resize=36, crop=32)), folder, out, layers=layers
    )  # with the atlas's own parameters
    assert again.complete and contents(out) == contents(atlas.path)


def test_a_finished_scan_is_not_repeated(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    before = contents(atlas.path)
    reported: list[Progress] = []
    scan(
        model,
        folder,
        atlas.path,
        layers=["features.2", "features.4"],
        progress=reported.append,
    )
    assert not reported and contents(atlas.path) == before


def test_any_number_of_workers_gives_the_same(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    reported: list[Progress] = []
    layers = ["features.2", "features.4"]
    out = scan(
        model,
        folder,
        tmp_path / "out",
        layers=layers,
        workers=2,
        progress=reported.append,
        **OPTIONS,
    )
    assert (
        contents(out.path) == contents(atlas.path)
        and reported[-1].done == PHOTOS
    )


def test_parts_in_any_order_are_the_whole(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    layers = ["features.2", "features.4"]
    parts = [
        scan(
            model,
            folder,
            tmp_path / f"part{which}",
            layers=layers,
            part=(which, 3),
            **OPTIONS,
        ).path
        for which in (3, 1, 2)
    ]
    assert not Atlas.open(parts[0]).complete
    assert contents(merge(parts, tmp_path / "merged").path) == contents(
        atlas.path
    )
    # What is not there yet is scanned into the merged one.
    some = merge(parts[:2], tmp_path / "some")
    assert not some.complete
    scan(model, folder, some.path, layers=layers)
    assert contents(some.path) == contents(atlas.path)
    with pytest.raises(AtlasError, match=r"shard 0 is in .* and in"):
        merge([parts[1], atlas.path], tmp_path / "twice")
    other = scan(
        model, folder, tmp_path / "other", part=(1, 3), **(OPTIONS | {"top": 5})
    )
    with pytest.raises(
        AtlasError, match="no parts of one scan: they differ in"
    ):
        merge([parts[0], other.path], tmp_path / "mixed")
    assert (
        not (tmp_path / "twice").exists() and not (tmp_path / "mixed").exists()
    )


def test_tables_of_a_part_are_gone_while_the_rest_is_scanned(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    layers = ["features.4"]
    part = scan(model, folder, out, layers=layers, part=(1, 3), **OPTIONS)
    assert part.has("units")
    with pytest.raises(Stop):
        scan(
            model,
            folder,
            out,
            layers=layers,
            progress=stopping_at(15),
            **OPTIONS,
        )
    with pytest.raises(
        AtlasError, match="none yet, as the scan is not finished"
    ):
        Atlas.open(out).table("units")


def test_an_interrupted_merge_is_not_read_as_an_atlas(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    part = scan(model, folder, tmp_path / "part", part=(1, 3), **OPTIONS).path
    merged = merge([part], tmp_path / "merged").path
    manifest = read_manifest(merged)
    write_manifest(merged, manifest | {"status": MERGING})
    with pytest.raises(AtlasError, match="run the same merge again"):
        Atlas.open(merged)
    with pytest.raises(AtlasError, match="run the same merge again"):
        merge([merged], tmp_path / "other")
    assert contents(merge([part], merged).path) == contents(part)


def test_the_same_merge_again_finds_its_work_done(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    """As after a kill between the manifest, which comes last, and the lock's end."""
    parts = [
        scan(
            model, folder, tmp_path / f"part{which}", part=(which, 3), **OPTIONS
        ).path
        for which in (1, 2)
    ]
    merged = merge(parts, tmp_path / "merged").path
    before = contents(merged)
    assert merge(parts, merged).path == merged and contents(merged) == before

    with pytest.raises(AtlasError, match="holds an atlas: name another folder"):
        merge(parts[:1], merged)
    rows = next((merged / "rows").iterdir())
    rows.write_bytes(rows.read_bytes() + b"x")
    with pytest.raises(AtlasError, match="holds an atlas: name another folder"):
        merge(parts, merged)


def test_a_killed_scan_resumes_to_the_same_atlas(
    folder: Path, tmp_path: Path
) -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from networks import Gap, seeded
        from unitscope import Preprocessing, scan, wrap
        from unitscope.atlas.scanning import Progress

        def reported(now):
            print(now.done, flush=True)

        preprocessing = Preprocessing(resize=36, crop=32)
        model = wrap(seeded(Gap), labels={CLASSES!r}, preprocessing=preprocessing)
        scan(model, {str(folder)!r}, sys.argv[1], progress=reported, **{OPTIONS!r})
    """)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(killed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > 20:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert Atlas.open(killed).manifest["status"] == "scanning"
    plain = make(Preprocessing(resize=36, crop=32))
    scan(plain, folder, killed)
    whole = scan(plain, folder, tmp_path / "whole", **OPTIONS)
    assert contents(killed) == contents(whole.path)


def test_a_full_disk_loses_nothing(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    out, layers = tmp_path / "out", ["features.2", "features.4"]
    with pytest.raises(Stop):
        scan(
            model,
            folder,
            out,
            layers=layers,
            progress=stopping_at(12),
            **OPTIONS,
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            scan(model, folder, out, layers=layers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [
        path
        for path in out.rglob("*")
        if path.name.startswith(".") and path.name != ".scan"
    ]
    scan(model, folder, out, layers=layers)
    assert contents(out) == contents(atlas.path)
