import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitscope.errors import LabelsError
from unitscope.labels import check_label_count, read_labels

DATA = Path(os.environ.get("UNITSCOPE_DATA", "../shared/data"))


def written(folder: Path, text: str | bytes, name: str = "labels.txt") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\r\ndog\r\n\r\n\r\n", ("cat", "dog")),
        ("cat\rdog", ("cat", "dog")),
        ("\ufeffcat\ndog\n", ("cat", "dog")),
        ("  a cat \n\tdog\n", ("a cat", "dog")),
        (
            "/a/airfield 0\n/a/apartment_building/outdoor 1\n",
            ("airfield", "apartment_building/outdoor"),
        ),
        ("/z/zoo 1\n/a/abbey 0\n", ("abbey", "zoo")),
        ("/a/abbey\n/z/zoo\n", ("abbey", "zoo")),
        ("/a/abbey\nzoo\n", ("/a/abbey", "zoo")),
        ("cat 1\ndog 2\n", ("cat", "dog")),
        ("cat,1\ndog,0\n", ("dog", "cat")),
        ("0 cat\n1 big dog\n", ("cat", "big dog")),
        ("1: cat\n0: dog\n", ("dog", "cat")),
        ("10 0\n20 1\n", ("10", "20")),
        ("class 0\nclass 1\nclass 2\n", ("class 0", "class 1", "class 2")),
        ("boeing 707\ncat\n", ("boeing 707", "cat")),
        ("crane 0\ncrane 1\nmaillot 2\n", ("crane", "crane", "maillot")),
        (
            "n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
            ("tench, Tinca tinca", "goldfish"),
        ),
        ('["cat", "dog"]', ("cat", "dog")),
        ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
        (
            '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
            ("tench", "goldfish"),
        ),
        ('{"dog": 1, "cat": 0}', ("cat", "dog")),
        (
            '{"id2label": {"0": "cat", "1": "dog"}, "hidden_size": 7}',
            ("cat", "dog"),
        ),
        (
            "{0: 'tench, Tinca tinca',\n 1: \"hen's egg\"}",
            ("tench, Tinca tinca", "hen's egg"),
        ),
        ("{curly\n}brace\n", ("{curly", "}brace")),
        ("[0]\n[1]\n", ("[0]", "[1]")),
    ],
)
def test_every_format_of_labels_is_read(
    tmp_path: Path, text: str, expected: tuple[str, ...]
) -> None:
    assert read_labels(written(tmp_path, text)) == expected
    assert read_labels(str(tmp_path / "labels.txt")) == expected


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("index,name\n1,dog\n0,cat\n", "l.csv", ("cat", "dog")),
        ('name\n"cat, tabby"\ndog\n', "l.csv", ("cat, tabby", "dog")),
        ("cat\ndog\n", "l.csv", ("cat", "dog")),
        ("0,cat\n1,dog\n", "l.csv", ("cat", "dog")),
        ("wnid,class_name,id\nn02,dog,1\nn01,cat,0\n", "l.csv", ("cat", "dog")),
        ("id\tlabel\n0\tcat\n1\tdog\n", "l.tsv", ("cat", "dog")),
    ],
)
def test_tables_are_read(
    tmp_path: Path, text: str, name: str, expected: tuple[str, ...]
) -> None:
    assert read_labels(written(tmp_path, text, name)) == expected


def test_utf16_as_written_by_powershell_is_read(tmp_path: Path) -> None:
    assert read_labels(
        written(tmp_path, "café\nθάλασσα\n".encode("utf-16"))
    ) == (
        "café",
        "θάλασσα",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 0\ndog 2\n", "2 labels with indices up to 2, and none for 1"),
        ("cat 0\ndog 0\n", "gives index 0 more than once"),
        ('{"0": "cat", "5": "dog"}', "none for 1, 2, 3"),
        ('{"a": "cat", "b": "dog"}', "'a' where a class's index should be"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("cat\n\ndog\n", "empty label for class 1"),
        ("[]", "is empty"),
        ('["cat", 3]', r"has a int \('3'\) for class 1"),
        ('["cat", ["n1", null]]', "has a NoneType"),
        (b"\x80\x81\xff", "not UTF-8 text"),
        (b"cat\0dog", "is not text"),
        ("<!DOCTYPE html><html>", "is a web page"),
        ("x 0\ny 999999999\n", "none for 1, 2, 3"),
    ],
)
def test_what_cannot_be_labels_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(LabelsError, match=message) as caught:
        read_labels(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="not valid JSON"):
        read_labels(written(tmp_path, '["cat", ', "labels.json"))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError):
        read_labels(written(tmp_path, "[" * 100_000, "labels.json"))


