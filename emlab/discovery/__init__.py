"""Finding what carries a behaviour: latent shift, directions, and the edits that show which of them are causes."""

from emlab.discovery.ablation import Agreement, Noise, agreement, exact_effects, random_effects
from emlab.discovery.activity import Activity
from emlab.discovery.attribution import METHODS, attribute
from emlab.discovery.cascade import Cascade, causal_screen
from emlab.discovery.context_reading import ContextSettings, read_contexts, top_contexts
from emlab.discovery.contexts import (
    Context,
    CorpusContexts,
    LatentContexts,
    Quantile,
    load_contexts,
    save_contexts,
)
from emlab.discovery.cosines import Convergence, Cosines, convergence, cosines
from emlab.discovery.decisions import Decisions, chances
from emlab.discovery.directions import decoder_direction, difference_components, mean_difference
from emlab.discovery.effects import Attribution, AttributionCost, Place
from emlab.discovery.effects import summary as attribution_summary
from emlab.discovery.interpretation import Interpretation, InterpretedLatent, InterpretSettings, interpret
from emlab.discovery.latent_weights import LatentWeights, Neighbour, TokenEffect, latent_weights
from emlab.discovery.mediation import Effect, clamp_direction, clamp_latents, effect_of, natural_means, natural_values
from emlab.discovery.metrics import Contrast, Metric, log_probability_difference, read_contrasts
from emlab.discovery.name_scores import Accuracy, NameScore, score_names
from emlab.discovery.naming import LatentName, Namer, name_latents
from emlab.discovery.nulls import matched_directions
from emlab.discovery.persona_vectors import PersonaVector, persona_vector, trait_scores
from emlab.discovery.probes import Probe, linear_probe
from emlab.discovery.reading import AttributionTarget
from emlab.discovery.screen import Screen, ScreenSettings, SteeringArm, Trial, choose, order, steer_screen, steered
from emlab.discovery.screened import CausalScreen, Stage
from emlab.discovery.selection import SELECTIONS
from emlab.discovery.shift import LatentShift, ShiftedLatent, latent_shift, latent_shifts, mean_shift
from emlab.discovery.split import Split, split_by_id, split_by_template, spread
from emlab.discovery.traits import Trait, read_trait, trait_names
from emlab.discovery.verdict import Test, Verdict, behaviour_test, cause_test, fidelity_test, shift_test

__all__ = [
    "METHODS",
    "SELECTIONS",
    "Accuracy",
    "Activity",
    "Agreement",
    "Attribution",
    "AttributionCost",
    "AttributionTarget",
    "Cascade",
    "CausalScreen",
    "Context",
    "ContextSettings",
    "Contrast",
    "Convergence",
    "CorpusContexts",
    "Cosines",
    "Decisions",
    "Effect",
    "InterpretSettings",
    "Interpretation",
    "InterpretedLatent",
    "LatentContexts",
    "LatentName",
    "LatentShift",
    "LatentWeights",
    "Metric",
    "NameScore",
    "Namer",
    "Neighbour",
    "Noise",
    "PersonaVector",
    "Place",
    "Probe",
    "Quantile",
    "Screen",
    "ScreenSettings",
    "ShiftedLatent",
    "Split",
    "Stage",
    "SteeringArm",
    "Test",
    "TokenEffect",
    "Trait",
    "Trial",
    "Verdict",
    "agreement",
    "attribute",
    "attribution_summary",
    "behaviour_test",
    "causal_screen",
    "cause_test",
    "chances",
    "choose",
    "clamp_direction",
    "clamp_latents",
    "convergence",
    "cosines",
    "decoder_direction",
    "difference_components",
    "effect_of",
    "exact_effects",
    "fidelity_test",
    "interpret",
    "latent_shift",
    "latent_shifts",
    "latent_weights",
    "linear_probe",
    "load_contexts",
    "log_probability_difference",
    "matched_directions",
    "mean_difference",
    "mean_shift",
    "name_latents",
    "natural_means",
    "natural_values",
    "order",
    "persona_vector",
    "random_effects",
    "read_contexts",
    "read_contrasts",
    "read_trait",
    "save_contexts",
    "score_names",
    "shift_test",
    "split_by_id",
    "split_by_template",
    "spread",
    "steer_screen",
    "steered",
    "top_contexts",
    "trait_names",
    "trait_scores",
]
