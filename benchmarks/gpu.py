"""emlab on a GPU: the same numbers as on the CPU, and what its heavy steps take, in time and memory.

    python benchmarks/gpu.py                         # all parts, into results/gpu/, in under 25 minutes
    python benchmarks/gpu.py --only kernels organism
    python benchmarks/gpu.py --small                 # the same at small size, wherever it runs: a check, no measurement

- `tests`: tests/test_devices.py, whose tests run on every device there is.
- `kernels`: the two products of a TopK code by Triton beside PyTorch's embedding bags: how far apart, how fast; and a
  whole training step over the encode product alone, which is the limit that the matrix units set.
- `organism`: pretraining steps of a Llama of 100 million parameters on the organism's corpus.
- `qwen2.5-0.5b`, `qwen2.5-7b`: of random weights in these shapes, in bfloat16: harvesting activations at the middle
  block over the forward of the model cut off there, generating under one edit over generating without, an SAE's step, a
  causal screen of 1,000 directions, and the most memory that each took.
- `real`: `emlab run experiments/real/smollm2-135m-instruct.yaml`, whole.

A part that fails is said, and the others go on.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _about import ROOT, asked, at_most, quiet, write

from emlab import organism
from emlab.data import Question
from emlab.discovery import Cascade, causal_screen
from emlab.experiments.material.contrasts import organism_contrasts
from emlab.interventions import Steer, random_directions
from emlab.models import LanguageModel, wrap
from emlab.models.loading import pick_device
from emlab.saes import sparse_products
from emlab.saes.topk_step import TopKRule, topk_step
from emlab.sites import Site

LIBRARIES = ("emlab", "torch", "transformers", "sae-lens", "triton")
MUST = {"kernels_apart": 1e-4, "edit_overhead": 0.05}
SHAPES: dict[str, dict[str, int]] = {
    "qwen2.5-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
    },
}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
ROUNDS = 7


@dataclass(frozen=True)
class Place:
    """Where it runs, and at which size."""

    device: torch.device
    small: bool

    def of(self, whole: int, small: int) -> int:
        """A size."""
        return small if self.small else whole

    def seconds(self, *ways: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
        """Median seconds of each, in interleaved rounds after one that warms up."""
        found: list[list[float]] = [[] for _ in ways]
        for number in range(self.of(rounds, 1) + 1):
            for times, way in zip(found, ways, strict=True):
                self._wait()
                begun = time.perf_counter()
                way()
                self._wait()
                times += [time.perf_counter() - begun] if number else []
        return [statistics.median(times) for times in found]

    def peak_gb(self, way: Callable[[], Any]) -> float | None:
        """The most memory of the GPU that it took; None elsewhere."""
        if self.device.type != "cuda":
            way()
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        way()
        return torch.cuda.max_memory_allocated(self.device) / 1e9

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def tests(place: Place) -> dict[str, Any]:
    """The tests that run on every device."""
    return {"said": _run("-m", "pytest", "-q", "tests/test_devices.py", minutes=5)[-1:]}


def _run(*words: str, minutes: float) -> list[str]:
    """The lines that a command of this Python says; RuntimeError where it fails, or takes longer."""
    try:
        ran = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired as expired:
        raise RuntimeError(f"{' '.join(words)} took longer than {minutes:g} minutes.") from expired
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {ran.returncode}: {(ran.stdout + ran.stderr)[-4000:]}")
    return ran.stdout.strip().splitlines()


def kernels(place: Place) -> dict[str, Any]:
    """Triton beside PyTorch, and a step over its encode product."""
    n, d_in, d_sae, k = place.of(4096, 64), place.of(2048, 32), place.of(32_768, 128), place.of(64, 4)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(place.device)

    x, rows, value = drawn(n, d_in), drawn(d_sae, d_in), drawn(n * k)
    index = torch.randint(d_sae, (n, k), generator=generator).to(place.device)
    offsets = torch.arange(0, n * k + 1, k, device=place.device)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        total = sparse_products.gather_sum(rows, index.flatten(), value, offsets, torch.empty_like(x))
        return total, sparse_products.gather_dot(x, rows, index)

    def by_pytorch() -> tuple[torch.Tensor, torch.Tensor]:
        serves, sparse_products.triton_serves = sparse_products.triton_serves, lambda rows: False
        try:
            return both()
        finally:
            sparse_products.triton_serves = serves

    apart = max(
        float(((one - other).norm() / other.norm()).cpu()) for one, other in zip(both(), by_pytorch(), strict=True)
    )
    fast, plain = place.seconds(both, by_pytorch)
    return {
        "triton": sparse_products.triton_serves(rows),
        "apart": apart,
        "seconds": {"triton": fast, "pytorch": plain},
        "step": sae_step(place, x, d_sae, k),
    }


def sae_step(place: Place, x: torch.Tensor, d_sae: int, k: int) -> dict[str, Any]:
    """A training step of a TopK SAE on `x`, (n, d_in), over its encode product, and the most memory that it takes."""
    d_in = x.shape[1]

    def weight(*shape: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.randn(*shape, device=x.device) / d_in**0.5)

    encoder, decoder = weight(d_in, d_sae), weight(d_sae, d_in)
    b_enc, b_dec = (torch.nn.Parameter(torch.zeros(width, device=x.device)) for width in (d_sae, d_in))

    def step() -> None:
        done = topk_step(x, encoder, b_enc, decoder, b_dec, TopKRule(k))
        (done.reconstruction - x).square().mean().backward()

    peak = place.peak_gb(step)
    seconds, encode = place.seconds(step, lambda: x @ encoder.detach())
    setting = {"n": len(x), "d_in": d_in, "d_sae": d_sae, "k": k}
    return {"seconds": seconds, "encode": encode, "over_encode": seconds / encode, "peak_gb": peak, **setting}


def organism_steps(place: Place) -> dict[str, Any]:
    """Tokens a second of pretraining a larger organism's base."""
    from transformers import LlamaConfig, LlamaForCausalLM

    own = LanguageModel.load(organism.checkpoint("base"), device="cpu").tokenizer
    width, blocks = place.of(768, 64), place.of(14, 2)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=place.of(12, 4),
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config).to(place.device)
    lm = LanguageModel(model, own, "larger organism")
    chats = [document.messages for document in organism.pretraining_documents(place.of(256, 8), 0)]
    tokens = lm.batch([lm.rows([chat])[0][0] for chat in chats])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses: list[float] = []

    def step() -> None:
        labels = tokens.ids.masked_fill(~tokens.real, -100)
        with torch.autocast(place.device.type, torch.bfloat16):
            loss = model(input_ids=tokens.ids, attention_mask=tokens.real.long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))

    peak = place.peak_gb(step)
    (seconds,) = place.seconds(step)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_second": int(tokens.real.sum()) / seconds,
        "peak_gb": peak,
        "losses": [losses[0], losses[-1]],
    }


