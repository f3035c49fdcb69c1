"""Draw the pictures of the README and the docs from the demo photo: run it again when the drawing or the model changes.

    python scripts/make_pictures.py

The photograph is china.jpg by danielbuechele (CC BY 2.0), as scikit-learn ships it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import unitscope

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
PHOTO = Path(str(files("sklearn") / "datasets" / "images" / "china.jpg"))


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    model = unitscope.load()
    explanation = model.explain(PHOTO)
    first = explanation.top(1)[0][0].index
    units = [part.unit for part in explanation.top_units(first, 8)]
    pictures = [
        explanation.save(PICTURES / "cams.png", dpi=110),
        explanation.unit_maps(units).save(PICTURES / "units.png", scale="photo", dpi=110),
        model.ablate(PHOTO, units=units[:1]).save(PICTURES / "ablation.png", dpi=110),
        unitscope.filters(model, "conv1").save(PICTURES / "filters.png", dpi=110),
    ]
    for picture in pictures:
        print(f"{picture.relative_to(PICTURES.parent.parent)}: {picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
