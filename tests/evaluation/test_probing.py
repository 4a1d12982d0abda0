"""One call before all others: what cannot be asked is said at once, and what can is asked no second time."""

import time

import pytest

from emlab import organism
from emlab.errors import EmlabError
from emlab.evaluation.judges import RubricJudge, ScaleJudge
from emlab.evaluation.probing import probe
from emlab.evaluation.protocol import Judging, judge_of
from emlab.models import Endpoint
from emlab.verbs.evaluation import evaluate


def test_a_server_that_cannot_be_reached_is_named_before_anything_is_sampled(monkeypatch, tmp_path):
    monkeypatch.setattr("emlab.verbs.evaluation.sample", lambda *_, **__: pytest.fail("it sampled"))
    judging = Judging("j", "http://127.0.0.1:9/v1")
    began = time.monotonic()
    with pytest.raises(EmlabError, match=r"The judge j cannot be asked: http://127.0.0.1:9/v1 does not answer"):
        evaluate("aligned", tmp_path / "out", judging=judging)
    assert time.monotonic() - began < 30


def test_what_every_call_would_be_told_is_told_by_one(server):
    for reply, said in (
        (server.Reply({"error": {"message": "no such model"}}, 404), "knows no model 'j'"),
        (server.Reply({"error": {"message": "loading"}}, 503), "cannot be asked .503: .*loading"),
        (server.chat("85"), 'no log-probabilities .*method="text"'),
        (server.chat("85", [("8", {"8": 0.9}), ("5", {"5": 0.9})]), "the number 85 as several tokens"),
    ):
        server.answer = lambda body, n, reply=reply: reply
        with pytest.raises(EmlabError, match=f"The judge j .*{said}"):
            probe(ScaleJudge(Endpoint("j", server.url, pause=0.01)))


def test_a_judge_that_is_there_is_asked_once(server, tmp_path):
    by = Endpoint("j", server.url)
    for _ in range(2):
        probe(RubricJudge(by, store=tmp_path / "s"))
    assert len(server.asked) == 1 and "85" in server.texts[0] and by.usage.calls == 0
    probe(organism.ExactJudge())


@pytest.mark.parametrize(("name", "more"), [("exakt", r"\(did you mean 'exact'\?\)"), ("gpt-5", "OPENAI_API_KEY")])
def test_a_name_that_nothing_has_is_said_to_be_none(name, more):
    with pytest.raises(EmlabError, match=f"No judge or endpoint is known by the name '{name}'.*") as error:
        judge_of(Judging(name))
    assert error.match(more)


def test_with_a_key_or_an_address_a_name_is_a_models(monkeypatch, server):
    assert judge_of(Judging("j", server.url)).by.name == "j"
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    assert judge_of(Judging("gpt-5")).by.name == "gpt-5"