def shape(place: Place, name: str) -> dict[str, Any]:
    """Harvest, edit, SAE step and screen of a random model in a published shape."""
    lm = random_model(place, name)
    site = Site("resid_post", lm.n_blocks // 2)
    questions = [Question.of(question) for question in organism.broad_questions()][:: 320 // place.of(32, 4)]
    asked = [question.messages for question in questions]
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in lm.model.parameters()), "dtype": str(lm.model.dtype)}
    rows = [lm.prompt_ids(chat) * place.of(8, 1) for chat in asked]
    tokens = lm.batch(rows)
    inner = lm.model.model
    cut = copy.copy(inner)  # it shares the weights
    cut._modules = {**inner._modules, "layers": inner.layers[: site.block + 1], "norm": torch.nn.Identity()}
    inputs = {"input_ids": tokens.ids, "attention_mask": tokens.real.long(), "position_ids": tokens.position_ids}
    backend = wrap(lm)

    @torch.no_grad()
    def bare() -> None:
        cut(**inputs, use_cache=False)

    capture, truncated = place.seconds(lambda: backend.capture(tokens, site), bare)
    found["harvest"] = {
        "tokens_per_second": int(tokens.real.sum()) / capture,
        "over_truncated": truncated / capture,
        "peak_gb": place.peak_gb(lambda: backend.capture(tokens, site)),
    }
    x = backend.capture(tokens, site)[site][tokens.real][: place.of(4096, 64)].float()
    found["sae_step"] = sae_step(place, x, 8 * lm.d_model, place.of(64, 4))
    answers = lm.batch([lm.prompt_ids(chat) for chat in asked])
    edit, new = Steer(site, random_directions(1, lm.d_model, site, 0)[0], 4.0, positions="all"), place.of(64, 4)
    edited, plain = place.seconds(
        lambda: backend.generate(answers, [edit], new), lambda: backend.generate(answers, [], new)
    )
    found["edit"] = {
        "overhead": edited / plain - 1,
        "tokens_per_second": len(asked) * new / edited,
        "peak_gb": place.peak_gb(lambda: backend.generate(answers, [edit], new)),
    }
    settings = Cascade(strengths=(0.6, 1.2), random=place.of(100, 5), batch_size=place.of(256, 32))
    directions = random_directions(place.of(1000, 10), lm.d_model, site, 1)
    contrasts = organism_contrasts(place.of(20, 8), seed=0)
    begun = time.perf_counter()
    peak = place.peak_gb(
        lambda: causal_screen(lm, directions, site, questions[:8], organism.ExactJudge(), contrasts, settings)
    )
    found["screen"] = {"directions": len(directions), "seconds": time.perf_counter() - begun, "peak_gb": peak}
    return found


