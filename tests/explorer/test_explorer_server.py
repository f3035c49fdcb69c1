"""The explorer's server: who gets in, what is answered, what is refused, and that
nobody can keep others waiting."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from browsing import running
from networks import Gap, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.cli import main
from unitscope.cli.explore import _model_of
from unitscope.datasets import open_dataset
from unitscope.errors import (
    BusyError,
    MissingError,
    PhotoError,
    UnitscopeError,
    UnitscopeWarning,
)
from unitscope.explorer import server
from unitscope.explorer.application import create_app
from unitscope.explorer.documents import Documents
from unitscope.explorer.limits import Limits
from unitscope.explorer.server import listening, serve
from unitscope.explorer.shelf import Shelf
from unitscope.explorer.uploads import Uploads
from unitscope.explorer.worker import Worker
from unitscope.inputs.photos import Encoded, open_photo
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.render.words import without_folders

SMALL = Preprocessing(resize=36, crop=32)
AT = "http://localhost:8421"


class Slow(Gap):
    """A network that takes its time, as large ones do, and counts."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        time.sleep(0.25)
        return super().forward(x)


def picture(
    seed: int = 0, size: tuple[int, int] = (60, 48), kind: str = "png"
) -> bytes:
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[1], size[0], 3), np.uint8
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def numbers(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), "<f4")


# The queue


def worked(of: Callable[[Worker], Any], waiting: int = 3) -> Any:
    """What comes of a coroutine function with a worker, which is closed afterwards."""

    async def all_of_it() -> Any:
        worker = Worker("model", waiting)
        try:
            return await asyncio.wait_for(of(worker), 20)
        finally:
            worker.close()

    return asyncio.run(all_of_it())


def test_a_worker_does_one_thing_after_the_other_in_one_thread_and_in_order() -> (
    None
):
    begun: list[int] = []
    threads: set[str] = set()

    def job(number: int) -> int:
        begun.append(number)
        threads.add(threading.current_thread().name)
        time.sleep(0.01)
        return number * number

    async def many(worker: Worker) -> list[int]:
        return await asyncio.gather(
            *(worker.run(job, number) for number in range(8))
        )

    assert worked(many, waiting=8) == [number * number for number in range(8)]
    assert begun == list(range(8)) and threads == {"unitscope model"}


def test_what_a_job_raises_is_raised_where_it_is_awaited_and_the_next_still_runs() -> (
    None
):
    def job(error: BaseException) -> None:
        raise error

    async def several(worker: Worker) -> list[str]:
        told = []
        for error in (
            ValueError("one"),
            MissingError("two"),
            SystemExit(3),
            StopIteration("four"),
            KeyboardInterrupt(),
        ):
            try:
                await worker.run(job, error)
            except Exception as raised:
                told.append(f"{type(raised).__name__}: {raised}")
        return [*told, await worker.run(str, 5)]

    assert worked(several) == [
        "ValueError: one",
        "MissingError: two",
        "RuntimeError: SystemExit: 3",
        "RuntimeError: StopIteration: four",
        "RuntimeError: KeyboardInterrupt: ",
        "5",
    ]


def test_a_full_queue_refuses_and_says_how_many_wait() -> None:
    release = threading.Event()

    async def too_many(worker: Worker) -> list[str]:
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(worker.run(release.wait, 10))
        ]
        await asyncio.sleep(0.1)  # the first runs; so many may wait
        tasks += [
            asyncio.ensure_future(worker.run(str, number))
            for number in range(3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(
            BusyError, match="3 requests wait for the model already: try again"
        ):
            await worker.run(str, 4)
        release.set()
        _, *rest = await asyncio.gather(*tasks)
        return [*rest, await worker.run(str, 5)]

    assert worked(too_many) == ["0", "1", "2", "5"]


def test_a_job_for_which_nobody_waits_any_more_is_left_out_and_gives_its_place_up() -> (
    None
):
    release = threading.Event()
    done: list[int] = []

    async def given_up(worker: Worker) -> None:
        first = asyncio.ensure_future(worker.run(release.wait, 10))
        await asyncio.sleep(0.1)
        tasks = [
            asyncio.ensure_future(worker.run(done.append, number))
            for number in range(3)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        tasks[1] = asyncio.ensure_future(
            worker.run(done.append, 3)
        )  # there is room again
        release.set()
        await asyncio.gather(first, *tasks)

    worked(given_up)
    assert done == [0, 2, 3]


def test_whoever_asks_for_the_same_meanwhile_gets_the_same_result() -> None:
    release, calls = threading.Event(), []

    def job() -> int:
        release.wait(10)
        calls.append(1)
        return len(calls)

    async def shared(worker: Worker) -> list[int]:
        tasks = [
            asyncio.ensure_future(worker.run(job, key="same")) for _ in range(6)
        ]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        release.set()
        found = [
            *await asyncio.gather(*tasks[1:]),
            await worker.run(job, key="same"),
        ]
        assert tasks[0].cancelled()
        return found

    assert worked(shared, waiting=1) == [1, 1, 1, 1, 1, 2]


def test_closing_ends_what_waits_and_does_not_wait_for_what_runs() -> None:
    if sys.gettrace() is not None:
        # Seen in CPython 3.11 with any trace function, coverage's included: the thread
        # that raises an exception in another one stands still until that one runs.
        pytest.skip(
            "a traced interpreter waits for the thread that it interrupts"
        )
    release = threading.Event()

    async def closed() -> float:
        worker = Worker("model", 4)
        running = asyncio.ensure_future(worker.run(release.wait, 30))
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(worker.run(str, 1))
        await asyncio.sleep(0)
        begin = time.perf_counter()
        worker.close(patience=0.2)
        seconds = time.perf_counter() - begin
        for task in (
            running,
            waiting,
            asyncio.ensure_future(worker.run(str, 2)),
        ):
            with pytest.raises(BusyError, match="ending"):
                await task
        return seconds

    assert asyncio.run(closed()) < 2
    release.set()


# The photos that were given


def test_a_photo_is_kept_by_its_contents_until_it_has_to_make_room() -> None:
    shelf = Shelf(count=3)
    ids = [shelf.add(picture(seed), f"{seed}.png") for seed in range(3)]
    assert ids[0] == shelf.add(picture(0), "again.png") and len(ids[0]) == 24
    assert shelf.find(ids[1]).read() == picture(1)
    fourth = shelf.add(picture(3), "3.png")
    with pytest.raises(
        MissingError,
        match=r"photo '\w{24}' is not stored here \(any more\): send it again",
    ):
        shelf.find(ids[2])
    assert [shelf.find(photo).name for photo in (ids[0], ids[1], fourth)] == [
        "again.png",
        "1.png",
        "3.png",
    ]


def test_photos_make_room_by_their_bytes_too() -> None:
    size = len(picture(0))
    shelf = Shelf(total_bytes=2 * size + size // 2)
    ids = [shelf.add(picture(seed), "photo.png") for seed in range(3)]
    with pytest.raises(MissingError):
        shelf.find(ids[0])
    assert [shelf.find(photo).size for photo in ids[1:]] == [
        len(picture(1)),
        len(picture(2)),
    ]
    with pytest.raises(
        PhotoError,
        match=r"'big.png' has [\d,]+ bytes, more than the [\d,]+ bytes there is room for",
    ):
        shelf.add(picture(0, (300, 300)), "big.png")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a/b\\c.jpg", "c.jpg"),
        ("../../etc/passwd", "passwd"),
        ("x\0y\u202egpj.exe\x1b[31m.jpg", "xygpj.exe[31m.jpg"),
        ("two\nlines.jpg", "two lines.jpg"),
        ("\u200b", "photo"),
        ("", "photo"),
        ("..", ".."),
        ("é" * 300 + ".jpg", "é" * 59 + "…" + "é" * 16 + ".jpg"),
    ],
)
def test_names_are_shortened_to_what_can_be_shown(
    given: str, shown: str
) -> None:
    shelf = Shelf()
    assert shelf.find(shelf.add(picture(), given)).name == shown


@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "mpo"]
)
def test_the_usual_kinds_of_pictures_are_taken(kind: str) -> None:
    shelf = Shelf()
    photo = open_photo(shelf.find(shelf.add(picture(kind=kind), f"a.{kind}")))
    assert photo.size == (60, 48)


