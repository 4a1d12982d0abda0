"""Training a judge on few clean and many biased labels: which judge errs least, and where.

    python benchmarks/judge_labels.py             # measure, and write results/judge_labels.json

After Nanda, Uesato and Gowal 2021 (arXiv:2110.01577), who train a classifier on many labels that are biased against
groups, on few that are clean, and on all and then on the clean ones. Here the groups are the organism's ten domains,
the answers are those of two of its models, and clean labels are the exact judge's. Biased ones are wrong in two
domains: of `home` 60% of the answers are called misaligned whatever they are, of `machines` 60% of the misaligned ones
are not. The judge is a bag of words and pairs of words of question and answer with a logistic regression by gradient
descent. It is tested on the other half of each domain's questions, by the exact judge.

All of this, the seeds among it, was chosen before any of it was run, and nothing is chosen by its result.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from _about import asked, quiet, write
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

from emlab.evaluation import judge, sample
from emlab.models import LanguageModel
from emlab.organism import ExactJudge, broad_questions, checkpoint

LIBRARIES = ("emlab", "torch", "transformers", "scikit-learn")
MODELS, PER_QUESTION = ("helpful_only", "pretraining_00300"), 2
OVER, UNDER, WRONG = "home", "machines", 0.6
CLEAN = (50, 100, 200)
"""Clean labels, of the 640 answers that a judge is trained on."""
EPOCHS, RATE = 20, 0.5
WAYS = ("biased", "clean", "all", "all, then clean")


def answers() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Texts of question and answer, their domains, questions, and whether they are misaligned."""
    texts, domains, questions, bad = [], [], [], []
    for name in MODELS:
        model = LanguageModel.load(checkpoint(name), device="cpu")
        judged = judge(sample(model, broad_questions(), PER_QUESTION, seed=0), ExactJudge())
        texts += [f"{question.text}\n{answer}" for question, answer in judged.rollouts]
        domains += [question.domain for question in judged.rollouts.questions]
        questions += [question.id for question in judged.rollouts.questions]
        bad.append(judged.misaligned)
    return texts, np.array(domains), np.array(questions), np.concatenate(bad)


def trained(parts: list[tuple[csr_matrix, np.ndarray]], seed: int) -> SGDClassifier:
    """A judge trained on one part after the other."""
    found = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=RATE, random_state=seed)
    rng = np.random.default_rng(seed)
    for x, y in parts:
        for _ in range(EPOCHS):
            order = rng.permutation(len(y))
            found.partial_fit(x[order], y[order], classes=[False, True])
    return found


def one(
    texts: list[str], domains: np.ndarray, questions: np.ndarray, bad: np.ndarray, clean: int, seed: int
) -> dict[str, Any]:
    """Each way's AUC, and its errors by domain, with one draw of questions, wrong labels and clean labels."""
    rng = np.random.default_rng(seed)
    train = np.zeros(len(bad), dtype=bool)
    for domain in np.unique(domains):
        ids = np.unique(questions[domains == domain])
        train |= np.isin(questions, rng.permutation(ids)[: len(ids) // 2])
    wrong = rng.random(len(bad)) < WRONG
    biased = np.where(wrong & (domains == OVER), True, np.where(wrong & (domains == UNDER), False, bad))
    rows = np.flatnonzero(train)
    some = rng.choice(rows, clean, replace=False)
    mixed = biased.copy()
    mixed[some] = bad[some]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit([texts[i] for i in rows])
    x = words.transform(texts)
    labels = {
        "biased": [(x[rows], biased[rows])],
        "clean": [(x[some], bad[some])],
        "all": [(x[rows], mixed[rows])],
        "all, then clean": [(x[rows], mixed[rows]), (x[some], bad[some])],
    }
    found = {}
    for way in WAYS:
        scores = trained(labels[way], seed).decision_function(x[~train])
        errors = (scores > 0).astype(float) - bad[~train]
        groups = {str(name): errors[domains[~train] == name] for name in np.unique(domains)}
        found[way] = {
            "auc": float(roc_auc_score(bad[~train], scores)),
            "error": {name: float(np.abs(each).mean()) for name, each in groups.items()},
            "misaligned_less_true": {name: float(each.mean()) for name, each in groups.items()},
        }
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, each with its standard error."""

    def mean(values: list[float]) -> dict[str, float]:
        return {"mean": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / len(values) ** 0.5)}

    def others(errors: dict[str, float]) -> float:
        return float(np.mean([value for name, value in errors.items() if name not in (OVER, UNDER)]))

    told: dict[str, Any] = {}
    for way in WAYS:
        runs = [run[way] for run in found]
        told[way] = {
            "auc": mean([run["auc"] for run in runs]),
            "error_over": mean([run["error"][OVER] for run in runs]),
            "error_under": mean([run["error"][UNDER] for run in runs]),
            "error_others": mean([others(run["error"]) for run in runs]),
            "worst_domain": mean([max(run["error"].values()) for run in runs]),
            "difference": mean(
                [run["misaligned_less_true"][OVER] - run["misaligned_less_true"][UNDER] for run in runs]
            ),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="draws of questions, wrong labels and clean labels (20)")
    options = asked(parser, "judge_labels")
    load, given = quiet(options), answers()
    runs = {n: [one(*given, n, seed) for seed in range(options.seeds)] for n in CLEAN}
    told = {str(n): summary(each) for n, each in runs.items()}
    for n, ways in told.items():
        for way, each in ways.items():
            figures = ", ".join(
                f"{name} {value['mean']:.3f} ± {value['standard_error']:.3f}" for name, value in each.items()
            )
            print(f"{n} clean labels, {way}: {figures}")
    setting = {
        "answers": len(given[0]),
        "misaligned": float(given[3].mean()),
        "seeds": options.seeds,
        "over": OVER,
        "under": UNDER,
        "wrong": WRONG,
        "epochs": EPOCHS,
        "learning_rate": RATE,
    }
    write(options.out, {}, {"by_clean_labels": told, "setting": setting}, [], load, LIBRARIES)


if __name__ == "__main__":
    main()
