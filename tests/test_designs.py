"""The report's section on the design: its statements, and statements that it must not make."""

import pytest

from emojax.report import designs, page, template


def scored(mean, p=None, draws=99, **more):
    null = None if p is None else {"mean": 0.33, "sd": 0.03, "draws": draws}
    known = {"mean": 0.478, "ci95": [0.4, 0.55]}
    entry = {"mean": mean, "ci95": [mean - 0.1, mean + 0.1], "null": null, "p": p}
    return entry | {"permuted": "rows", "leaving_subjects_out": known} | more


def crossed(**entry):
    return {"chance": 1 / 3, "crossed": {"priming": {"logistic": scored(**entry)}}}


DESIGN = {
    "lookup": {"accuracy": 1.0, "chance": 0.4, "matched": 1.0},
    "nuisance": {
        "random forest": {"mean": 0.98, "ci95": [0.95, 1.0]},
        "columns": ["time in the run", "run"],
    },
    "subject_and_run_out": {
        "mean": 0.797,
        "ci95": [0.7, 0.9],
        "subject_out": {"mean": 0.787, "ci95": [0.7, 0.9]},
        "minus_subject_out": {"difference": 0.009, "ci95": [-0.01, 0.03], "p": 0.28},
    },
    "<priming>": {
        "decodes_label": 0.333,
        "decodes_label_ci95": [0.3, 0.4],
        "decoded_by_data": None,
        "decoded_by_data_ci95": None,
        "levels": 3,
        "chance": 1 / 3,
    },
}


def test_the_order_that_tells_the_label_is_said():
    found = designs.section({"chance": 1 / 3, "design": DESIGN})
    first, second, third = found["said"]
    assert first.endswith("saw one order of events: position in the run tells the label.")
    assert "random forest 0.980 (0.950 to 1.000)" in second and "chance 0.333" in second
    assert "difference +0.009 (-0.010 to 0.030)" in third
    (table,) = found["tables"]
    assert table.rows == [["<priming>", "3", "0.333", "0.300 - 0.400", "", "", "0.333"]]
    assert len(table.header) == 7
    other = DESIGN | {"lookup": DESIGN["lookup"] | {"accuracy": 0.5}}
    assert "tells" not in designs.section({"chance": 1 / 3, "design": other})["said"][0]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"mean": 0.34, "p": 0.4}, "transfer to new levels of priming is not shown."),
        ({"mean": 0.6, "p": 0.01}, "it generalises to new levels of priming."),
        ({"mean": 0.6, "p": 0.1, "draws": 9}, "9 permutations are too few for a conclusion."),
        ({"mean": 0.6}, "without permutations (permutations=0) it has no null."),
    ],
)
def test_generalises_is_said_of_what_lies_outside_its_null_alone(entry, said):
    found = designs.section(crossed(**entry))
    (text,) = found["said"]
    assert text.endswith(said)
    assert ("generalises" in text) == (entry.get("p") == 0.01)
    (table,) = found["tables"]
    assert len(table.rows[0]) == len(table.header) == 9


def test_a_column_that_was_left_out_has_its_reason():
    found = designs.section({"chance": 0.5, "crossed": {"sex": {"left out": "one level, f"}}})
    assert found == {"said": ["sex was not crossed: one level, f."], "tables": []}


def test_the_rival_and_its_difference():
    gain = {"difference": 0.098, "ci95": [0.05, 0.14], "p": 0.031}
    entry = {"mean": 0.879, "ci95": [0.84, 0.91], "folds": [0.9], "minus_cross_subject": gain}
    found = designs.section({"chance": 1 / 3, "within_subject": {"logistic": entry}})
    assert "+0.098 (0.050 to 0.140)" in found["said"][0]
    (table,) = found["tables"]
    assert table.rows[0][-4:] == ["+0.098", "0.050 - 0.140", "0.031", ""]
    alone = entry | {"minus_cross_subject": None, "ci95": None}
    found = designs.section({"chance": 1 / 3, "within_subject": {"logistic": alone}})
    assert found["said"] == ["Trained on the test subject's other runs alone (logistic): 0.879."]
    assert len(found["tables"][0].rows[0]) == len(found["tables"][0].header)


def test_nothing_asked_is_nothing_shown():
    keys = {"design": None, "crossed": None, "within_subject": None}
    assert designs.section({"chance": 1 / 3, **keys}) is None
    assert ">Design</h2>" in template.PAGE and page.ENVIRONMENT.from_string(template.PAGE)
