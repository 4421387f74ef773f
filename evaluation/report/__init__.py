"""The report of an evaluation: one HTML file that holds all it shows, to be read, sent and printed."""

from evaluation.report.page import render_report

__all__ = ["render_report"]
