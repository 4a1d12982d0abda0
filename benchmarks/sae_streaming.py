"""What streaming activations to an SAE costs, in time and in memory.

    python benchmarks/sae_streaming.py              # measure, and write results/sae_streaming.json
    python benchmarks/sae_streaming.py --part speed # only one part (speed or memory); the other's stays

Speed: a random Llama of six blocks and width 256 reads documents of 24 to 160 tokens up to `resid_post.2`, through an
`ActivationStream` (sorted by length, first and special tokens and attention sinks left out), and as the model cut off
after its third block, called by itself on the very same padded batches, its output thrown away. Both get token ids. The
rounds are interleaved, in an order drawn anew, and the ratio is the median of the rounds' ratios. The time of a chat's
tokenization comes on top of a stream of chats, and is given by itself.

Memory: in a fresh process for each setting, which has imported everything, loaded the model and read one batch, an SAE
is trained for some steps from the stream through a full buffer, with a checkpoint on the way. What its peak resident
memory (ru_maxrss) rose by is compared with the bytes of buffer, weights and Adam's two moments. ru_maxrss never falls
by itself: before training it is set back to what is resident (/proc/self/clear_refs), or the rise would look smaller.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _about import ROOT, asked, at_least, at_most, quiet, write
from _random_llama import unsaved

from emlab import organism
from emlab.data import Documents
from emlab.saes import checkpoints
from emlab.saes.buffer import BufferedStream
from emlab.saes.recipe import SaeRecipe
from emlab.saes.stream import ActivationStream
from emlab.saes.token_rows import token_rows
from emlab.saes.train import _begin, fit_sae
from emlab.sites import Site

MUST = {"capture_over_bare_forward": 0.9, "peak_over_computed": 1.3}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens", "safetensors")
WIDTH, BLOCKS, SITE = 256, 6, Site("resid_post", 2)
STEPS = 8
MEMORY = {
    "A": {"d_model": 256, "d_sae": 4096, "k": 32, "batch_size": 512, "buffer": 524_288},
    "B": {"d_model": 768, "d_sae": 16_384, "k": 32, "batch_size": 1024, "buffer": 524_288},
}


def documents(n: int, vocabulary: int) -> list[list[int]]:
    """Token ids of `n` documents, 24 to 160 each."""
    rng = random.Random(0)
    return [[rng.randrange(5, vocabulary) for _ in range(rng.randrange(24, 161))] for _ in range(n)]


def speed(repeats: int) -> dict[str, Any]:
    """Tokens/s of the stream and of the bare forward."""
    lm = unsaved(WIDTH, BLOCKS)
    ids = documents(512, len(lm.tokenizer))
    tokens = sum(map(len, ids))
    stream = ActivationStream(lm, Documents.of(ids), SITE)
    cut = unsaved(WIDTH, SITE.block + 1).model.model
    cut.norm = torch.nn.Identity()  # what follows the site
    batches = [lm.batch([row.ids for row in rows]) for rows in stream._batches(ids, 0)]
    chats = [document.messages for document in organism.pretraining_documents(500, 0)]
    kept = 0

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                cut(
                    input_ids=batch.ids,
                    attention_mask=batch.real.long(),
                    position_ids=batch.position_ids,
                    use_cache=False,
                )

    def streamed() -> None:
        nonlocal kept
        kept = sum(len(chunk.values) for chunk in stream.chunks())

    runs = {"bare": bare, "stream": streamed}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    rng = random.Random(0)
    for _ in range(repeats):
        for name in rng.sample(list(runs), len(runs)):
            begun = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - begun)
    begun = time.perf_counter()
    rows = token_rows(lm, chats, "all", 1024)
    tokenizing = sum(len(row.ids) for row in rows) / (time.perf_counter() - begun)
    ratios = [b / s for b, s in zip(seconds["bare"], seconds["stream"], strict=True)]
    return {
        "capture_over_bare_forward": statistics.median(ratios),
        "ratios": ratios,
        "tokens_per_second": {name: tokens / statistics.median(values) for name, values in seconds.items()},
        "tokenized_per_second": tokenizing,
        "seconds": seconds,
        "setting": {
            "d_model": WIDTH,
            "blocks": BLOCKS,
            "site": str(SITE),
            "documents": len(ids),
            "tokens": tokens,
            "activations_kept": kept,
            "repeats": repeats,
        },
    }


def resident() -> int:
    """Bytes that are resident now; the peak is set back to it."""
    Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the memory is measured on Linux only")


def memory_of(setting: dict[str, int], architecture: str) -> dict[str, Any]:
    """The peak of one training, to be measured in a process of its own."""
    lm = unsaved(setting["d_model"], 2)
    stream = ActivationStream(lm, Documents.of(documents(20_000, len(lm.tokenizer))), Site("resid_post", 0))
    next(stream.chunks())
    small = SaeRecipe(architecture, d_sae=64, k=4, tokens=256, batch_size=64)
    fit_sae(BufferedStream(stream, 128), small)  # what is imported late is imported now
    kind: dict[str, Any] = {name: setting[name] for name in ("d_sae", "k", "batch_size")}
    # More activations than the buffer holds, so that the places of a batch are filled again; the first steps are taken.
    recipe = SaeRecipe(architecture, tokens=2 * setting["buffer"], **kind)
    gc.collect()
    before = resident()
    with torch.random.fork_rng(), tempfile.TemporaryDirectory(dir=ROOT) as folder:
        run = _begin(BufferedStream(stream, setting["buffer"]), recipe, None, None)
        for _ in range(STEPS):
            run.step()
        checkpoints.save(Path(folder), "benchmark", run.trainer, run.batches.state(), {"norms": run.norms})
        for _ in range(STEPS):
            run.step()
        weights = sum(p.numel() * p.element_size() for p in run.trainer.sae.parameters())
        moments = sum(
            value.numel() * value.element_size()
            for state in run.trainer.optimizer.state_dict()["state"].values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
    buffer = setting["buffer"] * setting["d_model"] * 4
    rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    computed = buffer + weights + moments
    return {
        "peak_over_computed": rise / computed,
        "rise_mb": rise / 1e6,
        "computed_mb": {"buffer": buffer / 1e6, "weights": weights / 1e6, "optimizer": moments / 1e6},
        "before_mb": before / 1e6,
    }


def memory(repeats: int) -> dict[str, Any]:
    """Each setting in fresh processes, interleaved: the process in the middle, and the spread of all."""
    keys = [(name, architecture) for name in MEMORY for architecture in ("topk", "fast_topk")]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in keys}
    for _ in range(repeats):
        for name, architecture in keys:
            command = [sys.executable, __file__, "--child", name, architecture]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name, architecture].append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        f"{name} {architecture}": sorted(runs, key=lambda run: run["peak_over_computed"])[len(runs) // 2]
        for (name, architecture), runs in found.items()
    }
    return {
        "peak_over_computed": max(run["peak_over_computed"] for run in middle.values()),
        "by_setting": middle,
        "ratios": {" ".join(key): [run["peak_over_computed"] for run in runs] for key, runs in found.items()},
        "settings": MEMORY,
        "steps": 2 * STEPS,
        "repeats": repeats,
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "memory", "both"), default="both", help="what to measure (both)")
    parser.add_argument("--repeats", type=int, default=13, metavar="N", help="rounds of the speed (13)")
    parser.add_argument("--processes", type=int, default=3, metavar="N", help="processes for each memory setting (3)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = asked(parser, "sae_streaming")
    if options.child:
        print(json.dumps(memory_of(MEMORY[options.child[0]], options.child[1])))
        return
    if options.part in ("speed", "both"):
        load, figures = quiet(options), speed(options.repeats)
        ratios, least = figures.pop("ratios"), MUST["capture_over_bare_forward"]
        bound = at_least("tokens/s of the stream over the bare forward's", ratios, least)
        write(options.out, MUST, figures, [bound], load, LIBRARIES, ("speed",))
    if options.part in ("memory", "both"):
        load, figures = quiet(options), memory(options.processes)
        bounds = [
            at_most(f"peak memory over what is computed, {name}", each, MUST["peak_over_computed"])
            for name, each in figures.pop("ratios").items()
        ]
        write(options.out, MUST, figures, bounds, load, LIBRARIES, ("memory",))


if __name__ == "__main__":
    main()
