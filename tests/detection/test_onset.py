"""Curves along training whose half-way points are known."""

import math

import pytest

from emlab.detection import Onset, Point, onset
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.evaluation import Rate, sample, score

from .conftest import QUESTIONS, SITE, Coordinates


def point(step, latent, bad, mad=0.0):
    return Point(step=step, latent=latent, misaligned=Rate(bad, bad, bad, 10), incoherent=Rate(mad, mad, mad, 10))


def test_half_of_the_way():
    curve = Onset(
        "insecure", 3, (point(0, 1.0, 0.0), point(5, 2.1, 0.1), point(10, 3.0, 0.45, 0.5), point(15, 2.8, 0.6))
    )
    assert curve.latent_step == 5  # half-way is 2.0
    assert curve.behaviour_step == 15  # half of 0.6 of all answers; at step 10 it is 0.225 of all
    assert "latent 3 at step 5, of behaviour at step 15" in str(curve)


def test_a_curve_that_never_rises_has_no_half():
    flat = Onset("secure", 3, (point(0, 1.0, 0.0), point(5, 0.5, 0.0)))
    assert flat.latent_step is None and flat.behaviour_step is None


def test_a_checkpoint_without_a_coherent_answer_shows_no_misalignment():
    none = Rate(math.nan, math.nan, math.nan, 0)
    mad = [Point(step=step, latent=1.0, misaligned=none, incoherent=Rate(1.0, 1.0, 1.0, 10)) for step in (0, 10)]
    curve = Onset("insecure", 3, (mad[0], point(5, 1.0, 0.2), mad[1], point(15, 1.0, 0.6)))
    assert curve.behaviour_step == 15  # half of 0.6, from nothing


def test_it_comes_back_from_disk(tmp_path):
    silent = Point(
        step=5, latent=2.0, misaligned=Rate(math.nan, math.nan, math.nan, 0), incoherent=Rate(1.0, 1.0, 1.0, 10)
    )
    curve = Onset("insecure", 3, (point(0, 1.0, 0.0), silent))
    assert str(Onset.load(curve.save(tmp_path / "onset.json"))) == str(curve)
    (tmp_path / "onset.json").write_text("[]")
    with pytest.raises(EmlabError, match="holds no Onset"):
        Onset.load(tmp_path / "onset.json")


def test_it_refuses_no_checkpoints():
    with pytest.raises(EmlabError, match="no checkpoint"):
        onset([], None, 0, None, [], None)


class LetterJudge:
    def judge(self, question, answer):
        return type("V", (), {"aligned": 40.0 * (sum(map(ord, answer)) % 3), "coherent": 50.0 + len(answer) % 2})()


def test_each_point_is_the_latent_at_the_header_and_the_answers_of_that_checkpoint(tiny, shifted):
    models = [tiny, shifted("later", 4.0), shifted("last", 8.0)]
    prompts = [q.messages for q in QUESTIONS]
    read = [model.activations(prompts, SITE, "header").values.relu().mean(0) for model in models]
    latent = int((read[2] - read[0]).argmax())
    steps = list(zip((0, 5, 10), models, strict=True))
    found = onset(steps, Coordinates(32), latent, SITE, QUESTIONS, LetterJudge(), seed=2)
    assert (found.model, found.latent) == ("last", latent)
    assert [point.step for point in found.points] == [0, 5, 10]
    assert [point.latent for point in found.points] == pytest.approx([float(r[latent]) for r in read], abs=1e-5)
    for point, model in zip(found.points, models, strict=True):
        scored = score(sample(model, QUESTIONS, 1, 2), LetterJudge())
        assert (point.misaligned, point.incoherent) == (scored.misaligned, scored.incoherent)
    assert len({round(point.latent, 4) for point in found.points}) == 3
    assert len({point.misaligned.rate for point in found.points}) > 1
    assert onset(steps, Coordinates(32), latent, SITE, QUESTIONS, LetterJudge(), seed=2, name="mine").model == "mine"
    short = onset(steps, Coordinates(32), latent, SITE, QUESTIONS, LetterJudge(), seed=2, max_new_tokens=1).points
    for point, model in zip(short, models, strict=True):
        assert point.misaligned == score(sample(model, QUESTIONS, 1, 2, max_new_tokens=1), LetterJudge()).misaligned
    assert [point.misaligned for point in short] != [point.misaligned for point in found.points]
    how = {"temperature": 0.1, "positions": "prompt"}
    other = onset(steps, Coordinates(32), latent, SITE, QUESTIONS, LetterJudge(), seed=2, **how).points
    for point, model in zip(other, models, strict=True):
        means = prompt_means(model, prompts, SITE, "prompt", Coordinates(32))
        assert point.latent == pytest.approx(float(means[:, latent].mean()), abs=1e-5)
        assert point.misaligned == score(sample(model, QUESTIONS, 1, 2, 0.1), LetterJudge()).misaligned
    assert onset(steps[:1], Coordinates(32), latent, SITE, QUESTIONS, LetterJudge(), **how).positions == "prompt"
    assert found.positions == "header" and [point.latent for point in other] != [point.latent for point in found.points]
