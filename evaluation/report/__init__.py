"""The report of an evaluation: one HTML file that holds all it shows, to be read, sent and printed."""

from evaluation.report.distribution_page import render_report
from evaluation.report.segmentation_page import render_segmentation_report

__all__ = ["render_report", "render_segmentation_report"]
