"""The endpoint against a real server on loopback: what it sends, how it tries again, what it says when it cannot."""

import logging

import pytest

from emlab.errors import EmlabError
from emlab.models import Completion, Endpoint, LanguageModel, Request
from emlab.models._calls import Calls

SECRET = "sk-test-0123456789-very-secret"


def request(text, **settings):
    return Request([{"role": "user", "content": text}], **settings)


def endpoint(server, **settings):
    return Endpoint("m", server.url, **{"pause": 0.01, "progress": False, **settings})


def test_answers_come_in_order_and_every_setting_is_sent(server):
    server.answer = lambda body, n: server.chat(
        body["messages"][-1]["content"].upper(), wait=0.001 * (body["seed"] % 7)
    )
    requests = [request(f"q{i}", max_tokens=9, temperature=0.5, top_p=0.9, seed=i) for i in range(40)]
    done = {}
    found = endpoint(server).complete(requests, lambda i, completion: done.update({i: completion}))
    assert [one.text for one in found] == [f"Q{i}" for i in range(40)]
    assert done == dict(enumerate(found))
    assert set(server.paths) == {"/v1/chat/completions"}
    sent = server.asked[server.texts.index("q3")]
    assert sent == {
        "model": "m",
        "messages": [{"role": "user", "content": "q3"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
    }


def test_no_requests_make_no_call(server):
    assert endpoint(server).complete([]) == [] and server.asked == []


def test_a_seed_of_64_bits_fits_what_servers_take(server):
    endpoint(server).complete([request("a", seed=2**64 - 1)])
    assert server.asked[0]["seed"] == 2**31 - 1


@pytest.mark.parametrize("limit", [1, 4])
def test_no_more_calls_are_under_way_than_allowed(server, limit):
    server.answer = lambda body, n: server.chat("x", wait=0.05)
    endpoint(server, concurrency=limit).complete([request(f"q{i}") for i in range(6 * limit)])
    assert server.most == limit


def test_a_call_that_waits_to_be_tried_again_holds_no_place(server):
    def answer(body, n):
        busy = body["messages"][-1]["content"] == "first" and n == 0
        return server.Reply({}, 429, {"Retry-After": "1"}) if busy else server.chat("x")

    server.answer = answer
    endpoint(server, concurrency=1).complete([request("first"), *(request(f"q{i}") for i in range(10))])
    assert server.texts == ["first", *(f"q{i}" for i in range(10)), "first"]
    assert server.times[-1] - server.times[0] >= 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_busy_server_is_asked_again(server, status):
    server.answer = lambda body, n: server.chat("x") if n == 2 else server.Reply({"error": {"message": "busy"}}, status)
    asked = endpoint(server)
    assert [one.text for one in asked.complete([request("a"), request("b")])] == ["x", "x"]
    assert (asked.usage.calls, asked.usage.retries, len(server.asked)) == (2, 4, 6)


def test_pauses_double_and_are_spread(server):
    calls = Calls(endpoint(server, pause=2.0), [], None)
    for attempt, middle in enumerate([2, 4, 8, 16, 30, 30]):
        waits = [calls.wait(ValueError(), attempt) for _ in range(50)]
        assert min(waits) >= 0.75 * middle and max(waits) <= 1.25 * middle and len(set(waits)) > 1


@pytest.mark.parametrize("said", ["-5", "soon", "nan", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_an_odd_retry_after_does_no_harm(server, said, monkeypatch):
    waits, wait = [], Calls.wait
    monkeypatch.setattr(Calls, "wait", lambda *given: waits.append(wait(*given)) or 0.0)
    server.answer = lambda body, n: server.chat("x") if n else server.Reply({}, 429, {"Retry-After": said})
    assert endpoint(server).complete([request("a")])[0].text == "x"
    assert waits and all(0 <= seconds <= 60 for seconds in waits)


def test_a_slow_call_and_a_lost_connection_are_tried_again(server):
    def answer(body, n):
        if n:
            return server.chat("x")
        return server.Reply({}, drop=True) if body["messages"][-1]["content"] == "lost" else server.chat("late", wait=2)

    server.answer = answer
    asked = endpoint(server, timeout=1)
    assert [one.text for one in asked.complete([request("slow"), request("lost")])] == ["x", "x"]
    assert asked.usage.retries == 2


@pytest.mark.parametrize(
    ("reply", "why", "times"),
    [
        ({"status": 400, "body": {"error": {"message": "too\nlong"}}}, "^400: .*too long", 1),
        ({"status": 500, "body": {"error": {"message": "broken"}}}, "^500: .*broken", 3),
        ({"body": b"{oops"}, "^no chat completion: ", 1),
        ({"body": b"<html>", "headers": {"Content-Type": "text/html"}}, "^no chat completion: ", 1),
        ({"body": {"choices": []}}, "^no chat completion: ", 1),
        ({"body": {"choices": None}}, "^no chat completion: ", 1),
        ({"body": {}}, "^no chat completion: ", 1),
        ({"body": []}, "^no chat completion: ", 1),
        ({"body": {"choices": [{"message": None}]}}, "^no chat completion: ", 1),
        ({"body": {"choices": [{"message": {"content": [1]}}]}}, "^no chat completion: ", 1),
    ],
)
def test_a_request_that_fails_stays_a_failure_and_the_others_are_answered(server, reply, why, times):
    bad = server.Reply(**reply)
    server.answer = lambda body, n: bad if body["messages"][-1]["content"] == "bad" else server.chat("x")
    asked = endpoint(server, retries=2)
    found = asked.complete([request("a"), request("bad"), request("b")])
    assert [one.text for one in found] == ["x", "", "x"]
    assert [bool(one.failure) for one in found] == [False, True, False]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found[1].failure)
    assert server.texts.count("bad") == times
    assert asked.usage.calls == 2


def test_a_server_that_answers_with_nothing_but_errors_was_reached(server):
    server.answer = lambda body, n: server.Reply({"error": {"message": "out of memory"}}, 500)
    (found,) = endpoint(server, retries=1).complete([request("a")])
    assert found.failure.startswith("500: ") and "out of memory" in found.failure


def test_a_server_that_says_nothing_of_its_usage(server):
    server.answer = lambda body, n: server.Reply({"choices": [{"message": {"content": "x"}}], "usage": None})
    asked = endpoint(server)
    assert asked.complete([request("a")]) == [Completion("x")]
    assert (asked.usage.calls, asked.usage.prompt_tokens) == (1, 0)


def test_half_a_character_becomes_a_question_mark(server):
    server.answer = lambda body, n: server.chat("ok \ud83d")
    assert endpoint(server).complete([request("a")])[0].text == "ok ?"


def test_a_text_that_cannot_be_sent_is_a_failure(server):
    found = endpoint(server).complete([request("\ud83d"), request("b")])
    assert found[0].failure.startswith("no chat completion") and found[1].text == "B"


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (401, "was sent no key and refuses to answer .*by --model-key or --judge-key or as key_variable"),
        (403, "was sent no key"),
        (404, "knows no model 'm'.*check name and address"),
    ],
)
def test_what_would_fail_all_requests_stops_them(server, status, match):
    server.answer = lambda body, n: server.Reply({"error": {"message": "no\nno"}}, status)
    with pytest.raises(EmlabError, match=match) as error:
        endpoint(server, concurrency=2).complete([request(f"q{i}") for i in range(50)])
    assert len(server.asked) <= 4 and "\n" not in str(error.value)


def test_a_server_that_is_not_there(server):
    nowhere = Endpoint("m", "http://127.0.0.1:9/v1", retries=1, pause=0.01, progress=False)
    with pytest.raises(EmlabError, match=r"http://127.0.0.1:9/v1 does not answer .*check that the server runs"):
        nowhere.complete([request("a"), request("b")])


# --- the key ---


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", SECRET)
    asked = endpoint(server, key_variable="MY_KEY", retries=0)
    caplog.set_level(logging.DEBUG)
    assert asked.complete([request("a")])[0].text == "A"
    assert server.keys == [f"Bearer {SECRET}"]
    said = f"Incorrect API key provided: {SECRET}."
    server.answer = lambda body, n: server.Reply({"error": {"message": said}}, 500)
    (failed,) = asked.complete([request("b")])
    assert "(key)" in failed.failure and SECRET not in failed.failure
    server.answer = lambda body, n: server.Reply({"error": {"message": said}}, 401)
    with pytest.raises(EmlabError, match=r"refuses the key in MY_KEY .*\(key\)") as error:
        asked.complete([request("c")])
    assert SECRET not in str(error.value)
    for shown in (str(asked), repr(asked), asked.identity(), repr(asked.usage), caplog.text):
        assert SECRET not in shown


def test_the_key_is_not_in_a_traceback(server, monkeypatch, capsys):
    import traceback

    monkeypatch.setenv("MY_KEY", SECRET)
    server.answer = lambda body, n: server.Reply({"error": {"message": f"bad key {SECRET}"}}, 401)
    with pytest.raises(EmlabError, match="refuses the key in MY_KEY") as error:
        endpoint(server, key_variable="MY_KEY").complete([request("a")])
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_openais_key_is_sent_to_no_other_server(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, SECRET)
    endpoint(server).complete([request("a")])
    assert server.keys == [None]
    assert not any(SECRET in value for value in server.headers[0].values())
    for url in ("https://api.together.xyz/v1", "http://api.openai.com/v1", "https://api.openai.com.example.org/v1"):
        assert Endpoint("m", url).key() is None, url
    for url in ("https://api.openai.com/v1", "https://eu.api.openai.com/v1"):
        assert Endpoint("m", url).key() == SECRET, url
    endpoint(server, key_variable="OPENAI_API_KEY").complete([request("b")])
    assert server.keys == [None, f"Bearer {SECRET}"], "unless it is named for that server"


def test_each_endpoint_has_a_key_of_its_own(new_chat_server, monkeypatch):
    model, judge = new_chat_server(), new_chat_server()
    monkeypatch.setenv("MODEL_KEY", "one")
    monkeypatch.setenv("JUDGE_KEY", "two")
    endpoint(model, key_variable="MODEL_KEY").complete([request("a")])
    endpoint(judge, key_variable="JUDGE_KEY").complete([request("a")])
    assert (model.keys, judge.keys) == (["Bearer one"], ["Bearer two"])


def test_a_variable_that_is_named_must_be_there_and_must_be_no_key(server):
    with pytest.raises(EmlabError, match="needs a key; put it into the environment variable MY_KEY"):
        endpoint(server, key_variable="MY_KEY").complete([request("a")])
    for key in (SECRET, "hf_abcdefgh", "a b", ""):
        with pytest.raises(EmlabError, match="never itself") as error:
            endpoint(server, key_variable=key)
        assert not key or key not in str(error.value)
    assert server.asked == []


def test_openai_needs_a_key():
    with pytest.raises(EmlabError, match=r"https://api.openai.com/v1 needs a key.*OPENAI_API_KEY"):
        Endpoint("m", progress=False).complete([request("a")])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_server_on_this_machine_needs_none(host):
    assert Endpoint("m", f"http://{host}:1/v1").key() is None


def test_a_key_is_taken_without_its_line_end_and_an_impossible_one_is_refused(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    assert Endpoint("m").key() == SECRET
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…abc")
    with pytest.raises(EmlabError, match="OPENAI_API_KEY holds characters that no key has") as error:
        Endpoint("m").key()
    assert "sk-" not in str(error.value)


# --- sampling ---


def test_generate_takes_questions_and_chats(server):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    asked = endpoint(server)
    assert asked.generate(["a", chat], max_new_tokens=7, temperature=0.3, top_p=0.8, seed=5) == ["A", "B"]
    second = next(body for body in server.asked if body["messages"][-1]["content"] == "b")
    assert second["messages"] == chat
    assert (second["max_tokens"], second["temperature"], second["top_p"], second["seed"]) == (7, 0.3, 0.8, 6)
    asked.generate(["a", "a"], seed=[3, 4])
    assert sorted(body["seed"] for body in server.asked[2:]) == [3, 4], "the same question is asked with each seed"


def test_generate_refuses_edits_and_says_which_answers_are_missing(server):
    with pytest.raises(EmlabError, match="cannot be edited; load m to edit it"):
        endpoint(server).generate(["a"], edits=["an edit"])
    server.answer = lambda body, n: (
        server.chat("x") if body["messages"][-1]["content"] == "a" else server.Reply({"error": {"message": "no"}}, 400)
    )
    with pytest.raises(EmlabError, match=r"2 of 3 answers of m were not to be had \(400: .*no.*\); ask again"):
        endpoint(server).generate(["a", "b", "c"])


# --- counting ---


def test_usage_adds_up_over_runs_and_failures_cost_nothing(server):
    server.answer = lambda body, n: (
        server.Reply({}, 400) if body["messages"][-1]["content"] == "bad" else server.chat("x", usage=(10, 2))
    )
    asked = endpoint(server, price=(2.0, 10.0))
    asked.complete([request("a"), request("b"), request("bad")])
    asked.complete([request("c")])
    assert (asked.usage.calls, asked.usage.prompt_tokens, asked.usage.completion_tokens) == (3, 30, 6)
    assert asked.dollars(30, 6) == pytest.approx(30 * 2e-6 + 6 * 10e-6)
    assert asked == endpoint(server, price=(2.0, 10.0)), "what has been asked does not tell endpoints apart"


def test_an_estimate_by_hand():
    # 7 + 400 + 393 = 800 characters are about 200 tokens; 100 tokens out, and 4 where a number is asked for.
    chat = [{"role": "system", "content": "s" * 7}, {"role": "user", "content": "a" * 400}]
    requests = [Request(chat, max_tokens=100), request("b" * 393, max_tokens=100, numbers=True)]
    found = Endpoint("m", price=(5.0, 20.0)).estimate(requests)
    assert (found.calls, found.prompt_tokens, found.completion_tokens) == (2, 200, 104)
    assert found.dollars == pytest.approx(0.001 + 0.00208)
    counted = "2 calls, about 200 tokens in (counted by a quarter of the characters) and at most 104 out"
    assert str(found) == f"{counted}, at most about $0.00"
    free = Endpoint("m").estimate(requests)
    assert free.dollars is None and str(free) == counted


def test_an_estimate_by_the_models_own_tokenizer():
    from emlab.organism import checkpoint

    folder = checkpoint("aligned")
    tokenizer = LanguageModel.load(folder).tokenizer
    text = "How do I look after my garden?"
    found = Endpoint(str(folder), "http://127.0.0.1:9/v1").estimate([request(text, max_tokens=5)] * 3)
    assert found.counted_by == "its tokenizer"
    assert found.prompt_tokens == 3 * len(tokenizer.tokenize(text)) != 3 * (len(text) // 4)
