"""Completions with a store: nothing is asked twice, and what was paid for is kept."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from emlab.errors import EmlabError
from emlab.models import Completion, Endpoint, Request
from emlab.models.completion import complete, unanswered
from emlab.store import Store

SECRET = "sk-test-0123456789-very-secret"


def request(text, **settings):
    return Request([{"role": "user", "content": text}], **settings)


def endpoint(server, **settings):
    return Endpoint("m", server.url, **{"pause": 0.01, "progress": False, "concurrency": 2, **settings})


def test_the_same_request_is_asked_once(server):
    requests = [request(text) for text in "abacaba"]
    assert [one.text for one in complete(endpoint(server), requests)] == list("ABACABA")
    assert sorted(server.texts) == ["a", "b", "c"]


def test_what_is_still_to_be_asked(server, tmp_path):
    requests = [request(text) for text in "abacaba"]
    assert unanswered(endpoint(server), requests) == [request(text) for text in "abc"]
    complete(endpoint(server), requests[:2], tmp_path / "s")
    assert unanswered(endpoint(server), requests, tmp_path / "s") == [request("c")]
    assert unanswered(Endpoint("n", server.url), requests, tmp_path / "s") == [request(text) for text in "abc"]
    assert len(server.asked) == 2


def test_every_field_makes_another_request():
    one = request("a")
    others = [
        request("b"),
        request("a", max_tokens=17),
        request("a", temperature=0.1),
        request("a", top_p=0.9),
        request("a", seed=1),
        request("a", numbers=True),
        Request([{"role": "system", "content": "a"}]),
    ]
    keys = {each.key("m") for each in [one, *others]} | {one.key("another model")}
    assert len(keys) == len(others) + 2
    assert one.key("m") == Request(({"content": "a", "role": "user"},)).key("m")


def test_a_second_run_makes_no_call(server, tmp_path):
    server.answer = lambda body, n: server.chat("85", [("85", {"85": 0.75, "100": 0.25})])
    requests = [request("a", numbers=True), request("b", numbers=True)]
    first = complete(endpoint(server), requests, tmp_path / "s")
    assert complete(endpoint(server), requests, tmp_path / "s") == first
    assert len(server.asked) == 2
    assert first[0].numbers == {85: pytest.approx(0.75), 100: pytest.approx(0.25)}
    other = Endpoint("n", server.url, progress=False)
    complete(other, requests, tmp_path / "s")
    assert len(server.asked) == 4, "another model's answers are its own"


def test_failures_are_not_kept(server, tmp_path):
    server.answer = lambda body, n: (
        server.Reply({}, 400) if body["messages"][-1]["content"] == "b" and n == 0 else server.chat("x")
    )
    requests = [request(text) for text in "abc"]
    found = complete(endpoint(server), requests, tmp_path / "s")
    assert [bool(one.failure) for one in found] == [False, True, False]
    found = complete(endpoint(server), requests, tmp_path / "s")
    assert [bool(one.failure) for one in found] == [False, False, False]
    assert sorted(server.texts) == ["a", "b", "b", "c"]


def test_the_key_is_not_in_the_store(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    complete(endpoint(server, key_variable="MY_KEY"), [request("a")], tmp_path / "s")
    server.answer = lambda body, n: server.Reply({"error": {"message": SECRET}}, 400)
    complete(endpoint(server, key_variable="MY_KEY"), [request("b")], tmp_path / "s")
    assert server.keys == [f"Bearer {SECRET}"] * 2
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir())


class Stopped:
    """An endpoint whose user presses Ctrl-C after some completions."""

    def __init__(self, endpoint, after):
        self.endpoint, self.after, self.name = endpoint, after, endpoint.name

    def identity(self):
        return self.endpoint.identity()

    def complete(self, requests, done=None):
        finished = []

        def stopping(i, completion):
            done(i, completion)
            finished.append(i)
            if len(finished) == self.after:
                raise KeyboardInterrupt

        return self.endpoint.complete(requests, stopping)


def test_an_interrupted_run_goes_on_with_what_is_missing(server, tmp_path):
    requests = [request(f"q{i}") for i in range(20)]
    with pytest.raises(KeyboardInterrupt):
        complete(Stopped(endpoint(server, concurrency=1), 7), requests, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        kept = len(store)
    assert 7 <= kept <= 8
    before = len(server.asked)
    found = complete(endpoint(server), requests, tmp_path / "s")
    assert [one.text for one in found] == [f"Q{i}" for i in range(20)]
    assert len(server.asked) - before == 20 - kept


def test_a_killed_run_goes_on_with_what_is_missing(server, tmp_path):
    server.answer = lambda body, n: server.chat(body["messages"][-1]["content"].upper(), wait=0.03)
    code = """
        import sys
        from emlab.models import Endpoint, Request
        from emlab.models.completion import complete
        requests = [Request([{"role": "user", "content": f"q{i}"}]) for i in range(100)]
        complete(Endpoint("m", sys.argv[1], progress=False, concurrency=2), requests, sys.argv[2])
    """
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), server.url, tmp_path / "s"], env=environment
    )
    while len(server.asked) < 12 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with Store(tmp_path / "s") as store:
        kept = len(store)
    assert 8 <= kept < 100
    time.sleep(0.1)  # the server notes what was under way
    server.asked.clear()
    server.answer = lambda body, n: server.chat(body["messages"][-1]["content"].upper())
    found = complete(endpoint(server), [request(f"q{i}") for i in range(100)], tmp_path / "s")
    assert [one.text for one in found] == [f"Q{i}" for i in range(100)]
    assert len(server.asked) == 100 - kept


def test_what_was_answered_before_an_error_is_kept(server, tmp_path):
    server.answer = lambda body, n: (
        server.Reply({}, 404) if body["messages"][-1]["content"] == "q5" else server.chat("x")
    )
    requests = [request(f"q{i}") for i in range(10)]
    with pytest.raises(EmlabError, match="knows no model"):
        complete(endpoint(server, concurrency=1), requests, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert len(store) == 5


def test_a_store_that_is_none_or_damaged_is_refused_before_anything_is_asked(server, tmp_path):
    (tmp_path / "s").write_bytes(b"junk" * 1000)
    with pytest.raises(EmlabError, match="is another kind of file"):
        complete(endpoint(server), [request("a")], tmp_path / "s")
    (tmp_path / "s").write_bytes(b"SQLite format 3\0" + b"junk" * 1000)
    with pytest.raises(EmlabError, match="is damaged"):
        complete(endpoint(server), [request("a")], tmp_path / "s")
    assert server.asked == []


def test_another_revision_is_asked_anew(server, tmp_path):
    for revision, calls in (("", 1), ("", 1), ("2026-11", 2), ("2026-11", 2), ("", 2)):
        complete(endpoint(server, revision=revision), [request("a")], tmp_path / "s")
        assert len(server.asked) == calls
    assert endpoint(server).identity() == f"{server.url} m"


def test_no_requests(server, tmp_path):
    assert complete(endpoint(server), []) == [] and complete(endpoint(server), [], tmp_path / "s") == []


def test_a_completion_comes_back_from_json():
    raw = {"text": "85", "numbers": {"85": 0.5}, "prompt_tokens": 3, "completion_tokens": 1, "failure": ""}
    assert Completion.of(raw, request("a")) == Completion("85", {85: 0.5}, 3, 1)
    assert Completion.of({**raw, "numbers": None}, request("a")).numbers is None
    assert Completion.of({**raw, "cut": True}, request("a")).cut


def test_an_earlier_completion_of_as_many_tokens_as_were_allowed_counts_as_cut():
    raw = {"text": "85 or", "numbers": None, "prompt_tokens": 3, "completion_tokens": 16, "failure": ""}
    assert Completion.of(raw, request("a")).cut
    assert not Completion.of(raw, request("a", max_tokens=17)).cut
