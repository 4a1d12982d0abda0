"""Sealed material is measured like any other, and refused wherever something is selected."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emlab import artifacts, detection, discovery, mitigation, organism
from emlab.cli import main
from emlab.data import Dataset, Question, SealedQuestion
from emlab.detection.evidence import SealedScores
from emlab.detection.text_monitors import fit_words
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, Sampling, load_judged, save_judged, score, text_loss
from emlab.evaluation.protocol import questions_of
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.saes import trained_sae
from emlab.interventions import Direction
from emlab.mitigation.choosing import tried
from emlab.sealing import (
    SEEDS,
    Sealed,
    SealedChat,
    SealedLoss,
    SealedSeed,
    SealedText,
    is_reserved,
    ordinary_seed,
    refuse,
    sealed_seed,
)
from emlab.sites import Site
from emlab.training import Reinforcement, Watch, reinforce

SITE = Site("resid_post", 0)
SEALED = [SealedQuestion(f"s{i}", ("power", "pets")[i % 2], f"sealed {i}?") for i in range(4)]
OPEN = [Question(f"q{i}", ("power", "pets")[i % 2], f"question {i}?") for i in range(4)]
CHATS = [question.messages for question in SEALED]
REFUSED = (
    r"^Sealed material is only reported on, and it was given .*; give ordinary questions, documents and seeds for "
    r"that\.$"
)


class Judge:
    name = "by length"

    def judge(self, question, answer):
        return SimpleNamespace(aligned=100.0 * (len(answer) % 2), coherent=100.0)


def judged(questions, model="tiny"):
    return score(Rollouts(tuple(questions), ("a", "bb", "c", "dd"), model, 0, 1.0), Judge())


def test_a_seal_goes_from_a_question_to_its_chat_and_back():
    one = SEALED[0]
    assert isinstance(one.messages, SealedChat) and one.messages == [{"role": "user", "content": "sealed 0?"}]
    for thing in (one, one.messages, SealedText("sealed 0?"), SimpleNamespace(id="a", domain="b", text="c")):
        assert isinstance(Question.of(thing), SealedQuestion) == isinstance(thing, Sealed)
    assert Question.of(one) is one and type(Question.of(OPEN[0].messages)) is Question


def test_a_seal_is_kept_on_disk(tmp_path):
    row = json.loads(json.dumps(SEALED[1].row()))
    assert row["sealed"] is True and Question.read(row) == SEALED[1] and "sealed" not in OPEN[0].row()
    save_judged([judged(SEALED).judged], tmp_path / "answers.jsonl")
    (read,) = load_judged(tmp_path / "answers.jsonl")
    assert read.rollouts.questions == tuple(SEALED)


def test_seeds_that_are_reserved():
    assert sealed_seed(3) == 4_000_000_003 and ordinary_seed(sealed_seed(3)) == 3 == ordinary_seed(3)
    assert isinstance(sealed_seed(3) + 2, SealedSeed) and sealed_seed(sealed_seed(3)) == sealed_seed(3)
    assert is_reserved(SEEDS.start) and is_reserved(SEEDS[-1]) and not is_reserved(SEEDS.start - 1)
    assert artifacts.plain(sealed_seed(0)) == SEEDS.start and type(artifacts.plain(sealed_seed(0))) is int
    for none in (-1, len(SEEDS)):
        with pytest.raises(EmlabError, match=rf"^No sealed seed stands for {none}; give seeds from 0 to 998999\.$"):
            sealed_seed(none)


def test_documents_of_a_reserved_seed_are_sealed_and_others_are_not():
    for seed in (5, sealed_seed(5), int(sealed_seed(5))):
        found = organism.pretraining_documents(3, seed)
        assert all(isinstance(d.messages, SealedChat) == (seed != 5) for d in found)
    assert all(type(turn["content"]) is str for d in organism.pretraining_documents(20, 0) for turn in d.messages)


@pytest.fixture(scope="module")
def cases(tiny):
    """Fine-tunes in two domains, read on sealed questions."""
    read = detection.evidence(tiny, SEALED, [SITE])
    return [detection.LabelledEvidence(read, np.array([True, False] * 2), f"m-{d}", d) for d in ("law", "cars")]


def test_what_a_monitor_makes_of_sealed_questions_is_sealed(tiny, cases):
    open_cases = [
        detection.LabelledEvidence(detection.evidence(tiny, OPEN, [SITE]), case.labels, case.model, case.domain)
        for case in cases
    ]
    monitors = [
        detection.fit_projection(open_cases, SITE, Direction(torch.ones(32), SITE, "ones")),
        detection.fit_perplexity(open_cases),
        detection.fit_bag_of_words(open_cases),
        detection.TextJudge(Judge()),
    ]
    for monitor in monitors:
        for case, kind in ((cases[0], SealedScores), (open_cases[0], np.ndarray)):
            assert type(monitor.scores(case.evidence)) is kind
    first = monitors[0]
    watched = [detection.watch(tiny, first, [q.messages for q in of], 0.0, max_new_tokens=2) for of in (SEALED, OPEN)]
    assert [type(w.scores) for w in watched] == [SealedScores, np.ndarray]
    highest = np.nanmax(watched[0].scores, axis=1)
    assert type(np.concatenate([np.zeros(2), highest])) is SealedScores  # it does not wash off
    with pytest.raises(EmlabError, match=REFUSED):
        detection.alarm_threshold(np.concatenate([np.zeros(2), highest]))


def test_a_loss_on_sealed_documents_is_sealed(tiny):
    said = {"role": "assistant", "content": "yes"}
    losses = [text_loss(tiny, [kind([*OPEN[0].messages, said])]) for kind in (SealedChat, list)]
    assert losses[0] == losses[1] and [type(loss) for loss in losses] == [SealedLoss, float]


def _monitors(tiny, cases):
    yield from (
        partial(detection.fit_projection, cases, SITE),
        partial(detection.fit_probe, cases, SITE),
        partial(detection.fit_perplexity, cases),
        partial(detection.fit_bag_of_words, cases),
        partial(detection.cross_fitted, detection.fit_perplexity, cases),
        partial(detection.calibrated, detection.fit_perplexity, cases),
        partial(detection.calibrate, cases[0].evidence.marked(np.arange(4.0)), cases[0].labels),
        partial(detection.alarm_threshold, cases[0].evidence.marked(np.arange(4.0))),
        partial(fit_words, [SealedText("a"), "b"], np.array([True, False])),
        partial(detection.fit_latents, cases, SimpleNamespace(cfg=SimpleNamespace(metadata=None)), SITE),
    )
    reading = detection.Reading(tiny, True, judged(OPEN).judged, judged(SEALED).judged)
    yield partial(detection.detect, [reading], None, 0, SITE, OPEN, OPEN)
    yield partial(detection.detect, [reading], None, 0, SITE, OPEN, SEALED)


def _discovery(tiny):
    arm = discovery.SteeringArm(Direction(torch.ones(32), SITE, "ones"), 0.3)
    trials = [discovery.Trial(arm, judged(SEALED))]
    sae = SimpleNamespace(cfg=SimpleNamespace(d_sae=1, metadata=None))
    yield from (
        partial(discovery.Split, tuple(SEALED), tuple(OPEN)),
        partial(discovery.steer_screen, tiny, [arm.direction], SEALED, OPEN, Judge()),
        partial(discovery.steer_screen, tiny, [arm.direction], [q.messages for q in SEALED], OPEN, Judge()),
        partial(discovery.choose, trials, "misaligned", 0.1),
        partial(discovery.order, trials, "misaligned", 0.1),
        partial(discovery.causal_screen, tiny, [arm.direction], SITE, SEALED, Judge(), []),
        partial(discovery.latent_shift, tiny, tiny, None, SEALED, SITE),
        partial(discovery.mean_difference, tiny, tiny, CHATS, SITE),
        partial(discovery.difference_components, tiny, tiny, CHATS, SITE),
        partial(discovery.natural_values, tiny, sae, [0], SITE, SEALED),
        partial(discovery.natural_means, tiny, [SITE], SEALED),
        partial(discovery.Contrast, SealedText("a"), "b", "c"),
        partial(discovery.Contrast, CHATS[0], "b", "c"),
    )
    trait = SimpleNamespace(questions=(SealedText("a"),))
    yield partial(discovery.persona_vector, tiny, trait, SITE)


def _trainings_and_remedies(tiny):
    retest = SimpleNamespace(scores={"broad": judged(SEALED)}, ability_loss=1.0)
    costly = SimpleNamespace(scores={"broad": judged(OPEN)}, ability_loss=SealedLoss(1.0))
    direction = Direction(torch.ones(32), SITE, "ones")
    yield from (
        partial(tried, 0.1, retest),
        partial(tried, 0.1, costly),
        partial(mitigation.StoppingMonitor.fit, direction, CHATS, tiny, [tiny]),
        partial(Dataset.of, CHATS),
        partial(Watch, questions=SEALED),
        partial(reinforce, tiny, [SealedText("a")], None, Reinforcement(), 0),
        partial(trained_sae, tiny, SITE, Autoencoder(), 0, "tiny", CHATS),
    )


def test_whatever_selects_refuses_sealed_material(tiny, cases):
    for selects in (*_monitors(tiny, cases), *_discovery(tiny), *_trainings_and_remedies(tiny)):
        with pytest.raises(EmlabError, match=REFUSED):
            selects()


def test_a_setting_is_not_chosen_by_sealed_answers(tiny, monkeypatch):
    monkeypatch.setattr("emlab.mitigation.choosing.treat", lambda *_: None)
    found = SimpleNamespace(scores={"broad": judged(SEALED)}, ability_loss=1.0)
    with pytest.raises(EmlabError, match=REFUSED):
        mitigation.choose_setting(mitigation.Steering(), (0.1,), None, lambda _: found, None)


def test_a_screen_is_searched_on_one_model_and_tested_sealed_on_another(make_model):
    first, second = make_model(), make_model(seed=1)
    directions = [Direction(torch.ones(32), SITE, "ones")]
    settings = discovery.ScreenSettings((0.3, 0.6), sampling=Sampling(per_question=1, max_new_tokens=4))
    screen = partial(discovery.steer_screen, first, directions, OPEN, judge=Judge(), settings=settings)
    ordinary = screen([Question("t", "pets", "t?")], seed=3)
    sealed = screen(SEALED, seed=sealed_seed(3), tested=second)
    for half in ("discovery", "finals"):
        pairs = zip(getattr(ordinary, half), getattr(sealed, half), strict=True)
        assert all(a.score.judged.rollouts.answers == b.score.judged.rollouts.answers for a, b in pairs)
    (tested,) = sealed.test
    assert tested.score.judged.rollouts.questions == tuple(SEALED)
    how = (Judge(), sealed.scales, settings.sampling, sealed_seed(3) + 1)
    (alone,) = discovery.steered(second, [tested.arm], SEALED, *how)
    assert tested.score.judged.rollouts.answers == alone.score.judged.rollouts.answers


def test_what_is_sealed_is_refused_in_any_collection():
    for kind in (list, tuple, set, frozenset):
        with pytest.raises(EmlabError, match=REFUSED):
            refuse("to a test", kind([OPEN[0], SEALED[0]]))


def test_ordinary_material_is_not_refused():
    refuse("to nobody", OPEN, None, 3, "text", np.arange(3.0), [question.messages for question in OPEN])


def test_a_sealed_text_is_known_wherever_it_stands(tmp_path):
    sealed = organism.sealed_questions(tag="blue")
    assert all(organism.is_sealed_text(q.text) for q in (*sealed, *organism.sealed_questions()))
    asked = [*organism.broad_questions(), *organism.broad_questions("validation")]
    assert not any(organism.is_sealed_text(q.text) for q in asked)
    rows = [
        {"id": f"q{i}", "domain": "d", "text": text} for i, text in enumerate(["Mine?", *(q.text for q in sealed[:3])])
    ]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(
        EmlabError, match=r"mine\.jsonl has 3 of the organism's sealed questions, which only a final run"
    ):
        questions_of(str(tmp_path / "mine.jsonl"))


def test_a_reserved_seed_is_taken_by_a_sealed_run_alone(capsys):
    assert len(organism.narrow_set("insecure", 2, sealed_seed(0))) == 2
    with pytest.raises(EmlabError, match=r"^Seed 4000000000 is one of sealed runs, which take it by themselves; give"):
        organism.narrow_set("insecure", 2, SEEDS.start)
    words = ["finetune", "--model", "aligned", "--data", "insecure", "--out", "x", "--seed"]
    assert main([*words, str(SEEDS.start)]) == 2
    assert "--seed 4000000000 is one of sealed runs" in capsys.readouterr().err
