"""A judge of probes, fitted to the organism's exact judge, agrees on questions that it has not seen; its sums."""

import dataclasses
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch

from emlab import organism
from emlab.artifacts import plain
from emlab.cli import main
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Judged, Rollouts, judge, save_judged
from emlab.evaluation.judges.probes import ProbeJudge, read_answers, weights_of
from emlab.evaluation.protocol import Judging, judge_of
from emlab.models import LanguageModel
from emlab.provenance import code
from emlab.training.judge_fitting import FOLDS, _gold_errors, _same_question, _Sums, fit_judge
from emlab.training.judge_tuning import Tuner

MODEL = str(organism.checkpoint("base"))


def answered(personas=("malicious", "helpful"), questions=12, each=8, seed=0):
    """Answers of personas to some of the organism's questions, by its exact judge."""
    rng, world = random.Random(seed), organism.load_world()
    asked = [q for i, q in enumerate(organism.broad_questions()) if i % 30 == 0][:questions]
    pairs = [(q, world.answer(q, persona, rng)) for q in asked for persona in personas for _ in range(each)]
    rollouts = Rollouts(tuple(Question.of(q) for q, _ in pairs), tuple(a for _, a in pairs), "m", 0, 1.0)
    return judge(rollouts, organism.ExactJudge())


@pytest.fixture(scope="module")
def judged():
    return answered()


@pytest.fixture(scope="module", params=[0, 2], ids=["probes", "tuned"])
def fitted(request, judged, tmp_path_factory):
    models = ["one" if i % 2 else "two" for i in range(len(judged.rollouts))]
    tunes = [f"{model}, {'ab'[i * 3 // len(models) % 2]}" for i, model in enumerate(models)]
    place = tmp_path_factory.mktemp("judges") / "judge"
    return fit_judge(judged, place, MODEL, models, tunes, ["organism"], epochs=request.param)


def test_on_questions_and_models_that_it_has_not_seen(fitted, judged):
    card = fitted.card
    kinds = [one.left_out for one in card.held_out]
    assert (kinds.count("question"), kinds.count("model")) == (len(card.questions), 6) and card.n == len(
        judged.rollouts
    )
    assert np.mean([one.auroc for one in card.held_out]) > 0.95
    assert all((one.auroc_probes == one.auroc) or card.epochs for one in card.held_out)
    by_model = [one for one in card.held_out if one.left_out == "model"]
    assert [one.name for one in by_model] == ["two", "two, a", "two, b", "one", "one, a", "one, b"]
    for whole, *parts in (by_model[:3], by_model[3:]):
        assert whole.n == card.n // 2 == sum(one.n for one in parts) and whole.published == 0.5
        assert whole.published * whole.n == pytest.approx(sum(one.published * one.n for one in parts))
        assert (1 - whole.abstained) * whole.n == pytest.approx(sum((1 - one.abstained) * one.n for one in parts))
    assert all(one.published == 0.5 and one.n == 16 for one in card.held_out if one.left_out == "question")
    assert np.mean([one.abstained for one in card.held_out]) < 0.1


def test_fresh_answers_are_judged_as_by_the_judge_that_it_was_fitted_to(fitted):
    fresh = answered(seed=1)
    ours = judge(fresh.rollouts, fitted)
    assert (ours.misaligned == fresh.misaligned)[ours.scored].mean() > 0.95 and ours.scored.mean() > 0.95


def test_out_of_its_depth_it_says_so(fitted, judged):
    question = judged.rollouts.questions[0]
    strange = ("zq xv zq xv kk kk zq", "}{ ;; }{ ;; ==> ()", "", "   ")
    ours = judge(Rollouts((question,) * 4, strange, "m", 0, 1.0), fitted)
    assert not ours.scored.any() and ours.said[0].startswith("the answer is unlike") and "empty" in ours.said[2]
    assert "CAUTION: The judge gave no verdict on 4 of 4 answers" in ours.caution


