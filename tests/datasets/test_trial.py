"""Trial: a file that crashes pyarrow costs one line, not the process."""

from __future__ import annotations

from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from unitscope.datasets import trial  # noqa: E402
from unitscope.errors import DatasetError  # noqa: E402

# The other process reads files so, or crashes as by damage, or waits for ever.
CODE = """
import os, sys, signal
sys.path[:] = {path!r}
from unitscope.datasets import trial
read = trial._read_all
def odd(file):
    if file.name.startswith("crash"):
        os.abort()
    if file.name.startswith("hang"):
        signal.alarm(1)
        signal.pause()
    read(file)
trial._read_all = odd
trial.serve()
"""


def test_a_file_that_crashes_its_reader_is_refused_and_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_CODE", CODE)
    monkeypatch.setattr(trial, "_READER", trial._Reader())
    table = pa.table({"image": [b"1", b"2"], "label": [0, 1]})
    for name in ("good", "crash", "hang", "other"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")

    trial.check_readable(tmp_path / "good.parquet")
    for name in ("crash", "hang"):
        with pytest.raises(DatasetError, match="crashes or stops pyarrow"):
            trial.check_readable(tmp_path / f"{name}.parquet")
    # Others tell what pyarrow itself notices.
    trial.check_readable(tmp_path / "text.parquet")
    trial.check_readable(tmp_path / "missing.parquet")
    trial.check_readable(tmp_path / "other.parquet")
    trial._READER.close()
