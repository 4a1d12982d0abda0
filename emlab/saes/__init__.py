"""Sparse autoencoders: train, save and load in SAELens' format, and measure how faithful they are."""

from emlab.saes.activations import DocumentActivations, document_activations
from emlab.saes.buffer import BufferedStream
from emlab.saes.cache import ActivationCache, write_cache
from emlab.saes.check import ClassFidelity, ModelCheck, check_model
from emlab.saes.crosscoder import Crosscoder, LatentScaling, latent_scaling
from emlab.saes.encoding import dense_chunks, latent_values
from emlab.saes.faithfulness import Bounds, Faithful, SaeCheck, check_sae, faithful
from emlab.saes.fidelity import Fidelity, fidelity, loss_recovered
from emlab.saes.fitting import check_site, fitted_site, neuronpedia_page, neuronpedia_url, sae_site, site_named
from emlab.saes.loading import load_sae
from emlab.saes.moments import Estimate
from emlab.saes.recipe import SaeRecipe
from emlab.saes.sources import InMemory
from emlab.saes.store import save_sae
from emlab.saes.stream import ActivationStream
from emlab.saes.token_rows import Exclusions
from emlab.saes.train import SaeTraining, fit_sae, train_sae
from emlab.saes.units import decoder_rows, encode, without_direction, writes

__all__ = [
    "ActivationCache",
    "ActivationStream",
    "Bounds",
    "BufferedStream",
    "ClassFidelity",
    "Crosscoder",
    "DocumentActivations",
    "Estimate",
    "Exclusions",
    "Faithful",
    "Fidelity",
    "InMemory",
    "LatentScaling",
    "ModelCheck",
    "SaeCheck",
    "SaeRecipe",
    "SaeTraining",
    "check_model",
    "check_sae",
    "check_site",
    "decoder_rows",
    "dense_chunks",
    "document_activations",
    "encode",
    "faithful",
    "fidelity",
    "fit_sae",
    "fitted_site",
    "latent_scaling",
    "latent_values",
    "load_sae",
    "loss_recovered",
    "neuronpedia_page",
    "neuronpedia_url",
    "sae_site",
    "save_sae",
    "site_named",
    "train_sae",
    "without_direction",
    "write_cache",
    "writes",
]
