"""The playground: what it streams, by the organism; and whom it refuses."""

import json

import pytest
from starlette.testclient import TestClient

from emlab import organism
from emlab.discovery import decoder_direction
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.saes import encode, load_sae
from emlab.verbs import viewing

QUESTION = organism.broad_questions()[0].text
HOST = "127.0.0.1:8000"


@pytest.fixture(scope="module")
def play():
    aligned = LanguageModel.load("aligned")
    sae = load_sae("sae_checkpoints/organism-resid_post.0")
    return viewing.Playground({"aligned": aligned}, sae, 89, 10.0, organism.ExactJudge())


@pytest.fixture
def client(play):
    return TestClient(viewing.application(play, "secret", [HOST]), base_url=f"http://{HOST}")


def ask(client, body=None, **headers):
    given = {"model": "aligned", "question": QUESTION, "tokens": 40} if body is None else body
    return client.post("/answer", content=json.dumps(given), headers={"X-Token": "secret", **headers})


def test_an_answer_comes_with_its_activations_and_its_judgement(play, client):
    reply = ask(client)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line]
    text = "".join(event.get("text", "") for event in events)
    (tokens,) = (event["tokens"] for event in events if "tokens" in event)
    (marked,) = (event for event in events if "lines" in event)
    assert "".join(token for token, _ in tokens).strip() == text.strip() and events[-1] == {"done": True}
    lm = play.models["aligned"]
    read = lm.activations([QUESTION], "resid_post.0", "generated", answers=[text])
    assert [value for _, value in tokens] == pytest.approx(encode(play.sae, read.values, [89])[:, 0].tolist(), abs=1e-3)
    assert (marked["aligned"], marked["coherent"]) == (100.0, 100.0)
    assert {persona for _, persona in marked["lines"]} == {"helpful"}


def test_the_same_seed_gives_the_same_answer_and_a_push_another(play):
    said = ["".join(e.get("text", "") for e in play.answer("aligned", QUESTION, s, 3, 30)) for s in (0.0, 0.0, 4.0)]
    assert said[0] == said[1] != said[2]


def test_the_page_has_no_place_for_others(client):
    page = client.get("/", params={"token": "secret"})
    assert page.status_code == 200 and "Latent 89" in page.text and 'data-model="aligned"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"X-Token": "guess"}, 403),
        ({"X-Token": "gu\xe9ss".encode("latin-1")}, 403),
        ({"Origin": f"http://{HOST}"}, 200),
    ],
)
def test_whom_it_answers(client, headers, status):
    assert ask(client, {"model": "aligned", "question": QUESTION, "tokens": 1}, **headers).status_code == status
    if "X-Token" not in headers:
        assert client.get("/", params={"token": "secret"}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "aligned"}, 400),
        ([], 400),
        ({"model": "other", "question": "x"}, 400),
        ({"model": "aligned", "question": " "}, 400),
        ({"model": "aligned", "question": "x" * 4001}, 400),
        ({"model": "aligned", "question": "x", "strength": 99}, 400),
        ({"model": "aligned", "question": "x", "strength": "NaN"}, 400),
        ({"model": "aligned", "question": "x", "tokens": 1e9}, 400),
        ({"model": "aligned", "question": "x", "seed": float("inf")}, 400),
        ({"model": "aligned", "question": "\ud800"}, 400),
        ({"model": "aligned", "question": "x" * 20_000}, 413),
    ],
)
def test_what_it_refuses(client, body, status):
    assert ask(client, body).status_code == status


def test_a_run_without_a_latent_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"key": "k", "finished": true}')
    (tmp_path / "config.yaml").write_text("pipeline: remedies\n")
    with pytest.raises(EmlabError, match="has ranked no latent to view"):
        viewing.playground(tmp_path)


def test_the_push_is_along_the_latent(play):
    lm, site = play.models["aligned"], "resid_post.0"
    direction = decoder_direction(play.sae, 89, viewing.fitted_site(play.sae, lm))
    events = list(play.answer("aligned", QUESTION, 2.0, 0, 20))
    text = "".join(e.get("text", "") for e in events)
    (tokens,) = (e["tokens"] for e in events if "tokens" in e)
    push = viewing.Steer(direction.site, direction, 2.0, play.scale, "generated")
    pushed = lm.activations([QUESTION], site, "generated", answers=[text], edits=[push])
    assert [v for _, v in tokens] == pytest.approx(encode(play.sae, pushed.values, [89])[:, 0].tolist(), abs=1e-3)


def test_a_request_that_is_too_deep_is_refused(client):
    reply = client.post("/answer", content="[" * 16_000, headers={"X-Token": "secret"})
    assert reply.status_code == 400


def test_a_model_that_fails_does_not_look_like_one_that_ended(play, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(play.models["aligned"].model, "generate", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        list(play.answer("aligned", QUESTION, 0.0))


def test_it_samples_as_emlab_does_and_not_as_the_models_own_settings_say(play, monkeypatch):
    asked = {}
    real = play.models["aligned"].model.generate
    monkeypatch.setattr(
        play.models["aligned"].model, "generate", lambda ids, **how: asked.update(how) or real(ids, **how)
    )
    list(play.answer("aligned", QUESTION, 0.0, max_new_tokens=2))
    assert (asked["temperature"], asked["top_k"], asked["top_p"], asked["repetition_penalty"]) == (1.0, 0, 1.0, 1.0)
