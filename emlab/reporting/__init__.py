"""Reports: plotly figures and a self-contained HTML page. Reads results, never models."""

from emlab.reporting.discovery_figures import attribution_figure, cosines_figure
from emlab.reporting.evaluation import evaluation_lead, evaluation_sections
from emlab.reporting.interpretation import interpretation_page, interpretation_pages, latent_page
from emlab.reporting.labels import label_lead, label_sections
from emlab.reporting.page import Answer, Link, Page, Plot, Section, Shaded, Table, Tile, render

__all__ = [
    "Answer",
    "Link",
    "Page",
    "Plot",
    "Section",
    "Shaded",
    "Table",
    "Tile",
    "attribution_figure",
    "cosines_figure",
    "evaluation_lead",
    "evaluation_sections",
    "interpretation_page",
    "interpretation_pages",
    "label_lead",
    "label_sections",
    "latent_page",
    "render",
]
