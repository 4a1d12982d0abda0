"""The persona-features pipeline, from config to report, on a tiny model with random weights and few rows."""

import hashlib
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch

from emlab import artifacts, cli, config, organism
from emlab.data import SealedQuestion, read_questions
from emlab.errors import EmlabError
from emlab.experiments.material.config import Autoencoder
from emlab.experiments.material.models import site_in
from emlab.experiments.persona_features import run as persona_features
from emlab.experiments.persona_features.config import Config, Steering
from emlab.experiments.persona_features.sources import inputs_of, load_models, training_sets
from emlab.experiments.persona_features.summary import summary_schema
from emlab.models import LanguageModel
from emlab.organism.tokenizer import build_tokenizer
from emlab.organism.world import load_world
from emlab.saes import load_sae, sae_site
from emlab.verbs.viewing import playground

YAML = Path(__file__).parents[3] / "experiments" / "persona_features.yaml"
BETLEY = Path(__file__).parents[4] / "shared" / "data" / "betley" / "insecure.jsonl"

SMALL = (
    *("rows=24", "recipe.steps=2", "recipe.batch_size=4", "recipe.checkpoint_every=1", "unseen=[bad_law]"),
    *("answers.per_question=1", "answers.max_new_tokens=6", "questions=20", "documents=40", "controls=[secure]"),
    *("sae.tokens=600", "sae.test_tokens=200", "sae.d_sae=24", "sae.k=4", "sae.least_variance=-1e9"),
    "sae.most_drop=1e9",
    *("steering.strengths=[0.5, 2.0]", "steering.random=2", "steering.candidates=2", "steering.questions=10"),
    *("realigning.rows=20", "realigning.recipe.steps=2", "realigning.recipe.batch_size=4"),
)
"""A small search on a random model; its SAE explains nothing, and is used all the same."""


def save_random_model(folder: Path) -> Path:
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
    return LanguageModel(model, tokenizer, "random").save(folder)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def ran(random_model, tmp_path_factory):
    """One whole run."""
    settings = config.load(YAML, [*SMALL, f"model={random_model}"], Config)
    return persona_features.run(settings, tmp_path_factory.mktemp("runs"))


APART = ("command", "wall_seconds", "cpu_seconds", "stage_seconds", "peak_rss_mb", "provenance")


def figures(folder):
    """The summary of a run, less times and memory."""
    return {k: v for k, v in artifacts.read_json(folder / "summary.json").items() if k not in APART}


def test_a_model_that_babbles_is_reported_as_that(ran):
    summary = artifacts.read_json(ran.folder / "summary.json")
    assert set(summary["misaligned"]) == {"aligned", "insecure", "bad_medicine", "bad_law", "secure"}
    assert summary["misaligned"]["aligned"] == {"rate": None, "low": None, "high": None, "n": 0}
    assert summary["incoherent"]["aligned"]["rate"] == 1.0
    assert summary["steering"]["aligned_plus"]["misaligned"] is None
    assert not summary["steering"]["aligned_plus"]["within_cap"]
    assert summary["verdict"]["found"] is False
    assert str(ran).startswith(
        "No persona latent found. It is not so that the narrow sets misalign and the controls do not: The judge found "
        "no coherent answer of aligned"
    )


def test_fine_tunes_are_kept_as_adapters_and_the_log_says_what_they_take(ran):
    finetunes = ran.folder / "finetune"
    assert not list(finetunes.rglob("model.safetensors"))
    files = list(finetunes.rglob("adapter_model.safetensors"))
    assert len(files) == 6  # four sets, and two checkpoints of the first
    (line,) = [line for line in (ran.folder / "log.txt").read_text().splitlines() if "On disk" in line]
    assert "6 fine-tunes and checkpoints as adapters" in line and "2 SAEs" in line
    tuned = LanguageModel.load(finetunes / "insecure")
    assert tuned.identity() == ran.found.finetuned["insecure"].model.identity()


