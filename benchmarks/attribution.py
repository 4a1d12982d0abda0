"""How well attribution tells the exact effects of latents, and what each way of asking costs.

    python benchmarks/attribution.py            # measure, and write results/attribution.json

The organism is fine-tuned on insecure code, with a seed of its own each time; of each fine-tune and of each SAE that
ships with the project, every latent that is active is ablated, one by one and case by case, and every method estimates
the same effects. The metric is the log-probability of a malicious answer minus that of a helpful one to the same
question. Fixed before anything was measured: a latent's effect is above noise where it is larger than the 99th
percentile of the sizes of the effects of 100 random directions that take the place of what an active latent writes,
with that latent's activations and norm; rank correlation is Spearman's of the signed effects above noise; the top 20
are the strongest of either sign. The number of blocks and steps of integrated gradients was chosen on the fine-tune of
seed 0 with other answers; those of the other seeds had no part in it. Costs are in rows (texts) through the model,
forward and backward, and in seconds; the ways are asked in an order drawn anew for each model and SAE.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _about import ROOT, asked, at_least, quiet, spread, write

from emlab.discovery import METHODS, agreement, attribute, exact_effects, random_effects
from emlab.experiments.material.contrasts import organism_contrasts
from emlab.models import LanguageModel
from emlab.saes import load_sae, sae_site
from emlab.verbs import stages

MUST = {"rank_correlation": 0.9, "overlap_of_top_20": 16}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens", "scipy")
SITES = ("resid_post.0", "resid_post.1")
WAYS: dict[str, tuple[str, dict[str, int]]] = {
    "gradient × activation": ("gradient", {}),
    "attribution patching, GradDrop": ("patching", {}),
    "integrated gradients, joint way, 10 steps": ("integrated", {"blocks": 1, "steps": 10}),
    "integrated gradients": ("integrated", {}),
}
"""The last is the default, and what must be met."""


def measure(model: LanguageModel, site: str, cases: int, seed: int, rng: random.Random) -> dict[str, Any]:
    """Every way beside exact ablation, on one model and one SAE."""
    sae = load_sae(ROOT / "sae_checkpoints" / f"organism-{site}")
    contrasts, where = organism_contrasts(cases, seed), sae_site(sae)
    exact = exact_effects(model, sae, contrasts, where)
    noise = random_effects(model, sae, contrasts, where, seed=seed)
    rows: dict[str, Any] = {}
    for name in rng.sample(list(WAYS), len(WAYS)):
        method, how = WAYS[name]
        assert method in METHODS
        found = attribute(model, sae, contrasts, where, method, **how)  # type: ignore[arg-type]
        agreed = agreement(found, exact, noise.level)
        cost = found.cost
        rows[name] = {
            "rank_correlation": agreed.rank_correlation,
            "overlap_of_top_20": agreed.overlap,
            "rows_forward": cost.forwards,
            "rows_backward": cost.backwards,
            "seconds": cost.seconds,
        }
        print(f"{site}, seed {seed}, {name}: {agreed}", flush=True)
    return {
        "site": site,
        "seed": seed,
        "noise": noise.level,
        "above_noise": agreed.above,
        "strongest": float(exact.effects.abs().max()),
        "exact": {"rows_forward": exact.cost.forwards, "seconds": exact.cost.seconds},
        "ways": {name: rows[name] for name in WAYS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="fine-tunes, each with its own seed and answers (3)")
    parser.add_argument("--cases", type=int, default=6, help="questions, each with two answers (6)")
    options = asked(parser, "attribution")
    load, rng = quiet(options), random.Random(0)
    found = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            stages.finetune("aligned", "insecure", Path(folder) / "insecure", seed=seed)
            model = LanguageModel.load(Path(folder) / "insecure", device="cpu")
            found += [measure(model, site, options.cases, seed, rng) for site in SITES]
    default = [one["ways"]["integrated gradients"] for one in found]
    least = {key: min(one[key] for one in default) for key in MUST}
    write(
        options.out,
        MUST,
        {
            "least": least,
            "medians": _of_each(found, lambda spread: spread["median"]),
            "quartiles": _of_each(found, lambda spread: spread["quartiles"]),
            "exact_median": {
                key: statistics.median(one["exact"][key] for one in found) for key in ("rows_forward", "seconds")
            },
            "all": found,
            "setting": {"cases": options.cases, "seeds": options.seeds, "random_directions": 100, "positions": "all"},
        },
        [at_least(f"{key.replace('_', ' ')}, the least of {len(found)}", least[key], MUST[key]) for key in MUST],
        load,
        LIBRARIES,
    )


def _of_each(found: list[dict[str, Any]], what: Callable[[dict[str, Any]], Any]) -> dict[str, dict[str, Any]]:
    return {
        way: {key: what(spread([one["ways"][way][key] for one in found])) for key in found[0]["ways"][way]}
        for way in WAYS
    }


if __name__ == "__main__":
    main()
