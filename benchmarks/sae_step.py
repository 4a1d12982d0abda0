"""What a TopK training step costs, in emlab's fast core, SAELens, sparsify and dictionary_learning.

    python benchmarks/sae_step.py A step  --sparsify PYTHON --dictionary-learning PYTHON
    python benchmarks/sae_step.py A train --sparsify PYTHON --dictionary-learning PYTHON
    python benchmarks/sae_step.py A curve
    python benchmarks/sae_step.py recovery

`A` is d_in 256, 4,096 latents, batch 512; `B` is d_in 768, 16,384 latents, batch 1,024; k is 32. Each part writes its
place in results/sae_step.json and leaves the others'. PYTHON is that of an environment in which the peer is installed.

`step` times whole training steps on the same planted mixtures of features, and the bare encode product. Each library
runs in a process of its own; the rounds are interleaved, each in an order drawn anew, and a ratio is a round's. `curve`
compares emlab's losses with SAELens' at every step. `train` gives the seconds of training until the held-out explained
variance is reached, evaluation not counted; --only takes some subjects. `recovery` compares the planted features found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from emlab import artifacts
from emlab.runs import environment

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).with_name("sae_step_peers.py")
MUST = {
    "A": {"saelens_over_emlab": 2.5, "over_emlab": "more than 1 for every other library"},
    "B": {"saelens_over_emlab": 4.0, "over_emlab": "more than 1 for every other library", "emlab_over_encode": 3.0},
    "curve": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "A": {"d_in": 256, "d_sae": 4096, "k": 32, "batch": 512, "learning_rate": 3e-3, "features": 512, "batches": 200},
    "B": {"d_in": 768, "d_sae": 16384, "k": 32, "batch": 1024, "learning_rate": 3e-3, "features": 1024, "batches": 40},
}
STEPS = {"A": 10, "B": 2}
"""Steps of one library in one round."""
TARGET = {"A": 0.9, "B": 0.7}
"""Held-out explained variance to be reached in `train`; it is looked at every few steps."""
EVERY = 4
LIBRARIES = ("emlab", "torch", "sae-lens")


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
    losses: dict[str, list[float]] = {name: [] for name in subjects}
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for name, subject in subjects.items():
        losses[name] += subject.ask(steps=3)["losses"]  # warm-up
    rng = random.Random(0)
    for _ in range(repeats):
        for name in rng.sample(list(subjects), len(subjects)):
            found = subjects[name].ask(steps=STEPS[size])
            seconds[name].append(statistics.mean(found["seconds"]))
            losses[name] += found["losses"]
    apart = apart_by(losses["emlab"], losses["saelens"])
    if apart > 0.01:
        raise SystemExit(f"emlab does not train as SAELens does: its losses differ by {apart:.1e} of them")
    ratios = {
        name: statistics.median([value / ours for value, ours in zip(values, seconds["emlab"], strict=True)])
        for name, values in seconds.items()
    }
    encodes = {name: 1 / ratios[name] for name in ("encode", "encode_onednn")}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "saelens_over_emlab": ratios["saelens"],
        "emlab_over_encode": encodes["encode"],
        "emlab_over_encode_in_onednn": encodes["encode_onednn"],
        "over_emlab": ratios,
        "median_seconds_per_step": medians,
        "seconds_per_step": seconds,
        "samples_per_second": {
            name: SETTINGS[size]["batch"] / value for name, value in medians.items() if not name.startswith("encode")
        },
        "largest_loss_difference": apart,
        "steps_compared": len(losses["emlab"]),
        "repeats": repeats,
        "steps_a_round": STEPS[size],
    }


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

    plain = losses(torch.float32, False)
    return {
        "steps": steps,
        "float64": apart_by(losses(torch.float64, True), losses(torch.float64, False)),
        "float32": apart_by(losses(torch.float32, True), plain),
        "float32_saelens_from_itself_rounded": apart_by(losses(torch.float32, False, 1e-7), plain),
    }


def train_to(target: float, subject: Subject) -> dict[str, Any]:
    """Training seconds and steps of a subject until the target is reached; None where 100 seconds do not do."""
    spent, steps, reached = 0.0, 0, -1.0
    while spent < 100:
        spent += sum(subject.ask(steps=EVERY)["seconds"])
        steps += EVERY
        reached = subject.ask(explained_variance=True)["explained_variance"]
        if reached >= target:
            return {"seconds": spent, "steps": steps, "explained_variance": reached}
    return {"seconds": None, "seconds_tried": spent, "steps": steps, "explained_variance": reached}


def recovery(seeds: int) -> dict[str, Any]:
    """Mean over planted features of the largest cosine with a decoder row, in emlab and SAELens, for several seeds."""
    from itertools import cycle

    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary, mean_correlation_coefficient
    from sae_lens.training.sae_trainer import SAETrainer

    from emlab.saes.fast_topk import FastTopKTrainingSAE, FastTopKTrainingSAEConfig, fast_trainer

    cosines: dict[str, list[float]] = {"emlab": [], "saelens": []}
    matched: dict[str, list[float]] = {"emlab": [], "saelens": []}
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
                SAETrainer(cfg, sae, cycle(batches)).fit()
            rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
            features = torch.nn.functional.normalize(planted, dim=1)
            cosines[name].append(float((features @ rows.T).max(dim=1).values.mean()))
            matched[name].append(float(mean_correlation_coefficient(rows, features)))
    return {
        "mean_max_cosine": {name: statistics.mean(values) for name, values in cosines.items()},
        "mean_max_cosine_by_seed": cosines,
        "mean_correlation_coefficient_by_seed": matched,
        "setting": {**options, "features": 128, "steps": 3000, "seeds": seeds},
    }


def main() -> None:
    """Measure one part and write it into the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=["A", "B", "recovery"])
    parser.add_argument("part", nargs="?", choices=["step", "train", "curve"], default="step")
    parser.add_argument("--sparsify", metavar="PYTHON", help="Python of an environment with eai-sparsify")
    parser.add_argument("--dictionary-learning", metavar="PYTHON", help="and of one with dictionary-learning")
    parser.add_argument("--only", nargs="+", metavar="SUBJECT", help="of `train`: only these")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds of `step` (7)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of every library (2)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keep the activations here, and use what is there")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "sae_step.json", metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    pythons = {"emlab": sys.executable, "saelens": sys.executable}
    if options.sparsify:
        pythons |= {"sparsify": options.sparsify, "sparsify_signum": options.sparsify}
    if options.dictionary_learning:
        pythons["dictionary_learning"] = options.dictionary_learning
    if options.size == "recovery":
        result["recovery"] = recovery(5)
    else:
        with tempfile.TemporaryDirectory() as folder:
            data = (options.data or Path(folder)) / f"{options.size}.pt"
            setting = SETTINGS[options.size]
            if not data.is_file():
                planted(setting, data)
            if options.part == "step":
                pythons |= {"encode": sys.executable, "encode_onednn": sys.executable}
            elif options.only:
                pythons = {name: python for name, python in pythons.items() if name in options.only}
            place = result.setdefault(options.size, {"setting": setting})
            if options.part == "step":
                subjects = start(pythons, data, options.threads)
                place["step"] = time_steps(options.size, subjects, options.repeats)
                for subject in subjects.values():
                    subject.process.kill()
            elif options.part == "curve":
                place["curve"] = curves(data, 220)
            else:
                place.setdefault("train", {})["target"] = TARGET[options.size]
                for name, python in pythons.items():
                    subject = start({name: python}, data, options.threads)[name]
                    place["train"][name] = train_to(TARGET[options.size], subject)
                    subject.process.kill()
    about = environment()
    result |= {
        "must": MUST,
        "command": "python benchmarks/sae_step.py {A,B} {step,train,curve}, with --sparsify and --dictionary-learning; "
        "python benchmarks/sae_step.py recovery",
        "machine": {
            "cpu": processor(),
            "cpu_count": about["cpu_count"],
            "machine": os.uname().machine if hasattr(os, "uname") else "",
            "torch_threads": options.threads,
        },
        "versions": {
            **result.get("versions", {}),
            **{name: about["packages"].get(name) for name in LIBRARIES},
            **{
                name: version(python, name)
                for name, python in (
                    ("eai-sparsify", options.sparsify),
                    ("dictionary-learning", options.dictionary_learning),
                )
                if python
            },
        },
    }
    artifacts.write_json(options.out, result)
    print(json.dumps(result.get(options.size, {}).get(options.part, result.get("recovery")), indent=1))


def version(python: str, package: str) -> str:
    """The version of `package` in another environment, with its torch's."""
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]), 'with torch', m.version('torch'))"
    return subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=True).stdout.strip()


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
