"""The memory that a latent shift over a million latents takes.

    python benchmarks/latent_shift.py           # measure, and write results/latent_shift.json

Two random Llamas of width 64 read 2,000 prompts of the organism through a TopK SAE of 2^20 random latents, k = 32. A
fresh process does all of it, and its peak of resident memory (ru_maxrss), libraries and models included, is read at its
end. What a matrix of all prompts and latents would take is said beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from _about import about

from emlab import artifacts

ROOT = Path(__file__).parents[1]
MUST = {"peak_rss_mb": 2048}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens")
LATENTS, WIDTH, PROMPTS, K = 2**20, 64, 2000, 32


def work(positions: str) -> None:
    """What the fresh process does; prints its figures as JSON."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from emlab import organism
    from emlab.discovery import latent_shift
    from emlab.models import LanguageModel
    from emlab.sites import Site

    tokenizer = LanguageModel.load(organism.checkpoint("aligned"), device="cpu").tokenizer
    site, models = Site("resid_post", 1), []
    for seed in range(2):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            initializer_range=0.1,
        )
        models.append(LanguageModel(LlamaForCausalLM(config).eval(), tokenizer, f"random {seed}"))
    sae = random_sae(site)
    documents = organism.pretraining_documents(PROMPTS, seed=0)
    prompts = [document.messages[:-1] for document in documents]
    begun = time.perf_counter()
    found = latent_shift(models[0], models[1], sae, prompts, site, positions)
    seconds = time.perf_counter() - begun
    moved = int((found.shift != 0).sum())
    assert moved and bool(found.standard_error.isfinite().all())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"peak_rss_mb": peak, "seconds": seconds, "latents_that_moved": moved, "prompts": len(prompts)}))


def random_sae(site):  # type: ignore[no-untyped-def]
    """A TopK SAE of unit random latents, filled in place: a copy of its weights would be most of what is measured."""
    import torch
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    sae = TopKSAE(TopKSAEConfig(d_in=WIDTH, d_sae=LATENTS, k=K, metadata=SAEMetadata(hook_name=site.lens_name)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        sae.W_dec.normal_(generator=generator)
        for rows in sae.W_dec.split(2**16):
            rows /= rows.norm(dim=1, keepdim=True)
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return sae.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", metavar="POSITIONS", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latent_shift.json")
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return

    ran = subprocess.run(
        [sys.executable, __file__, "--work", "header"], check=True, capture_output=True, text=True, cwd=ROOT
    )
    measured = json.loads(ran.stdout.strip().splitlines()[-1])
    result = {
        "must": MUST,
        **measured,
        "prompts_by_latents_mb": PROMPTS * LATENTS * 4 / 2**20,
        "weights_mb": 2 * LATENTS * WIDTH * 4 / 2**20,
        "setting": {"latents": LATENTS, "d_model": WIDTH, "k": K, "models": 2, "positions": "header"},
        **about("python benchmarks/latent_shift.py", LIBRARIES),
    }
    artifacts.write_json(options.out, result)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
