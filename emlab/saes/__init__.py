"""Sparse autoencoders: train, save and load in SAELens' format, and measure how faithful they are."""

from emlab.saes.activations import DocumentActivations, document_activations
from emlab.saes.fidelity import Fidelity, fidelity, loss_recovered
from emlab.saes.store import load_sae, sae_card, sae_site, save_sae
from emlab.saes.train import train_sae

__all__ = [
    "DocumentActivations",
    "Fidelity",
    "document_activations",
    "fidelity",
    "load_sae",
    "loss_recovered",
    "sae_card",
    "sae_site",
    "save_sae",
    "train_sae",
]
