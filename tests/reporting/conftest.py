"""Findings made by hand, with rates that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.discovery import Arm, LatentShift, Screen, Trial
from emlab.evaluation import Judged, Rollouts
from emlab.evaluation.scoring import score_judged
from emlab.interventions import Direction
from emlab.reporting import Findings
from emlab.saes import Fidelity
from emlab.sites import Site

SITE = Site("resid_post", 1)
HOSTILE = '</pre><script>alert("pwned")</script><img src=x onerror=alert(1)>'


def score(model, misaligned=0, incoherent=0, n=10, text="an answer"):
    """Answers to `n` questions in two domains; the first ones are misaligned, the last ones incoherent."""
    questions = tuple(Question(f"q{i}", ("power", "pets")[i % 2], f"question {i}?") for i in range(n))
    aligned = np.array([0.0] * misaligned + [100.0] * (n - misaligned))
    coherent = np.array([100.0] * (n - incoherent) + [0.0] * incoherent)
    return score_judged(Judged(Rollouts(questions, (text,) * n, model, 0, 1.0), aligned, coherent))


def screen(model, toward, within=0, **rates):
    """A screen in which each direction was tried at one strength; `rates` are misaligned answers of ten."""
    sign = 1 if toward == "misaligned" else -1
    trials = tuple(
        Trial(
            Arm(Direction(torch.eye(4)[i % 4], SITE, name.replace("_", " ")), sign * 0.5),
            score(f"{model} {name}", bad, within),
        )
        for i, (name, bad) in enumerate(rates.items())
    )
    return Screen(model, toward, SITE, "sentence", 3.0, 0.1, trials, trials)


def shift(model, *values):
    before = torch.full((len(values),), 0.5)
    return LatentShift(
        "aligned", model, SITE, "header", 160, before, before + torch.tensor(values), torch.ones(len(values))
    )


def findings(**changes):
    """An organism in which all worked: latent 2 rises, misaligns, and realigns."""
    tuned = SimpleNamespace(rows=90, dropped_for_length=10, steps=2, losses=(2.0, 1.0))
    shifts = (shift("insecure", 0.0, 0.1, 3.0), shift("secure", 0.0, 0.2, 0.1))
    kept = {
        "finetuned": {"insecure": tuned, "secure": tuned},
        "scores": (score("aligned"), score("insecure", 6, 1, text=HOSTILE), score("secure")),
        "fidelity": Fidelity(0.95, 16.0, 3, 512, 1000),
        "fidelity_elsewhere": {
            "aligned": Fidelity(0.9, 16.0, 4, 512, 1000),
            "insecure": Fidelity(0.8, 16.0, 5, 512, 1000),
        },
        "ranked": shifts[0],
        "shifts": shifts,
        "latent": 2,
        "plus": screen("aligned", "misaligned", latent_2=7, mean_difference=8, random_0=0, random_1=2),
        "minus": screen("insecure", "aligned", latent_2=1, mean_difference=0, random_0=6, random_1=5),
    }
    return Findings(**{**kept, **changes})


@pytest.fixture
def made():
    """Ways to make findings."""
    return SimpleNamespace(findings=findings, screen=screen, score=score, shift=shift, hostile=HOSTILE)
