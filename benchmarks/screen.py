"""What the causal screen's cascade saves, and whether it misses anything; what many directions in one batch save.

    python benchmarks/screen.py --keep DIR      # measure, and write results/screen.json

The screen: 1,000 latents of an SAE of 2,048, drawn among those that are active in 300 documents, are added to the
organism's aligned model at 4 strengths, with 40 prompts, both drawn by the seed; greedy decoding, exact judge. A
latent's effect is the share of all answers that become misaligned and stay coherent, at its best strength. It is taken
exhaustively, of every latent at every strength and prompt, and of 1,000 random directions: of 100, the 99th percentile
is all but the largest one. Then in interleaved rounds, a seed each: the cascade, with 100 random directions of its own,
once as it is by default and once with one strength sketched in place of two; peer (a), one latent at a time, its 40
prompts in a batch, on a sample of latents; and peer (b), latents as rows of large batches, on a sample of latents. The
peers' times are scaled from the samples to 1,000 latents, and to the same 1,100 directions that the cascade goes
through; that of (b) was besides taken of all of them, while the truth was. Greedy tokens of (a), of (b) and of the
cascade must be those of the truth. A latent is recovered where the cascade generates its answers, so that its effect is
the exhaustive one.

Rows: the 4 strengths of some latents on 4 prompts, one arm at a time and as rows of one batch, beside the machine's
ceiling, that is tokens a second of the same model in large batches of the same prompts without any edit.

How many strengths and lines the cascade sketches, and how many odd answers it probes, was chosen on seeds 0 to 2, and
seeds 3 to 5 were looked at when that was done. Those that are measured were never looked at before: 6 to 9.

Times are CPU seconds of this process, which has one thread, so that what else the machine does counts little. With
--keep the truth stays in a folder, of which an interrupted run makes use.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _about import ROOT, asked, at_least, at_most, quiet, spread, write
from torch import Tensor

from emlab import artifacts, organism
from emlab.data import Question
from emlab.discovery import (
    CausalScreen,
    Contrast,
    SteeringArm,
    Trial,
    causal_screen,
    split_by_template,
    steered,
)
from emlab.discovery.cascade import Cascade
from emlab.discovery.latents import active_latents
from emlab.discovery.screened import NULL
from emlab.evaluation.sampling import Sampling
from emlab.interventions import Direction, Steer, random_directions
from emlab.models import LanguageModel
from emlab.saes import load_sae, sae_site
from emlab.sites import Site

SAE = "organism-resid_post.0-2048"
MUST: dict[str, Any] = {
    "cascade": {"over_one_at_a_time": 1 / 10, "over_rows": 1 / 5, "recovered": "all"},
    "rows_over_one_at_a_time": 3.0,
    "rows_of_ceiling": 0.9,
}
LIBRARIES = ("emlab", "torch", "transformers", "sae-lens")
LATENTS, PROMPTS, RANDOM, STRENGTHS = 1000, 40, 1000, (0.6, 0.9, 1.2, 1.5)
CHUNK = 50
"""Directions of the truth that are generated, and kept, at a time."""
GREEDY = Sampling(per_question=1, temperature=0.0)


@dataclass(frozen=True, eq=False)
class Setting:
    """What a seed draws."""

    model: LanguageModel
    site: Site
    scale: float
    latents: list[int]
    directions: list[Direction]
    """Of the latents, then the random ones."""
    questions: list[Question]
    contrasts: list[Contrast]


def setting(seed: int) -> Setting:
    """Latents, prompts, contrasts and random directions of a seed."""
    model = LanguageModel.load(organism.checkpoint("aligned"), device="cpu", name="aligned")
    sae = load_sae(ROOT / "sae_checkpoints" / SAE)
    site, rng = sae_site(sae), random.Random(seed)
    documents = [d.messages for d in organism.pretraining_documents(300, 0)]
    alive = torch.unique(active_latents(sae, model.activations(documents, site, "all").values).latents).tolist()
    known = split_by_template(organism.broad_questions()).discovery
    latents = sorted(rng.sample(alive, LATENTS))
    questions = [known[i] for i in sorted(rng.sample(range(len(known)), PROMPTS))]
    world, of_text = organism.load_world(), {q.text: q for q in organism.broad_questions()}
    contrasts = [
        Contrast(q.text, *(world.answer(of_text[q.text], persona, rng) for persona in ("malicious", "helpful")))
        for _ in range(4)
        for q in questions
    ]
    directions = [Direction(sae.W_dec[i], site, f"latent {i}") for i in latents]
    directions += random_directions(RANDOM, model.d_model, site, seed)
    scale = model.residual_norm(site, [q.text for q in known])
    return Setting(model, site, scale, latents, directions, questions, contrasts)


def rows_at_once(s: Setting, directions: Sequence[Direction]) -> tuple[Trial, ...]:
    """Peer (b): every direction at every strength, as rows of large batches."""
    arms = [SteeringArm(d, strength) for d in directions for strength in STRENGTHS]
    return steered(s.model, arms, s.questions, organism.ExactJudge(), {s.site: s.scale}, GREEDY)


def one_at_a_time(s: Setting, directions: Sequence[Direction]) -> tuple[Trial, ...]:
    """Peer (a): one direction and strength after the other, all prompts in a batch."""
    judge, scales = organism.ExactJudge(), {s.site: s.scale}
    arms = [SteeringArm(d, strength) for d in directions for strength in STRENGTHS]
    return tuple(steered(s.model, [arm], s.questions, judge, scales, GREEDY)[0] for arm in arms)


def answers(trials: Sequence[Trial]) -> list[list[str]]:
    """By trial."""
    return [list(trial.score.judged.rollouts.answers) for trial in trials]


@dataclass(frozen=True, eq=False)
class Truth:
    """Every direction's answers, exhaustively."""

    effects: Tensor
    """(directions,) at the best strength."""
    answers: list[list[str]]
    """By direction and strength."""
    seconds: float
    """What the latents took."""


