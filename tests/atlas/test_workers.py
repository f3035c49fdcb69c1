"""Worker processes: they load what the main process has, name what went wrong, and end
with it."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scans import OPTIONS, contents, make
from unitscope.atlas.scanning import scan
from unitscope.atlas.shards import pool, worker
from unitscope.atlas.shards.sending import packed, unpacked
from unitscope.errors import MissingExtraError, ModelError, RunnerError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier
from unitscope.sources import load, user_code

LAYERS = """
from torch import nn
WIDTH = 6
class Block(nn.Sequential):
    def __init__(self): super().__init__(nn.Conv2d(3, WIDTH, 3, stride=2), nn.ReLU())
"""
NET = """
import multiprocessing, os, time
from torch import nn
from layers import Block, WIDTH
class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.block, self.fc = Block(), nn.Linear(WIDTH, num_classes)
    def forward(self, x):
        if multiprocessing.parent_process():
            time.sleep(float(os.environ.get("SLOW", 0)))
        return self.fc(self.block(x).mean((2, 3)))
def local(scale=2):
    class Local(Net):
        def __init__(self):
            super().__init__()
            self.double = lambda y: scale * y
        def forward(self, x):
            return self.double(super().forward(x))
    return Local()
def pixels():
    class Pixels(Net):
        def forward(self, x):
            assert x.dtype.itemsize == 1, "wants uint8"
            return super().forward(x / 255)
    return Pixels()
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "layers.py").write_text(LAYERS)
    file = tmp_path / "net.py"
    file.write_text(NET)
    return file


class Task:
    """Gives the logits of a model; the shard is a seed."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def __call__(self, shard: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(shard)
        x = torch.randn(2, 3, 24, 24, generator=generator)
        return self.model.explain(self.model.as_input(x)).logits


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget the user's code, as a new process does not know it."""

    def forget() -> None:
        for code in list(user_code._CODE.values()):
            for name in [*sys.modules]:
                if name.split(".")[0] == code.package:
                    monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(user_code, "_CODE", {})

    return forget


@pytest.mark.parametrize("name", ["Net", "local", "pixels"])
def test_a_worker_has_the_network_of_a_python_file_as_it_is_now(
    name: str, net: Path, elsewhere: Callable[[], None]
) -> None:
    model = load(
        f"python:{net}:{name}", seed=3, preprocessing="resize=24,crop=24"
    )
    with torch.no_grad():
        model.module.get_parameter("fc.bias").add_(1)
    model.layers()  # a first pass shows whether it takes pixels
    task = Task(model)
    expected = task(0)
    sent = packed(task)
    if name == "Net":
        # What is sent is what ran, whatever became of the files.
        (net.parent / "layers.py").write_text("raise ValueError")
    elsewhere()
    arrived: Any = unpacked(sent)
    assert arrived.model.module is not model.module
    assert torch.equal(arrived(0), expected)
    assert (
        arrived.model.preprocessing.describe() == model.preprocessing.describe()
    )


def test_a_network_that_has_become_another_is_not_taken_for_it(
    net: Path, elsewhere: Callable[[], None]
) -> None:
    sent = packed(
        Task(load(f"python:{net}:local", preprocessing="resize=24,crop=24"))
    )
    net.write_text(NET.replace("scale=2", "scale=3"))
    elsewhere()
    with pytest.raises(
        RunnerError, match=r"gives other logits .* load it again"
    ):
        unpacked(sent)
    net.unlink()
    with pytest.raises(
        RunnerError,
        match=r"cannot load the model \(ModelError: there is no Python file",
    ):
        unpacked(sent)


def test_what_cannot_be_sent_is_refused(net: Path) -> None:
    spec = f"python:{net}:Net"
    model = load(spec, preprocessing=lambda photo: torch.zeros(3, 24, 24))
    with pytest.raises(
        RunnerError, match=r"lambda.*: use one worker, or define"
    ):
        packed(Task(model))


def fail(shard: int) -> None:
    raise [
        ModelError("our own words"),
        MissingExtraError("timm", "timm", "this"),
        SystemExit("bye"),
        Odd(1, 2),
    ][shard]


class Odd(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (0, "ModelError: our own words"),
        (1, "MissingExtraError: this needs timm, which is not installed"),
        (
            2,
            "RunnerError: a worker process failed (SystemExit: bye): run with one",
        ),
        (3, "RunnerError: a worker process failed (Odd: odd)"),
    ],
)
def test_an_error_in_a_worker_arrives_with_its_cause(
    shard: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_task", lambda: fail)
    with pytest.raises(BaseException) as caught:
        worker.run(shard)
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert f"{type(arrived).__name__}: {arrived}".startswith(message)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            [-9, -15],
            r"was killed \(SIGKILL\), as the system does when memory runs out",
        ),
        ([-15, -11], r"crashed \(SIGSEGV\) in a library"),
        ([1, 143], r"exit status 1; .* under if __name__ == '__main__'"),
        ([-15, 143, 0], r"was stopped \(SIGTERM\): run the same command again"),
        ([-77], r"crashed \(signal 77\)"),
    ],
)
def test_a_dead_worker_says_what_it_died_of(
    codes: list[int], message: str
) -> None:
    assert re.search(message, pool._cause_of_death(codes))


def die(shard: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_noticed() -> None:
    with pytest.raises(RunnerError, match="SIGKILL"):
        list(pool.LocalPool(2).run(die, [0]))


@pytest.mark.slow
def test_two_workers_scan_a_network_of_a_python_file(
    net: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("Net", "local"):
        model = load(
            f"python:{net}:{name}",
            preprocessing=Preprocessing(resize=36, crop=32),
        )
        one = scan(model, folder, tmp_path / f"{name}1", **OPTIONS)
        two = scan(model, folder, tmp_path / f"{name}2", workers=2, **OPTIONS)
        assert contents(one.path) == contents(two.path)


def children(process: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [
        int(pid)
        for pid, parent, state in rows
        if int(parent) == process and not state.startswith("Z")
    ]


def is_alive(process: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)],
        capture_output=True,
        text=True,
    )
    return listed.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_main_process(
    how: signal.Signals, net: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "unitscope", "scan", str(folder)),
        *(
            "--model",
            f"python:{net}:Net",
            "--preprocessing",
            "resize=36,crop=32",
        ),
        *("--workers", "2", "--batch-size", "2", "--shard-size", "4"),
        *("--engine", "torch", "--out", str(out)),
    ]
    complaints = tmp_path / "stderr"
    with complaints.open("w") as stderr:
        main = subprocess.Popen(
            command, env={**os.environ, "SLOW": "1"}, stderr=stderr
        )
    # Two workers, and the tracker of what they share; the first files say that they run.
    while main.poll() is None and not list(out.rglob("*.parquet")):
        time.sleep(0.1)
    while main.poll() is None and len(children(main.pid)) < 3:
        time.sleep(0.1)
    time.sleep(1)  # One that has just begun to start complains.
    started = children(main.pid)
    main.send_signal(how)
    status = main.wait(20)

    deadline = time.time() + 20
    while any(map(is_alive, started)) and time.time() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, started))
    if how != signal.SIGKILL:
        assert status == 143 and complaints.read_text() == ""
        # Nothing is left half written.
        assert not [file for file in out.rglob(".*") if file.name != ".scan"]


def test_a_wrapped_network_is_sent_as_it_is(small: Preprocessing) -> None:
    task = Task(make(small))
    arrived: Any = unpacked(packed(task))
    assert torch.equal(arrived(1), task(1))
