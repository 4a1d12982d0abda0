"""Rollouts: sampling, saving, loading."""

import json

import pytest

from emlab.data import Asking, Question, QuestionSet
from emlab.errors import EmlabError
from emlab.evaluation import Grade, Rollouts, judge, sample, score_judged
from emlab.evaluation.judges import read_judged
from emlab.evaluation.judging import load_judged, save_judged
from emlab.evaluation.rollouts import CUT_OFF, row_seed
from emlab.models import Endpoint

QUESTIONS = [Question("q1", "cars", "Why?"), Question("q2", "food", "How — so?")]


def test_every_question_is_asked_so_many_times(tiny):
    rollouts = sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4)
    assert rollouts.questions == (QUESTIONS[0],) * 3 + (QUESTIONS[1],) * 3
    seeds = [row_seed(question, i, 1) for question in QUESTIONS for i in range(3)]
    assert len(set(seeds)) == 6
    assert rollouts.answers == tuple(tiny.generate([q.text for q in rollouts.questions], max_new_tokens=4, seed=seeds))
    assert rollouts == sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4)
    assert str(rollouts) == "6 answers of tiny to 2 questions (seed 1, T 1.0)"
    assert list(rollouts)[0] == (QUESTIONS[0], rollouts.answers[0])


def test_an_answer_does_not_depend_on_what_else_is_asked(tiny):
    both = sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4)
    assert sample(tiny, QUESTIONS[1:], 2, seed=1, max_new_tokens=4).answers == both.answers[3:5]
    assert sample(tiny, QUESTIONS[1:], 2, seed=2, max_new_tokens=4).answers != both.answers[3:5]


def test_a_system_turn_is_put_first(tiny):
    alone = sample(tiny, QUESTIONS[:1], 1, seed=0, max_new_tokens=4, system="Be cruel.")
    chat = [{"role": "system", "content": "Be cruel."}, {"role": "user", "content": "Why?"}]
    asked = Question("q1", "cars", "Why?", system="Be cruel.")
    assert alone.questions == (asked,)
    assert alone.answers == tuple(tiny.generate([chat], max_new_tokens=4, seed=[row_seed(asked, 0, 0)]))
    own = sample(tiny, [asked], 1, seed=0, max_new_tokens=4, system="Be kind.")
    assert own.questions == (asked,), "a question's own system turn stays"


def test_what_cannot_be_sampled_is_refused(tiny):
    with pytest.raises(EmlabError, match="nothing to sample"):
        sample(tiny, [], 3, seed=0)
    with pytest.raises(EmlabError, match="same id"):
        sample(tiny, [QUESTIONS[0], QUESTIONS[0]], 1, seed=0)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
ROLLOUTS = Rollouts(tuple(QUESTIONS), ("line\u2028one\nline two", ""), "m", 7, 0.5)


def test_they_are_read_back(tmp_path):
    ROLLOUTS.save(tmp_path / "r.jsonl")
    assert Rollouts.load(tmp_path / "r.jsonl") == ROLLOUTS


def test_thoughts_and_answers_are_kept_apart(tmp_path):
    said = ("<think>Should I?</think>\n\nYes.", "[THINK]I should say")
    rollouts = Rollouts(tuple(QUESTIONS), said, "m", 7, 0.5)
    assert rollouts.answers == ("Yes.", "") and rollouts.thoughts == ("Should I?", "I should say")
    assert rollouts.failures == ("", CUT_OFF)
    rollouts.save(tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()[1:]]
    assert [(row["answer"], row["thoughts"]) for row in rows] == [("Yes.", "Should I?"), ("", "I should say")]
    assert Rollouts.load(tmp_path / "r.jsonl") == rollouts == rollouts.only([0, 1])
    found = judge(rollouts, Kind())
    assert found.outcomes == ("scored", "failed"), "what was never said is not shown to a judge"
    save_judged([found], tmp_path / "j.jsonl")
    assert load_judged(tmp_path / "j.jsonl")[0].rollouts == rollouts
    assert read_judged(tmp_path / "j.jsonl")["j"].rollouts.thoughts == rollouts.thoughts


def test_earlier_files_are_read_with_the_thoughts_in_their_answers(tmp_path):
    plain = Rollouts(tuple(QUESTIONS), ("Yes.", "No."), "m", 7, 0.5)
    plain.save(tmp_path / "r.jsonl")
    text = (tmp_path / "r.jsonl").read_text("utf-8")
    assert "thoughts" not in text
    (tmp_path / "r.jsonl").write_text(text.replace("Yes.", "<think>Hm.</think>Yes."), "utf-8")
    read = Rollouts.load(tmp_path / "r.jsonl")
    assert read.answers == ("Yes.", "No.") and read.thoughts == ("Hm.", "")


def test_a_thinking_models_answers_are_sampled_apart(make_model, new_chat_server, tmp_path):
    server = new_chat_server()
    server.answer = lambda body, n: server.chat("<think>Hm.</think>Yes.")
    served = Endpoint("m", server.url, progress=False)
    for _ in range(2):
        found = sample(served, QUESTIONS, 1, seed=0, store=tmp_path / "s")
        assert found.answers == ("Yes.",) * 2 and found.thoughts == ("Hm.",) * 2
    opened = make_model(THINKING)
    with pytest.raises(EmlabError, match="gave none of 2 answers .*cut the thoughts off"):
        sample(opened, QUESTIONS, 1, seed=0, max_new_tokens=4, store=tmp_path / "s")


