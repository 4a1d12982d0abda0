"""What an edit costs while generating, in each library, and what a capture costs that ends at its site.

    python benchmarks/editing.py            # measure, and write results/editing.json

A random Llama of six blocks and width 256 decodes 32 left-padded prompts of unequal length, greedily, with and without
one steering edit on every token, in PyTorch hooks, TransformerLens and nnsight. The rounds are interleaved: each runs
everything once, the plain and the edited of a library next to each other, in an order that is drawn anew. Each
library's tokens must be the same as those of the hooks.

The activations of one site are captured in prompts of 128 tokens, beside a bare forward of the same model without the
blocks that follow and without its head, and beside the whole forward; what is captured must be what the truncated model
computes.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable

import torch
from _about import asked, at_least, at_most, quiet, spread, write
from _random_llama import random_llama
from torch import Tensor

from emlab import organism
from emlab.interventions import Steer, Tokens, random_directions
from emlab.models import LanguageModel, wrap
from emlab.models.backends.lens_bridge import boot_bridge
from emlab.models.backends.nnsight_trace import trace_model
from emlab.sites import Site

MUST = {"hooks_overhead": 0.05, "capture_of_truncated": 0.9}
LIBRARIES = ("emlab", "torch", "transformers", "transformer-lens", "nnsight")
WIDTH, BLOCKS, BATCH, NEW = 256, 6, 32, 32


def capture_seconds(lm: LanguageModel, rows: list[list[int]], rng: random.Random) -> dict[str, float]:
    """CPU seconds of a capture at the middle block, of a forward that has no more blocks, and of the whole forward."""
    tokens: Tokens = lm.batch([(row * 128)[:128] for row in rows])
    block = BLOCKS // 2
    site = Site("resid_post", block)
    inner = lm.model.model
    cut = copy.copy(inner)  # it shares the weights
    cut._modules = {**inner._modules, "layers": inner.layers[: block + 1], "norm": torch.nn.Identity()}
    inputs = {"input_ids": tokens.ids, "attention_mask": tokens.real.long(), "position_ids": tokens.position_ids}
    backend = wrap(lm)
    ways: dict[str, Callable[[], Tensor]] = {
        "capture": lambda: backend.capture(tokens, site)[site],
        "truncated": lambda: cut(**inputs, use_cache=False).last_hidden_state,
        "whole": lambda: lm.model(**inputs, use_cache=False).logits,
    }
    seconds, out = {}, {}
    with torch.no_grad():
        for what in rng.sample(list(ways), len(ways)):
            begun = time.process_time()
            out[what] = ways[what]()
            seconds[what] = time.process_time() - begun
    if not torch.equal(out["capture"], out["truncated"]):
        raise SystemExit("the capture is not what the truncated model computes")
    return seconds


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25, metavar="N", help="rounds (25)")
    options = asked(parser, "editing")
    load = quiet(options)
    lm = random_llama(WIDTH, BLOCKS)
    questions = [question.text for question in organism.broad_questions()][:: 320 // BATCH]
    rows = [lm.prompt_ids(question) for question in questions]
    tokens: Tokens = lm.batch(rows, [len(row) for row in rows])
    site = Site("resid_post", BLOCKS // 2)
    edit = Steer(site, random_directions(1, WIDTH, site, 0)[0], 4.0, positions="all")
    backends = {
        "hooks": wrap(lm),
        "transformer_lens": wrap(boot_bridge(lm.model, lm.tokenizer)),
        "nnsight": wrap(trace_model(lm.copy().model, lm.tokenizer)),  # it puts itself into the modules for good
    }
    runs: dict[tuple[str, str], Callable[[], Tensor]] = {}
    for name, backend in backends.items():
        for what, edits in (("plain", []), ("edited", [edit])):
            runs[name, what] = lambda backend=backend, edits=edits: backend.generate(tokens, edits, NEW)  # type: ignore[misc]
    expected = {what: runs["hooks", what]() for what in ("plain", "edited")}
    if torch.equal(expected["plain"], expected["edited"]):
        raise SystemExit("the edit changes no token, so the benchmark measures nothing")
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    rng = random.Random(0)
    captures: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for name in rng.sample(list(backends), len(backends)):
            for what in rng.sample(list(expected), len(expected)):
                begun = time.process_time()
                out = runs[name, what]()
                seconds[name, what].append(time.process_time() - begun)
                if not torch.equal(out, expected[what]):
                    raise SystemExit(f"{name} wrote other tokens than the hooks")
        for what, spent in capture_seconds(lm, rows, rng).items():
            captures.setdefault(what, []).append(spent)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    ratios = {
        name: [edited / plain for edited, plain in zip(seconds[name, "edited"], seconds[name, "plain"], strict=True)]
        for name in backends
    }
    overheads = [ratio - 1 for ratio in ratios["hooks"]]
    plain = medians["hooks", "plain"]
    shares = {
        what: [bare / own for bare, own in zip(captures["truncated"], captures[what], strict=True)] for what in captures
    }
    figures = {
        "hooks_overhead": statistics.median(overheads),
        "edited_over_plain": {name: statistics.median(each) for name, each in ratios.items()},
        "capture_of_truncated": statistics.median(shares["capture"]),
        "tokens_per_second_over_truncated": {what: statistics.median(each) for what, each in shares.items()},
        "spread": {
            "edited_over_plain": {name: spread(each) for name, each in ratios.items()},
            "tokens_per_second_over_truncated": {what: spread(each) for what, each in shares.items()},
        },
        "over_hooks_plain": {f"{name} {what}": value / plain for (name, what), value in medians.items()},
        "median_cpu_seconds": {f"{name} {what}": value for (name, what), value in medians.items()},
        "setting": {"d_model": WIDTH, "blocks": BLOCKS, "batch": BATCH, "new_tokens": NEW, "repeats": options.repeats},
        "same_tokens": True,
        "same_activations": True,
    }
    bounds = [
        at_most("an edit in hooks, CPU time more than plain", overheads, MUST["hooks_overhead"]),
        at_least("tokens/s of a capture over the truncated forward's", shares["capture"], MUST["capture_of_truncated"]),
    ]
    write(options.out, MUST, figures, bounds, load, LIBRARIES)


if __name__ == "__main__":
    main()
