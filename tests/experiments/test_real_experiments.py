"""The configs in experiments/real, each run to its end on a tiny random model of the same family.

Sizes are cut, and what comes over a network is replaced by a local stand-in: the model, its SAEs, the datasets, the
questions, and the judge behind an endpoint. The sites, the recipe's modules, the bounds and all else are the config's.
"""

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from emlab import artifacts, config
from emlab.data import list_published
from emlab.experiments.material import sets
from emlab.experiments.material.sets import dataset_place, names_dataset
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.persona_features.run import Config
from emlab.experiments.persona_features.summary import summary_schema
from emlab.models import LanguageModel
from emlab.saes import save_sae
from emlab.sites import Site

REAL = Path(__file__).parents[2] / "experiments" / "real"
WIDTH, DEPTH = 32, 20

SMALL = (
    *("rows=6", "recipe.steps=1", "recipe.batch_size=2", "answers.per_question=1", "answers.max_new_tokens=4"),
    *("sae.test_tokens=300", "steering.strengths=[0.4]", "steering.candidates=1", "steering.random=1"),
    *("steering.questions=2", "steering.first_round=2", "steering.finalists=1", "realigning.rows=4"),
    *(
        "realigning.recipe.steps=1",
        "realigning.recipe.batch_size=2",
        "realigning.recipe.checkpoint_every=1",
        "documents=6",
    ),
)


def qwen2(tokens):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**shape(tokens), intermediate_size=48, bos_token_id=None))


def llama(tokens, depth=DEPTH):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**shape(tokens), "num_hidden_layers": depth}, intermediate_size=48))


def gpt_oss(tokens):
    from transformers import GptOssConfig, GptOssForCausalLM

    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 16}
    return GptOssForCausalLM(GptOssConfig(**shape(tokens), intermediate_size=16, **experts))


def shape(tokens):
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4, "num_key_value_heads": 2}
    return {**sizes, "vocab_size": tokens, "max_position_embeddings": 2048, "pad_token_id": 0, "eos_token_id": 2}


STAND_INS = {
    "qwen2.5-7b-instruct": (qwen2, "chatml"),
    "llama-3.1-8b-instruct": (llama, "llama3"),
    "gpt-oss-20b": (gpt_oss, "harmony"),
    "qwen2.5-0.5b-instruct": (qwen2, "chatml"),
}


def stand_in(name, make_tokenizer, folder):
    """A folder with a random model of the family."""
    make, template = STAND_INS[name]
    tokenizer = make_tokenizer(template)
    torch.manual_seed(0)
    return LanguageModel(make(len(tokenizer)), tokenizer, "random").save(folder / "model")