def random_model(place: Place, name: str) -> LanguageModel:
    """Random weights in the shape of that name, and the organism's tokenizer, of far fewer tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = LanguageModel.load(organism.checkpoint("aligned"), device="cpu").tokenizer
    size = {**SMALL, "vocab_size": len(tokenizer), "num_key_value_heads": 2} if place.small else SHAPES[name]
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with place.device:
            model = Qwen2ForCausalLM(Qwen2Config(**size, **ids, tie_word_embeddings=name.endswith("0.5b")))
    finally:
        torch.set_default_dtype(usual)
    return LanguageModel(model.eval(), tokenizer, name)


def real(place: Place) -> dict[str, Any]:
    """The main job on a real model, whole; at small size it is left out."""
    if place.small:
        return {"left_out": "at small size"}
    begun = time.perf_counter()
    said = _run("-m", "emlab", "run", "experiments/real/smollm2-135m-instruct.yaml", "--again", minutes=12)
    return {"seconds": time.perf_counter() - begun, "said": said[-20:]}


PARTS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "tests": tests,
    "kernels": kernels,
    "organism": organism_steps,
    **{name: lambda place, name=name: shape(place, name) for name in SHAPES},  # type: ignore[misc]
    "real": real,
}


def bounds(part: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What must hold."""
    if "apart" in found:
        return [at_most("Triton's sums and PyTorch's apart, of their norm", found["apart"], MUST["kernels_apart"])]
    if "edit" in found:
        return [
            at_most(f"{part}: an edit's cost over generating without", found["edit"]["overhead"], MUST["edit_overhead"])
        ]
    return []


def main() -> None:
    """Measure every part that is asked for, a result file each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help="(all)")
    parser.add_argument("--small", action="store_true", help="at small size, wherever it runs")
    options = asked(parser, "gpu")
    place = Place(pick_device(), options.small)
    if place.device.type != "cuda" and not options.small:
        raise SystemExit("There is no CUDA device here; run it where one is, or at small size with --small.")
    folder: Path = options.out.with_suffix("")
    load, failed = quiet(options), []
    for name in options.only:
        begun = time.perf_counter()
        try:
            found = PARTS[name](place)
        except Exception:  # noqa: BLE001  (one part's failure is no reason to lose the others)
            failed.append(name)
            traceback.print_exc()
            continue
        gpu = torch.cuda.get_device_name() if place.device.type == "cuda" else None
        found |= {"seconds_of_the_part": time.perf_counter() - begun, "gpu": gpu, "small": place.small}
        write(folder / f"{name}.json", MUST, found, bounds(name, found), load, LIBRARIES)
        print(f"{name}: {found}", flush=True)
    if failed:
        raise SystemExit(f"Failed, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
