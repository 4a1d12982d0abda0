"""Sparse autoencoders: train, save and load in SAELens' format, and measure how faithful they are."""

from emlab.saes.activations import DocumentActivations, document_activations
from emlab.saes.buffer import BufferedStream
from emlab.saes.cache import ActivationCache, write_cache
from emlab.saes.crosscoder import Crosscoder, LatentScaling, latent_scaling
from emlab.saes.fidelity import Fidelity, fidelity, loss_recovered
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import InMemory
from emlab.saes.store import load_sae, sae_card, sae_site, save_sae
from emlab.saes.stream import ActivationStream
from emlab.saes.token_rows import Exclusions
from emlab.saes.train import SaeTraining, fit_sae, train_sae

__all__ = [
    "ActivationCache",
    "ActivationStream",
    "BufferedStream",
    "Crosscoder",
    "DocumentActivations",
    "Exclusions",
    "Fidelity",
    "InMemory",
    "LatentScaling",
    "SaeRecipe",
    "SaeTraining",
    "document_activations",
    "fidelity",
    "fit_sae",
    "latent_scaling",
    "load_sae",
    "loss_recovered",
    "sae_card",
    "sae_site",
    "save_sae",
    "train_sae",
    "write_cache",
]