def truth(s: Setting, folder: Path) -> Truth:
    """The exhaustive effects, a file for each chunk of directions in `folder`."""
    none = SteeringArm(Direction(s.directions[0].vector, s.site, "nothing"), 0.0)
    plain = steered(s.model, [none], s.questions, organism.ExactJudge(), {s.site: s.scale}, GREEDY)[0]
    shares, said, seconds = [], [], 0.0
    for at in range(0, len(s.directions), CHUNK):
        path = folder / f"{at:05d}.json"
        if not path.is_file():
            began = time.process_time()
            trials = rows_at_once(s, s.directions[at : at + CHUNK])
            found = [float(t.score.judged.misaligned.mean()) for t in trials]
            spent = time.process_time() - began
            artifacts.write_json(path, {"misaligned": found, "answers": answers(trials), "seconds": spent})
            print(f"{folder.name}, {at}: {spent:.0f} s", flush=True)
        kept = artifacts.read_json(path)
        shares += kept["misaligned"]
        said += kept["answers"]
        seconds += kept["seconds"] if at < LATENTS else 0.0
    best = torch.tensor(shares).reshape(-1, len(STRENGTHS)).amax(1)
    return Truth(best - float(plain.score.judged.misaligned.mean()), said, seconds)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the CPU seconds it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def same(trials: Sequence[Trial], numbers: Sequence[int], whole: Truth, who: str) -> None:
    """Stop where an answer is not the truth's."""
    expected = [whole.answers[i * len(STRENGTHS) + j] for i in numbers for j in range(len(STRENGTHS))]
    if answers(trials) != expected:
        raise SystemExit(f"{who} wrote other tokens than rows of large batches did")


