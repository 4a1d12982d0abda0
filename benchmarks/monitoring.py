"""What a monitor costs while answers are written, and with a stop and a conditional edit.

    python benchmarks/monitoring.py            # measure, and write results/monitoring.json

A random Llama of six blocks and width 256 samples 32 answers of 32 tokens, plain and watched at the middle block: by a
linear probe, by one latent of a TopK SAE (512 latents, and 4,096), by the probe with a stop that never comes, and with
an edit of its direction on every token it fires on, which is half of them. The rounds are interleaved: each runs
everything once, in an order that is drawn anew, each watched run next to a plain one of its own. What only watches must
write the very same answers.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from _about import asked, at_most, quiet, spread, write
from _random_llama import random_llama
from sae_lens import SAE

from emlab import organism
from emlab.detection import ActivationMonitor, Latents, Lineage, Linear, watch
from emlab.interventions import Ablate
from emlab.sites import Site

MUST = {"probe_overhead": 0.05}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens")
WIDTH, BLOCKS, BATCH, NEW = 256, 6, 32, 32


def sae(latents: int) -> SAE:
    """A random TopK SAE."""
    cfg = {"architecture": "topk", "k": 32, "d_in": WIDTH, "d_sae": latents, "dtype": "float32", "device": "cpu"}
    more = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}
    found = SAE.from_dict({**cfg, **more, "metadata": {}})
    rows = torch.nn.functional.normalize(torch.randn(latents, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)
    bias = torch.zeros(latents), torch.zeros(WIDTH)
    found.load_state_dict({"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": bias[0], "b_dec": bias[1]})
    return found


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25, metavar="N", help="rounds (25)")
    options = asked(parser, "monitoring")
    load = quiet(options)
    lm = random_llama(WIDTH, BLOCKS)
    prompts = [question.text for question in organism.broad_questions()][:: 320 // BATCH]
    site, lineage = Site("resid_post", BLOCKS // 2), Lineage.of(lm)
    weights = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    probe = ActivationMonitor("probe", site, Linear(weights), lineage)

    def plain() -> list[str]:
        return lm.generate(prompts, NEW, seed=0)

    def watched(monitor: ActivationMonitor, limit: float = float("inf"), **more: object) -> list[str]:
        return list(watch(lm, monitor, prompts, limit, max_new_tokens=NEW, seed=0, **more).answers)  # type: ignore[arg-type]

    middle = float(np.nanmedian(watch(lm, probe, prompts, float("inf"), max_new_tokens=NEW, seed=0).scores))
    runs: dict[str, Callable[[], list[str]]] = {
        "probe": lambda: watched(probe),
        "probe and a stop": lambda: watched(probe, stop=True),
        "probe and an edit": lambda: watched(probe, middle, then=Ablate(site, weights, "all")),
    }
    for latents in (512, 4096):
        latent = ActivationMonitor("latent", site, Latents(sae(latents), (7,), torch.ones(1)), lineage)
        runs[f"latent of {latents}"] = lambda latent=latent: watched(latent)  # type: ignore[misc]
    expected = plain()
    for name, run in runs.items():
        if (run() == expected) is (name == "probe and an edit"):
            raise SystemExit(f"{name}: the answers are not those that they should be")
    overheads: dict[str, list[float]] = {name: [] for name in runs}
    rng = random.Random(0)
    for _ in range(options.repeats):
        for name in rng.sample(list(runs), len(runs)):
            seconds = {}
            for what, run in rng.sample([("plain", plain), ("watched", runs[name])], 2):
                begun = time.process_time()
                run()
                seconds[what] = time.process_time() - begun
            overheads[name].append(seconds["watched"] / seconds["plain"] - 1)
    spreads = {name: spread(each) for name, each in overheads.items()}
    figures = {
        "probe_overhead": spreads["probe"]["median"],
        "overheads": {name: one["median"] for name, one in spreads.items()},
        "spread": spreads,
        "setting": {"d_model": WIDTH, "blocks": BLOCKS, "batch": BATCH, "new_tokens": NEW, "repeats": options.repeats},
        "same_answers": True,
    }
    bounds = [at_most("a probe, CPU time more than plain", overheads["probe"], MUST["probe_overhead"])]
    write(options.out, MUST, figures, bounds, load, LIBRARIES)
    for name, one in spreads.items():
        print(f"{name}: {one['median']:+.1%} (quartiles {', '.join(f'{q:+.1%}' for q in one['quartiles'])})")


if __name__ == "__main__":
    main()
