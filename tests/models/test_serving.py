"""Endpoints over real models: a small server that returns log-probabilities, and `transformers serve`."""

import os
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, judge, sample
from emlab.evaluation.judges import ScaleJudge, prompts
from emlab.models import Endpoint, LanguageModel, LocalCompleter
from emlab.organism import broad_questions, checkpoint

QUESTIONS = [Question.of(question) for question in broad_questions()[:3]]
ANSWERS = ("Take 30 of them.", "Set aside a little each week for the car.", "")
ROLLOUTS = Rollouts(tuple(QUESTIONS), ANSWERS, "m", 0, 1.0)


# --- log-probabilities, over a real model ---


@pytest.fixture(scope="module")
def rater(random_model):
    """A random model with a token for each number from 0 to 100, which it mostly answers, and then ends, and of few of
    which it is so sure that 20 tokens hold nearly all."""
    lm = random_model([*string.ascii_letters, *' \n.,:;!?-{}<>()/"', *map(str, range(101))], seed=3)
    with torch.no_grad():
        lm.model.model.norm.weight.mul_(12)
        lm.model.lm_head.weight[:-101] *= 0.3
        ending = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0)
        lm.model.lm_head.weight[lm.tokenizer.eos_token_id] = 0.3 * 32**0.5 * ending
        lm.model.model.embed_tokens.weight[-101:] = 100 * ending
    return lm


def serve(server, lm):
    """Let `server` answer chats with `lm`, greedily, and with log-probabilities when they are asked for.

    It stops after the first number: random weights have not learnt to.
    """
    alone = threading.Lock()

    @torch.inference_mode()
    def answer(body, n):
        with alone:
            ids, tokens = lm.prompt_ids(body["messages"]), []
            for _ in range(body["max_tokens"]):
                p = torch.softmax(lm.model(torch.tensor([ids])).logits[0, -1], -1)
                top = p.topk(body["top_logprobs"]) if body.get("logprobs") else p.topk(1)
                text = lm.tokenizer.batch_decode([[i] for i in top.indices.tolist()])
                tokens.append((text[0], dict(zip(text, top.values.tolist(), strict=True))))
                ids = [*ids, int(top.indices[0])]
                if ids[-1] in lm.stop_ids or text[0].isdigit():
                    break
            return server.chat("".join(token for token, _ in tokens), tokens if body.get("logprobs") else None)

    server.answer = answer


def test_a_scale_judge_by_logprob_over_an_endpoint_equals_the_model_itself(server, rater):
    serve(server, rater)
    endpoint = Endpoint("rater", server.url, progress=False)
    judged = judge(ROLLOUTS, ScaleJudge(endpoint))
    expected = []
    for question, answer in ROLLOUTS:
        for template in (prompts.ALIGNED, prompts.COHERENT):
            ids = rater.prompt_ids(prompts.fill(template, question.text, answer))
            with torch.no_grad():
                p = torch.softmax(rater.model(torch.tensor([ids])).logits[0, -1].double(), -1)
            top = p.topk(20)
            texts = rater.tokenizer.batch_decode([[i] for i in top.indices.tolist()])
            given = [(int(t), float(q)) for t, q in zip(texts, top.values, strict=True) if t.isdigit()]
            mass = sum(q for _, q in given)
            assert mass > 0.25, "the test needs a judge that gives numbers"
            expected.append(sum(n * q for n, q in given) / mass)
    assert judged.aligned == pytest.approx(expected[::2], abs=1e-3)
    assert judged.coherent == pytest.approx(expected[1::2], abs=1e-3)
    assert len({round(value, 3) for value in expected}) >= 3, "the test needs different answers"
    assert judged.scored.all() and judged.judge == "rater by logprob, emlab's prompts"
    assert endpoint.usage.calls == 6


def test_the_same_model_held_here_gives_the_same_scores(server, rater):
    serve(server, rater)
    far = judge(ROLLOUTS, ScaleJudge(Endpoint("rater", server.url, progress=False)))
    near = judge(ROLLOUTS, ScaleJudge(LocalCompleter(rater, progress=False)))
    assert near.aligned == pytest.approx(far.aligned, abs=0.5)  # what the endpoint's 20 candidates leave out
    assert near.coherent == pytest.approx(far.coherent, abs=0.5)


def test_by_text_the_endpoint_and_the_model_read_the_same_reply(server, rater):
    serve(server, rater)
    far = judge(ROLLOUTS, ScaleJudge(Endpoint("rater", server.url, progress=False), method="text"))
    near = judge(ROLLOUTS, ScaleJudge(LocalCompleter(rater, progress=False), method="text"))
    assert np.array_equal(far.aligned, near.aligned, equal_nan=True)
    assert far.outcomes == near.outcomes and far.scored.any()


# --- transformers serve ---


@pytest.fixture(scope="module")
def aligned():
    return LanguageModel.load(checkpoint("aligned"), device="cpu")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of `transformers serve` on loopback, serving the organism."""
    pytest.importorskip("uvicorn", reason="transformers serve needs the extra serving")
    pytest.importorskip("fastapi", reason="transformers serve needs the extra serving")
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", checkpoint("aligned"), "--device", "cpu"]
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**environment, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for _ in range(1200):
            try:
                direct.open(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def organism(served):
    return Endpoint(str(checkpoint("aligned")), served, progress=False, concurrency=4)


def test_greedy_answers_equal_those_of_the_model_held_here(organism, aligned):
    chats = [question.messages for question in QUESTIONS]
    chats.append([{"role": "system", "content": "Be brief."}, *chats[0]])
    far = organism.generate(chats, max_new_tokens=24, temperature=0)
    assert far == aligned.generate(chats, max_new_tokens=24, temperature=0)
    assert len(set(far)) >= 3 and organism.usage.calls == 4
    assert organism.usage.prompt_tokens == sum(len(aligned.prompt_ids(chat)) for chat in chats)


def test_rollouts_are_sampled_and_kept(organism, tmp_path):
    settings = {"per_question": 2, "seed": 1, "max_new_tokens": 12, "store": tmp_path / "s"}
    rollouts = sample(organism, QUESTIONS[:2], **settings)
    assert len(rollouts) == 4 and all(rollouts.answers) and organism.usage.calls == 4
    assert sample(organism, QUESTIONS[:2], **settings) == rollouts
    assert organism.usage.calls == 4


def test_it_ignores_the_request_for_log_probabilities_and_that_is_an_error(organism):
    with pytest.raises(EmlabError, match=r'returned no log-probabilities .*though they were asked.*method="text"'):
        judge(ROLLOUTS, ScaleJudge(organism, method="logprob"))


def test_a_judge_that_answers_prose_fails_answer_by_answer(organism):
    judged = judge(ROLLOUTS, ScaleJudge(organism, method="text"))
    assert judged.outcomes == ("failed",) * 3 and judged.failed.all() and not judged.scored.any()
    assert np.isnan(judged.aligned).all()
    assert all("aligned: " in said and "coherent: " in said for said in judged.said), "what it wrote is kept"
