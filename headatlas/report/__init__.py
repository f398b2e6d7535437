"""Shows an atlas to people: a web page that opens offline, a terminal view, a picture, a notebook cell."""

from headatlas.report.figure import svg
from headatlas.report.notebook import repr_html
from headatlas.report.page import html
from headatlas.report.terminal import render, scan_text

__all__ = ["html", "render", "repr_html", "scan_text", "svg"]
