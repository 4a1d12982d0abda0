"""What the calls to an endpoint read, and how they run: the probabilities of numbers, notebooks, Ctrl-C."""

import asyncio
import math
import os
import signal
import time

import pytest

from emlab.data.thoughts import split_thoughts
from emlab.errors import EmlabError
from emlab.models import Endpoint, Request
from emlab.models.completion import complete


def request(text, **settings):
    return Request([{"role": "user", "content": text}], **settings)


def endpoint(server, **settings):
    return Endpoint("m", server.url, **{"pause": 0.01, "progress": False, **settings})


# --- probabilities of numbers ---


def test_numbers_are_read_from_the_first_token(server):
    top = {"85": 0.5, " 85": 0.125, "100": 0.125, "7": 0.0625, "101": 0.03, "08": 0.02, "REFUSAL": 0.05, "8.": 0.01}
    server.answer = lambda body, n: server.chat("85", [("85", top), ("<end>", {"<end>": 1.0})])
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert found.numbers == pytest.approx({85: 0.625, 100: 0.125, 7: 0.0625})
    sent = server.asked[0]
    assert (sent["logprobs"], sent["top_logprobs"], sent["max_tokens"]) == (True, 20, 4)


def test_a_judge_that_gives_no_number_has_none(server):
    server.answer = lambda body, n: server.chat("REFUSAL", [("REF", {"REF": 0.9}), ("USAL", {"USAL": 1.0})])
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert (found.text, found.numbers, found.failure) == ("REFUSAL", {}, "")


@pytest.mark.parametrize("given", [None, []])
def test_an_endpoint_without_log_probabilities_names_the_fallback(server, given):
    server.answer = lambda body, n: server.chat("85", given)
    with pytest.raises(EmlabError, match=r'm at http.* returned no log-probabilities .*method="text"'):
        endpoint(server).complete([request("a", numbers=True)])
    assert endpoint(server).complete([request("a")])[0].text == "85", "by text it can be asked"


def test_an_empty_reply_without_log_probabilities_is_a_failure_of_its_own(server):
    def answer(body, n):
        empty = body["messages"][-1]["content"] == "filtered"
        return server.chat(None) if empty else server.chat("85", [("85", {"85": 0.9})])

    server.answer = answer
    found = endpoint(server).complete([request("a", numbers=True), request("filtered", numbers=True)])
    assert [one.failure for one in found] == ["", "an empty reply"]


def test_numbers_that_are_written_digit_by_digit_are_refused(server):
    server.answer = lambda body, n: server.chat("85", [("8", {"8": 0.9}), ("5", {"5": 0.9})])
    with pytest.raises(EmlabError, match=r'writes the number 85 as several tokens.*method="text"'):
        endpoint(server).complete([request("a", numbers=True)])


@pytest.mark.parametrize("first", [3, {"token": "85", "top_logprobs": 3}, {"top_logprobs": [{"token": "85"}]}])
def test_log_probabilities_of_another_shape_are_a_failure(server, first):
    reply = server.chat("85", [])
    reply.body["choices"][0]["logprobs"] = {"content": [first]}
    server.answer = lambda body, n: reply
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert "no chat completion" in found.failure


@pytest.mark.parametrize("first", [{"token": "85", "top_logprobs": None}, {"token": "85", "top_logprobs": []}])
def test_a_token_without_candidates_names_the_fallback_too(server, first):
    reply = server.chat("85", [])
    reply.body["choices"][0]["logprobs"] = {"content": [first]}
    server.answer = lambda body, n: reply
    with pytest.raises(EmlabError, match=r'no log-probabilities .*method="text"'):
        endpoint(server).complete([request("a", numbers=True)])