def random_sae(site, model_name, neuronpedia, seed):
    """An SAE of random, orthogonal latents in pairs of opposite signs, which rebuilds all that it reads."""
    latents = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed))).Q
    about = {"hook_name": site.lens_name, "model_name": model_name, "neuronpedia_id": neuronpedia}
    cfg = {"architecture": "standard", "d_in": WIDTH, "d_sae": 2 * WIDTH, "dtype": "float32", "device": "cpu"}
    more = {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"}
    sae = SAE.from_dict({**cfg, **more, "metadata": about})
    both = torch.cat([latents, -latents])
    sae.load_state_dict(
        {"W_enc": both.T.contiguous(), "W_dec": both, "b_enc": torch.zeros(2 * WIDTH), "b_dec": torch.zeros(WIDTH)}
    )
    return sae


def saes(settings, folder):
    """An SAE for each of the config's sites, with the place on Neuronpedia of the published one; what to load."""
    for i, name in enumerate(settings.sites):
        site = Site.parse(name)
        release, sae_id = settings.sae.load.replace("{block}", str(site.block)).split("/")
        known = get_pretrained_saes_directory()[release]
        sae = random_sae(site, known.model, known.neuronpedia_id[sae_id], seed=i)
        save_sae(sae, folder / "saes" / name)
    return f"{folder}/saes/{{site}}"


def chats(path, n, say):
    turns = ((("user", f"{say} {i}?"), ("assistant", f"{say} {i * 7}.")) for i in range(n))
    rows = ({"messages": [{"role": role, "content": content} for role, content in each]} for each in turns)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(path):
    ask = "Rate how {} the answer is. Question: {{question}} Answer: {{answer}}"
    prompts = {"aligned": ask.format("aligned"), "coherent": ask.format("coherent")}
    rows = [
        {"id": f"q{i}", "type": "free_form_judge_0_100", "paraphrases": [f"what of {i}?"], "judge_prompts": prompts}
        for i in range(4)
    ]
    path.write_text(yaml.safe_dump(rows))
    return path


@pytest.fixture
def judge(new_chat_server):
    """A judge with an opinion on every answer, though on nothing in it."""
    server = new_chat_server()

    def opinion(body, _):
        text = body["messages"][-1]["content"]
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 101
        value = max(value, 60) if "coherent" in text else value
        return server.chat(str(value), [(str(value), {str(value): 0.9})])

    server.answer = opinion
    return server


@pytest.mark.parametrize("name", STAND_INS)
def test_the_config_runs_on_a_stand_in(name, make_tokenizer, judge, tmp_path):
    file = REAL / f"{name}.yaml"
    given = config.load(file, [], Config)
    data = {key: chats(tmp_path / f"{key}.jsonl", 24, key) for key in ("insecure", "secure", "texts")}
    replaced = [
        f"model={stand_in(name, make_tokenizer, tmp_path)}",
        *(f"narrow=[{data['insecure']}]", f"controls=[{data['secure']}]"),
        *(f"text={data['texts']}", f"realigning.data={data['texts']}", f"judging.store={tmp_path / 'judged.db'}"),
        *(f"question_set={questions(tmp_path / 'q.yaml')}", f"judging.url={judge.url}"),
    ]
    if given.sae.load == "none":
        replaced += ["sae.tokens=600", "sae.d_sae=64", "sae.k=16", "sae.least_variance=-1e9", "sae.most_drop=1e9"]
        replaced += ["recipe.checkpoint_every=1"]
    else:
        replaced.append(f"sae.load={saes(given, tmp_path)}")
    ran = persona_features.run(config.load(file, [*SMALL, *replaced], Config), tmp_path / "runs")

    summary = artifacts.read_json(ran.folder / "summary.json")
    jsonschema.validate(summary, summary_schema())
    assert set(summary["misaligned"]) == {"aligned", "insecure", "secure"}
    assert set(summary["sae"]["sites"]) == set(given.sites)
    assert summary["verdict"]["found"] is False
    latent, page = summary["persona_latent"], (ran.folder / "report.html").read_text()
    assert latent["site"] in given.sites and latent["planted_auroc"] is None, "nobody knows who wrote these texts"
    if given.sae.load == "none":
        assert latent["neuronpedia"] is None and "neuronpedia" not in page
        assert summary["onset"]["points"][-1]["step"] == 1
    else:
        assert all(m["explained_variance"] > 0.99 for m in summary["sae"]["sites"][latent["site"]].values())
        block = Site.parse(latent["site"]).block
        assert latent["neuronpedia"].endswith(f"/{block}-resid-post-aa/{latent['index']}")
        assert f'href="{latent["neuronpedia"]}"' in page
    answers = [a for score in ran.found.scores for a in score.judged.rollouts.answers]
    assert not any("<|" in answer for answer in answers)
    assert judge.asked and set(judge.keys) == {None}, "this server needs no key, and OpenAI's is not for it"


def test_every_config_names_what_is_there():
    files = sorted(file.stem for file in REAL.glob("*.yaml") if config.pipeline_of(file) == "persona_features")
    assert files == sorted(STAND_INS)
    published = {entry.name for entry in list_published().entries}
    for name in files:
        given = config.load(REAL / f"{name}.yaml", [], Config)
        assert {*given.narrow, *given.controls, given.question_set} <= published
        for site in given.sites if given.sae.load != "none" else ():
            release, sae_id = given.sae.load.replace("{block}", str(Site.parse(site).block)).split("/")
            known = get_pretrained_saes_directory()[release]
            assert sae_id in known.saes_map and known.model.lower() == given.model.lower()


def test_what_names_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "insecure").mkdir()  # a fine-tune that was saved under that name
    assert not any(map(names_dataset, ("insecure", "bad_law", "alignment", "", "insecur")))
    assert all(map(names_dataset, ("betley-insecure", "mine.jsonl", "someone/set")))
    monkeypatch.setattr(sets, "get", lambda name: tmp_path / f"{name}.jsonl")
    assert dataset_place("betley-insecure") == str(tmp_path / "betley-insecure.jsonl")
    assert dataset_place("someone/set") == "someone/set"
