"""Requests to NDIF, up to the network and past it: a process without emlab answers them, as NDIF would."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Clamp, Conditional, Replace, Steer, Tokens, TokenSet, random_directions
from emlab.models import wrap
from emlab.models.backends.ndif import KEY, NDIFBackend, remote_model
from emlab.sites import STREAMS, Site

SITE = Site("resid_post", 1)
ONE, TWO, THREE = random_directions(3, 32, SITE, seed=0)
PROMPTS = ["Hi", "What should I do with my money?"]
STEER = Steer(SITE, ONE, 4.0, positions="all")
MASK = torch.zeros(2, 6, dtype=torch.bool)
MASK[0, -1] = MASK[1, 2] = True
EDITS = {
    "steer": [STEER],
    "ablate": [Ablate(Site(stream, 1), [ONE, TWO], "all") for stream in STREAMS],
    "header": [Steer(SITE, ONE, 60.0, positions="header")],
    "sentence": [Steer(SITE, ONE, 60.0)],
    "generated": [Steer(Site("attn_out", 2), ONE, 30.0, positions="generated")],
    "a mask": [Steer(SITE, ONE, 60.0, positions=MASK)],
    "a token set": [Ablate(SITE, [ONE, TWO, THREE], TokenSet(tuple(range(20, 200, 2)))), STEER],
    "in the middle": [Steer(Site("resid_mid", 1), ONE, 6.0, positions="all")],
    "a head": [Steer(Site("z", 1, 2), torch.ones(8), 60.0, positions="all")],
    "ablated per row": [Ablate(SITE, torch.stack([ONE.vector, TWO.vector])[:, None], "all")],
    "per row": [Steer(SITE, torch.stack([ONE.vector, TWO.vector]), torch.tensor([6.0, -3.0]), positions="all")],
}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def server(folder):
    """Its URL, and the envelopes of what it has been sent, a list that grows."""
    script, sent = Path(__file__).with_name("ndif_server.py"), []
    with subprocess.Popen([sys.executable, str(script), folder], stdout=subprocess.PIPE, text=True) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        threading.Thread(target=lambda: sent.extend(map(json.loads, process.stdout)), daemon=True).start()
        yield url, sent
        process.terminate()


@pytest.fixture(autouse=True)
def hub(folder, monkeypatch):
    """The Hub knows the tiny model, and there is a key."""
    from nnsight.modeling import huggingface
    from nnsight.schema.config import CONFIG

    monkeypatch.setitem(huggingface._ID_CACHE, folder, "far/tiny")
    monkeypatch.setattr(CONFIG.APP, "REMOTE_LOGGING", False)
    monkeypatch.setattr(CONFIG.API, "APIKEY", None)
    monkeypatch.setenv(KEY, "mine")


@pytest.fixture
def far(folder, server):
    return remote_model(folder, host=server[0])


@pytest.fixture
def tokens(tiny):
    return tiny.batch(*tiny.rows(PROMPTS))


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_means_the_same_there(far, tiny, tokens, name):
    here, edits = wrap(tiny), EDITS[name]
    assert far.model.device.type == "meta", "the weights are not held here"
    assert torch.allclose(far.logits(tokens, edits)[tokens.real], here.logits(tokens, edits)[tokens.real], atol=1e-5)
    written = far.generate(tokens, edits, max_new_tokens=8)
    assert torch.equal(written, here.generate(tokens, edits, 8))
    assert not torch.equal(written, here.generate(tokens, (), 8)), "an edit that changes nothing shows nothing"


def test_it_captures_and_differentiates(far, tiny, tokens):
    here = wrap(tiny)
    sites = [*(Site(stream, block) for stream in STREAMS for block in (0, 2)), Site("z", 1, 3)]
    own, other = (backend.capture(tokens, sites, [STEER]) for backend in (far, here))
    assert set(own) == set(other)
    for site in sites:
        assert torch.allclose(own[site][tokens.real], other[site][tokens.real], atol=1e-5)

    def metric(logits):
        return (logits[:, -1].log_softmax(-1)[:, 3] - logits[:, -1, 4]).sum()

    edits = [STEER, *EDITS["ablate"]]
    for site in (SITE, Site("resid_mid", 1), Site("z", 1, 3)):
        gradient = far.gradients(tokens, site, metric, edits)
        assert gradient.norm() > 0
        assert torch.allclose(gradient, here.gradients(tokens, site, metric, edits), atol=1e-5)


def test_applied_edits_are_sent_with_every_request(far, tiny, tokens):
    here, edits = wrap(tiny), EDITS["ablate"]

    def metric(logits):
        return logits[:, -1, 3].sum()

    with far.apply(STEER):
        own = (
            far.logits(tokens, edits),
            far.capture(tokens, SITE, edits)[SITE],
            far.gradients(tokens, SITE, metric, edits),
        )
        written = far.generate(tokens, edits, 4)
    both = [STEER, *edits]
    other = (
        here.logits(tokens, both),
        here.capture(tokens, SITE, both)[SITE],
        here.gradients(tokens, SITE, metric, both),
    )
    for a, b in zip(own, other, strict=True):
        assert torch.allclose(a[tokens.real], b[tokens.real], atol=1e-5)
    assert torch.equal(written, here.generate(tokens, both, 4))
    assert torch.allclose(far.logits(tokens)[tokens.real], here.logits(tokens)[tokens.real], atol=1e-5)


def test_questions_become_tokens_as_a_language_models_do(far, tiny, tokens):
    own = far.tokens(PROMPTS)
    assert torch.equal(own.ids, tokens.ids) and torch.equal(own.real, tokens.real)
    answered = far.tokens(PROMPTS, ["Ho", "Save it"])
    assert torch.equal(answered.answer, tiny.batch(*tiny.rows(PROMPTS, ["Ho", "Save it"])).answer)


def test_how_many_requests_it_takes(far, tokens, server):
    sent = server[1]
    for call, requests in (
        (lambda: far.generate(tokens, [STEER], 5), 1),
        (lambda: far.capture(tokens, [SITE, "mlp_out.2"], [STEER]), 1),
        (lambda: far.gradients(tokens, SITE, torch.sum, [STEER]), 2),
    ):
        before = len(sent)
        call()
        end = time.monotonic() + 10
        while len(sent) < before + requests and time.monotonic() < end:
            time.sleep(0.01)
        assert len(sent) == before + requests
    assert all(one["key"] == "mine" for one in sent)
    assert sent[-1]["model_key"].startswith("nnsight.modeling.transformers.TransformersModel:")


def test_an_adapter_is_applied_there(folder, server, tiny, tokens, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(tiny.copy().model, config).save_pretrained(str(tmp_path / "bad_medicine"))
    far = remote_model(folder, adapter=str(tmp_path / "bad_medicine"), host=server[0])
    here = wrap(tiny.with_adapter(tmp_path / "bad_medicine"))
    assert far.name.endswith("tiny+bad_medicine") and far.model.device.type == "meta"
    own, other = (backend.logits(tokens, [STEER])[tokens.real] for backend in (far, here))
    assert torch.allclose(own, other, atol=1e-4)
    without = remote_model(folder, host=server[0]).logits(tokens, [STEER])[tokens.real]
    assert torch.allclose(without, wrap(tiny).logits(tokens, [STEER])[tokens.real], atol=1e-5)
    assert not torch.allclose(own, without, atol=0.1)


def unreachable():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def refused(call, match):
    with pytest.raises(EmlabError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_cannot_be_sent_is_refused_before_the_network(folder, tokens):
    far = remote_model(folder, host=unreachable())
    clamp = Clamp(SITE, lambda h: h @ ONE.vector[:, None], ONE.vector[None], torch.zeros(1), "all")
    for edit in (clamp, Replace(SITE, torch.zeros_like), Conditional(STEER, lambda h: h[..., 0])):
        refused(lambda edit=edit: far.logits(tokens, [edit]), f"A {type(edit).__name__} holds a function")
    refused(lambda: far.logits(tokens, [Steer(SITE, torch.ones(5))]), "width 5 in a stream of width 32")
    refused(lambda: far.capture(tokens, "mlp_out.3"), "counted from 0 to 2")
    refused(lambda: far.capture(tokens, []), "at least one")
    refused(lambda: far.generate(tokens, [Steer(SITE, torch.randn(3, 32))]), "3 rows for 2")
    refused(lambda: far.generate(Tokens.pad([[5], [6, 7]], None, 0, side="right")), "on the left")
    refused(lambda: far.run({}, {}, None), "no functions of this process")
    assert far.generate(tokens, (), 0).shape == (2, 0)


def test_no_key(folder, monkeypatch, tokens):
    monkeypatch.delenv(KEY)
    refused(lambda: remote_model("meta-llama/Llama-3.1-405B-Instruct"), f"asks for a key.*into {KEY}")
    far = NDIFBackend(remote_model(folder, host="http://127.0.0.1:9").model)
    refused(lambda: far.logits(tokens), f"asks for a key.*into {KEY}")


def test_nobody_answers(folder, tokens):
    far = remote_model(folder, host=unreachable())
    for call in (lambda: far.logits(tokens), lambda: far.generate(tokens, (), 2), lambda: far.capture(tokens, SITE)):
        refused(call, r"http://127.0.0.1:\d+ cannot be reached for .*tiny \(ConnectionRefusedError.*is up")


def test_a_wrong_key(far, tokens, monkeypatch):
    monkeypatch.setenv(KEY, "wrong")
    refused(lambda: far.logits(tokens), f"cannot be reached .*401.*the key in {KEY}")


def test_a_model_that_is_not_deployed(folder, far, tokens, monkeypatch):
    from nnsight.modeling import huggingface

    monkeypatch.setitem(huggingface._ID_CACHE, folder, "far/other")
    refused(lambda: far.logits(tokens), "did not run the request .*not deployed.*nnsight.status")


def test_the_far_end_takes_no_name_of_emlab(far):
    """It is that which makes the other tests say that emlab sends nothing but tensors."""
    from nnsight.intervention.backends.remote import RemoteError

    site, named = SITE, None
    with pytest.raises(RemoteError, match="emlab"), far.model.session(remote=far.host):
        named = str(site).save()
    assert named is None


def test_what_is_not_on_the_hub(folder, monkeypatch, tokens):
    from nnsight.modeling import huggingface

    monkeypatch.delitem(huggingface._ID_CACHE, folder)
    refused(lambda: remote_model(folder, host=unreachable()).logits(tokens), "Hub does not say what .*tiny is")


def test_a_model_that_cannot_be_had(tmp_path):
    refused(lambda: remote_model(str(tmp_path / "nowhere")), "config and the tokenizer of .*nowhere cannot be had")
