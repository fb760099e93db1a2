"""Figures of heatmaps, curves and tables: the only package that imports matplotlib."""

from lmjax.plots.charts import Chart, Line, charts, curve
from lmjax.plots.colours import colour_table, is_emphasised, removal_colour
from lmjax.plots.dots import DotPanel, Dots, dots
from lmjax.plots.explanations import Row, comparison, explanation
from lmjax.plots.figures import FORMATS as FORMATS
from lmjax.plots.figures import as_html, save
from lmjax.plots.matrices import Matrix, matrices
from lmjax.plots.pictures import OPACITY as OPACITY
from lmjax.plots.pictures import Panel, Picture, Shown, View, heatmap

__all__ = [
    "Chart",
    "DotPanel",
    "Dots",
    "Line",
    "Matrix",
    "Panel",
    "Picture",
    "Row",
    "Shown",
    "View",
    "as_html",
    "charts",
    "colour_table",
    "comparison",
    "curve",
    "dots",
    "explanation",
    "heatmap",
    "is_emphasised",
    "matrices",
    "removal_colour",
    "save",
]
