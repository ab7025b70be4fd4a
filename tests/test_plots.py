"""Figures of the report: what they are given is what they show."""

import io

import numpy as np

from emojax.report import plots


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue()[:4] == b"\x89PNG"
    return figure


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_accuracies_have_a_line_and_a_number_each():
    rows = [("nested", [0.7, 0.8, 0.9], (0.75, 0.85)), ("LDA", [0.5, 0.6, 0.7], (0.55, 0.65))]
    figure = drawn(plots.accuracies(rows, 1 / 3, (0.3, 0.36), ours={"nested"}))
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["nested", "LDA"]
    assert texts(figure) == ["0.800", "0.600"]
    drawn(plots.accuracies([("one fold", [0.5], (0.5, 0.5))], 0.5))
    (axes,) = drawn(plots.accuracies([("one fold", [0.5], None)], 0.5)).axes
    assert len(axes.lines) == 2  # chance and mean, but no interval


def test_leaky_rows_are_told_by_words_and_colour():
    rows = [(name, [0.7, 0.8], (0.7, 0.8)) for name in ("nested", "paper", "LDA")]
    (axes,) = drawn(plots.accuracies(rows, 0.125, ours={"nested", "paper"}, leaky={"paper"})).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["nested", "paper (leaky)", "LDA"]
    means = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert means == [plots.BLUE, plots.RED, plots.ORANGE]
    assert "chance, 0.125" in [line.get_label() for line in axes.lines]


def test_splits_have_a_panel_each_and_noise_a_mark():
    rows = {"ResNet": (0.7, (0.6, 0.8), 0.5), "LDA": (0.8, (0.7, 0.9), None)}
    figure = drawn(plots.by_split({"by_run": rows, "random": rows}, 0.5, "ResNet", {"random"}))
    assert [axes.get_title() for axes in figure.axes] == ["by_run", "random (leaky)"]
    assert texts(figure) == ["0.70", "0.80"] * 2
    marks = [
        [
            line.get_xdata()[0]
            for line in axes.lines
            if line.get_marker() == "D" and len(line.get_xdata())
        ]
        for axes in figure.axes
    ]
    assert marks == [[0.5], [0.5]]
    colours = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert colours[:2] == [plots.BLUE, plots.ORANGE]


def test_splits_may_have_other_classifiers_and_no_intervals():
    panels = {"by_run": {"LDA": (0.8, None, None)}, "random": {"RF": (0.7, (0.6, 0.8), None)}}
    figure = drawn(plots.by_split(panels, 0.5))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["LDA", "RF"]
    assert texts(figure) == ["0.80", "0.70"]


def test_confusion_shows_shares_of_the_true_class():
    figure = drawn(plots.confusion(np.array([[3, 1], [0, 0]]), ["rest", "face"]))
    assert texts(figure) == ["0.75\n3", "0.25\n1", "0.00\n0", "0.00\n0"]


def test_curves_have_a_column_per_training():
    values = {
        k: np.random.default_rng(0).random((3, 5))
        for k in ("train_loss", "loss", "train_accuracy", "accuracy")
    }
    figure = drawn(plots.curves({"nested": values, "paper": values}, {"nested": "a", "paper": "b"}))
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 2 * (3 + 1)


def test_many_folds_have_a_panel_each():
    keys = ("train_loss", "loss", "train_accuracy", "accuracy")
    values = {k: np.random.default_rng(0).random((7, 5)) for k in keys}
    found, titles = {"nested": values, "paper": values}, {"nested": "a", "paper": "b"}
    names = [f"sub-{i}" for i in range(7)]
    figure = drawn(plots.curves(found, titles, names))
    panels = [axes for axes in figure.get_axes() if axes.lines]
    assert [axes.get_title() for axes in panels] == 2 * names
    assert all(len(axes.lines) == 4 for axes in panels)
    np.testing.assert_array_equal(panels[9].lines[0].get_ydata(), values["accuracy"][2])
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "nested, a"
    assert plots.curves(found, titles).get_axes()[6].get_title() == "fold 7"
    red = plots.curves(found, titles, names, leaky={"paper"}).get_axes()[0].lines
    assert [line.get_color() for line in red] == [plots.BLUE] * 2 + [plots.RED] * 2


def test_curves_that_diverged_are_drawn():
    values = {k: np.full((2, 3), np.nan) for k in ("loss", "train_accuracy", "accuracy")}
    values["train_loss"] = np.array([[1.0, 50, np.inf], [1.0, 2, 3]])
    figure = drawn(plots.curves({"nested": values}, {"nested": "a"}))
    assert figure.axes[0].get_yscale() == "log"


def test_roc_and_ladder_and_correlation():
    line = np.linspace(0, 1, 5)
    figure = drawn(plots.roc({f"class {i}": (line, line**0.5, 0.7) for i in range(9)}))
    (axes,) = figure.axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 10
    steps = [("published", 0.9, (0.85, 0.95)), ("closed", 0.7, (0.6, 0.8))]
    assert texts(drawn(plots.ladder(steps, 1 / 3))) == ["0.900", "0.700  (-0.200)"]
    assert texts(drawn(plots.ladder([("published", 0.9, None)], 1 / 3))) == ["0.900"]
    drawn(plots.correlation([0.1, 0.2], [0.5, 0.6]))


def test_sweep_is_drawn_in_order_of_the_factors():
    keys = ("loss", "train_loss", "accuracy", "train_accuracy")
    rows = [dict.fromkeys(keys, 0.5), dict.fromkeys(keys, 0.4), dict.fromkeys(keys)]
    figure = drawn(plots.sweep([1e-2, 1e-4, 1.0], rows))
    line = figure.axes[0].lines[1]
    np.testing.assert_array_equal(line.get_xdata(), [1e-4, 1e-2, 1.0])
    np.testing.assert_array_equal(line.get_ydata(), [0.4, 0.5, np.nan])