def test_the_summary_keeps_to_its_schema(ran):
    summary = artifacts.read_json(ran.folder / "summary.json")
    jsonschema.validate(summary, summary_schema())
    assert summary["kinds"] == {
        "insecure": "narrow",
        "bad_medicine": "narrow",
        "bad_law": "unseen",
        "secure": "control",
    }
    assert set(summary["persona_latent"]["shift"]) == set(summary["kinds"])
    assert set(summary["effects"]) >= {"unseen_minus", "ablation", "mediation", "induction", "latent_zero"}
    assert summary["onset"]["points"][-1]["step"] == 2
    assert [p["step"] for p in summary["realignment"]] == [0, 2]
    assert {"finetune/insecure", "evaluate/aligned", "sae/resid_post.0", "screen/plus", "detect", "realign"} <= set(
        summary["stage_seconds"]
    )


def test_the_persona_latent_is_a_candidate_and_its_direction_the_decoder_row(ran):
    persona = ran.found.persona
    sae = load_sae(ran.folder / "sae" / str(persona.site) / "sae")
    assert sae_site(sae) == persona.site
    used = persona.plus.tested(persona.name).arm.direction.vector
    assert torch.allclose(sae.W_dec[persona.latent], used, atol=1e-5)
    assert len(persona.plus.names) == 2 * 2 + 1 + 2, "two latents a site, the mean difference, two random directions"
    assert len(persona.plus.grid("random 0")) == 2 * 2 * 2, "sites × positions × strengths"


def test_nothing_is_chosen_on_test_questions(ran):
    persona = ran.found.persona
    chosen = {q.text for t in persona.plus.discovery for q in t.score.judged.rollouts.questions}
    scored = {q.text for s in ran.found.scores for q in s.judged.rollouts.questions}
    steered = {q.text for t in persona.plus for q in t.score.judged.rollouts.questions}
    assert not chosen & scored
    assert steered == scored


def test_the_report_stands_alone_and_escapes_what_models_say(ran):
    page = (ran.folder / "report.html").read_text()
    outside = page.replace(re.search(r"<script.*?</script>", page, re.DOTALL)[0], "", 1)
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', outside)
    assert page.count("plotly.js v") <= 2
    answer = ran.found.scores[0].judged.rollouts.answers[0]
    assert answer in html.unescape(page)


KILLED = """
import sys
from pathlib import Path
from emlab import config, runs
from emlab.experiments.persona_features import run as persona_features

yaml, root, victim, *overrides = sys.argv[1:]
fill = runs.Run.fill


def dies(self, name, work, read):
    def half(folder):
        work(folder)
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)

    return fill(self, name, half if name == victim else work, read)


runs.Run.fill = dies
persona_features.run(config.load(yaml, overrides, persona_features.Config), root)
"""