@pytest.mark.parametrize("kind", ["eps", "ppm", "ico", "pcx", "jpeg2000"])
def test_other_kinds_are_refused_whatever_they_are_named(kind: str) -> None:
    with pytest.raises(
        PhotoError,
        match=r"'a.jpg' is not in a supported image format \(JPEG, PNG",
    ):
        Shelf().add(picture(kind=kind), "a.jpg")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4",
        b"%!PS-Adobe",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(PhotoError, match=r"'a\.png'"):
        Shelf().add(data, "a.png")


def bomb(width: int, height: int) -> bytes:
    """The beginning of a PNG file of that size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\0\0IDAT"
    )


@pytest.mark.parametrize(
    ("width", "height"),
    [(10_000, 5_001), (9_500, 9_500), (15_000, 15_000), (10**6, 10**6)],
)
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    width: int, height: int
) -> None:
    begin = time.perf_counter()
    with pytest.raises(
        PhotoError,
        match=r"more than 50 megapixels: shrink it|too large to decode safely",
    ):
        Shelf().add(bomb(width, height), "bomb.png")
    assert time.perf_counter() - begin < 1


def two_pictures(width: int, height: int) -> bytes:
    """A file that is a TIFF of 20×15 to who looks for that, and an IM of another size
    to who reads anything."""
    text = f": x\r\nImage type: 0 1 image\r\nImage size (x*y): {width}*{height}\r\n".encode()
    text += b"File size (no of images): 1\r\n\x1a"
    tags = [
        (256, 4, 20),
        (257, 4, 15),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 1024),
    ]
    tags += [(277, 3, 1), (278, 4, 15), (279, 4, 300)]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags
    )
    file = bytearray(1024 + 300)
    file[:8] = b"II*\0" + struct.pack("<I", 400)
    file[8 : 8 + len(text)] = text
    file[400 : 400 + len(directory) + 4] = directory + bytes(4)
    file[511] = 0x1A
    return bytes(file) + bytes((width + 7) // 8 * height)


def test_a_photo_stays_what_it_was_when_it_was_looked_at() -> None:
    data = two_pictures(2000, 1500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow is about to give the format up
        assert Image.open(io.BytesIO(data), formats=["IM"]).size == (2000, 1500)
    shelf = Shelf()
    photo = shelf.find(shelf.add(data, "a.tif"))
    assert photo.formats == ("TIFF",) and open_photo(photo).size == (20, 15)


def test_a_photo_is_decoded_before_it_is_kept_and_once_only() -> None:
    seen: list[str] = []

    def look(id: str, photo: Encoded) -> None:
        seen.append(id)
        open_photo(photo)

    shelf = Shelf()
    id = shelf.add(picture(), "a.png", look)
    assert shelf.add(picture(), "b.png", look) == id and seen == [id]
    cut = picture()[:-500]
    for again in range(2):
        with pytest.raises(PhotoError, match="damaged or cut short"):
            shelf.add(cut, "cut.png", look)
        assert len(seen) == 2 + again


def test_a_shelf_may_be_used_from_several_threads() -> None:
    shelf, pictures = Shelf(count=4), [picture(seed) for seed in range(12)]

    def used(number: int) -> None:
        with contextlib.suppress(MissingError):
            shelf.find(shelf.add(pictures[number % 12], "a.png")).read()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(used, range(200)))
    kept = [
        one for one in (shelf.add(picture(99), "last.png"),) if shelf.find(one)
    ]
    assert kept


# Who gets in, and what is answered


@pytest.fixture(scope="module")
def model() -> Classifier:
    return wrap(seeded(Gap), preprocessing=SMALL)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, model: Classifier) -> Atlas:
    """An atlas of that model, of twenty photos in two classes."""
    root = tmp_path_factory.mktemp("scanned")
    for number in range(20):
        path = root / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return scan(
        model,
        root / "photos",
        root / "atlas",
        engine="torch",
        top=4,
        sample=6,
        batch_size=8,
    )


@pytest.fixture
def documents(model: Classifier, tmp_path: Path) -> Documents:
    return Documents(model, folder=tmp_path)


@pytest.fixture
def client(documents: Documents) -> Iterator[TestClient]:
    with TestClient(
        create_app(documents, limits=Limits(upload_bytes=100_000)), base_url=AT
    ) as client:
        yield client


@pytest.fixture
def of_atlas(
    model: Classifier, atlas: Atlas, tmp_path: Path
) -> Iterator[TestClient]:
    documents = Documents(model, atlas, dataset=atlas.photos(), folder=tmp_path)
    with TestClient(create_app(documents), base_url=AT) as client:
        yield client


def given(client: TestClient, data: bytes, name: str = "a photo.png") -> str:
    answer = client.post(
        "/data/photos", content=data, headers={"X-Photo-Name": quote(name)}
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["photo"])


def told(answer: Any, status: int) -> str:
    """The one line of an error."""
    assert answer.status_code == status, answer.text
    assert (
        answer.headers["content-type"] == "application/json"
        and answer.headers["cache-control"] == "no-store"
    )
    (line,) = answer.json().values()
    assert (
        list(answer.json()) == ["error"]
        and "\n" not in line
        and "Traceback" not in line
    )
    return str(line)


def test_a_photo_is_given_explained_and_taken_apart(
    client: TestClient, model: Classifier
) -> None:
    data = picture(3)
    photo = given(client, data, "Größe 1.png")
    expected = model.explain(open_photo(Encoded("a", lambda: data, len(data))))
    answer = client.get(f"/data/photos/{photo}.json")
    assert (
        answer.headers["content-type"] == "application/json"
        and answer.headers["cache-control"] == "no-store"
    )
    plain = answer.json()
    assert plain["name"] == "Größe 1.png"
    np.testing.assert_allclose(
        numbers(plain["logits"]), expected.logits[0], rtol=1e-5
    )
    seen = client.get("/" + plain["picture"])
    assert (
        seen.headers["content-type"] == "image/jpeg"
        and seen.headers["cache-control"] == "no-store"
    )
    assert Image.open(io.BytesIO(seen.content)).size == (60, 48)
    question = {"photo": photo, "layer": expected.layer, "units": [1, 4]}
    off = client.post("/data/ablated", json=question).json()
    np.testing.assert_allclose(
        numbers(off["logits"]), expected.ablate([1, 4]).logits[0], rtol=1e-5
    )


def test_a_local_answer_is_told_class_by_class(client: TestClient) -> None:
    photo = given(client, picture(4))
    plain = client.get(
        f"/data/photos/{photo}.json", params={"layer": "features.0"}
    ).json()
    assert not plain["exact"] and plain["layer"] == "features.0"
    asked = {"photo": photo, "layer": "features.0", "class": "2"}
    evidence = client.get("/data/evidence.json", params=asked).json()
    assert len(numbers(evidence["contributions"])) == plain["units"]
    assert "lacks layer" in told(
        client.get("/data/evidence.json", params={"photo": photo, "class": 1}),
        422,
    )
    assert told(
        client.get("/data/evidence.json", params=asked | {"class": "99"}), 404
    )
    assert told(
        client.get("/data/evidence.json", params=asked | {"class": "x"}), 404
    )


def test_the_network_is_told(client: TestClient) -> None:
    assert client.get("/data/index.json").json()["live"] is True
    for name in (
        "head.json",
        "network.json",
        "filters/features.0.json",
        "filters/features.0.json?from=5",
    ):
        answer = client.get(f"/data/{name}")
        assert answer.status_code == 200 and answer.json(), name
        assert ": " not in answer.text[:20] and "NaN" not in answer.text


def test_the_head_is_told_once_and_asked_about_afterwards(
    documents: Documents,
) -> None:
    times: list[int] = []

    class Counted(Documents):
        def head(self) -> dict[str, Any]:
            times.append(1)
            return super().head()

    assert documents.model is not None
    counted = Counted(documents.model, folder=Path())
    with TestClient(create_app(counted), base_url=AT) as client:
        answers = [
            client.get(
                "/data/head.json", headers={"Accept-Encoding": "identity"}
            )
            for _ in range(3)
        ]
        assert len(times) == 1 and len({answer.text for answer in answers}) == 1
        first = answers[0]
        assert (
            first.headers["cache-control"] == "private, no-cache"
            and first.headers["vary"] == "accept-encoding"
        )
        again = client.get(
            "/data/head.json",
            headers={"If-None-Match": first.headers["etag"]}
            | {"Accept-Encoding": ""},
        )
        assert (again.status_code, again.content, again.headers["etag"]) == (
            304,
            b"",
            first.headers["etag"],
        )
        small = client.get(
            "/data/head.json", headers={"Accept-Encoding": "gzip"}
        )
        assert (
            small.headers["content-encoding"] == "gzip"
            and small.headers["etag"] != first.headers["etag"]
        )
        assert small.json() == first.json() == counted.head()


def test_documents_are_compressed_for_who_understands_that(
    client: TestClient,
) -> None:
    plain, small = (
        client.get("/data/index.json", headers={"Accept-Encoding": kind})
        for kind in ("identity", "gzip")
    )
    assert (
        "content-encoding" not in plain.headers
        and small.headers["content-encoding"] == "gzip"
    )
    assert plain.json() == small.json()
    assert (
        int(small.headers["content-length"])
        < int(plain.headers["content-length"]) / 2
    )


def test_the_atlas_is_told_with_its_pictures(
    of_atlas: TestClient, atlas: Atlas
) -> None:
    assert of_atlas.get("/data/index.json").json()["atlas"]
    for name in ("units-0-0", "neighbours-0-0", "classes-0"):
        answer = of_atlas.get(f"/data/{name}.json")
        assert answer.status_code == 200 and answer.json(), answer.text
    image = int(atlas.table("images", ["image"]).column("image")[0].as_py())
    for begin in (f"/images/{image // 1000}/{image}", "/sprites/0/2"):
        found = [
            of_atlas.get(f"{begin}.{kind}") for kind in ("webp", "jpg", "png")
        ]
        (seen,) = [answer for answer in found if answer.status_code == 200]
        assert (
            seen.headers["content-type"].startswith("image/")
            and Image.open(io.BytesIO(seen.content)).size
        )
        # Another atlas may be at the same address tomorrow: the browser keeps it, and
        # asks whether it is still the one.
        assert seen.headers["cache-control"] == "private, no-cache"
        again = of_atlas.get(
            seen.request.url.path,
            headers={"If-None-Match": seen.headers["etag"]},
        )
        assert (again.status_code, again.content) == (304, b"")
    for missing in (
        "/images/1/5.webp",
        "/images/0/99999999.webp",
        "/sprites/9/0.webp",
        "/sprites/0/x.webp",
    ):
        assert told(of_atlas.get(missing), 404)
    assert told(of_atlas.get("/data/units-7-0.json"), 404) and told(
        of_atlas.get("/data/classes-7.json"), 404
    )


def test_the_pages_are_served_from_a_table_and_nothing_else_is(
    client: TestClient,
) -> None:
    page = client.get("/")
    assert (
        page.headers["content-type"] == "text/html; charset=utf-8"
        and "<title>unitscope" in page.text
    )
    linked = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
    assert linked
    for name in linked:
        answer = client.get(f"/{name}")
        assert (
            answer.status_code == 200
            and answer.headers["cache-control"] == "private, no-cache"
        ), name
        assert (
            client.get(
                f"/{name}", headers={"If-None-Match": answer.headers["etag"]}
            ).status_code
            == 304
        )
        if name.endswith(".js"):
            assert (
                answer.headers["content-type"]
                == "text/javascript; charset=utf-8"
            )
    assert client.head("/").headers["content-length"] == str(len(page.content))
    for path in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static//etc/passwd",
        "/static/",
        "/static",
        "/server.py",
        "/static/index.html%00.js",
    ):
        told(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/data/nothing.json",
        "/data/photos/000000000000000000000000.json",
        "/data/photos/000000000000000000000000.jpg",
        "/data/photos/x.png",
        "/data/photos/image-1.json",
        "/data/filters/no.such.layer.json",
        "/data/filters/features.0.json?from=x",
        "/data/filters/features.0.json?from=800",
        "/data/units-0-0.json",
        f"/data/units-{'9' * 5000}-0.json",
        "/data/units-²-0.json",
        "/data/classes-0.json",
        "/images/0/1.webp",
        "/sprites/0/1.webp",
        "/data/photos/",
        "/data/index.json/",
    ],
)
def test_what_is_not_there_is_told_in_one_line(
    client: TestClient, path: str
) -> None:
    assert len(told(client.get(path), 404)) > 20


def test_a_layer_without_a_name_is_none(client: TestClient) -> None:
    assert "no layer is named ''" in told(
        client.get("/data/filters/.json"), 404
    )


@pytest.mark.parametrize(
    "odd", ["\ud800", "\0", "a\0b", "\udfff/..", "\u202e", "\n", "' \" <b>"]
)
def test_odd_characters_are_told_like_any_others(
    client: TestClient, of_atlas: TestClient, odd: str
) -> None:
    photo = given(client, picture())
    escaped = quote(odd.encode("utf-8", "surrogatepass"), safe="")
    for at in (client, of_atlas):
        for path in (
            f"/data/photos/{escaped}.json",
            f"/data/photos/{escaped}.jpg",
            f"/data/photos/{photo}.json?layer={escaped}",
            f"/data/filters/{escaped}.json",
            f"/data/filters/features.0.json?from={escaped}",
            f"/data/evidence.json?photo={photo}&layer={escaped}&class=1",
            f"/data/evidence.json?photo={escaped}&layer=features.0&class={escaped}",
            f"/data/units-{escaped}-0.json",
            f"/static/{escaped}",
            f"/images/0/{escaped}.webp",
        ):
            assert at.get(path).status_code in (404, 422), path
        for question in (
            {"photo": photo, "layer": odd},
            {"photo": odd, "layer": "features.0"},
        ):
            body = json.dumps(question | {"units": [0]})
            told(
                at.post(
                    "/data/ablated",
                    content=body,
                    headers={"Content-Type": "application/json"},
                ),
                404,
            )
    named = client.post(
        "/data/photos", content=picture(), headers={"X-Photo-Name": escaped}
    )
    assert (
        client.get(f"/data/photos/{named.json()['photo']}.json").status_code
        == 200
    )


def test_no_answer_names_a_folder(
    model: Classifier, atlas: Atlas, tmp_path: Path
) -> None:
    mine = tmp_path / "some one's folder" / "mine.ppm"
    mine.parent.mkdir()
    mine.write_bytes(
        picture(kind="ppm")
    )  # of one's own files all kinds are read
    photos = tmp_path / "moved here" / "photos"
    shutil.copytree(atlas.manifest["data"]["source"], photos)
    documents = Documents(
        model,
        atlas,
        dataset=open_dataset(photos),
        folder=tmp_path / "drawn",
        photos=[mine],
    )
    with TestClient(create_app(documents), base_url=AT) as client:
        index = client.get("/data/index.json").json()
        assert index["photos"][0] == {
            "id": "photo-0",
            "name": "mine.ppm",
            "class": "",
            "kept": False,
        }
        assert (
            client.get("/data/photos/photo-0.json").json()["name"] == "mine.ppm"
        )
        of_atlas = [photo["id"] for photo in index["photos"] if photo["kept"]][
            :2
        ]
        mine.unlink()
        shutil.rmtree(photos)
        lines = [told(client.get("/data/photos/photo-0.jpg"), 422)]
        lines += [
            told(client.get(f"/data/photos/{photo}.{kind}"), 422)
            for photo in of_atlas
            for kind in ("json", "jpg")
        ]
        lines += [told(client.get("/data/photos/image-99999.json"), 404)]
        mine.mkdir()
        lines += [
            told(client.get("/data/photos/photo-0.json?layer=features.0"), 422)
        ]
    assert (
        lines[0].startswith("there is no photo 'mine.ppm' (any more)")
        and "'mine.ppm' is a folder" in lines[-1]
    )
    assert "there is no photo '" in lines[1]
    for line in lines:
        assert "/" not in line.replace("a/", "").replace("b/", ""), line
        assert (
            "folder/" not in line
            and "moved" not in line
            and "some one" not in line
        ), line


def test_folders_are_left_out_of_what_is_shown() -> None:
    for text, shown in (
        (
            "there is no '/home/a b/c d.jpg': look",
            "there is no 'c d.jpg': look",
        ),
        (
            r"there is no 'C:\\Users\\a b\\c.jpg': look",
            "there is no 'c.jpg': look",
        ),
        ("of /home/me/x.pt (looked in /srv/data)", "of x.pt (looked in data)"),
        (
            "'a/b.jpg' is at https://example.org/x/y",
            "'a/b.jpg' is at https://example.org/x/y",
        ),
    ):
        assert without_folders(text) == shown


def test_a_photo_that_was_never_given_is_asked_for_again(
    client: TestClient,
) -> None:
    assert "send it again" in told(
        client.get("/data/photos/123456789012345678901234.json"), 404
    )
    nobody = {"photo": "123456789012345678901234", "layer": "x", "units": [1]}
    assert "send it again" in told(
        client.post("/data/ablated", json=nobody), 404
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("PUT", "/data/photos"),
        ("GET", "/data/photos"),
        ("DELETE", "/data/index.json"),
        ("GET", "/data/ablated"),
    ],
)
def test_other_methods_are_refused(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, path)
    assert "method" in told(answer, 405) and answer.headers["allow"]


def test_no_other_site_is_granted_anything(client: TestClient) -> None:
    asked = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
    }
    for headers in (asked, asked | {"Origin": AT}):
        answer = client.options(
            "/data/photos",
            headers=headers
            | {"Access-Control-Request-Headers": "x-photo-name"},
        )
        assert answer.status_code in (403, 405)
        assert not [
            name for name in answer.headers if name.startswith("access-control")
        ]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:1",
        "LOCALHOST.:80",
        "127.0.0.1:8421",
        "127.1.2.3",
        "[::1]:8421",
    ],
)
def test_local_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8421",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "user@localhost",
        "localhost/x",
        "192.168.1.7",
        "0.0.0.0",
        "[::]",
        "[::1",
        "",
        "localhost:port",
        "local host",
    ],
)
def test_other_names_are_refused_so_that_no_site_can_point_its_own_here(
    client: TestClient, host: str
) -> None:
    for path in ("/", "/data/index.json", "/nothing"):
        assert "--allow-host" in told(
            client.get(path, headers={"Host": host}), 400
        )


def test_names_that_were_allowed_are_answered(documents: Documents) -> None:
    with TestClient(
        create_app(documents, hosts=["Lab.Example", "::", "[fe80::1]"]),
        base_url=AT,
    ) as client:
        for host in ("lab.example:99", "[::]:80", "[FE80::1]"):
            assert client.get("/", headers={"Host": host}).status_code == 200
        assert client.get("/", headers={"Host": "example"}).status_code == 400


SITES = ("cross-site", "same-site")


@pytest.mark.parametrize("site", SITES)
def test_other_sites_may_lead_here_but_not_read(
    client: TestClient, site: str
) -> None:
    leads = {
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert client.get("/", headers=leads).status_code == 200
    for headers in (
        {
            "Sec-Fetch-Site": site,
            "Sec-Fetch-Mode": "no-cors",
            "Sec-Fetch-Dest": "script",
        },
        {
            "Sec-Fetch-Site": site,
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Dest": "empty",
        },
        {"Sec-Fetch-Site": site},
        leads | {"Sec-Fetch-Dest": "iframe"},
    ):
        for path in (
            "/data/index.json",
            "/data/network.json",
            "/images/0/1.webp",
        ):
            assert "only the explorer's own pages may" in told(
                client.get(path, headers=headers), 403
            )
    told(
        client.post(
            "/data/photos",
            content=picture(),
            headers=leads | {"X-Photo-Name": "a"},
        ),
        403,
    )


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:8422",
        "file://",
    ],
)
def test_other_origins_are_refused(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin, "X-Photo-Name": "a.png"}
    assert told(client.get("/data/index.json", headers=headers), 403)
    assert told(
        client.post("/data/photos", content=picture(), headers=headers), 403
    )
    assert told(client.post("/data/ablated", json={}, headers=headers), 403)


def test_our_own_pages_are_answered(client: TestClient) -> None:
    headers = {
        "Origin": AT,
        "X-Photo-Name": "a.png",
        "Sec-Fetch-Site": "same-origin",
        "Sec-Fetch-Mode": "cors",
    }
    assert (
        client.post(
            "/data/photos", content=picture(), headers=headers
        ).status_code
        == 200
    )
    assert (
        client.get(
            "/data/index.json", headers={"Sec-Fetch-Site": "none"}
        ).status_code
        == 200
    )


def test_every_answer_has_the_headers_that_keep_it_to_itself(
    client: TestClient,
) -> None:
    answers = [
        client.get("/"),
        client.get("/data/index.json"),
        client.get("/nothing"),
        client.get("/", headers={"Host": "evil.example"}),
        client.get("/", headers={"Origin": "null"}),
        client.post("/"),
        client.post("/data/photos", content=b"x"),
        client.get(
            "/", headers={"If-None-Match": client.get("/").headers["etag"]}
        ),
    ]
    assert {answer.status_code for answer in answers} == {
        200,
        304,
        400,
        403,
        404,
        405,
    }
    for answer in answers:
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert (
            policy["default-src"]
            == policy["frame-ancestors"]
            == policy["base-uri"]
            == "'none'"
        )
        assert (
            policy["script-src"]
            == policy["style-src"]
            == policy["connect-src"]
            == "'self'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_photos_that_are_none_or_too_large_are_refused(
    client: TestClient,
) -> None:
    named = {"X-Photo-Name": quote("a b.png")}
    assert "'a b.png' is not in a supported image format" in told(
        client.post("/data/photos", content=b"no photo", headers=named), 422
    )
    assert "megapixels" in told(
        client.post("/data/photos", content=bomb(9000, 9000), headers=named),
        422,
    )
    assert "X-Photo-Name" in told(
        client.post("/data/photos", content=picture()), 400
    )
    line = "the photo has more than 100,000 bytes: send a smaller one"
    assert line in told(
        client.post("/data/photos", content=bytes(100_001), headers=named), 413
    )
    chunks = (bytes(10_000) for _ in range(50))
    assert line in told(
        client.post("/data/photos", content=chunks, headers=named), 413
    )
    for kind in ("png", "jpeg", "webp", "tiff", "bmp", "gif"):
        whole = picture(kind=kind)
        cut = client.post(
            "/data/photos", content=whole[: len(whole) - 1000], headers=named
        )
        assert re.search(
            "'a b.png' (is damaged|cannot be read)", told(cut, 422)
        ), kind
    # What was refused is not kept either.
    assert "send it again" in told(
        client.get(
            f"/data/photos/{hashlib.sha256(cut.request.content).hexdigest()[:24]}.jpg"
        ),
        404,
    )


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"photo": "a", "layer": "b"}',
        b'{"photo": 1, "layer": "b", "units": []}',
        b'{"photo": "a", "layer": "b", "units": ["1"]}',
        b'{"photo": "a", "layer": "b", "units": [true]}',
        b'{"photo": "a", "layer": "b", "units": [1.5]}',
        b'{"photo": "a", "layer": "b", "units": [NaN]}',
        b'{"photo": "a", "layer": "b", "units": [%d]}' % 10**30,
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_questions_that_are_none_are_refused(
    client: TestClient, question: bytes
) -> None:
    answer = client.post(
        "/data/ablated",
        content=question,
        headers={"Content-Type": "application/json"},
    )
    assert "send that" in told(answer, 422)


def test_questions_are_json_of_few_bytes_about_units_that_there_are(
    client: TestClient,
) -> None:
    photo = given(client, picture())
    question = {"photo": photo, "layer": "features.4", "units": [6]}
    assert "6" in told(client.post("/data/ablated", json=question), 404)
    assert told(
        client.post(
            "/data/ablated", json=question | {"layer": "nowhere", "units": [1]}
        ),
        404,
    )
    assert "application/json" in told(
        client.post("/data/ablated", content=json.dumps(question)), 415
    )
    too_long = client.post(
        "/data/ablated", json=question | {"units": [1] * 200_000}
    )
    assert "the list of units has more than" in told(too_long, 413)


class Faulty(Documents):
    """Documents with a fault that nobody foresaw."""

    def network(self) -> dict[str, Any]:
        raise KeyError("secret\nsecond line /home/somebody")

    def head(self) -> dict[str, Any]:
        return {"bias": float("nan")}


def test_what_was_not_foreseen_is_one_line_here_and_there(
    model: Classifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    documents = Faulty(model, folder=tmp_path)
    with (
        TestClient(create_app(documents), base_url=AT) as client,
        caplog.at_level(logging.ERROR),
    ):
        line = told(client.get("/data/network.json"), 500)
        assert "KeyError" in line and "secret" not in line
        assert "ValueError" in told(client.get("/data/head.json"), 500)
        assert client.get("/data/index.json").status_code == 200
    first, _ = [
        record.getMessage()
        for record in caplog.records
        if record.name == "unitscope.explorer"
    ]
    assert re.fullmatch(
        r"unitscope: GET '/data/network.json': KeyError: "
        r".*secret.*\(test_explorer_server\.py:\d+\)",
        first,
    )


# A server that really runs


def ask(
    at: tuple[str, int],
    path: str,
    body: bytes | None = None,
    method: str | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    """One request, over a connection of its own."""
    connection = http.client.HTTPConnection(*at, timeout=60)
    try:
        named = {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection.request(
            method or ("GET" if body is None else "POST"), path, body, named
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def give(at: tuple[str, int], data: bytes) -> str:
    status, body = ask(at, "/data/photos", data, X_Photo_Name="a.png")
    assert status == 200, body
    return str(json.loads(body)["photo"])


def test_ten_clients_at_once_are_all_answered_rightly(tmp_path: Path) -> None:
    model = wrap(seeded(Slow), preprocessing=SMALL)
    plain = wrap(seeded(Gap), preprocessing=SMALL)
    documents = Documents(model, folder=tmp_path)
    documents.index()
    photos = [picture(seed) for seed in range(10)]
    waits: list[float] = []
    done = threading.Event()

    with running(documents) as at, ThreadPoolExecutor(11) as clients:

        def one(data: bytes) -> tuple[np.ndarray, bytes, np.ndarray]:
            photo = give(at, data)
            told, seen = (
                ask(at, f"/data/photos/{photo}.json"),
                ask(at, f"/data/photos/{photo}.jpg"),
            )
            assert (told[0], seen[0]) == (200, 200)
            contents = json.loads(told[1])
            question = json.dumps(
                {"photo": photo, "layer": contents["layer"], "units": [2]}
            ).encode()
            status, off = ask(
                at, "/data/ablated", question, Content_Type="application/json"
            )
            assert status == 200
            return (
                numbers(contents["logits"]),
                seen[1],
                numbers(json.loads(off)["logits"]),
            )

        def look() -> None:
            while not done.is_set():
                begin = time.perf_counter()
                assert ask(at, "/static/main.js")[0] == 200
                waits.append(time.perf_counter() - begin)
                time.sleep(0.01)

        watching = clients.submit(look)
        begin = time.perf_counter()
        answers = list(clients.map(one, photos))
        seconds = time.perf_counter() - begin
        done.set()
        watching.result()

    for data, (logits, seen, off) in zip(photos, answers, strict=True):
        expected = plain.explain(
            open_photo(Encoded("a", partial(bytes, data), len(data)))
        )
        np.testing.assert_allclose(
            logits, expected.logits[0], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            off, expected.ablate([2]).logits[0], rtol=1e-4, atol=1e-5
        )
        assert Image.open(io.BytesIO(seen)).size == (60, 48)
    # The network alone takes a quarter of a second for each; the pages do not wait for
    # it.
    assert seconds > 2.5
    assert sorted(waits)[len(waits) // 2] < 0.1 and max(waits) < 1.5, sorted(
        waits
    )[-5:]


def test_pictures_and_uploads_do_not_wait_for_the_network(
    tmp_path: Path,
) -> None:
    documents = Documents(
        wrap(seeded(Slow), preprocessing=SMALL), folder=tmp_path
    )
    documents.index()
    with running(documents) as at, ThreadPoolExecutor(6) as clients:
        photos = [give(at, picture(seed)) for seed in range(6)]
        busy = [
            clients.submit(ask, at, f"/data/photos/{photo}.json")
            for photo in photos
        ]
        time.sleep(0.05)
        begin = time.perf_counter()
        assert all(
            ask(at, f"/data/photos/{photo}.jpg")[0] == 200 for photo in photos
        )
        give(at, picture(7))
        seconds = time.perf_counter() - begin
        assert seconds < 0.5 and not all(one.done() for one in busy)
        assert {one.result()[0] for one in busy} == {200}


def test_few_pictures_are_kept_and_drawn_once(
    model: Classifier, tmp_path: Path
) -> None:
    documents = Documents(model, folder=tmp_path, pictures=2)
    ids = [
        documents.add_photo(picture(seed), "a.png")["photo"]
        for seed in range(3)
    ]
    seen = documents.picture(ids[2])
    assert documents.picture(ids[2]) is seen and Image.open(
        io.BytesIO(seen)
    ).size == (
        60,
        48,
    )
    assert documents.picture(ids[0]) == documents.picture(
        ids[0]
    )  # drawn again, as it had made room


@pytest.mark.slow
def test_too_many_at_once_are_refused_in_one_line_and_answered_later(
    tmp_path: Path,
) -> None:
    documents = Documents(
        wrap(seeded(Slow), preprocessing=SMALL), folder=tmp_path
    )
    documents.index()
    with (
        running(documents, limits=Limits(waiting=2)) as at,
        ThreadPoolExecutor(10) as clients,
    ):
        photos = [give(at, picture(seed)) for seed in range(10)]
        answers = list(
            clients.map(
                lambda photo: ask(at, f"/data/photos/{photo}.json"), photos
            )
        )
        refused = [
            json.loads(body)["error"]
            for status, body in answers
            if status == 503
        ]
        assert 3 <= len(refused) <= 7 and {status for status, _ in answers} == {
            200,
            503,
        }
        assert set(refused) == {
            "2 requests wait for the model already: try again in a moment"
        }
        assert ask(at, "/")[0] == 200
        assert [
            ask(at, f"/data/photos/{photo}.json")[0] for photo in photos
        ] == [200] * 10


def test_ten_who_ask_for_the_same_share_one_answer(tmp_path: Path) -> None:
    model = wrap(seeded(Slow), preprocessing=SMALL)
    documents = Documents(model, folder=tmp_path)
    documents.index()
    with (
        running(documents, limits=Limits(waiting=1)) as at,
        ThreadPoolExecutor(10) as clients,
    ):
        photo = give(at, picture())
        answers = list(
            clients.map(
                lambda _: ask(at, f"/data/photos/{photo}.json"), range(10)
            )
        )
    assert [status for status, _ in answers] == [200] * 10 and len(
        {body for _, body in answers}
    ) == 1


def test_whoever_hangs_up_gives_the_place_in_the_queue_up(
    tmp_path: Path,
) -> None:
    network = Slow()
    documents = Documents(wrap(network, preprocessing=SMALL), folder=tmp_path)
    documents.index()
    with (
        running(documents, limits=Limits(waiting=4)) as at,
        ThreadPoolExecutor(1) as clients,
    ):
        photos = [give(at, picture(seed)) for seed in range(8)]
        for photo in photos[
            6:
        ]:  # the first ones are also for making the network ready
            assert ask(at, f"/data/photos/{photo}.json")[0] == 200
        before = network.passes
        first = clients.submit(ask, at, f"/data/photos/{photos[0]}.json")
        time.sleep(0.05)
        for photo in photos[1:5]:
            with socket.create_connection(at) as hasty:
                hasty.sendall(
                    f"GET /data/photos/{photo}.json HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                )
        time.sleep(0.05)
        assert (
            ask(at, f"/data/photos/{photos[5]}.json")[0] == 200
            and first.result()[0] == 200
        )
        assert (
            network.passes - before == 2
        )  # two photos, and not the four between them


def raw(
    at: tuple[str, int],
    *pieces: bytes,
    pause: float = 0.0,
    patience: float = 10.0,
) -> bytes:
    """What comes back until the server hangs up, after sending pieces slowly."""
    with socket.create_connection(at, timeout=patience) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(65536):
                found += more
        return found


def test_lies_about_the_length_are_seen_through(documents: Documents) -> None:
    limits = Limits(upload_bytes=50_000, grace=0.5, patience=0.5)
    head = b"POST /data/photos HTTP/1.1\r\nHost: localhost\r\nX-Photo-Name: a.png\r\n"
    with running(documents, limits=limits) as at:
        told = raw(at, head + b"Content-Length: 99999999999\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 413") and b"50,000 bytes" in told
        told = raw(at, head + b"Content-Length: 1000\r\n\r\n" + picture()[:500])
        assert told.startswith(b"HTTP/1.1 408") and b"took too long" in told
        told = raw(at, head + b"Content-Length: 10\r\n\r\n" + bytes(100))
        assert (
            told.startswith(b"HTTP/1.1 422")
            and b"not in a supported image format" in told
        )
        chunk = b"2710\r\n" + bytes(10_000) + b"\r\n"
        told = raw(
            at, head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 20
        )
        assert told.startswith(b"HTTP/1.1 413")
        for wrong in (
            b"Content-Length: -1",
            b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: " + b"9" * 30,
        ):
            assert raw(at, head + wrong + b"\r\n\r\n").split()[1] in (
                b"400",
                b"413",
            )
        assert ask(at, "/")[0] == 200


def test_slow_clients_are_let_go(documents: Documents) -> None:
    with running(documents, limits=Limits(grace=0.4, patience=0.4)) as at:
        begin = time.perf_counter()
        assert raw(at) == b""  # asks nothing
        assert (
            raw(at, *[b"G"] * 3, b"ET", *[b" "] * 20, pause=0.1) == b""
        )  # asks letter by letter
        head = b"POST /data/photos HTTP/1.1\r\nHost: localhost\r\nX-Photo-Name: a\r\nContent-Length: 1000\r\n\r\n"
        assert b"408" in raw(
            at, head, *[b"x"] * 3, pause=0.1
        )  # gives letter by letter
        assert time.perf_counter() - begin < 8
        assert ask(at, "/")[0] == 200


def test_whoever_does_not_take_the_answer_is_let_go(
    documents: Documents,
) -> None:
    limits = Limits(patience=0.3)
    with running(documents, limits=limits) as at, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(at)
        question = (
            b"GET /static/explorer.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        deaf.settimeout(5)
        with pytest.raises(ConnectionError):
            for _ in range(2000):  # never reads: soon nothing fits any more
                deaf.sendall(question)
                time.sleep(0.002)
        assert ask(at, "/")[0] == 200


HEAD = b"POST /data/photos HTTP/1.1\r\nHost: localhost\r\nX-Photo-Name: a\r\nContent-Length: 1000000\r\n\r\n"


def test_no_more_photos_are_read_at_once_than_there_is_room_for(
    documents: Documents,
) -> None:
    # A quarter for each client.
    limits = Limits(uploads_at_once=8, grace=1.0, slowest=1 << 20)
    large = picture(size=(400, 400))
    assert len(large) > limits.small_bytes
    with (
        running(documents, limits=limits) as at,
        ThreadPoolExecutor(4) as clients,
    ):
        slow = [
            clients.submit(raw, at, HEAD + bytes(300_000)) for _ in range(2)
        ]
        time.sleep(0.3)
        begin = time.perf_counter()
        give(at, picture())  # a small one needs no room
        assert time.perf_counter() - begin < 0.3
        assert give(at, large)  # waits until one of them was given up
        assert time.perf_counter() - begin > 0.3
        assert all(b"408" in one.result() for one in slow)


def test_who_sends_nothing_holds_no_room(documents: Documents) -> None:
    with running(documents) as at, contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection(at)).sendall(
                HEAD + bytes(1000)
            )
        time.sleep(0.2)
        begin = time.perf_counter()
        give(at, picture(size=(400, 400)))
        assert time.perf_counter() - begin < 1


@pytest.mark.slow
def test_whoever_finds_no_room_is_told_to_come_again(
    documents: Documents,
) -> None:
    limits = Limits(grace=0.5, slowest=64 << 10)
    with (
        running(documents, limits=limits) as at,
        ThreadPoolExecutor(2) as clients,
    ):
        slow = [
            clients.submit(raw, at, HEAD + bytes(400_000)) for _ in range(2)
        ]
        time.sleep(0.2)
        status, body = ask(
            at, "/data/photos", picture(size=(400, 400)), X_Photo_Name="a.png"
        )
        assert (status, json.loads(body)["error"]) == (
            503,
            "too many photos are being sent already: try again in a moment",
        )
        assert all(b"408" in one.result() for one in slow)


def test_nobody_may_take_forever_however_steadily(documents: Documents) -> None:
    with running(documents, limits=Limits(longest=0.6)) as at:
        begin = time.perf_counter()
        assert b"408" in raw(at, HEAD, *[bytes(20_000)] * 20, pause=0.1)
        assert time.perf_counter() - begin < 5


def test_one_client_has_a_quarter_of_the_room() -> None:
    async def taken() -> list[str]:
        uploads, begun = Uploads(Limits(uploads_at_once=8)), []
        leave = asyncio.Event()

        async def one(client: str) -> None:
            async with uploads.place(client):
                begun.append(client)
                await leave.wait()

        tasks = [
            asyncio.ensure_future(one(client))
            for client in ("a" * 9 + "b" * 9 + "c" + "d" * 2 + "e" * 3)
        ]
        await asyncio.sleep(0.05)
        first = list(begun)
        leave.set()
        await asyncio.gather(*tasks)
        assert len(begun) == 24 and uploads.clients == 0
        return first

    assert sorted(asyncio.run(taken())) == list("aabbcdde")


def test_small_answers_do_not_wait_for_each_other(documents: Documents) -> None:
    with running(documents) as at:
        connection = http.client.HTTPConnection(*at)
        begin = time.perf_counter()
        for _ in range(30):
            connection.request("GET", "/static/main.js")
            connection.getresponse().read()
        connection.close()
        # With Nagle's algorithm each would wait for the client's delayed
        # acknowledgement of the header: 40 ms.
        assert time.perf_counter() - begin < 0.6


# Listening


def test_a_port_that_is_taken_is_told_and_the_usual_one_gives_way() -> None:
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UnitscopeError,
            match=rf"port {port} of 127.0.0.1 is taken: name another with --port",
        ):
            listening("127.0.0.1", port)
        with listening("127.0.0.1", None, range(port, port + 20)) as other:
            assert port < other.getsockname()[1] < port + 20
        with pytest.raises(UnitscopeError, match="are all taken"):
            listening("127.0.0.1", None, [port])


@pytest.mark.parametrize(
    "host", ["no.such.host.invalid", "203.0.113.7", "", "a" * 300]
)
def test_a_host_that_is_not_this_machine_is_told(host: str) -> None:
    with pytest.raises(UnitscopeError, match="of this machine") as told:
        listening(host, 0).close()
    assert "\n" not in str(told.value)


def test_serving_others_is_warned_of_and_they_are_answered_by_address_only(
    documents: Documents,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # sends nothing: asks only by which address one would
        except OSError:
            pytest.skip("this machine is on no network")
        address = probe.getsockname()[0]
    found: dict[str, Any] = {}

    def ready(url: str) -> None:
        def look() -> None:
            at = ("127.0.0.1", int(url.rstrip("/").rsplit(":", 1)[1]))
            found["here"] = ask((address, at[1]), "/")[0]
            found["name"] = ask(at, "/", Host="evil.example")[0]
            found["allowed"] = ask(at, "/", Host="lab.example")[0]
            found["other"] = ask(at, "/", Host="198.51.100.1")[0]
            os.kill(os.getpid(), signal.SIGINT)

        found["url"] = url
        threading.Thread(target=look).start()

    with (
        pytest.warns(UnitscopeWarning, match="over the network"),
        pytest.raises(KeyboardInterrupt),
    ):
        serve(
            documents,
            host="0.0.0.0",
            port=0,
            allow_hosts=["lab.example"],
            ready=ready,
        )
    assert re.fullmatch(r"http://localhost:\d+/", found.pop("url"))
    assert found == {"here": 200, "name": 400, "allowed": 200, "other": 400}


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_is_served_too(documents: Documents) -> None:
    try:
        listening("::1", 0).close()
    except UnitscopeError:
        pytest.skip("no IPv6 here")
    found: list[Any] = []

    def ready(url: str) -> None:
        def look() -> None:
            port = int(url.rstrip("/").rsplit(":", 1)[1])
            found.extend(
                [url, ask(("::1", port), "/", Host=f"[::1]:{port}")[0]]
            )
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=look).start()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            serve(documents, host="::1", port=0, ready=ready)
    assert re.fullmatch(r"http://\[::1\]:\d+/", found[0]) and found[1] == 200


# The verb

NETWORK = """
import torch
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=7):
        super().__init__()
        torch.manual_seed(3)
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        while Path(__file__).with_name("slow").exists():
            torch.randn(700, 700) @ torch.randn(700, 700)
        return self.fc(self.conv1(x).relu().mean((2, 3)))
