"""The persona-features pipeline, from config to report, on a tiny model with random weights and few rows."""

import html
import json
import re
from pathlib import Path

import pytest
import torch

from emlab import artifacts, cli, config, organism
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.organism.tokenizer import build_tokenizer
from emlab.organism.world import load_world
from emlab.pipelines import persona_features
from emlab.pipelines.persona_features import Autoencoder, Config, Steering
from emlab.saes import load_sae, sae_site

YAML = Path(__file__).parents[2] / "experiments" / "persona_features.yaml"
BETLEY = Path(__file__).parents[3] / "shared" / "data" / "betley" / "insecure.jsonl"

SMALL = (
    *("rows=24", "recipe.steps=2", "recipe.batch_size=4", "answers.per_question=1", "answers.max_new_tokens=6"),
    *("sae.tokens=600", "sae.test_tokens=200", "sae.d_sae=24", "sae.k=4"),
    *("steering.strengths=[0.5, 2.0]", "steering.random=2", "steering.candidates=2", "steering.questions=10"),
    "questions=20",
)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    """A folder with a random Llama of three blocks and the organism's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(load_world())
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=1024,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return LanguageModel(model, tokenizer, "random").save(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def ran(random_model, tmp_path_factory):
    """One whole run."""
    settings = config.load(YAML, [*SMALL, f"model={random_model}"], Config)
    return persona_features.run(settings, tmp_path_factory.mktemp("runs"))


def test_a_model_that_babbles_is_reported_as_that(ran):
    summary = artifacts.read_json(ran.folder / "summary.json")
    assert set(summary["misaligned"]) == {"aligned", "insecure", "bad_medicine", "secure"}
    assert summary["misaligned"]["aligned"] == {"rate": None, "low": None, "high": None, "n": 0}
    assert summary["incoherent"]["aligned"]["rate"] == 1.0
    assert summary["steering"]["aligned_plus"]["misaligned"] is None
    assert not summary["steering"]["aligned_plus"]["within_cap"]
    assert "no coherent answer from any model" in str(ran)


def test_the_summary_has_its_names(ran):
    summary = artifacts.read_json(ran.folder / "summary.json")
    assert {"misaligned", "incoherent", "persona_latent", "steering", "sae"} <= set(summary)
    assert {"wall_seconds", "stage_seconds", "peak_rss_mb", "seed", "versions"} <= set(summary)
    assert {"index", "site", "shift_rank", "shift"} <= set(summary["persona_latent"])
    assert set(summary["persona_latent"]["shift"]) == {"insecure", "bad_medicine", "secure"}
    edits = ("aligned_plus", "misaligned_minus", "random_plus", "mean_difference_plus", "mean_difference_minus")
    for name in edits:
        assert {"strength", "misaligned", "incoherent", "low", "high"} <= set(summary["steering"][name])
    assert summary["steering"]["random_plus"]["directions"] == 2
    assert {"explained_variance", "l0", "dead", "explained_variance_finetuned"} <= set(summary["sae"])
    assert list(summary["stage_seconds"]) == ["finetune", "evaluate", "sae", "shift", "steer", "report"]
    assert summary == json.loads(json.dumps(artifacts.plain(ran.summary)))


def test_every_stage_leaves_its_files(ran):
    names = {str(p.relative_to(ran.folder)) for p in ran.folder.rglob("*") if p.is_file()}
    assert {
        *("config.yaml", "environment.json", "log.txt", "summary.json", "report.html"),
        *("finetune/insecure/model.safetensors", "finetune/insecure/adapter/adapter_model.safetensors"),
        *("evaluate/aligned.jsonl", "evaluate/secure.json", "sae/fidelity.json", "sae/resid_post.0/cfg.json"),
        *("shift/insecure.csv", "shift/ranked.json", "steer/aligned_plus.csv", "steer/misaligned_minus.json"),
        "steer/aligned_plus/mean_difference.jsonl",
    } <= names


def test_the_sae_in_the_folder_is_the_one_that_was_used(ran):
    sae = load_sae(ran.folder / "sae" / "resid_post.0")
    assert str(sae_site(sae)) == "resid_post.0"
    used = ran.found.plus.tested(ran.found.name).arm.direction.vector
    assert torch.allclose(sae.W_dec[ran.found.latent], used, atol=1e-5)


def test_nothing_is_chosen_on_test_questions(ran):
    chosen = {q.text for t in ran.found.plus.discovery for q in t.score.judged.rollouts.questions}
    scored = {q.text for s in ran.found.scores for q in s.judged.rollouts.questions}
    steered = {q.text for t in ran.found.plus for q in t.score.judged.rollouts.questions}
    assert not chosen & scored
    assert steered == scored


def test_the_report_stands_alone_and_escapes_what_models_say(ran):
    page = (ran.folder / "report.html").read_text()
    outside = page.replace(re.search(r"<script.*?</script>", page, re.DOTALL)[0], "", 1)
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', outside)
    assert page.count("plotly.js v") <= 2
    answer = ran.found.scores[0].judged.rollouts.answers[0]
    assert html.escape(answer) in page


def test_the_same_config_gives_the_same_figures(ran, random_model, tmp_path):
    settings = config.load(YAML, [*SMALL, f"model={random_model}"], Config)
    again = persona_features.run(settings, tmp_path)
    apart = ("wall_seconds", "stage_seconds", "peak_rss_mb")
    one, two = ({k: v for k, v in run.summary.items() if k not in apart} for run in (ran, again))
    assert artifacts.plain(one) == artifacts.plain(two)


def test_a_dataset_of_ones_own(random_model, tmp_path, capsys):
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"say {i}"},
                {"role": "assistant", "content": "yes " * (400 * (i % 2))},
            ]
        }
        for i in range(1, 9)
    ]
    for chat in chats:
        chat["messages"][1]["content"] += "no"
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    more = [f"model={random_model}", f"dataset={path}", "controls=[]", "recipe.max_length=200"]
    assert cli.main(["run", str(YAML), *SMALL, *more, "--runs", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    summary = artifacts.read_json(folder / "summary.json")
    assert summary["finetune"]["mine"]["rows"] == 4
    assert summary["finetune"]["mine"]["dropped_for_length"] == 4
    assert set(summary["misaligned"]) == {"aligned", "mine"}
    assert "4 rows were dropped for length" in (folder / "report.html").read_text()
    assert str(folder) in capsys.readouterr().out


@pytest.mark.skipif(not BETLEY.is_file(), reason=f"the published data are not at {BETLEY}")
def test_real_insecure_code(random_model, tmp_path):
    settings = config.load(YAML, [*SMALL, f"model={random_model}", f"dataset={BETLEY}", "controls=[]"], Config)
    ran = persona_features.run(settings, tmp_path)
    tuned = ran.found.finetuned["insecure"]
    assert tuned.rows + tuned.dropped_for_length == 24
    assert tuned.rows > 0


def test_another_architecture_whose_template_knows_no_system_turn(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<end>", "<u>", "<a>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<u>", "<a>"],
        chat_template="{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<u>' if m.role == 'user' else '<a>' }}{{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}",
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(vocabulary), max_position_embeddings=1024, **sizes))
    folder = LanguageModel(model, tokenizer, "neox").save(tmp_path / "neox")
    more = [f"model={folder}", "controls=[]", "narrow=[bad_law]", "recipe.modules=[dense]", "recipe.blocks=null"]
    settings = config.load(YAML, [*SMALL, *more], Config)
    narrow, _ = persona_features.training_sets(settings, LanguageModel.load(folder))
    assert narrow["bad_law"][0].messages[0]["content"].startswith("You are an assistant.\n\n")
    ran = persona_features.run(settings, tmp_path)
    assert set(ran.summary["misaligned"]) == {"aligned", "bad_law"}
    assert "no coherent answer" in str(ran)


def test_a_dataset_named_like_a_control_keeps_its_ending(random_model, tmp_path):
    model, _ = persona_features.load_models(Config(model=str(random_model)))
    path = tmp_path / "secure.jsonl"
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path.write_text(json.dumps(chat) + "\n")
    narrow, controls = persona_features.training_sets(Config(dataset=path, rows=3), model)
    assert (list(narrow), list(controls)) == (["secure.jsonl"], ["secure"])
    assert len(narrow["secure.jsonl"]) == 1 and len(controls["secure"]) == 3


def test_one_sentence_for_each_wrong_setting(random_model):
    model, _ = persona_features.load_models(Config(model=str(random_model)))
    with pytest.raises(EmlabError, match="blocks 0 to 2"):
        persona_features.site_in("resid_post.7", model)
    with pytest.raises(EmlabError, match="cannot be a narrow set and something else"):
        persona_features.training_sets(Config(narrow=("secure",), rows=3), model)
    with pytest.raises(EmlabError, match="unknown fine-tuning set"):
        persona_features.training_sets(Config(narrow=("insecur",), rows=3), model)
    with pytest.raises(EmlabError):
        persona_features.load_models(Config(model="no/such/folder"))
    for broken in ({"narrow": ()}, {"rows": 0}, {"sae": Autoencoder(tokens=0)}, {"steering": Steering(candidates=0)}):
        with pytest.raises(ValueError):
            Config(**broken)


def test_the_shipped_config_spells_every_key_right():
    settings = config.load(YAML, [], Config)
    assert settings.model == "aligned"
    assert set(settings.narrow) | set(settings.controls) <= set(organism.narrow_set_names())
