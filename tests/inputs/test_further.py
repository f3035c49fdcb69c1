"""Further inputs: which of them are cut with the photos, and which stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unitscope.errors import InputError
from unitscope.inputs.further import Further

ROWS = torch.arange(6.0).reshape(3, 2)


def test_rows_of_photos_are_cut_and_joined_again() -> None:
    also = {"meta": ROWS, "deep": [{"ids": torch.arange(3)}], "name": "scan"}
    further = Further.of_photos(also, 3)
    parts = [further.rows([photo]) for photo in range(3)]
    again = Further.of_each(parts).for_batch(3)
    assert torch.equal(again["meta"], ROWS)
    assert torch.equal(again["deep"][0]["ids"], torch.arange(3))
    assert again["name"] == "scan"
    assert torch.equal(parts[2].values["meta"], ROWS[2:])


def test_a_batch_of_probes_gets_the_rows_in_turn() -> None:
    further = Further.of_photos({"meta": ROWS}, 3)
    assert torch.equal(further.for_batch(1)["meta"], ROWS[:1])
    assert torch.equal(further.for_batch(5)["meta"], ROWS[[0, 1, 2, 0, 1]])


def test_one_row_serves_all_photos() -> None:
    fixed = Further.fixed({"meta": ROWS[:1], "labels": ROWS})
    batch = fixed.for_batch(4)
    assert torch.equal(batch["meta"], ROWS[:1].expand(4, 2))
    assert batch["labels"].shape == (3, 2)  # no row a photo: as it is
    per_photo = Further.of_photos({"meta": ROWS[:1]}, 2)
    assert per_photo.rows([1]).values["meta"].shape == (1, 2)


def test_floating_numbers_follow_the_dtype_and_arrays_become_tensors() -> None:
    also = {"meta": np.ones((1, 2)), "site": np.array([3]), "scale": 2.0}
    values = Further.fixed(also).like(torch.empty(0)).values
    assert values["meta"].dtype is torch.float32
    assert values["site"].dtype is torch.int64
    assert values["scale"] == 2.0


def test_the_users_tensor_may_be_written_over() -> None:
    mine = ROWS.clone().requires_grad_()
    linked = Further.of_photos({"meta": mine}, 3)
    with torch.no_grad():
        plain = Further.of_photos({"meta": mine}, 3)
        mine.zero_()
    for further in (linked, plain, linked.detach()):
        values = further.values["meta"]
        assert torch.equal(values, ROWS)
        assert values.requires_grad == (further is linked)


def test_the_kind_forgets_numbers_but_not_constants() -> None:
    def kind(meta: torch.Tensor, scale: float) -> object:
        return Further.of_photos({"meta": meta, "s": scale}, 3).kind

    assert kind(ROWS, 1.0) == kind(ROWS + 1, 1.0)
    assert kind(ROWS, 1.0) != kind(ROWS, 2.0)
    assert kind(ROWS, 1.0) != kind(ROWS.double(), 1.0)
    assert hash(kind(ROWS, 1.0))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("also", "message"),
    [
        (
            {"meta": ROWS},
            "also['meta'] has the shape (3, 2), with 3 rows for 5 photos: give one row "
            "a photo; give what is the same for all photos to wrap(module, "
            "also={'meta': …})",
        ),
        (ROWS, "also holds further inputs by the names"),
        ({1: ROWS}, "also holds further inputs by the names"),
    ],
)
def test_wrong_further_inputs_are_refused(also: object, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        Further.of_photos(also, 5)  # type: ignore[arg-type]
    assert message in str(refusal.value)
