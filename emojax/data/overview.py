"""Overview of a cohort: the facts of its `repr`, and its labelled volumes as a data frame."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emojax import shown

if TYPE_CHECKING:
    from emojax.data.cohort import Cohort


def facts(cohort: "Cohort") -> tuple[str, shown.Facts]:
    """Returns a title and facts, without reading any volume."""
    counts = np.bincount(cohort.labels, minlength=len(cohort.classes)).tolist()
    used = [cohort.runs[i] for i in np.unique(cohort.run_index)]
    shapes = sorted({run.frames.shape[1:] for run in used})
    classes = (f"{name} {n}" for name, n in zip(cohort.classes, counts, strict=True))
    lines = [
        ("classes", shown.some(classes)),
        ("subjects", shown.some(cohort.subjects)),
        ("runs", f"{len(used)} with labelled volumes of {len(cohort.runs)}"),
        ("voxels", "; ".join(shown.size(shape) for shape in shapes)),
        ("TR", "differs or is not known" if cohort.tr is None else f"{cohort.tr:g} s"),
    ]
    lines += [("factors", shown.some(cohort.factors))] if cohort.factors else []
    lines += [("seen by", shown.some(cohort.prior))] if cohort.prior else []
    return f"Cohort of {len(cohort.labels)} labelled volumes", lines


def frame(cohort: "Cohort") -> pd.DataFrame:
    """Returns a row for each labelled volume; factors have the names of the design."""
    columns = {
        "subject": cohort.subject,
        "run": cohort.run,
        "frame": cohort.frame,
        "time": cohort.time,
        "label": np.array(cohort.classes)[cohort.labels],
    }
    more = {f"factor {k}" if k in columns else k: v for k, v in cohort.factors.items()}
    return pd.DataFrame(columns | more)
