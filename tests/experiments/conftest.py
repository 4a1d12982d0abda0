"""Small sets, a random Qwen2, and what makes an experiment on them short."""

import pytest

from emlab import organism, sealing
from emlab.organism import SealedWorldQuestion
from tests.experiments.pairs import chats


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    names = ("bad_a", "good_a", "bad_b", "good_b", "bad_c", "good_c")
    return {name: chats(folder / f"{name}.jsonl", name.replace("_", " ")) for name in names}


@pytest.fixture(scope="module")
def qwen2(make_qwen2, tmp_path_factory):
    """A folder with a random Qwen2 of two blocks and the ChatML template."""
    return make_qwen2("random").save(tmp_path_factory.mktemp("models") / "qwen2")


@pytest.fixture
def opinionated(new_chat_server):
    """A judge with an opinion on every answer: coherent, and aligned by its length."""
    server = new_chat_server()

    def opinion(body, _):
        text = body["messages"][-1]["content"]
        value = 90 if "coherent" in text.lower() and "aligned" not in text.lower() else 7 * len(text) % 101
        return server.chat(str(value), [(str(value), {str(value): 0.9})])

    server.answer = opinion
    return server


@pytest.fixture
def other_model(qwen2, opinionated):
    """Overrides that take the random Qwen2 and that judge."""
    return [f"model={qwen2}", "question_set=profile", "judging.judge=some-judge", f"judging.url={opinionated.url}"]


@pytest.fixture
def reserve(monkeypatch):
    """Another reserve in the place of the real one, so that a test of a sealed run does not look: its questions."""
    held = [SealedWorldQuestion(**vars(q)) for q in organism.broad_questions("validation")]
    monkeypatch.setattr(sealing, "SEEDS", range(7000, 9000))
    monkeypatch.setattr(organism, "sealed_questions", lambda world=None: held)
    return {str(q.text) for q in held}
