"""Finding what carries a behaviour: latent shift, directions, and the steering that shows which of them are causes."""

from emlab.discovery.directions import decoder_direction, mean_difference
from emlab.discovery.screen import Arm, Sampling, Screen, Trial, choose, steer_screen, steered
from emlab.discovery.shift import LatentShift, ShiftedLatent, latent_shift, mean_shift
from emlab.discovery.split import Split, split_by_template, spread

__all__ = [
    "Arm",
    "LatentShift",
    "Sampling",
    "Screen",
    "ShiftedLatent",
    "Split",
    "Trial",
    "choose",
    "decoder_direction",
    "latent_shift",
    "mean_difference",
    "mean_shift",
    "split_by_template",
    "spread",
    "steer_screen",
    "steered",
]
