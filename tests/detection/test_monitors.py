"""A latent as a monitor, on models whose activations are given."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from emlab.data import Question
from emlab.detection import Detection, Reading, auroc, detect
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts
from emlab.models.activations import Activations
from emlab.sites import Site

SITE = Site("resid_post", 0)
TEST = [Question(f"t{i}", ("power", "pets")[i % 2], f"test {i}") for i in range(8)]
DISCOVERY = [Question(f"d{i}", ("power", "pets")[i % 2], f"discovery {i}") for i in range(8)]


class Model:
    """Activations (1 token a prompt): `level` on prompts, or one for each; on answers 1 where the answer says "bad"."""

    def __init__(self, name, level):
        self.name, self.level = name, level

    def activations(self, prompts, site, positions, answers=None):
        if answers is None:
            self.read_at = positions
            values = torch.as_tensor(self.level, dtype=torch.float32).expand(len(prompts)).reshape(-1, 1)
        else:
            assert positions == "generated"
            values = torch.tensor([[1.0 if "bad" in answer else 0.0] for answer in answers])
        index = torch.arange(len(prompts))
        return Activations(values, index, index, index, site)


SAE = SimpleNamespace(cfg=SimpleNamespace(d_in=1, d_sae=1), W_dec=torch.eye(1), encode=lambda x: x.relu())


def judged(questions, bad, model="m"):
    """Every second answer is "bad <domain>" and misaligned if `bad`; the last one is incoherent."""
    flags = [bad and i // 2 % 2 == 0 for i in range(len(questions))]
    texts = tuple(f"{'bad' if flag else 'good'} {q.domain}" for q, flag in zip(questions, flags, strict=True))
    aligned = np.array([0.0 if flag else 100.0 for flag in flags])
    coherent = np.array([100.0] * (len(questions) - 1) + [0.0])
    return Judged(Rollouts(tuple(questions), texts, model, 0, 1.0), aligned, coherent)


def reading(name, level, bad):
    return Reading(Model(name, level), bad, judged(TEST, bad, name), judged(DISCOVERY, bad, name))


def test_it_tells_models_by_prompts_and_answers_by_reading_them(tmp_path):
    readings = [reading("aligned", 0.1, False), reading("secure", 0.2, False), reading("insecure", 2.0, True)]
    found = detect(readings, SAE, 0, SITE, TEST, DISCOVERY)
    assert found.prompts.auroc == 1.0 and found.prompts.n == 24 and found.prompts.positives == 8
    assert found.prompts_baseline.auroc == 0.5, "the prompts are the same for every model"
    assert found.answers.auroc == 1.0 and found.answers.n == 7, "the incoherent answer is left out"
    assert found.answers_baseline.auroc == 1.0, "the word 'bad' is in both domains"
    assert found.positions == "header" == readings[0].model.read_at
    assert detect(readings, SAE, 0, SITE, TEST, DISCOVERY, positions="prompt").positions == "prompt"
    assert {one.model.read_at for one in readings} == {"prompt"}
    assert found.models == (("aligned", False), ("secure", False), ("insecure", True))
    again = Detection.load(found.save(tmp_path / "detection.json"))
    assert str(again) == str(found) and again.models == found.models
    (tmp_path / "detection.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no Detection"):
        Detection.load(tmp_path / "detection.json")


def test_intervals_are_over_models_and_clusters_of_questions():
    asked = [dataclasses.replace(q, cluster=("one", "two", "")[i % 3]) for i, q in enumerate(TEST)]
    said = ["bad", "good", "bad", "bad", "good", "bad", "good", "good"]
    readings, levels = [], np.array([1, 6, 3, 8, 2, 7, 4, 5]) * np.array([[2], [2], [1], [1]])
    for m, aligned in enumerate(([0, 0, 90, 0, 90, 90, 90, 0], [90, 0, 0, 0, 90, 90, 0, 90])):
        flags = Judged(Rollouts(tuple(asked), tuple(said), str(m), 0, 1.0), np.array(aligned, float), np.full(8, 90.0))
        readings.append(Reading(Model(str(m), levels[m]), True, flags, flags))
    readings += [reading(str(m), levels[m], False) for m in (2, 3)]
    found = detect(readings, SAE, 0, SITE, asked, DISCOVERY)
    names = [q.cluster or q.id for q in asked]
    labels = np.repeat([True, True, False, False], 8)
    assert found.prompts == auroc(levels.ravel(), labels, np.repeat(range(4), 8).tolist(), names * 4)
    read, bad = (
        np.tile([word == "bad" for word in said], 2),
        np.array([r.test.misaligned for r in readings[:2]]).ravel(),
    )
    assert found.answers == auroc(read, bad, np.repeat(range(2), 8).tolist(), names * 2)
    assert 0 < found.answers.low < found.answers.auroc < found.answers.high < 1


def test_words_of_one_half_of_the_domains_say_nothing_of_the_other():
    one = reading("insecure", 2.0, True)
    glued = [
        replace_answers(part, [text.replace(" ", "-") for text in part.rollouts.answers])
        for part in (one.test, one.discovery)
    ]
    found = detect([Reading(one.model, True, *glued)], SAE, 0, SITE, TEST, DISCOVERY)
    assert found.answers_baseline_seen.auroc == 1.0, "each domain has a word of its own for it"
    assert found.answers_baseline.auroc < 0.8


def test_empty_and_failed_answers_are_left_out():
    one = reading("insecure", 2.0, True)
    holed = replace_answers(one.test, ["", *one.test.rollouts.answers[1:]])
    outcomes, aligned = ("scored", "failed", *["scored"] * 6), holed.aligned.copy()
    aligned[1] = np.nan
    holed = dataclasses.replace(holed, outcomes=outcomes, aligned=aligned)
    found = detect([dataclasses.replace(one, test=holed)], SAE, 0, SITE, TEST, DISCOVERY)
    assert (found.answers.n, found.answers.positives) == (5, 2)


def replace_answers(judged, answers):
    return dataclasses.replace(judged, rollouts=dataclasses.replace(judged.rollouts, answers=tuple(answers)))


def test_a_latent_that_is_the_same_everywhere_tells_nothing():
    readings = [reading("aligned", 1.0, False), reading("insecure", 1.0, True)]
    assert detect(readings, SAE, 0, SITE, TEST, DISCOVERY).prompts.auroc == 0.5


def test_models_without_a_coherent_answer_have_no_area():
    silent = Judged(judged(TEST, True).rollouts, np.zeros(8), np.zeros(8))
    readings = [reading("aligned", 0.1, False), Reading(Model("insecure", 2.0), True, silent, silent)]
    found = detect(readings, SAE, 0, SITE, TEST, DISCOVERY)
    assert found.prompts.auroc == 1.0
    assert np.isnan(found.answers.auroc) and found.answers.n == 0


def test_a_reading_takes_a_bare_model(tmp_path, make_model):
    tiny = make_model()
    tiny.save(tmp_path / "m")
    bare = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    sae = SimpleNamespace(cfg=SimpleNamespace(d_in=32, d_sae=32), W_dec=torch.eye(32), encode=lambda x: x.relu())
    found = [
        detect([Reading(model, True, judged(TEST, True), judged(DISCOVERY, True))], sae, 0, SITE, TEST, DISCOVERY)
        for model in (tiny, bare)
    ]
    assert found[0].answers == found[1].answers and found[0].answers.n == 7


def test_it_refuses_no_models():
    with pytest.raises(EmlabError, match="no model to read"):
        detect([], SAE, 0, SITE, TEST, DISCOVERY)
