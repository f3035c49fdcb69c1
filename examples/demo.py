"""What `make demo` runs: explain one photograph, offline, and say what was found and
where the report is.

The photograph is china.jpg, which scikit-learn ships (by danielbuechele, some rights
reserved: CC BY 2.0).
"""

import sys
from importlib.resources import files
from pathlib import Path

import unitscope

out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-report")
photo = Path(str(files("sklearn") / "datasets" / "images" / "china.jpg"))

model = unitscope.load()
explanation = model.explain(photo)
(report,) = unitscope.report(model, photo, out)

print(
    f"photo:  {photo.name} (by danielbuechele, CC BY 2.0, shipped with scikit-learn)"
)
print(f"model:  {model.provenance.spec}, {model.provenance.weights}")
print(f"        {model.provenance.notes[0]}")
print(
    "top 5:  "
    + ", ".join(f"{p.label} {p.probability:.0%}" for p in explanation.top(5)[0])
)
print(f"found:  {unitscope.Account.of(model, explanation).sentence()}")
print(f"report: {report.resolve().as_uri()}")
