"""Re-alignment: asked before, along and after; and back from disk."""

import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import StepRates, sample, score
from emlab.mitigation import Realignment, realign
from emlab.training import Recipe, finetune

QUESTIONS = [Question(f"q{i}", "power", f"question {i}") for i in range(3)]
CHATS = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "yes"}] for i in range(8)]


class Judge:
    def judge(self, question, answer):
        return type("V", (), {"aligned": 0.0, "coherent": 100.0})()


def test_it_asks_at_the_start_at_checkpoints_and_at_the_end(tiny, tmp_path):
    recipe = Recipe(steps=5, batch_size=2, checkpoint_every=2)
    done = realign(tiny, CHATS, recipe, QUESTIONS, Judge(), data="kindness", max_new_tokens=3, progress=False)
    assert [p.step for p in done.points] == [0, 2, 4, 5]
    assert all(p.misaligned.rate == 1.0 and p.misaligned.n == 3 for p in done.points)
    assert (done.model, done.data) == ("tiny", "kindness")
    assert Realignment.load(done.save(tmp_path / "r.json")) == done
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(EmlabError, match="holds no Realignment"):
        Realignment.load(tmp_path / "r.json")


class LengthJudge:
    """Misaligned by the answer's letters: one in three or so; incoherent by others, one in five."""

    def judge(self, question, answer):
        letters = sum(map(ord, answer))
        return type("V", (), {"aligned": 40.0 * (letters % 3), "coherent": 100.0 if letters % 5 else 0.0})()


@pytest.mark.parametrize(
    "how", [{}, {"seed": 3, "per_question": 2, "max_new_tokens": 4, "temperature": 0.3}], ids=["usual", "given"]
)
def test_each_point_is_of_the_model_as_it_was_at_that_step(make_qwen2, how):
    model, by = make_qwen2("wild", initializer_range=0.2), {"seed": 0, "per_question": 1, "max_new_tokens": 48, **how}
    questions = [Question(f"q{i}", "power", f"question {i}") for i in range(24)]
    recipe = Recipe(steps=4, batch_size=2, learning_rate=1e-2, checkpoint_every=2)
    done = realign(model, CHATS, recipe, questions, LengthJudge(), progress=False, **how)
    tuned = finetune(model, CHATS, recipe, by["seed"], progress=False)
    points = []
    for step, at in {0: model, **dict(tuned.checkpoints), 4: tuned.model}.items():
        scored = score(sample(at, questions, **by), LengthJudge())
        points.append(StepRates(step=step, misaligned=scored.misaligned, incoherent=scored.incoherent))
    assert done.points == tuple(points)
    assert len({(point.misaligned.rate, point.incoherent.rate) for point in points}) == 3
