"""Findings made by hand, with rates that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.detection import Auroc, Detection, Onset, Point
from emlab.discovery import Context, Effect, LatentShift, Screen, SteeringArm, Test, Trial, Verdict
from emlab.evaluation import Judged, Rate, Rollouts, StepRates
from emlab.evaluation.scoring import score_judged
from emlab.experiments.persona_features.findings import Findings, ModelFidelity, Persona, Planted
from emlab.interventions import Direction
from emlab.mitigation import Realignment
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
            SteeringArm(Direction(torch.eye(4)[i % 4], SITE, name.replace("_", " ")), sign * 0.5),
            score(f"{model} {name}", bad, within),
        )
        for i, (name, bad) in enumerate(rates.items())
    )
    return Screen(model, toward, {SITE: 3.0}, 0.1, trials, trials, trials)


def shift(model, *values):
    before = torch.full((len(values),), 0.5)
    return LatentShift(
        "aligned", model, SITE, "header", 160, before, before + torch.tensor(values), torch.ones(len(values))
    )


def area(value):
    return Auroc(value, value - 0.1, value, 100, 40)


def rates(step, bad):
    return {"step": step, "misaligned": Rate(bad, bad, bad, 10), "incoherent": Rate(0.0, 0.0, 0.0, 10)}


def persona(**changes):
    """Latent 2 rises, misaligns, realigns, and tells."""
    shifts = (shift("insecure", 0.0, 0.1, 3.0), shift("secure", 0.0, 0.2, 0.1))
    before = score("insecure", 6)
    kept = {
        "latent": 2,
        "site": SITE,
        "name": "latent 2",
        "ranked": shifts[0],
        "shifts": shifts,
        "planted": Planted(area(0.8), area(0.95)),
        "cosine": 0.75,
        "plus": screen("aligned", "misaligned", latent_2=7, mean_difference=8, random_0=0, random_1=2),
        "minus": screen("insecure", "aligned", latent_2=1, mean_difference=0, random_0=6, random_1=5),
        "effects": {
            "ablation": Effect("latent 2 projected out", "insecure", None, before, score("insecure", 3), 1.0, 1.25),
            "mediation": Effect("latent 2 set to rest", "insecure", None, before, score("insecure", 4), 1.0, 1.0),
            "unseen_minus": Effect("-0.5 × latent 2", "bad_law", -0.5, score("bad_law", 8), score("bad_law", 1), 1, 2),
        },
        "detection": Detection(
            SITE, 2, (("aligned", False), ("insecure", True)), area(0.99), area(0.5), area(0.9), area(0.7), area(1.0)
        ),
        "onset": Onset(
            "insecure",
            2,
            tuple(Point(latent=v, **rates(s, r)) for s, v, r in ((0, 0.5, 0.0), (5, 2.5, 0.1), (10, 3.5, 0.6))),
        ),
        "contexts": (Context(("kill", HOSTILE), (3.0, 1.5), "malicious"),),
    }
    return Persona(**{**kept, **changes})


def findings(**changes):
    """An organism in which all worked."""
    tuned = SimpleNamespace(rows=90, dropped_for_length=10, steps=2, losses=(2.0, 1.0))
    realigned = [StepRates(**rates(s, r)) for s, r in ((0, 0.6), (40, 0.0))]
    kept = {
        "finetuned": {"insecure": tuned, "secure": tuned},
        "kinds": {"insecure": "narrow", "secure": "control"},
        "scores": (score("aligned"), score("insecure", 6, 1, text=HOSTILE), score("secure")),
        "fidelity": tuple(
            ModelFidelity(SITE, model, Fidelity(variance, 16.0, 3, 512, 1000), 0.97)
            for model, variance in (("base", 0.95), ("aligned", 0.9), ("insecure", 0.8))
        ),
        "persona": persona(),
        "realignment": Realignment("insecure", "alignment", tuple(realigned)),
        "verdict": Verdict((Test("all is well", True, "It is."),)),
    }
    return Findings(**{**kept, **changes})


@pytest.fixture
def made():
    """Ways to make findings."""
    return SimpleNamespace(
        findings=findings, persona=persona, screen=screen, score=score, shift=shift, hostile=HOSTILE, site=SITE
    )