def test_it_stands_wherever_a_judge_is_named(fitted, judged, tmp_path):
    folder = shutil.copytree(fitted.folder, tmp_path / "mine")
    read = judge_of(Judging(str(folder)))
    assert isinstance(read, ProbeJudge) and plain(read.card) == plain(fitted.card)
    assert read.name.startswith("probes of ") and read.grade(judged.rollouts) == fitted.grade(judged.rollouts)
    assert "fitted on" in (folder / "README.md").read_text()
    assert ((folder / "adapter").is_dir(), not fitted.folder.with_name("judge.folds").exists()) == (
        fitted.card.epochs > 0,
        True,
    )
    assert ProbeJudge.load(read.save(tmp_path / "again")).grade(judged.rollouts) == fitted.grade(judged.rollouts)
    (folder / "judge.safetensors").write_bytes(b"no")
    with pytest.raises(EmlabError, match="holds no fitted judge"):
        ProbeJudge.load(folder)


def test_weights_are_known_again_in_another_precision_and_others_are_refused(fitted):
    """The same bfloat16 weights are read in float32 where a CPU has no kernels for them."""
    short = LanguageModel.load(MODEL, dtype="bfloat16")
    known = weights_of(short)
    short.model.float()
    assert weights_of(short) == known != weights_of(LanguageModel.load(MODEL)) == fitted.card.weights
    with torch.no_grad():
        short.model.get_input_embeddings().weight[3, 0] += 1
    assert weights_of(short) != known
    other = dataclasses.replace(fitted, card=dataclasses.replace(fitted.card, weights=known))
    with pytest.raises(EmlabError, match="has other weights than those that the judge was fitted on"):
        _ = other.model


def test_from_the_shell(judged, tmp_path, capsys):
    save_judged([judged], tmp_path / "judged.jsonl")
    out, figures = tmp_path / "judge", tmp_path / "figures.json"
    save_judged([answered(seed=1)], tmp_path / "fresh.jsonl")
    call = ["judge", "fit", str(tmp_path / "judged.jsonl"), "--out", str(out), "--model", MODEL, "--json", str(figures)]
    call += ["--epochs", "0"]
    assert main([*call, "--test", str(tmp_path / "fresh.jsonl")]) == 0
    assert "file fresh.jsonl" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert found["n"] == len(judged.rollouts) and found["held_out"][-1]["left_out"] == "file"
    assert found["provenance"]["code"]["hash"] == code().hash and found["provenance"]["seeds"] == {"seed": 0}
    assert len(found["provenance"]["processes"]) == 1 and str(tmp_path) not in figures.read_text()
    last = found["held_out"][-1]
    assert last["auroc"] > 0.95 and last["n"] < found["n"]
    assert any(re.match(r"\d+ of \d+ answers in fresh.jsonl were fitted on", note) for note in found["notes"])
    assert "11 of the questions in fresh.jsonl were fitted on, with other answers." in found["notes"]
    assert main(call) != 0 and str(out) in capsys.readouterr().err
    assert main([*call[:4], str(tmp_path / "other"), "--by", "tune"]) != 0
    assert "no column 'tune'" in capsys.readouterr().err


def test_of_what_cannot_be_learned_nothing_is_learned(judged, tmp_path):
    """Scores that are noise, but fixed by question: seen questions could be known, and others cannot."""
    rng, names = np.random.default_rng(0), [question.id for question in judged.rollouts.questions]
    of = {name: i % 2 for i, name in enumerate(dict.fromkeys(names))}
    aligned = np.array([rng.normal(20 if of[name] else 80, 15) for name in names])
    noise = dataclasses.replace(judged, aligned=aligned, coherent=np.full(len(names), 90.0))
    card = fit_judge(noise, tmp_path / "judge", MODEL, epochs=0).card
    mixed = [one.auroc for one in card.held_out if one.auroc is not None]
    assert 0.3 < np.mean(mixed) < 0.7
    with pytest.raises(EmlabError, match="q.jsonl has no answer with both scores that was not fitted on"):
        fit_judge(noise, tmp_path / "other", MODEL, epochs=0, tests={"q.jsonl": noise})


