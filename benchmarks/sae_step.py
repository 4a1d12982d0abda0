"""What a TopK training step costs, in emlab's fast core, SAELens, sparsify and dictionary_learning.

    python benchmarks/sae_step.py A step  --sparsify PYTHON --dictionary-learning PYTHON
    python benchmarks/sae_step.py A train --sparsify PYTHON --dictionary-learning PYTHON
    python benchmarks/sae_step.py A curve
    python benchmarks/sae_step.py recovery

`A` is d_in 256, 4,096 latents, batch 512; `B` is d_in 768, 16,384 latents, batch 1,024; k is 32. Each part writes its
place in results/sae_step.json and leaves the others'. PYTHON is that of an environment in which the peer is installed.

`step` times whole training steps on the same planted mixtures of features, and the bare encode product. Each library
runs in a process of its own; the rounds are interleaved, each in an order drawn anew, and a ratio is a round's. It is
refused where emlab's first losses are not SAELens'. `curve`
compares emlab's losses with SAELens' at every step. `train` gives the seconds of training until held-out activations
are explained so far, evaluation not counted: each library at the best of a few learning rates (chosen at A, by the
steps it needs), from several seeds, in turns of a few steps. `recovery` compares the planted features found.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _about import asked, at_least, at_most, quiet, spread, write

from emlab import artifacts

PEERS = Path(__file__).with_name("sae_step_peers.py")
MUST: dict[str, Any] = {
    "A": {"saelens_over_emlab": 2.5, "over_emlab": "more than 1 for every other library"},
    "B": {"saelens_over_emlab": 4.0, "over_emlab": "more than 1 for every other library", "emlab_over_encode": 3.0},
    "curve": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "A": {"d_in": 256, "d_sae": 4096, "k": 32, "batch": 512, "learning_rate": 3e-3, "features": 512, "batches": 200},
    "B": {"d_in": 768, "d_sae": 16384, "k": 32, "batch": 1024, "learning_rate": 3e-3, "features": 1024, "batches": 40},
}
FIRST = 5
"""Steps before the rounds, in which the losses must be SAELens'."""
STEPS = {"A": 10, "B": 2}
"""Steps of one library in one round."""
TARGETS = {"A": (0.5, 0.7, 0.8, 0.9), "B": (0.5, 0.7)}
"""Held-out explained variances to be reached in `train`; they are looked at every few steps."""
EVERY, MOST = 4, 400
"""Steps of a turn of `train`, and of a whole training at most."""
RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates tried in `train`; sparsify's signum has its own rule."""
PATIENCE = 20
"""A library is given up in `train` when it has taken so many times the seconds that emlab took to the last target."""


def planted(setting: dict[str, Any], path: Path) -> None:
    """Write batches in which each of `features` directions is active with probability 8 / features."""
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary

    torch.manual_seed(0)
    features = setting["features"]
    dictionary = FeatureDictionary(features, setting["d_in"], initializer=None).eval()
    sparse = ActivationGenerator(features, firing_probabilities=8 / features, std_firing_magnitudes=0.3)
    with torch.no_grad():
        train = [dictionary(sparse.sample(setting["batch"])) for _ in range(setting["batches"])]
        held_out = dictionary(sparse.sample(2048))
    torch.save({"setting": setting, "train": train, "held_out": held_out}, path)


