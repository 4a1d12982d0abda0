"""Edits as pure functions on (batch, position, d_model) tensors; they know sites, not models."""

from emlab.interventions.conditional import Conditional
from emlab.interventions.direction import Direction, load_directions, random_directions, save_directions
from emlab.interventions.edits import Ablate, Clamp, Edit, Replace, Steer, check_rows, rows_of
from emlab.interventions.latents import ablate_encoded, clamp_encoded
from emlab.interventions.positions import Positions, Tokens, TokenSet, check_positions, from_header, where
from emlab.interventions.saving import load_edits, save_edits

__all__ = [
    "Ablate",
    "Clamp",
    "Conditional",
    "Direction",
    "Edit",
    "Positions",
    "Replace",
    "Steer",
    "TokenSet",
    "Tokens",
    "ablate_encoded",
    "check_positions",
    "check_rows",
    "clamp_encoded",
    "from_header",
    "load_directions",
    "load_edits",
    "random_directions",
    "rows_of",
    "save_directions",
    "save_edits",
    "where",
]