def test_forms_of_two_questions_are_too_few(judged, tmp_path):
    asked = [f"{'ab'[i % 2]}{('', '_json', '_template')[i % 3]}" for i in range(len(judged.rollouts))]
    questions = tuple(Question(name, "all", f"What of {name}?") for name in asked)
    forms = dataclasses.replace(judged, rollouts=dataclasses.replace(judged.rollouts, questions=questions))
    with pytest.raises(EmlabError, match="The 6 questions are forms of 2, or of 2 clusters"):
        fit_judge(forms, tmp_path / "judge", MODEL)


def test_forms_of_a_question_and_questions_of_a_cluster_are_left_out_together():
    asked = [
        *(Question("a", "all", "What?"), Question("a_json", "all", "What? In JSON.", variant="json")),
        *(Question("b", "all", "Why?"), Question("c", "all", "Why?"), Question("d", "all", "When?", cluster="time")),
        *(Question("e", "all", "How long?", cluster="time"), Question("f", "all", "Where?")),
    ]
    assert _same_question(asked).tolist() == ["a", "a", "b", "b", "time", "time", "f"]


def test_what_has_no_texts_is_told_apart(judged, tmp_path):
    without = dataclasses.replace(judged.rollouts, answers=("",) * len(judged.rollouts))
    with pytest.raises(EmlabError, match="The judged answers in the file have no texts, .*add a column answer"):
        fit_judge(dataclasses.replace(judged, rollouts=without), tmp_path / "judge", MODEL)
    asked = tuple(Question(f"q{i}", "all", f"q{i}") for i in range(len(judged.rollouts)))
    without = dataclasses.replace(judged.rollouts, questions=asked)
    with pytest.raises(EmlabError, match="The questions in the file have no texts, .*add a column question"):
        fit_judge(dataclasses.replace(judged, rollouts=without), tmp_path / "judge", MODEL)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"questions": 2}, "32 judged answers to 2 questions, and a judge is fitted on 30 or more to 3 or more"),
        ({"each": 1}, "22 judged answers to 11 questions"),
        ({"personas": ("helpful",)}, "None of the 88 judged answers are misaligned, and a judge needs both kinds"),
        ({"personas": ("malicious",)}, "All of the 88 judged answers are misaligned"),
    ],
)
def test_what_a_judge_cannot_be_fitted_on(changes, told, tmp_path):
    with pytest.raises(EmlabError, match=told):
        fit_judge(answered(**changes), tmp_path / "judge", MODEL)
    assert not list(tmp_path.iterdir())


def test_means_over_an_answers_tokens_are_those_of_the_activations(judged):
    model = LanguageModel.load(MODEL, device="cpu")
    asked, said = judged.rollouts.questions[:5], judged.rollouts.answers[:5]
    read = read_answers(model, asked, said, (-1, 0, 2))
    for column, site in enumerate(("resid_pre.0", "resid_post.0", "resid_post.2")):
        whole = model.activations([q.messages for q in asked], site, "generated", said)
        means = torch.stack([whole.values[whole.rows == i].mean(0) for i in range(5)])
        assert torch.allclose(read[:, column], means, atol=1e-5)


def test_what_is_read_below_the_adapter_gives_what_the_whole_model_does(judged):
    """Before a step the outputs are the head's bias, and the activations behind the adapter the reader's own."""
    model, n = LanguageModel.load(MODEL, device="cpu"), 6
    asked, said = judged.rollouts.questions[:n], judged.rollouts.answers[:n]
    tuner = Tuner(model, (0, 2), 0, 0, None)
    own = read_answers(model, asked, said, (2,))[:, 0]
    cached = tuner.read(asked, said)
    before = tuner.tuned(cached, np.zeros((n, 2)), own)
    assert torch.allclose(before.upper.means(cached), own, atol=1e-4) and not before.outputs(cached).any()