class Subject:
    """A library in its process."""

    def __init__(self, name: str, python: str, data: Path, threads: int) -> None:
        self.process = subprocess.Popen(
            [python, str(PEERS), name, str(data), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        self.name = name

    def answer(self) -> dict[str, Any]:
        """Its next line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: see its message above")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, **order: Any) -> dict[str, Any]:
        """Its answer to one order."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.answer()


def start(pythons: dict[str, str], data: Path, threads: int) -> dict[str, Subject]:
    """The subjects, ready."""
    subjects = {name: Subject(name, python, data, threads) for name, python in pythons.items()}
    for subject in subjects.values():
        subject.answer()
    return subjects


def time_steps(size: str, subjects: dict[str, Subject], repeats: int) -> dict[str, Any]:
    """Seconds a step of every subject, in interleaved rounds."""
    losses: dict[str, list[float]] = {name: subject.ask(steps=FIRST)["losses"] for name, subject in subjects.items()}
    refuse_unlike(losses["emlab"], losses["saelens"], SETTINGS[size])
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    rng = random.Random(0)
    for _ in range(repeats):
        for name in rng.sample(list(subjects), len(subjects)):
            found = subjects[name].ask(steps=STEPS[size])
            seconds[name].append(statistics.mean(found["seconds"]))
            losses[name] += found["losses"]
    over_emlab, of_encode = (
        {
            name: spread([value / ours for value, ours in zip(values, seconds["emlab"], strict=True)])
            for name, values in seconds.items()
        },
        {
            name: spread([ours / value for value, ours in zip(seconds[name], seconds["emlab"], strict=True)])
            for name in ("encode", "encode_onednn")
        },
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "saelens_over_emlab": over_emlab["saelens"]["median"],
        "emlab_over_encode": of_encode["encode"]["median"],
        "emlab_over_encode_in_onednn": of_encode["encode_onednn"]["median"],
        "over_emlab": {name: one["median"] for name, one in over_emlab.items()},
        "spread": {"over_emlab": over_emlab, "emlab_over": of_encode},
        "median_seconds_per_step": medians,
        "seconds_per_step": seconds,
        "samples_per_second": {
            name: SETTINGS[size]["batch"] / value for name, value in medians.items() if not name.startswith("encode")
        },
        "largest_loss_difference": apart_by(losses["emlab"], losses["saelens"]),
        "largest_loss_difference_of_the_first_steps": apart_by(losses["emlab"][:FIRST], losses["saelens"][:FIRST]),
        "steps_compared": len(losses["emlab"]),
        "repeats": repeats,
        "steps_a_round": STEPS[size],
    }


def refuse_unlike(ours: list[float], theirs: list[float], setting: dict[str, Any]) -> None:
    """Refuse to time two that do not take the same steps; the first `FIRST` losses tell.

    Later ones do not: training doubles a rounding error every few steps, and where it begins depends on the machine.
    The first may be apart by what float32 makes of the two products of a step, of d_in and of k terms, twice since the
    loss is squared: 2 (d_in + k) u with u = 2^-24 (Higham 2002, Accuracy and Stability of Numerical Algorithms, 3.1).

    Raises:
        SystemExit: They are further apart.
    """
    apart, bound = apart_by(ours[:FIRST], theirs[:FIRST]), 2 * (setting["d_in"] + setting["k"]) * 2**-24
    if apart > bound:
        raise SystemExit(
            f"emlab does not train as SAELens does, so that their times say nothing: of the first {FIRST} losses one "
            f"is {apart:.1e} apart, and rounding explains {bound:.1e}."
        )


def apart_by(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two loss curves, in shares of the second."""
    return max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))


def curves(data: Path, steps: int) -> dict[str, Any]:
    """How far the losses of `steps` steps are from SAELens', and SAELens' from its own.

    Training doubles a rounding error every few steps. So SAELens is also compared with itself, begun from weights of
    which each is at most one rounding apart, and both are compared in float64, where rounding does not grow to matter.
    """
    from itertools import cycle, islice

    from sae_step_peers import saelens

    held = torch.load(data, weights_only=True)

    def losses(dtype: torch.dtype, fast: bool, rounding: float = 0.0) -> list[float]:
        torch.manual_seed(0)
        options = {"dtype": str(dtype).removeprefix("torch."), "learning_rate": 3e-4}  # SAELens' default
        step, sae = saelens({**held["setting"], **options}, fast)
        if rounding:
            with torch.no_grad():
                for parameter in sae.parameters():  # type: ignore[attr-defined]
                    parameter.mul_(1 + rounding * torch.randn_like(parameter))
        return [step(batch.to(dtype)) for batch in islice(cycle(held["train"]), steps)]

    plain, ours, rounded = (losses(torch.float32, *how) for how in ((False,), (True,), (False, 1e-7)))
    return {
        "steps": steps,
        "float64": apart_by(losses(torch.float64, True), losses(torch.float64, False)),
        "float32": apart_by(ours, plain),
        "float32_saelens_from_itself_rounded": apart_by(rounded, plain),
        "float32_steps_within_must": steps_within(MUST["curve"], ours, plain),
        "float32_saelens_from_itself_rounded_steps_within_must": steps_within(MUST["curve"], rounded, plain),
    }


def steps_within(bound: float, ours: list[float], theirs: list[float]) -> int:
    """How many steps the curves go before they are once further apart than `bound`."""
    return next((i for i in range(len(ours)) if apart_by(ours[i : i + 1], theirs[i : i + 1]) > bound), len(ours))


def steps_to(target: float, subject: Subject, rate: float, seeds: int = 2) -> int:
    """Steps until the target is reached at a learning rate, summed over seeds; MOST for one where it is not."""
    total = 0
    for seed in range(seeds):
        subject.ask(begin=seed, learning_rate=rate)
        for _ in range(0, MOST, EVERY):
            subject.ask(steps=EVERY)
            total += EVERY
            if subject.ask(explained_variance=True)["explained_variance"] >= target:
                break
    return total


def best_rates(subjects: dict[str, Subject]) -> dict[str, float]:
    """The learning rate of each library that reaches the highest target of A in the fewest steps, of two seeds."""
    # SAELens' steps are emlab's, only slower; signum's rate (0 here) is its own.
    swept = [name for name in subjects if name not in ("saelens", "sparsify_signum")]
    goal = max(TARGETS["A"])
    best = {name: min(RATES, key=functools.partial(steps_to, goal, subjects[name])) for name in swept}
    return {**best, "saelens": best["emlab"], "sparsify_signum": 0.0}


def train_to(
    targets: tuple[float, ...], subjects: dict[str, Subject], rates: dict[str, float], repeats: int
) -> dict[str, Any]:
    """Training seconds and steps of every subject until each target is reached, trained in turns; null: given up."""
    rng = random.Random(0)
    runs: list[dict[str, dict[str, Any]]] = []
    for seed in range(repeats):
        reached: dict[str, dict[str, Any]] = {name: {} for name in subjects}
        spent, steps = dict.fromkeys(subjects, 0.0), dict.fromkeys(subjects, 0)
        for name, subject in subjects.items():
            subject.ask(begin=seed, learning_rate=rates[name])
        going = list(subjects)
        while going:
            for name in rng.sample(going, len(going)):
                spent[name] += sum(subjects[name].ask(steps=EVERY)["seconds"])
                steps[name] += EVERY
                now = subjects[name].ask(explained_variance=True)["explained_variance"]
                for target in targets:
                    if now >= target:
                        reached[name].setdefault(str(target), {"seconds": spent[name], "steps": steps[name]})
            ours = reached["emlab"].get(str(max(targets)), {}).get("seconds", math.inf)
            going = [
                name
                for name in going
                if len(reached[name]) < len(targets) and steps[name] < MOST and spent[name] < PATIENCE * ours
            ]
        runs.append(reached)
        print(f"seed {seed}: {json.dumps(reached)}", file=sys.stderr, flush=True)
    how = {"learning_rates": rates, "repeats": repeats, "given_up_after_times_emlab": PATIENCE}
    return {**how, "to": {str(t): compared(runs, str(t)) for t in targets}}


def compared(runs: list[dict[str, dict[str, Any]]], target: str) -> dict[str, Any]:
    """Each subject's seconds to one target beside emlab's. Null means given up, which is longer than any time."""
    seconds = {name: [run[name].get(target, {}).get("seconds") for run in runs] for name in runs[0]}

    def median(values: list[float]) -> float | None:
        middle = statistics.median(values)
        return middle if math.isfinite(middle) else None

    def known(values: list[float | None]) -> list[float]:
        return [math.inf if value is None else value for value in values]

    return {
        name: {
            "median_seconds": median(known(values)),
            "over_emlab": median(over := [a / b for a, b in zip(known(values), known(seconds["emlab"]), strict=True)]),
            "over_emlab_quartiles": [median([sorted(over)[round(q * (len(over) - 1))]]) for q in (0.25, 0.75)],
            "seconds": values,
            "steps": [run[name].get(target, {}).get("steps") for run in runs],
        }
        for name, values in seconds.items()
    }


def recovery(seeds: int) -> dict[str, Any]:
    """Mean over planted features of the largest cosine with a decoder row, in emlab and SAELens, for several seeds.

    Training doubles a rounding error every few steps, and what comes of it differs a little. How much is told by a
    second training of SAELens, begun from weights of which each is at most one rounding apart.
    """
    from itertools import cycle

    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary, mean_correlation_coefficient
    from sae_lens.training.sae_trainer import SAETrainer

    from emlab.saes.fast_topk import FastTopKTrainingSAE, FastTopKTrainingSAEConfig, fast_trainer

    cosines: dict[str, list[float]] = {name: [] for name in ("emlab", "saelens", "saelens_rounded")}
    matched: dict[str, list[float]] = {name: [] for name in cosines}
    for seed in range(seeds):
        torch.manual_seed(seed)
        dictionary = FeatureDictionary(128, 64, initializer=None).eval()
        sparse = ActivationGenerator(128, firing_probabilities=0.04, std_firing_magnitudes=0.3)
        with torch.no_grad():
            batches = [dictionary(sparse.sample(256)) for _ in range(200)]
        planted = dictionary.feature_vectors.detach()
        cfg = SAETrainerConfig(
            total_training_samples=3000 * 256,
            train_batch_size_samples=256,
            lr=1e-3,
            lr_end=1e-4,
            lr_decay_steps=500,
            dead_feature_window=200,
        )
        options = {"d_in": 64, "d_sae": 192, "k": 5}
        for name in cosines:
            torch.manual_seed(seed)
            if name == "emlab":
                sae = FastTopKTrainingSAE(FastTopKTrainingSAEConfig(**options))
                fast_trainer(sae, cfg, cycle(batches)).fit()
            else:
                sae = TopKTrainingSAE(TopKTrainingSAEConfig(**options))
                if name == "saelens_rounded":
                    with torch.no_grad():
                        for parameter in sae.parameters():
                            parameter.mul_(1 + 1e-7 * torch.randn_like(parameter))
                SAETrainer(cfg, sae, cycle(batches)).fit()
            rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
            features = torch.nn.functional.normalize(planted, dim=1)
            cosines[name].append(float((features @ rows.T).max(dim=1).values.mean()))
            matched[name].append(float(mean_correlation_coefficient(rows, features)))
    less = {name: paired_difference(cosines[name], cosines["saelens"]) for name in ("emlab", "saelens_rounded")}
    return {
        "mean_max_cosine": {name: statistics.mean(values) for name, values in cosines.items()},
        "mean_max_cosine_less_saelens": less,
        "mean_max_cosine_by_seed": cosines,
        "mean_correlation_coefficient": {name: statistics.mean(values) for name, values in matched.items()},
        "mean_correlation_coefficient_by_seed": matched,
        "setting": {**options, "features": 128, "steps": 3000, "seeds": seeds},
    }


def paired_difference(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The mean difference over seeds, and its 95% interval by bootstrap over them."""
    differences = torch.tensor(ours) - torch.tensor(theirs)  # (seeds,)
    draws = torch.randint(len(differences), (10_000, len(differences)), generator=torch.Generator().manual_seed(0))
    low, high = torch.quantile(differences[draws].mean(1), torch.tensor([0.025, 0.975])).tolist()
    return {"mean": float(differences.mean()), "low": low, "high": high}


def main() -> None:
    """Measure one part and write it into the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=["A", "B", "recovery"])
    parser.add_argument("part", nargs="?", choices=["step", "train", "curve"], default="step")
    parser.add_argument("--sparsify", metavar="PYTHON", help="Python of an environment with eai-sparsify")
    parser.add_argument("--dictionary-learning", metavar="PYTHON", help="and of one with dictionary-learning")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds of `step`, seeds of `train` (7)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of every library (2)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep the activations here, and use what is there")
    options = asked(parser, "sae_step")
    load = quiet(options)
    torch.set_num_threads(options.threads)
    pythons = {"emlab": sys.executable, "saelens": sys.executable}
    if options.sparsify:
        pythons |= {"sparsify": options.sparsify, "sparsify_signum": options.sparsify}
    if options.dictionary_learning:
        pythons["dictionary_learning"] = options.dictionary_learning
    part = (options.size,) if options.size == "recovery" else (options.size, options.part)
    if options.size == "recovery":
        figures = recovery(20)
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = (options.data or Path(folder)) / f"{options.size}.pt"
            setting = SETTINGS[options.size]
            if not data.is_file():
                planted(setting, data)
            if options.part == "step":
                pythons |= {"encode": sys.executable, "encode_onednn": sys.executable}
            if options.part == "curve":
                figures = curves(data, 220)
            else:
                subjects = start(pythons, data, options.threads)
                if options.part == "step":
                    figures = time_steps(options.size, subjects, options.repeats)
                else:
                    kept = artifacts.read_json(options.out) if options.size == "B" else {}
                    rates = kept["A"]["train"]["learning_rates"] if kept else best_rates(subjects)
                    figures = train_to(TARGETS[options.size], subjects, rates, options.repeats)
                for subject in subjects.values():
                    subject.process.kill()
                    subject.process.wait()  # so that its time counts as this process's
            figures["setting"] = setting
    peers = {"eai-sparsify": options.sparsify, "dictionary-learning": options.dictionary_learning}
    figures["peers"] = {name: version(python, name) for name, python in peers.items() if python}
    write(options.out, MUST, figures, bounds(part, figures), load, ("sae-lens",), part)


def bounds(part: tuple[str, ...], figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What the part promised; `train` and `recovery` promise nothing."""
    if part[-1] == "curve":
        kinds = {"float64": "in float64", "float32": f"in float32, {figures['steps']} steps"}
        return [
            at_most(f"losses apart from SAELens', {what}", figures[kind], MUST["curve"]) for kind, what in kinds.items()
        ]
    if part[-1] != "step":
        return []
    own, must = figures["seconds_per_step"]["emlab"], MUST[part[0]]
    found = []
    for name, values in figures["seconds_per_step"].items():
        ratios = [value / ours for value, ours in zip(values, own, strict=True)]
        if name == "encode" and "emlab_over_encode" in must:
            found.append(
                at_most("time over the encode product's", [1 / ratio for ratio in ratios], must["emlab_over_encode"])
            )
        elif name != "emlab" and not name.startswith("encode"):
            least = must["saelens_over_emlab"] if name == "saelens" else 1.0
            found.append(at_least(f"samples/s over those of {name}", ratios, least))
    return found


def version(python: str, package: str) -> str:
    """The version of `package` in another environment, with its torch's."""
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]), 'with torch', m.version('torch'))"
    return subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