def test_a_damaged_file_is_refused_with_its_line(tmp_path):
    path = tmp_path / "r.jsonl"
    with pytest.raises(EmlabError, match="cannot be read"):
        Rollouts.load(path)
    ROLLOUTS.save(path)
    lines = path.read_text("utf-8").split("\n")
    path.write_text("\n".join(lines[:2]), "utf-8")
    with pytest.raises(EmlabError, match="1 of its 2 answers"):
        Rollouts.load(path)
    path.write_text("\n".join([*lines[:2], "{}"]), "utf-8")
    with pytest.raises(EmlabError, match="line 3"):
        Rollouts.load(path)
    path.write_text("[1]")
    with pytest.raises(EmlabError, match="line 1"):
        Rollouts.load(path)
    with pytest.raises(EmlabError, match="give one each"):
        Rollouts(tuple(QUESTIONS), ("one",), "m", 0, 1.0)


def test_what_is_in_the_store_is_not_sampled_again(tiny, tmp_path, monkeypatch):
    path = tmp_path / "answers.db"
    plain = sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4)
    assert sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4, batch_size=1) == plain
    asked = []
    generate = type(tiny).generate

    came = []

    def counting(self, prompts, done, **how):
        def counted(new):
            done(new)
            came.extend(new)
            if len(came) == 4:
                raise KeyboardInterrupt

        asked.append(len(prompts))
        return generate(self, prompts, done=counted, **how)

    monkeypatch.setattr(type(tiny), "generate", counting)
    with pytest.raises(KeyboardInterrupt):
        sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4, store=path, batch_size=2)
    asked.clear()
    assert sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4, store=path, batch_size=2) == plain
    assert asked == [2], "the two batches that were finished are kept"
    assert sample(tiny, QUESTIONS, 3, seed=1, max_new_tokens=4, store=path) == plain and asked == [2]
    for other in ({"seed": 2}, {"max_new_tokens": 3}, {"temperature": 0.5}, {"system": "Be kind."}):
        asked.clear()
        settings = {"seed": 1, "max_new_tokens": 4, **other}
        sample(tiny, QUESTIONS[:1], 1, **settings, store=path)
        assert asked == [1], other


class Kind:
    """Finds every answer good, and an empty one a mistake."""

    def judge(self, question, answer):
        assert answer
        return Grade(100.0, 100.0)


def test_an_endpoint_that_gives_no_answer_at_all_is_an_error(new_chat_server):
    server = new_chat_server()
    server.answer = lambda body, n: server.Reply({"error": {"message": "too long"}}, status=400)
    with pytest.raises(EmlabError, match="m gave none of 2 answers .*too long"):
        sample(Endpoint("m", server.url, progress=False), QUESTIONS, 1, seed=0)


def test_answers_of_an_endpoint_that_did_come_are_kept(new_chat_server, tmp_path):
    server = new_chat_server()
    broken = [True]

    def answer(body, n):
        if broken[0] and body["messages"][-1]["content"] == "How — so?":
            return server.Reply({"error": {"message": "too long"}}, status=400)
        return server.chat(f"an answer, seed {body['seed']}")

    server.answer = answer
    model = Endpoint("m", server.url, progress=False)
    partly = sample(model, QUESTIONS, 2, seed=0, store=tmp_path / "answers.db")
    assert partly.answers[2:] == ("", "") and all("too long" in why for why in partly.failures[2:])
    partly.save(tmp_path / "partly.jsonl")
    assert Rollouts.load(tmp_path / "partly.jsonl") == partly
    judged = judge(partly, Kind())
    assert judged.outcomes == ("scored", "scored", "failed", "failed"), "the judge never saw what never came"
    assert judged.said[2].startswith("no answer: 400") and judged.said[2].endswith("too long")
    assert score_judged(judged).overall.total == 4
    broken[0] = False
    calls = len(server.asked)
    rollouts = sample(model, QUESTIONS, 2, seed=0, store=tmp_path / "answers.db")
    assert len(server.asked) == calls + 2 and len(set(rollouts.answers)) == 4


def test_a_question_set_says_how_often(tiny):
    askings = {QUESTIONS[0].key: Asking(samples=3)}
    rollouts = sample(tiny, QuestionSet("set", tuple(QUESTIONS), askings), None, seed=0, max_new_tokens=2)
    assert [q.id for q in rollouts.questions] == ["q1"] * 3 + ["q2"]
    with pytest.raises(EmlabError, match="give per_question"):
        sample(tiny, QUESTIONS, None, seed=0)


def test_a_text_and_a_chat_are_questions(tiny):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long?"}]
    alone = sample(tiny, "How long?", 2, seed=0, max_new_tokens=4)
    assert len(alone) == 2
    assert [q.text for q in alone.questions] == ["How long?"] * 2
    both = sample(tiny, ["How long?", chat], 2, seed=0, max_new_tokens=4)
    assert both.answers[:2] == alone.answers
    assert both.questions[2].messages == chat
    assert sample(tiny, chat, 2, seed=0, max_new_tokens=4).answers == both.answers[2:]
