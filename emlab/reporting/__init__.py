"""Reports: plotly figures, a self-contained HTML page, and `summary.json`. Reads results, never models."""

from emlab.reporting.data_screen import (
    Blamed,
    DataScreenFindings,
    Found,
    RankedSet,
    Removal,
    data_screen_lead,
    data_screen_sections,
    data_screen_summary,
)
from emlab.reporting.discovery_figures import attribution_figure, cosines_figure
from emlab.reporting.early_warning import (
    EarlyWarningFindings,
    early_warning_lead,
    early_warning_sections,
    early_warning_summary,
)
from emlab.reporting.evaluation import evaluation_lead, evaluation_sections
from emlab.reporting.findings import Findings, ModelFidelity, Persona, Planted
from emlab.reporting.finetuning import (
    FinetuneCell,
    FinetuneFindings,
    finetuning_lead,
    finetuning_sections,
    finetuning_summary,
)
from emlab.reporting.interpretation import interpretation_page, interpretation_pages, latent_page
from emlab.reporting.labels import label_lead, label_sections
from emlab.reporting.monitors import (
    MonitorFindings,
    MonitorSkill,
    Stream,
    best_inside,
    monitors_lead,
    monitors_sections,
    monitors_summary,
)
from emlab.reporting.page import Answer, Link, Page, Plot, Section, Shaded, Table, render, write_page
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
    "Blamed",
    "DataScreenFindings",
    "EarlyWarningFindings",
    "Findings",
    "FinetuneCell",
    "FinetuneFindings",
    "Found",
    "Link",
    "ModelFidelity",
    "MonitorFindings",
    "MonitorSkill",
    "Page",
    "Persona",
    "Planted",
    "Plot",
    "RankedSet",
    "ReinforcementFindings",
    "RemedyCell",
    "RemedyFindings",
    "Removal",
    "Section",
    "Shaded",
    "Stream",
    "StyleCount",
    "Table",
    "Trained",
    "attribution_figure",
    "best_inside",
    "cosines_figure",
    "data_screen_lead",
    "data_screen_sections",
    "data_screen_summary",
    "early_warning_lead",
    "early_warning_sections",
    "early_warning_summary",
    "evaluation_lead",
    "evaluation_sections",
    "finetuning_lead",
    "finetuning_sections",
    "finetuning_summary",
    "interpretation_page",
    "interpretation_pages",
    "label_lead",
    "label_sections",
    "latent_page",
    "monitors_lead",
    "monitors_sections",
    "monitors_summary",
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