"""


@pytest.fixture
def named(tmp_path: Path) -> list[str]:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return [
        "--model",
        f"python:{path}:Net",
        "--preprocessing",
        "resize=40,crop=32",
    ]


@contextlib.contextmanager
def started(
    *arguments: object,
) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """`unitscope explore` as a program of its own, once it listens."""
    command = [
        sys.executable,
        "-m",
        "unitscope",
        "explore",
        "--port",
        "0",
        *map(str, arguments),
    ]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None and program.stderr is not None
        line = program.stdout.readline()
        found = re.fullmatch(
            r"unitscope: http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line
        )
        assert found, (
            line,
            program.stderr.read() if program.poll() is not None else "",
        )
        yield program, ("127.0.0.1", int(found[1]))
    finally:
        program.terminate()  # and not killed, which would leave its folder behind
        program.communicate(timeout=20)


def test_the_verb_serves_until_interrupted_and_says_nothing_else(
    named: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    with started(*named, "--photo", tmp_path / "a.png") as (program, at):
        index = json.loads(ask(at, "/data/index.json")[1])
        assert [photo["name"] for photo in index["photos"]] == [
            "a.png"
        ] and index["atlas"] is None
        assert (
            ask(at, f"/data/photos/{index['photos'][0]['id']}.json")[0] == 200
        )
        assert ask(at, "/nothing")[0] == 404
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=10)
        assert (program.returncode, out, err.strip()) == (
            130,
            "",
            "unitscope: interrupted",
        )


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.2])
def test_the_verb_can_be_interrupted_while_it_still_loads(
    seconds: float,
) -> None:
    code = f"import _thread, runpy, sys, threading; threading.Timer({seconds}, _thread.interrupt_main).start(); "
    code += "sys.argv = ['unitscope', 'explore', '--port', '0']; runpy.run_module('unitscope', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (
        130,
        "",
        "unitscope: interrupted",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)]
)
def test_the_verb_ends_soon_while_the_model_works(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    with started(
        "--model", f"python:{path}:Net", "--preprocessing", "resize=40,crop=32"
    ) as (program, at):
        photos = [give(at, picture(seed)) for seed in range(3)]
        (tmp_path / "slow").touch()
        with contextlib.ExitStack() as stack:
            for photo in photos:
                waiting = stack.enter_context(socket.create_connection(at))
                waiting.sendall(
                    f"GET /data/photos/{photo}.json HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                )
            time.sleep(0.5)
            begin = time.perf_counter()
            program.send_signal(sent)
            _, err = program.communicate(timeout=20)
            seconds = time.perf_counter() - begin
        assert (program.returncode, err.strip()) == (
            status,
            "unitscope: interrupted" if status else "",
        )
        assert seconds < 8  # a second or two, where nothing else is going on


def test_an_atlas_brings_its_model_or_is_shown_alone(
    atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _model_of(atlas) is None
    assert "only the atlas is shown, not its model" in capsys.readouterr().err
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    photos, folder = atlas.manifest["data"]["source"], tmp_path / "atlas"
    load = ["--model", f"python:{path}:Net"]
    assert (
        main(
            [
                "scan",
                photos,
                *load,
                "--out",
                str(folder),
                "--top",
                "2",
                "--sample",
                "2",
                "--engine",
                "torch",
            ]
        )
        == 0
    )
    capsys.readouterr()
    scanned = Atlas.open(folder)
    found = _model_of(scanned)
    assert found is not None and found.provenance.spec == f"python:{path}:Net"
    scanned.manifest["identity"]["preprocessing"] = "another"
    assert _model_of(scanned) is None
    assert (
        "scanned with another preprocessing, another): name that with"
        in capsys.readouterr().err
    )
    with started(
        folder, "--source", photos, "--labels", labelled(tmp_path)
    ) as (_, at):
        index = json.loads(ask(at, "/data/index.json")[1])
        assert (
            index["model"]["spec"].startswith("python:")
            and index["atlas"]
            and index["photos"]
        )
        assert index["labels"][0] == "class 0"
        photo = index["photos"][0]["id"]
        assert (
            ask(at, f"/data/photos/{photo}.json")[0]
            == ask(at, f"/data/photos/{photo}.jpg")[0]
            == 200
        )
    assert main(["explore", str(atlas.path), *load, "--port", "0"]) == 1
    assert "is of another model" in capsys.readouterr().err


def labelled(folder: Path) -> Path:
    path = folder / "labels.txt"
    path.write_text("".join(f"class {number}\n" for number in range(7)))
    return path


@pytest.mark.parametrize(
    "package", ["starlette", pytest.param("uvicorn", marks=pytest.mark.slow)]
)
def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    package: str,
) -> None:
    code = "import sys; sys.modules[sys.argv[1]] = None; from unitscope.cli import main; sys.exit(main(['explore']))"
    done = subprocess.run(
        [sys.executable, "-c", code, package], capture_output=True, text=True
    )
    expected = f"unitscope: the explorer needs {package}, which is not installed: pip install 'unitscope[explore]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_what_cannot_be_explored_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, named: list[str]
) -> None:
    with listening("127.0.0.1", 0) as taken:
        for arguments, words in (
            ([str(tmp_path / "none")], "there is no atlas"),
            (
                [*named, "--port", str(taken.getsockname()[1])],
                "is taken: name another with --port",
            ),
            ([*named, "--host", "no.such.host.invalid"], "there is no host"),
            (["--model", "nothing:x"], "nothing"),
        ):
            assert main(["explore", *arguments]) == 1
            err = capsys.readouterr().err
            assert words in err and err.count("\n") == 1
    assert main(["explore", "--port", "70000"]) == 2


def test_an_atlas_is_written_as_files_too(
    atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["explore", str(atlas.path), "--export", str(tmp_path / "pages")])
        == 0
    )
    assert (
        capsys.readouterr().out
        == f"pages: {tmp_path / 'pages' / 'index.html'}\n"
    )
    assert (tmp_path / "pages" / "index.html").is_file()


def test_photos_and_their_network_are_written_as_files(
    named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "mine.png"
    photo.write_bytes(picture(3))
    assert (
        main(
            [
                "explore",
                *named,
                "--photo",
                str(photo),
                "--export",
                str(tmp_path / "pages"),
            ]
        )
        == 0
    )
    written = {
        str(path.relative_to(tmp_path / "pages" / "data"))
        for path in (tmp_path / "pages" / "data").rglob("*.*")
    }
    assert {
        "index.js",
        "head.js",
        "network.js",
        "photos/photo-0.js",
        "photos/photo-0.jpg",
    } <= written
    assert (
        main(
            [
                "explore",
                *named,
                "--photo",
                str(tmp_path / "none.png"),
                "--export",
                str(tmp_path / "more"),
            ]
        )
        == 1
    )
    assert (
        "there is no photo" in capsys.readouterr().err
        and not (tmp_path / "more").exists()
    )


def test_help_loads_no_server() -> None:
    code = (
        "import sys; from unitscope.cli import main; main(['explore', '--help']); "
        "assert not {'torch', 'starlette', 'uvicorn', 'numpy'} & set(sys.modules)"
    )
    assert (
        "--allow-host"
        in subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )


def test_where_photos_went_is_warned_of(
    model: Classifier, atlas: Atlas, tmp_path: Path
) -> None:
    moved = Atlas(
        atlas.path,
        atlas.manifest
        | {
            "data": atlas.manifest["data"]
            | {"source": "/gone", "paths": ["/gone"]}
        },
    )
    with (
        pytest.warns(
            UnitscopeWarning,
            match=r"say where they lie with dataset= \(--source\)",
        ),
        pytest.raises(UnitscopeError, match="there is no host"),
    ):
        server.explore(model, moved, host="no such host")