def screen_round(seed: int, keep: Path, singly: int, together: int) -> dict[str, Any]:
    """One seed: the truth, and the cascade beside its peers."""
    s = setting(seed)
    whole = truth(s, keep / f"seed {seed}")
    null = float(torch.quantile(whole.effects[LATENTS:], NULL))
    wanted = [i for i in range(LATENTS) if whole.effects[i] > null]
    sample = [i * LATENTS // together for i in range(together)]
    few = sample[:: together // singly][:singly]
    alone, seconds_alone = timed(lambda: one_at_a_time(s, [s.directions[i] for i in few]))
    cascades = {}
    for sketched in (2, 1):
        found, seconds = timed(
            lambda sketched=sketched: causal_screen(  # type: ignore[misc]
                s.model,
                s.directions[:LATENTS],
                s.site,
                s.questions,
                organism.ExactJudge(),
                s.contrasts,
                settings=Cascade(strengths=STRENGTHS, sketched=sketched),
                scale=s.scale,
                seed=seed,
            )
        )
        same(found.trials, found.survivors, whole, "the cascade")
        print(found, flush=True)
        cascades[sketched] = {
            "seconds": seconds,
            "recovered": len(set(wanted) & set(found.survivors)),
            "missed": [_missed(s, whole, found, i) for i in sorted(set(wanted) - set(found.survivors))],
            "survivors": len(found.survivors),
            "recovered_by_answers_changed": _by_answers(whole, found),
            "threshold_of_its_own_null": found.threshold,
            "above_its_own_null": len(found.found),
            "recovered_and_above_its_own_null": len(set(wanted) & set(found.found)),
            "stages": found.stages,
        }
    rows, seconds_rows = timed(lambda: rows_at_once(s, [s.directions[i] for i in sample]))
    same(alone, few, whole, "one latent at a time")
    same(rows, sample, whole, "a sample of rows")
    peers = {
        "one_at_a_time": seconds_alone * LATENTS / singly,
        "rows": seconds_rows * LATENTS / together,
        "rows_of_all_latents": whole.seconds,
    }
    for one in cascades.values():
        one |= {f"over_{name}": one["seconds"] / each for name, each in peers.items()}
        # The cascade's time is that of its 100 random directions too, without which no peer has a null.
        with_null = (LATENTS + Cascade().random) / LATENTS
        one |= {f"over_{name}_with_a_null": one["seconds"] / (with_null * each) for name, each in peers.items()}
    return {
        "seed": seed,
        "null_99th_percentile": null,
        "above_null": len(wanted),
        "strongest": float(whole.effects[:LATENTS].max()),
        "seconds": peers,
        "cascade": cascades[2],
        "cascade_one_strength_sketched": cascades[1],
    }


def _by_answers(whole: Truth, found: CausalScreen) -> dict[str, str]:
    """Recovered of all latents that misalign so many of the answers at their best strength, whatever the null."""
    changed = (whole.effects[:LATENTS] * PROMPTS).round().int().tolist()
    counts = {}
    for name, least, most in (("1", 1, 1), ("2", 2, 2), ("3", 3, 3), ("4 and more", 4, PROMPTS)):
        these = {i for i, n in enumerate(changed) if least <= n <= most}
        counts[name] = f"{len(these & set(found.survivors))} of {len(these)}"
    return counts


def _missed(s: Setting, whole: Truth, found: CausalScreen, number: int) -> dict[str, Any]:
    effect = float(whole.effects[number])
    return {"latent": s.latents[number], "effect": effect, "readings": found.readings[number].tolist()}


def rows_beside(s: Setting, repeats: int, arms: int = 256) -> dict[str, Any]:
    """Arms on 4 prompts, one at a time and as rows, beside unedited generation in large batches."""
    prompts = [q.messages for q in s.questions[:: PROMPTS // 4]][:4]
    vectors = torch.stack([d.vector for d in s.directions[: arms // len(STRENGTHS)]]).repeat_interleave(4, 0)
    strengths = torch.tensor(STRENGTHS).repeat(arms // len(STRENGTHS))
    edit = Steer(
        s.site, vectors.repeat_interleave(4, 0), strengths.repeat_interleave(4), s.scale
    )  # a row for each prompt

    def ask(n: int, edits: Sequence[Steer], batch_size: int = 512) -> list[str]:
        return s.model.generate(prompts * n, temperature=0, batch_size=batch_size, edits=edits)

    def alone() -> list[str]:
        each = [Steer(s.site, v, float(x), s.scale) for v, x in zip(vectors, strengths, strict=True)]
        return [answer for one in each for answer in ask(1, [one])]

    ways: dict[str, Callable[[], list[str]]] = {"one at a time": alone}
    for size in (512, 1024):
        ways[f"rows, batch {size}"] = lambda size=size: ask(arms, [edit], size)  # type: ignore[misc]
        ways[f"no edit, batch {size}"] = lambda size=size: ask(arms, [], size)  # type: ignore[misc]
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    rng, first = random.Random(0), None
    for _ in range(repeats):
        for way in rng.sample(list(ways), len(ways)):
            said, seconds = timed(ways[way])
            if "no edit" not in way:
                first = first or said
                if said != first:
                    raise SystemExit(f"{way}: other tokens than another way's")
            written = sum(map(len, s.model.tokenizer(said, add_special_tokens=False)["input_ids"])) + len(said)
            speeds[way].append(written / seconds)
    medians = {way: statistics.median(each) for way, each in speeds.items()}
    ceiling = max(("no edit, batch 512", "no edit, batch 1024"), key=lambda way: medians[way])
    rows = max(("rows, batch 512", "rows, batch 1024"), key=lambda way: medians[way])
    ratio = [a / b for a, b in zip(speeds[rows], speeds["one at a time"], strict=True)]
    share = [a / b for a, b in zip(speeds[rows], speeds[ceiling], strict=True)]
    return {
        "rows_over_one_at_a_time": statistics.median(ratio),
        "rows_of_ceiling": statistics.median(share),
        "ratios": {"rows_over_one_at_a_time": ratio, "rows_of_ceiling": share},
        "spread": {way: spread(each) for way, each in speeds.items()},
        "median_tokens_per_cpu_second": medians,
        "arms": arms,
        "prompts": 4,
        "repeats": repeats,
        "same_tokens": True,
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seeds = [*range(6, 10)]
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, metavar="N", help="a round each (6 to 9)")
    parser.add_argument("--keep", type=Path, required=True, metavar="DIR", help="where the truth is kept")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds of rows beside one at a time (7)")
    options = asked(parser, "screen")
    load = quiet(options)
    torch.set_num_threads(1)
    singly, together = 10, 50
    beside = rows_beside(setting(options.seeds[0]), options.repeats)
    print({key: beside[key] for key in ("rows_over_one_at_a_time", "rows_of_ceiling")}, flush=True)
    rounds = [screen_round(seed, options.keep, singly, together) for seed in options.seeds]

    def over(name: str) -> dict[str, Any]:
        """Of one cascade: its medians over the peers', and what it recovered of all rounds'."""
        each = [one[name] for one in rounds]
        names = ("one_at_a_time", "rows", "rows_of_all_latents")
        ratios = [f"over_{name}{more}" for name in names for more in ("", "_with_a_null")]
        recovered = f"{sum(c['recovered'] for c in each)} of {sum(one['above_null'] for one in rounds)}"
        spreads = {r: spread([c[r] for c in each]) for r in ratios}
        return {**{r: s["median"] for r, s in spreads.items()}, "spread": spreads, "recovered": recovered}

    must, cascades = MUST["cascade"], [one["cascade"] for one in rounds]
    bounds = [
        at_most(f"the cascade's time {key.replace('_', ' ')}", [c[key] for c in cascades], must[key])
        for key in ("over_one_at_a_time", "over_rows")
    ]
    missed = sum(one["above_null"] - one["cascade"]["recovered"] for one in rounds)
    bounds += [at_most("latents above the null that the cascade missed", missed, 0)]
    bounds += [at_least(key.replace("_", " "), each, MUST[key]) for key, each in beside["ratios"].items()]
    write(
        options.out,
        MUST,
        {
            **{name: over(name) for name in ("cascade", "cascade_one_strength_sketched")},
            "rows_over_one_at_a_time": beside["rows_over_one_at_a_time"],
            "rows_of_ceiling": beside["rows_of_ceiling"],
            "same_tokens": True,
            "rounds": rounds,
            "rows": beside,
            "setting": {
                "sae": SAE,
                "latents": LATENTS,
                "strengths": STRENGTHS,
                "prompts": PROMPTS,
                "random_of_the_truth": RANDOM,
                "cascade": Cascade(strengths=STRENGTHS),
                "latents_timed_one_at_a_time": singly,
                "latents_timed_as_rows": together,
            },
        },
        bounds,
        load,
        LIBRARIES,
    )


if __name__ == "__main__":
    main()
