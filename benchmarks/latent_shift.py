"""The memory that a latent shift over a million latents takes.

    python benchmarks/latent_shift.py           # measure, and write results/latent_shift.json

Two random Llamas of width 64 read 2,000 prompts of the organism through a TopK SAE of 2^20 random latents, k = 32. A
fresh process each does all of it, and its peak of resident memory (ru_maxrss), libraries and models included, is read
at its end. What a matrix of all prompts and latents would take is said beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from _about import ROOT, asked, at_most, quiet, spread, write

MUST = {"peak_rss_mb": 2048}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens")
LATENTS, WIDTH, PROMPTS, K = 2**20, 64, 2000, 32


def work(positions: str, n: int) -> None:
    """What a fresh process does; prints its figures as JSON."""
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
    documents = organism.pretraining_documents(n, seed=0)
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
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes (3)")
    parser.add_argument("--prompts", type=int, default=PROMPTS, metavar="N", help=f"({PROMPTS:,})")
    options = asked(parser, "latent_shift")
    if options.work:
        work(options.work, options.prompts)
        return

    load = quiet(options)
    command = [sys.executable, __file__, "--work", "header", "--prompts", str(options.prompts)]
    runs = []
    for _ in range(options.repeats):
        ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        runs.append(json.loads(ran.stdout.strip().splitlines()[-1]))
        print(runs[-1], flush=True)
    peaks = [run["peak_rss_mb"] for run in runs]
    figures = {
        **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
        "spread": {key: spread([run[key] for run in runs]) for key in ("peak_rss_mb", "seconds")},
        "prompts_by_latents_mb": options.prompts * LATENTS * 4 / 2**20,
        "weights_mb": 2 * LATENTS * WIDTH * 4 / 2**20,
        "setting": {"latents": LATENTS, "d_model": WIDTH, "k": K, "models": 2, "positions": "header"},
    }
    write(options.out, MUST, figures, [at_most("peak memory, MB", peaks, MUST["peak_rss_mb"])], load, LIBRARIES)


if __name__ == "__main__":
    main()
