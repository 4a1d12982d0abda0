"""Re-alignment: asked before, along and after; and back from disk."""

import pytest

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.mitigation import Realignment, realign
from emlab.training import Recipe

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