def test_an_uneven_table_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="3 columns in row 2 and 2 in row 1"):
        read_labels(written(tmp_path, "0,cat\n1,dog, small\n", "l.csv"))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        LabelsError,
        match=r"no labels file 'nowhere\.txt'.*or pass the labels as a list",
    ):
        read_labels("nowhere.txt")
    with pytest.raises(
        LabelsError,
        match=r"^the labels file .* is a folder: name the file in it$",
    ):
        read_labels(tmp_path)


def test_a_wrong_number_of_labels_names_both_numbers_and_the_remedy() -> None:
    check_label_count(["a", "b"], 2)
    with pytest.raises(
        LabelsError,
        match=r"2 labels were given for 3 classes.*, or num_classes=2",
    ):
        check_label_count(["a", "b"], 3, "num_classes=2")


def test_one_number_may_have_two_labels() -> None:
    check_label_count(["cat", "dog"], 1)


@pytest.mark.parametrize(
    ("labels", "classes", "remedy"),
    [
        (
            1000,
            1001,
            "put a label for it in front ('background', as TensorFlow's",
        ),
        (1000, 999, "leave it out (the first is 'c0', the last 'c999')"),
        (1001, 1000, "leave it out (the first is 'c0', the last 'c1000')"),
    ],
)
def test_a_background_class_is_suggested(
    labels: int, classes: int, remedy: str
) -> None:
    names = [f"c{index}" for index in range(labels)]
    with pytest.raises(LabelsError, match=re.escape(remedy)):
        check_label_count(names, classes)


@pytest.mark.parametrize(
    "labels",
    [
        {0: "cat", 1: "dog"},
        {"1": "dog", "0": "cat"},
        {1: "cat", 2: "dog"},
        {"dog": 1, "cat": 0},
        {"id2label": {"0": "cat", "1": "dog"}, "num_labels": 2},
    ],
)
def test_a_dict_of_labels(labels: dict[object, object]) -> None:
    assert read_labels(labels) == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({0: 1, 1: 0}, "the dict of labels has numbers on both sides"),
        ({}, "the dict of labels is empty"),
        ({0: "cat", 2: "dog"}, "indices up to 2, and none for 1"),
        ({"cat": "felis"}, "'cat' where a class's index should be"),
        ({"cat": 0, "dog": 0}, "gives index 0 more than once"),
    ],
)
def test_an_ambiguous_dict_of_labels_is_refused(
    labels: dict[object, object], reason: str
) -> None:
    with pytest.raises(LabelsError, match=reason):
        read_labels(labels)


def test_hostile_labels_are_data() -> None:
    hostile = [
        "<script>alert(1)</script>",
        "a\r\nb",
        "../../etc/passwd",
        "\x1b[31mred",
        "a\u2028b",
        "%s{0}",
    ]
    assert read_labels(hostile) == (hostile[0], "a b", *hostile[2:])


@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs", "Cc"]), min_size=1
        ).filter(str.strip),
        min_size=1,
    )
)
def test_any_labels_come_back_from_json_in_any_order(names: list[str]) -> None:
    from tempfile import TemporaryDirectory

    expected = tuple(name.strip() for name in names)
    with TemporaryDirectory() as folder:
        listed = written(Path(folder), json.dumps(names), "a.json")
        shuffled = written(
            Path(folder),
            json.dumps(
                {i: ["id", name] for i, name in list(enumerate(names))[::-1]}
            ),
            "b.json",
        )
        assert read_labels(names) == expected
        plain = all(
            not (name.startswith("/") and name[2:3] == "/") for name in expected
        )
        assert not plain or (
            read_labels(listed) == expected
            and read_labels(shuffled) == expected
        )


def test_the_published_files_are_read() -> None:
    places, miniplaces = (
        DATA / "weights/categories_places365.txt",
        DATA / "miniplaces/categories.txt",
    )
    if not places.is_file() or not miniplaces.is_file():
        pytest.skip(
            f"the published label files are not in {DATA}: set UNITSCOPE_DATA"
        )
    labels = read_labels(places)
    assert len(labels) == 365
    assert [labels[index] for index in (0, 8, 348, 194, 364)] == [
        "airfield", "apartment_building/outdoor", "village", "islet", "zen_garden",
    ]  # fmt: skip
    assert (
        len(read_labels(miniplaces)) == 100
        and read_labels(miniplaces)[0] == "abbey"
    )


def test_what_never_ends_is_refused() -> None:
    with pytest.raises(LabelsError, match=r"'/dev/zero' is larger than 64 MiB"):
        read_labels("/dev/zero")
