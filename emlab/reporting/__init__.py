"""Reports: plotly figures, a self-contained HTML page, and `summary.json`. Reads results, never models."""

from emlab.reporting.discovery_figures import attribution_figure, cosines_figure
from emlab.reporting.evaluation import evaluation_lead, evaluation_sections
from emlab.reporting.findings import Findings, ModelFidelity, Persona, Planted
from emlab.reporting.finetuning import (
    FinetuneCell,
    FinetuneFindings,
    finetuning_lead,
    finetuning_sections,
    finetuning_summary,
)
from emlab.reporting.labels import label_lead, label_sections
from emlab.reporting.page import Answer, Link, Plot, Section, Shaded, Table, render, write_page
from emlab.reporting.persona import persona_lead, persona_sections
from emlab.reporting.reinforcement import (
    ReinforcementFindings,
    StyleCount,
    Trained,
    reinforcement_lead,
    reinforcement_sections,
    reinforcement_summary,
)
from emlab.reporting.remedies import (
    RemedyCell,
    RemedyFindings,
    remedies_figure,
    remedies_lead,
    remedies_sections,
    remedies_summary,
)
from emlab.reporting.summary import persona_summary, summary_schema

__all__ = [
    "Answer",
    "Findings",
    "FinetuneCell",
    "FinetuneFindings",
    "Link",
    "ModelFidelity",
    "Persona",
    "Planted",
    "Plot",
    "ReinforcementFindings",
    "RemedyCell",
    "RemedyFindings",
    "Section",
    "Shaded",
    "StyleCount",
    "Table",
    "Trained",
    "attribution_figure",
    "cosines_figure",
    "evaluation_lead",
    "evaluation_sections",
    "finetuning_lead",
    "finetuning_sections",
    "finetuning_summary",
    "label_lead",
    "label_sections",
    "persona_lead",
    "persona_sections",
    "persona_summary",
    "reinforcement_lead",
    "reinforcement_sections",
    "reinforcement_summary",
    "remedies_figure",
    "remedies_lead",
    "remedies_sections",
    "remedies_summary",
    "render",
    "summary_schema",
    "write_page",
]