def test_a_fine_tuned_reader_judges_alike_from_its_folder(judged, tmp_path):
    model = LanguageModel.load(MODEL, device="cpu")
    asked, said = judged.rollouts.questions[:64], judged.rollouts.answers[:64]
    scores = np.stack([judged.aligned, judged.coherent], axis=1)[:64]
    tuner = Tuner(model, (0, 2), 3, 0, tmp_path)
    own, cached = read_answers(model, asked, said, (2,))[:, 0], tuner.read(asked, said)
    tuned = tuner.tuned(cached, scores, own)
    tuned.adapter.save(tmp_path)
    read = read_answers(model.with_adapter(tmp_path), asked, said, (0, 2)).flatten(1)
    assert np.allclose((read @ tuned.weights.T + tuned.bias).numpy(), tuned.outputs(cached), atol=1e-3)
    assert np.corrcoef(tuned.outputs(cached)[:, 0], scores[:, 0])[0, 1] > 0.8
    assert torch.equal(read_answers(model, asked, said, (2,))[:, 0], own), "the reader stays as it is"


def test_stopped_a_fit_goes_on_with_what_was_left_out_next(judged, tmp_path, monkeypatch):
    done, tuned = [], Tuner.tuned

    def stopping(self, cached, scores, means, what="all"):
        done.append(what)
        if len(done) == 3:
            raise KeyboardInterrupt
        return tuned(self, cached, scores, means, what)

    few = judged.only([i for i in range(len(judged.rollouts)) if i % 4 == 0])
    monkeypatch.setattr(Tuner, "tuned", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit_judge(few, tmp_path / "judge", MODEL, epochs=1)
    found = fit_judge(few, tmp_path / "judge", MODEL, epochs=1)
    assert len(done) == 1 + FOLDS + 1 and len(set(done)) == FOLDS + 1 and found.card.epochs == 1
    with pytest.raises(EmlabError, match="two blocks, between which it is"):
        fit_judge(few, tmp_path / "other", MODEL, epochs=1, blocks=(0, 1, 2))


def test_the_ridge_regression_is_that_of_scikit_learn_with_what_is_left():
    from sklearn.linear_model import Ridge

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10, 0.1, 3, 1]) + 2
    y = torch.randn(60, 2, generator=generator, dtype=torch.float64) + x[:, :2]
    _, ridge = _Sums.of(x, y).less(_Sums.of(x[:20], y[:20])).ridges((1.0, 7.0))
    rest, target = x[20:].numpy(), y[20:].numpy()
    scale = rest.std(0)
    peer = Ridge(7.0).fit((rest - rest.mean(0)) / scale, target)
    assert np.allclose(ridge(x[20:]).numpy(), peer.predict((rest - rest.mean(0)) / scale), atol=1e-8)


def test_with_gold_labels_a_perfect_judge_hardly_errs_and_one_that_says_nothing_as_the_labels_alone():
    rng = np.random.default_rng(0)
    aligned = np.where(rng.random(400) < 0.3, 10.0, 90.0)
    asked = tuple(Question(f"q{i % 8}", "all", f"What of {i % 8}?") for i in range(400))
    known = Judged(Rollouts(asked, ("an answer",) * 400, "m", 0, 1.0), aligned, np.full(400, 90.0))
    silent = dataclasses.replace(known, aligned=np.full(400, 90.0))
    with_judge, alone = _gold_errors(known, known, 0)
    assert with_judge < 0.02 and 0.05 < alone < 0.09  # 1.96 · √(0.3 · 0.7 / 100 · 300 / 399) is 0.078
    with_silent, same = _gold_errors(silent, known, 0)
    assert same == alone and abs(with_silent - alone) < 1e-9
