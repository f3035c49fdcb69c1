"""Downloads from a real local HTTP server that breaks off, refuses, lies or changes."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_server import Site, running_site
from unitscope.errors import DownloadError
from unitscope.sources import cache as download_cache
from unitscope.sources.cache import cache_folder
from unitscope.sources.downloads import fetch

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNITSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def leftovers(folder: Path) -> set[str]:
    return {
        entry.name
        for entry in folder.iterdir()
        if not entry.name.endswith(".lock")
    }


def refusal(
    url: str, folder: str = "", attempts: int = 2, sha256_prefix: str = ""
) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(url, folder, attempts=attempts, sha256_prefix=sha256_prefix)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once_and_its_sha256_recorded(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY)
    first, second = fetch(url, "models"), fetch(url, "models")
    assert (
        first == second
        and first.sha256 == SHA256
        and first.path == cache / "models" / "w.pth"
    )
    assert first.path.read_bytes() == BODY and len(site.requests) == 1
    assert (
        cache / "models" / "w.pth.sha256"
    ).read_text() == f"{SHA256}  w.pth\n"
    assert leftovers(cache / "models") == {"w.pth", "w.pth.sha256"}


def test_a_broken_connection_is_resumed_where_it_stopped(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY, cut=[200_000, 100_000])
    assert fetch(url, attempts=2).sha256 == SHA256
    ranges = [headers.get("Range") for _, headers in site.requests]
    assert ranges == [None, "bytes=200000-", "bytes=300000-"]
    assert site.requests[1][1]["If-Range"] == '"v1"'


def test_an_interrupted_download_is_resumed_by_the_next_call(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY, cut=[200_000])
    assert "the connection ended after 200,000 of 512,000 bytes" in refusal(
        url, attempts=1
    )
    assert leftovers(cache) == {"w.pth.part", "w.pth.part.validator"}
    assert (
        fetch(url).path.read_bytes() == BODY
        and site.requests[1][1]["Range"] == "bytes=200000-"
    )
    assert leftovers(cache) == {"w.pth", "w.pth.sha256"}


def test_a_date_serves_where_there_is_no_strong_tag(site: Site) -> None:
    url = site.serve(
        "w.pth",
        BODY,
        etag='W/"weak"',
        last_modified="Mon, 01 Jan 2018 00:00:00 GMT",
        cut=[1000],
    )
    assert fetch(url).sha256 == SHA256
    assert site.requests[1][1]["If-Range"] == "Mon, 01 Jan 2018 00:00:00 GMT"


@pytest.mark.parametrize(
    "behaviour", [{"ranges": False}, {"etag": None}, {"range_shift": 7}]
)
def test_what_cannot_be_resumed_is_fetched_again_from_the_start(
    site: Site, behaviour: dict[str, object]
) -> None:
    url = site.serve("w.pth", BODY, cut=[200_000], **behaviour)
    assert fetch(url).path.read_bytes() == BODY


def test_a_file_that_changed_on_the_server_is_not_patched_together(
    site: Site,
) -> None:
    url = site.serve("w.pth", BODY, cut=[200_000])
    refusal(url, attempts=1)
    other = BODY[::-1]
    site.serve("w.pth", other, etag='"v2"')
    assert fetch(url).path.read_bytes() == other


def test_a_part_longer_than_the_file_is_discarded(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY)
    cache.mkdir()
    (cache / "w.pth.part").write_bytes(BODY + b"more")
    (cache / "w.pth.part.validator").write_text('"v1"')
    assert fetch(url).sha256 == SHA256


def test_a_wrong_length_is_refused_and_nothing_left(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY, announced=len(BODY) + 10)
    assert "512,000 of 512,010 bytes" in refusal(url, attempts=1)
    refusal(url)
    assert "w.pth" not in leftovers(cache)


def test_an_answer_without_a_length_is_refused_unless_it_is_chunked(
    site: Site, cache: Path
) -> None:
    assert "does not say how long" in refusal(
        site.serve("w.pth", BODY, says_length=False)
    )
    assert fetch(site.serve("c.pth", BODY, chunked=True)).sha256 == SHA256
    assert "w.pth" not in leftovers(cache)


@pytest.mark.parametrize(
    "content_type", ["text/html; charset=utf-8", "application/octet-stream"]
)
def test_a_web_page_is_refused(
    site: Site, cache: Path, content_type: str
) -> None:
    url = site.serve(
        "w.pth",
        b"\n <!DOCTYPE html><html>Please log in</html>",
        content_type=content_type,
    )
    assert "the server sent a web page instead of the file" in refusal(url)
    assert leftovers(cache) == set()


def test_an_empty_file_is_refused(site: Site) -> None:
    assert "an empty file" in refusal(site.serve("w.pth", b""))


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not(
    site: Site,
) -> None:
    assert fetch(site.serve("w.pth", BODY, statuses=[503])).sha256 == SHA256
    message = refusal(f"{site.url}/nowhere.pth")
    assert (
        "answered 404" in message
        and sum(path == "/nowhere.pth" for path, _ in site.requests) == 1
    )


def test_without_a_connection_the_message_says_where_to_put_the_file(
    cache: Path,
) -> None:
    begin = time.monotonic()
    message = refusal("http://127.0.0.1:9/w.pth", "models")
    assert message.startswith(
        "http://127.0.0.1:9/w.pth cannot be fetched (Connection refused)"
    )
    assert message.endswith(
        "check the connection, or save that file yourself as "
        f"'{cache / 'models' / 'w.pth'}'"
    )
    assert time.monotonic() - begin < 1


def test_a_file_put_there_by_hand_is_taken_and_recorded(cache: Path) -> None:
    cache.mkdir()
    (cache / "w.pth").write_bytes(BODY)
    assert fetch("http://127.0.0.1:9/w.pth").sha256 == SHA256
    assert (cache / "w.pth.sha256").read_text().startswith(SHA256)


def test_a_changed_file_is_refused_with_both_remedies(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY)
    fetch(url)
    (cache / "w.pth").write_bytes(BODY[:-1])
    message = refusal(url)
    assert (
        f"recorded {SHA256[:12]}…): delete it to fetch it again" in message
        and "'w.pth.sha256'" in message
    )
    (cache / "w.pth").unlink()
    assert fetch(url).sha256 == SHA256
    (cache / "w.pth.sha256").write_text("nonsense")
    assert "holds no SHA-256: delete it" in refusal(url)


def test_another_file_at_the_same_address_is_discarded(
    site: Site, cache: Path
) -> None:
    url = site.serve("w.pth", BODY)
    fetch(url).path.unlink()
    site.serve("w.pth", b"something else", etag='"v2"')
    assert "is not the file it was on first use" in refusal(url)
    assert leftovers(cache) == {"w.pth.sha256"}


def test_the_published_hash_is_checked(site: Site, cache: Path) -> None:
    url = site.serve("w.pth", BODY)
    assert "is not the file that was published" in refusal(
        url, sha256_prefix="0000"
    )
    assert leftovers(cache) == set()
    assert fetch(url, sha256_prefix=SHA256[:8]).sha256 == SHA256
    assert "is not the published file" in refusal(url, sha256_prefix="0000")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "w.pth",
        "http://host/",
        "http://host/..",
        "http://host/a%2Fb",
    ],
)
def test_only_files_on_the_web_are_fetched(url: str) -> None:
    refusal(url)


def test_threads_that_ask_for_the_same_file_fetch_it_once(site: Site) -> None:
    url = site.serve("w.pth", BODY, pause=0.02)
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(url).sha256))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [SHA256] * 4 and len(site.requests) == 1


SCRIPT = """
import sys
from unitscope.sources.downloads import fetch
print(fetch(sys.argv[1]).sha256)
"""


def start(url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_fetch_the_file_once(site: Site, cache: Path) -> None:
    url = site.serve("w.pth", BODY * 4, pause=0.02)
    outputs = [
        process.communicate(timeout=60) for process in [start(url), start(url)]
    ]
    assert outputs == [(hashlib.sha256(BODY * 4).hexdigest() + "\n", "")] * 2, (
        outputs
    )
    assert len(site.requests) == 1 and leftovers(cache) == {
        "w.pth",
        "w.pth.sha256",
    }


@pytest.mark.skipif(
    os.name != "posix", reason="interrupts are sent as POSIX signals"
)
def test_ctrl_c_leaves_a_part_that_is_resumed(site: Site, cache: Path) -> None:
    url = site.serve("w.pth", BODY * 20, pause=0.1)
    process = start(url)
    deadline = time.monotonic() + 60
    while (
        not (
            (cache / "w.pth.part").is_file()
            and (cache / "w.pth.part").stat().st_size
        )
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert leftovers(cache) == {"w.pth.part", "w.pth.part.validator"}
    site.files["/w.pth"].pause = 0
    assert fetch(url).path.read_bytes() == BODY * 20
    assert "Range" in site.requests[-1][1]


def test_a_cache_that_cannot_be_written_is_named(
    site: Site, cache: Path
) -> None:
    cache.write_text("a file where the folder should be")
    message = refusal(site.serve("w.pth", BODY))
    assert "cannot be saved as" in message and "UNITSCOPE_CACHE" in message


def test_where_files_cannot_be_locked_downloads_go_to_parts_of_their_own(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("no locks on this file system")

    monkeypatch.setattr(download_cache, "_lock", refuse)
    url = site.serve("w.pth", BODY, cut=[1000, 1000])
    refusal(url, attempts=1)
    assert leftovers(cache) == set()
    assert fetch(url).sha256 == SHA256 and leftovers(cache) == {
        "w.pth",
        "w.pth.sha256",
    }


def test_the_bar_is_for_terminals_only(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(site.serve("w.pth", BODY), progress=True)
    assert capfd.readouterr() == ("", "")


def test_the_cache_is_where_the_platform_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == Path(os.environ["UNITSCOPE_CACHE"])
    monkeypatch.delenv("UNITSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert cache_folder() == tmp_path / "unitscope"