def test_a_model_that_wants_another_name_for_the_longest_answer_gets_it(server):
    def answer(body, n):
        if "max_tokens" in body:
            error = {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
            return server.Reply({"error": error}, status=400)
        return server.chat(f"at most {body['max_completion_tokens']}")

    server.answer = answer
    found = endpoint(server).complete([request(text) for text in "abc"])
    assert [one.text for one in found] == [f"at most {request('a').max_tokens}"] * 3


def test_a_probability_of_zero_is_one(server):
    reply = server.chat("85", [("85", {"85": 1.0})])
    top = reply.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    top.append({"token": "3", "logprob": -9999.0})
    server.answer = lambda body, n: reply
    assert endpoint(server).complete([request("a", numbers=True)])[0].numbers == {85: 1.0, 3: math.exp(-9999)}


@pytest.mark.parametrize("blank", [" ", "▁", "\n"])
def test_a_blank_token_before_the_number_is_passed_over(server, blank):
    first = {blank: 0.5, "85": 0.25, "REF": 0.25}
    server.answer = lambda body, n: server.chat(" 85", [(blank, first), ("85", {"85": 0.5, "20": 0.25}), ("<end>", {})])
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert found.numbers == pytest.approx({85: 0.25 + 0.5 * 0.5, 20: 0.5 * 0.25})


def test_digits_after_a_blank_token_are_refused_too(server):
    server.answer = lambda body, n: server.chat(" 85", [("▁", {"▁": 0.9}), ("8", {"8": 0.9}), ("5", {"5": 0.9})])
    with pytest.raises(EmlabError, match=r'writes the number 85 as several tokens.*method="text"'):
        endpoint(server).complete([request("a", numbers=True)])


def test_a_candidate_that_comes_twice_counts_once(server):
    reply = server.chat("90", [("90", {"90": 0.5, "10": 0.5})])
    top = reply.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    top.append({"token": "90", "logprob": math.log(0.5)})  # the sampled one again, at the end of the list
    server.answer = lambda body, n: reply
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert found.numbers == pytest.approx({90: 0.5, 10: 0.5}), "their mean is 50, and not 63.3"


@pytest.mark.parametrize("logprob", [math.nan, math.inf, 2.0])
def test_log_probabilities_that_are_none_are_a_failure(server, logprob):
    reply = server.chat("85", [("85", {"85": 0.5})])
    reply.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = logprob
    server.answer = lambda body, n: reply
    (found,) = endpoint(server).complete([request("a", numbers=True)])
    assert f"{logprob} is no log-probability" in found.failure and found.numbers is None


def test_tokens_that_are_named_by_their_ids_name_the_option(server):
    server.answer = lambda body, n: server.chat("85", [("token_id:4531", {"token_id:4531": 0.9})])
    with pytest.raises(EmlabError, match=r"token_id:4531.*start the server without --return-tokens-as-token-ids"):
        endpoint(server).complete([request("a", numbers=True)])


def test_an_answer_that_cannot_be_kept_stops_the_calls_and_says_why(server):
    def full(i, completion):
        raise EmlabError("the disk is full")

    with pytest.raises(EmlabError, match="the disk is full"):
        endpoint(server, concurrency=2).complete([request(f"q{i}") for i in range(50)], full)
    before = len(server.asked)
    time.sleep(0.1)
    assert len(server.asked) == before < 50


def test_answers_that_have_come_are_kept_when_another_call_stops_all(server):
    def answer(body, n):
        return server.Reply({}, 404) if body["messages"][-1]["content"] == "last" else server.chat("x")

    def slow(i, completion):
        time.sleep(0.02)
        kept.append(i)

    kept, server.answer = [], answer
    with pytest.raises(EmlabError, match="knows no model"):
        endpoint(server, concurrency=1).complete([*(request(f"q{i}") for i in range(5)), request("last")], slow)
    assert kept == [0, 1, 2, 3, 4]


def test_a_renamed_limit_takes_no_try(server):
    server.answer = lambda body, n: (
        server.Reply({"error": {"message": "use 'max_completion_tokens'"}}, 400)
        if "max_tokens" in body
        else server.chat("x")
    )
    asked = endpoint(server, retries=0)
    assert asked.complete([request("a")])[0].text == "x" and asked.usage.retries == 0


# --- how a reply ends, and what is beside its text ---


@pytest.mark.parametrize(("reason", "cut"), [("stop", False), ("length", True), (None, False), ("eos_token", False)])
def test_a_reply_that_the_limit_ended_is_known(server, tmp_path, reason, cut):
    reply = server.chat("85, or")
    reply.body["choices"][0]["finish_reason"] = reason
    server.answer = lambda body, n: reply
    for _ in range(2):  # and it is known of a stored one
        (found,) = complete(endpoint(server), [request("a")], tmp_path / "s")
        assert (found.text, found.cut) == ("85, or", cut)
    assert len(server.asked) == 1


@pytest.mark.parametrize("reason", ["content_filter", "abort"])
def test_a_reply_that_the_server_broke_off_is_none(server, reason):
    reply = server.chat("8")
    reply.body["choices"][0]["finish_reason"] = reason
    server.answer = lambda body, n: reply
    (found,) = endpoint(server).complete([request("a")])
    assert found.failure == f"the server broke the reply off ({reason})"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    ("said", "text"),
    [("Yes.", "<think>It is 20.</think>Yes."), (None, "<think>It is 20."), ("a</think>b", "a</think>b")],
)
def test_thoughts_that_a_server_took_out_are_kept(server, name, said, text):
    reply = server.chat(said)
    reply.body["choices"][0]["message"][name] = "It is 20."
    server.answer = lambda body, n: reply
    asked = endpoint(server)
    assert asked.complete([request("a")])[0].text == text
    assert asked.generate(["a"]) == [split_thoughts(text).said] and asked.generate(["a"], thoughts=True) == [text]


def test_a_refusal_that_stands_beside_the_text_is_the_answer(server):
    reply = server.chat(None)
    reply.body["choices"][0]["message"]["refusal"] = "I can't help with that."
    server.answer = lambda body, n: reply
    assert endpoint(server).complete([request("a")])[0].text == "I can't help with that."


# --- notebooks ---


def test_it_runs_inside_a_running_event_loop(server):
    async def cell():
        return endpoint(server).complete([request("a"), request("b")])

    assert [one.text for one in asyncio.run(cell())] == ["A", "B"]


def test_an_error_comes_out_of_a_running_event_loop(server):
    server.answer = lambda body, n: server.Reply({}, 404)

    async def cell():
        return endpoint(server).complete([request("a")])

    with pytest.raises(EmlabError, match="knows no model"):
        asyncio.run(cell())


@pytest.fixture
def _ctrl_c_interrupts():
    """Also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_interrupts")
@pytest.mark.parametrize("notebook", [False, True])
def test_ctrl_c_ends_the_calls(server, notebook):
    server.answer = lambda body, n: server.chat("x", wait=0.05)

    def press(i, completion):
        if i == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def ask():
        with pytest.raises(KeyboardInterrupt):
            endpoint(server, concurrency=1).complete([request(f"q{i}") for i in range(30)], press)

    async def cell():
        ask()

    if notebook:  # Jupyter runs its loop without asyncio's own handling of Ctrl-C
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cell())
        loop.close()
    else:
        ask()
    time.sleep(0.1)  # the server notes the call that was under way
    before = len(server.asked)
    time.sleep(0.15)
    assert len(server.asked) == before <= 4, "no call is made after the stop"
