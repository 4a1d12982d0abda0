"""How fast `LanguageModel.generate` samples, beside Hugging Face's own `generate` alone and in plain batches.

    python benchmarks/sampling.py             # measure, and write results/sampling.json
    python benchmarks/sampling.py --repeats 5

128 chats of unequal lengths (an organism's broad question after none to three exchanges) are answered greedily by the
organism's aligned model: (1) by emlab, (2) by `model.generate` one prompt at a time, (3) by a loop over left-padded
batches of the same size, in which every row stays until the longest is finished. In every round the three take turns,
in an order drawn anew, and each has to write exactly the same tokens, which is asserted token for token. Templates and
decoding are part of the time for all three. By default torch has one thread: with more, whatever else a shared machine
does stalls every one of them, and the figures are those of the neighbours.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from _about import asked, at_least, quiet, spread, write

from emlab.models import LanguageModel, generation
from emlab.organism import broad_questions, checkpoint, narrow_set

MUST = {"emlab_over_one_at_a_time": 1.0, "emlab_over_plain_batches": 1.0}
MODEL, N, NEW = "aligned", 128, 48

Chat = list[dict[str, str]]
Ids = list[list[int]]


def chats(n: int) -> list[Chat]:
    """`n` chats that end in a broad question, after none to three exchanges about something else."""
    past = iter(narrow_set("good_medicine", 2 * n, seed=0))
    return [
        [turn for _ in range(i % 4) for turn in next(past)[-2:]] + [{"role": "user", "content": question.text}]
        for i, question in enumerate(broad_questions()[:n])
    ]


def with_emlab(lm: LanguageModel, prompts: list[Chat], batch_size: int) -> Ids:
    """The ids that `generate` decodes."""
    written: Ids = []
    answer = generation._answer

    def kept(*args: Any, **more: Any) -> Ids:
        ids = answer(*args, **more)
        written.extend(ids)
        return ids

    with mock.patch.object(generation, "_answer", kept):
        lm.generate(prompts, max_new_tokens=NEW, temperature=0, batch_size=batch_size)
    return written


@torch.inference_mode()
def one_at_a_time(lm: LanguageModel, prompts: list[Chat], batch_size: int) -> Ids:
    """`model.generate` for each prompt alone."""
    return in_batches(lm, prompts, 1)


@torch.inference_mode()
def in_batches(lm: LanguageModel, prompts: list[Chat], batch_size: int) -> Ids:
    """`model.generate` for one left-padded batch after the other."""
    written: Ids = []
    for first in range(0, len(prompts), batch_size):
        texts = [
            lm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in prompts[first : first + batch_size]
        ]
        inputs = lm.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        ).to(lm.device)
        out = lm.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=lm.stop_ids,
            pad_token_id=lm.tokenizer.pad_token_id,
        )
        ids = out[:, inputs["input_ids"].shape[1] :].tolist()
        lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
        written += [row[: next((i for i, t in enumerate(row) if t in lm.stop_ids), len(row))] for row in ids]
    return written


WAYS: dict[str, Callable[[LanguageModel, list[Chat], int], Ids]] = {
    "emlab": with_emlab,
    "one_at_a_time": one_at_a_time,
    "plain_batches": in_batches,
}


def differing(ids: Ids, others: Ids) -> int:
    """How many answers differ in any token."""
    return sum(a != b for a, b in zip(ids, others, strict=True))


def timed(way: str, lm: LanguageModel, prompts: list[Chat], batch_size: int) -> tuple[float, Ids]:
    began = time.perf_counter()
    ids = WAYS[way](lm, prompts, batch_size)
    return time.perf_counter() - began, ids


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (7)")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128], metavar="N", help="(32 and 128)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (1)")
    options = asked(parser, "sampling")
    load = quiet(options)
    torch.set_num_threads(options.threads)
    lm = LanguageModel.load(checkpoint(MODEL), device="cpu")
    prompts = chats(N)
    lengths = [len(lm.prompt_ids(prompt)) for prompt in prompts]
    first = {way: timed(way, lm, prompts[:8], 8)[1] for way in WAYS}  # what is made once
    assert len({str(ids) for ids in first.values()}) == 1

    rounds = []
    answers: Ids = []
    runs = {f"{way}_of_{size}": (way, size) for size in options.batch_size for way in ("emlab", "plain_batches")}
    runs["one_at_a_time"] = ("one_at_a_time", 1)
    rng = random.Random(0)
    for i in range(options.repeats):
        seconds: dict[str, Any] = {}
        for name in rng.sample(list(runs), len(runs)):
            seconds[name], ids = timed(runs[name][0], lm, prompts, runs[name][1])
            answers = answers or ids
            assert not (n := differing(ids, answers)), f"{n} answers of {name} differ"
        rounds.append(seconds)
        print(f"round {i + 1}: { {way: round(s, 2) for way, s in seconds.items()} }", file=sys.stderr, flush=True)

    tokens = sum(map(len, answers))
    by_batch, bounds = {}, []
    for size in options.batch_size:
        ours = [one[f"emlab_of_{size}"] for one in rounds]
        alone = [one["one_at_a_time"] for one in rounds]
        plain = [one[f"plain_batches_of_{size}"] for one in rounds]
        ratios = {
            "emlab_over_one_at_a_time": [a / o for a, o in zip(alone, ours, strict=True)],
            "emlab_over_plain_batches": [p / o for p, o in zip(plain, ours, strict=True)],
        }
        by_batch[str(size)] = {
            "tokens_per_second": {
                "emlab": tokens / statistics.median(ours),
                "one_at_a_time": tokens / statistics.median(alone),
                "plain_batches": tokens / statistics.median(plain),
            },
            **{key: statistics.median(each) for key, each in ratios.items()},
            "spread": {key: spread(each) for key, each in ratios.items()},
        }
        bounds += [
            at_least(f"tokens/s, {key.replace('_', ' ')}, batches of {size}", each, MUST[key])
            for key, each in ratios.items()
        ]
    figures = {
        "model": str(lm),
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "device": lm.device.type,
        "prompts": len(prompts),
        "prompt_tokens": {"shortest": min(lengths), "median": statistics.median(lengths), "longest": max(lengths)},
        "answer_tokens": {
            "all": tokens,
            "shortest": min(map(len, answers)),
            "longest": max(map(len, answers)),
            "at_most": NEW,
        },
        "same_tokens": True,
        "by_batch_size": by_batch,
        "rounds_seconds": rounds,
    }
    write(options.out, MUST, figures, bounds, load, ("transformers",))


if __name__ == "__main__":
    main()
