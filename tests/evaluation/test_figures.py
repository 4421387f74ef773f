"""Figures can be read."""

from evaluation.figures import calibration_figure


def test_axis_of_the_shares_is_labelled_at_powers_of_ten_only() -> None:
    bins = [[60.0, 40.0], [12.0, 30.0], [10.0, 32.0]]
    figure = calibration_figure({"model": (bins, 0.02)})
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[1].yaxis.get_minorticklabels() if label.get_text()] == []