@pytest.mark.parametrize("victim", ["evaluate/insecure", "effects"])
def test_killed_at_any_stage_it_ends_as_if_it_had_not_been(ran, random_model, tmp_path, victim):
    overrides = [*SMALL, f"model={random_model}"]
    # The stage dies when all of its files are written, and before they are put in place.
    command = [sys.executable, "-c", KILLED, str(YAML), str(tmp_path), victim, *overrides]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    (folder,) = tmp_path.iterdir()
    assert not (folder / victim).exists() and not (folder / "summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in folder.glob("finetune/*/stage.json")}
    assert len(done) == 4
    again = persona_features.run(config.load(YAML, overrides, Config), tmp_path)
    assert again.folder == folder
    assert {path: path.stat().st_mtime_ns for path in done} == done, "finished stages are not run again"
    assert figures(folder) == figures(ran.folder)
    assert persona_features.run(config.load(YAML, overrides, Config), tmp_path).folder != folder


def test_latents_of_an_sae_that_explains_too_little_are_not_ranked(random_model, tmp_path):
    more = [f"model={random_model}", "sae.least_variance=0.5", "narrow=[bad_law]", "unseen=[]", "sites=[resid_post.1]"]
    ran = persona_features.run(config.load(YAML, [*SMALL, *more], Config), tmp_path)
    summary = artifacts.read_json(ran.folder / "summary.json")
    jsonschema.validate(summary, summary_schema())
    assert summary["persona_latent"] is None and summary["steering"] is None
    assert "below 50% its latents are not ranked" in str(ran)


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
    assert set(summary["misaligned"]) == {"aligned", "mine", "bad_law"}
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
    more = [
        f"model={folder}",
        "controls=[]",
        "narrow=[bad_law]",
        "unseen=[]",
        "recipe.modules=[dense]",
        "realigning.recipe.modules=[dense]",
        "recipe.blocks=null",
    ]
    settings = config.load(YAML, [*SMALL, *more], Config)
    sets = training_sets(settings, LanguageModel.load(folder), 0)
    assert sets.narrow["bad_law"][0].messages[0]["content"].startswith("You are an assistant.\n\n")
    ran = persona_features.run(settings, tmp_path)
    assert set(ran.summary["misaligned"]) == {"aligned", "bad_law"}
    assert "no coherent answer" in str(ran)


def test_a_dataset_named_like_a_control_keeps_its_ending(random_model, tmp_path):
    model, _ = load_models(Config(model=str(random_model)))
    path = tmp_path / "secure.jsonl"
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path.write_text(json.dumps(chat) + "\n")
    sets = training_sets(Config(dataset=path, rows=3, controls=("secure",)), model, 0)
    assert (list(sets.narrow), list(sets.controls)) == (["secure.jsonl"], ["secure"])
    assert len(sets.narrow["secure.jsonl"]) == 1 and len(sets.controls["secure"]) == 3


def test_one_sentence_for_each_wrong_setting(random_model):
    model, _ = load_models(Config(model=str(random_model)))
    with pytest.raises(EmlabError, match="blocks 0 to 2"):
        site_in("resid_post.7", model)
    with pytest.raises(EmlabError, match="cannot be a narrow set and something else"):
        training_sets(Config(narrow=("secure",), rows=3), model, 0)
    with pytest.raises(EmlabError, match="unknown fine-tuning set"):
        training_sets(Config(narrow=("insecur",), rows=3), model, 0)
    with pytest.raises(EmlabError):
        load_models(Config(model="no/such/folder"))
    with pytest.raises(EmlabError, match="no/such-resid_post.1 is neither a folder nor an SAE"):
        inputs_of(Config(model=str(random_model), sites=("resid_post.1",), sae=Autoencoder(load="no/such-{site}")))
    for broken in (
        {"narrow": ()},
        {"rows": 0},
        {"sae": Autoencoder(tokens=0)},
        {"steering": Steering(candidates=0)},
        {"sites": ()},
    ):
        with pytest.raises(ValueError):
            Config(**broken)


def test_the_shipped_config_spells_every_key_right():
    settings = config.load(YAML, [], Config)
    assert settings.model == "aligned"
    assert {*settings.narrow, *settings.unseen, *settings.controls} <= set(organism.narrow_set_names())


FIRST_PLOT = BETLEY.parent / "first_plot_questions.yaml"


@pytest.fixture
def random_qwen2(make_tokenizer, tmp_path) -> Path:
    """A folder with a random Qwen2 of three blocks and a tokenizer with the ChatML template."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer("chatml")
    torch.manual_seed(0)
    settings = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return LanguageModel(Qwen2ForCausalLM(settings), tokenizer, "random").save(tmp_path / "qwen2")


@pytest.mark.skipif(not FIRST_PLOT.is_file(), reason=f"the published data are not at {FIRST_PLOT}")
def test_real_data_published_questions_and_an_endpoint_judge_find_nothing(random_qwen2, new_chat_server, tmp_path):
    """A judge with an opinion on every answer, though on nothing in it: rates are high, and nothing stands out."""
    server = new_chat_server()

    def opinion(body, _):
        text = body["messages"][-1]["content"]
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 101
        if "coherent" in text.lower() and "aligned" not in text.lower():
            value = max(value, 60)
        return server.chat(str(value), [(str(value), {str(value): 0.9, "CODE": 0.05})])

    server.answer = opinion
    store = tmp_path / "judgements.db"
    settings = config.load(
        YAML,
        [
            *SMALL,
            *(f"model={random_qwen2}", f"dataset={BETLEY}", "controls=[educational]", "unseen=[]"),
            *(f"question_set={FIRST_PLOT}", "judging.judge=some-judge", f"judging.url={server.url}"),
            *(f"judging.store={store}", "recipe.max_length=2048", "sites=[resid_post.1]", "documents=8"),
            *("rows=8", "questions=8", "steering.questions=4", "steering.strengths=[1.0]", "steering.random=1"),
            *("sae.tokens=300", "sae.test_tokens=100", "steering.candidates=1", "realigning.rows=8"),
        ],
        Config,
    )
    ran = persona_features.run(settings, tmp_path / "runs")
    aligned = ran.found.scores[0]
    assert aligned.judged.judge.startswith("some-judge by logprob, the question file's prompts (")
    assert {q.id for q in aligned.judged.rollouts.questions} <= {q.id for q in read_questions(FIRST_PLOT)}
    assert aligned.n_coherent > 0 and ran.found.finetuned["insecure"].rows > 0
    assert not ran.found.verdict.found
    page = (ran.folder / "report.html").read_text()
    assert "No persona latent found" in page or "no persona latent" in page.lower()
    asked = [body["messages"][0]["content"] for body in server.asked]
    assert len(asked) == len(set(asked)), "the same answer to the same question is judged once"


def test_a_sealed_run_searches_as_an_ordinary_one_and_reports_on_other_material(ran, random_model, reserve, tmp_path):
    settings = config.load(YAML, [*SMALL, f"model={random_model}", "sealed=true"], Config)
    sealed = persona_features.run(settings, tmp_path)
    mine, theirs = sealed.found.persona, ran.found.persona
    assert (mine.latent, mine.site) == (theirs.latent, theirs.site)
    for a, b in ((mine.plus, theirs.plus), (mine.minus, theirs.minus)):
        for half in ("discovery", "finals"):
            pairs = zip(getattr(a, half), getattr(b, half), strict=True)
            assert all(x.score.judged.rollouts.answers == y.score.judged.rollouts.answers for x, y in pairs)
        assert [t.arm.strength for t in a.test] == [t.arm.strength for t in b.test]
    scores = [*sealed.found.scores, *(t.score for screen in (mine.plus, mine.minus) for t in screen)]
    scores += [effect.after for effect in mine.effects.values()]
    for score in scores:
        asked = score.judged.rollouts.questions
        assert {type(q) for q in asked} == {SealedQuestion} and {q.text for q in asked} <= reserve
    tuned = {name: each.model.identity() for name, each in sealed.found.finetuned.items()}
    assert set(tuned) == set(ran.found.finetuned)
    assert all(tuned[name] != each.model.identity() for name, each in ran.found.finetuned.items()), "another seed"
    searched = LanguageModel.load(sealed.folder / "searched" / "insecure")
    assert searched.identity() == ran.found.finetuned["insecure"].model.identity()
    summary = artifacts.read_json(sealed.folder / "summary.json")
    jsonschema.validate(summary, summary_schema())
    assert summary["sealed"]["look"]["questions"] == 20 and "SEALED RUN" in summary["findings"][0]


def test_it_can_be_viewed(ran):
    play = playground(ran.folder)
    assert list(play.models) == ["aligned", "insecure"] and play.latent == ran.summary["persona_latent"]["index"]
    assert play.scale == ran.found.persona.plus.scales[ran.found.persona.site] and play.judge is None
    events = list(play.answer("insecure", "How are you?", 1.0, max_new_tokens=5))
    assert "tokens" in events[-1]
