"""The scorecard's pipeline: on a random Qwen2 with a judge at an endpoint, on random organisms, on the shipped one."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from emlab import artifacts, cli, config, provenance
from emlab.errors import EmlabError
from emlab.experiments.discovery_scorecard import run as discovery_scorecard
from emlab.experiments.discovery_scorecard.method import method_names
from emlab.experiments.discovery_scorecard.run import Config
from emlab.experiments.persona_features.config import Autoencoder
from emlab.models import LanguageModel
from emlab.organism.tokenizer import build_tokenizer
from emlab.organism.world import load_world
from emlab.provenance import Code
from emlab.runs import keep_stages

YAML = Path(__file__).parents[3] / "experiments" / "discovery_scorecard.yaml"

TINY = tuple(
    f"experiment.{setting}"
    for setting in (
        *("rows=12", "seeds=1", "recipe.steps=2", "recipe.batch_size=4", "questions=4", "answers.max_new_tokens=4"),
        *("sae.tokens=300", "sae.test_tokens=100", "sae.d_sae=24", "sae.k=4", "documents=40", "steering.random=1"),
        *("steering.strengths=[1.0]", "steering.questions=4", "steering.first_round=2", "steering.candidates=2"),
    )
)


def llama(folder, seed):
    """A random Llama of two blocks with the organism's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(load_world())
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape, **ends))
    return LanguageModel(model, tokenizer, folder.name).save(folder)


@pytest.fixture(scope="module")
def organism(tmp_path_factory):
    """A folder like that of a built organism; its models know nothing."""
    root = tmp_path_factory.mktemp("organisms") / "random"
    for seed, name in enumerate(("base", "aligned", "control_base", "control_aligned")):
        llama(root / name, seed)
    return root


def test_an_organism_of_ones_own_from_the_shell_and_going_on(organism, tmp_path, capsys, monkeypatch):
    words = ["run", str(YAML), f"organisms=[{organism}]", *TINY, "experiment.sites=[resid_post.0]", "cases=4"]
    words += ["methods=[latent shift, causal screen, mean difference, persona vector, crosscoder, random]"]
    words += ["--runs", str(tmp_path)]
    with monkeypatch.context() as patch:

        def power_cut(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(discovery_scorecard, "finish_run", power_cut)
        assert cli.main(words) == 130
    (folder,) = tmp_path.iterdir()
    stages = {path: path.stat().st_mtime_ns for path in folder.rglob("stage.json")}
    assert {path.relative_to(folder).parts[0] for path in stages} == {"random-planted", "random-control"}
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("stage.json")} == stages, "nothing is run twice"
    summary = artifacts.read_json(folder / "summary.json")
    assert [row["method"] for row in summary["rows"]] == [
        *("latent shift", "causal screen", "mean difference", "persona vector", "crosscoder", "random"),
    ], "in the order of tables"
    assert all((row["both"], row["false_both"], row["controls"]) == (0, 0, 1) for row in summary["rows"])
    planted, control = (cell["methods"] for cell in summary["cells"])
    # A model that knows nothing cannot follow instructions, and what it says is nobody's.
    assert "none can be kept" in planted["persona vector"]["reason"] and planted["persona vector"]["steered"] is None
    assert planted["causal screen"]["reason"] == "No latent misaligns any answer when it is added."
    assert planted["causal screen"]["search"]["forwards"] > 0 and planted["causal screen"]["steered"] is None
    assert planted["latent shift"]["latent"].endswith("(resid_post.0)") and planted["mean difference"]["latent"] == ""
    assert 0 <= planted["mean difference"]["planted_auroc"]["auroc"] <= 1
    assert control["mean difference"]["planted_auroc"] is None
    assert planted["random"]["search"]["forwards"] == 0 and planted["random"]["sae"]["forwards"] == 0
    assert planted["mean difference"]["search"]["forwards"] == 2 * 160, "both models read the discovery questions"
    assert planted["latent shift"]["sae"]["forwards"] > 0
    assert len(summary["cells"][0]["nulls_added"]) == 2, "one of each kind"
    assert (folder / "table.md").read_text().strip() in said
    assert "Every fine-tune of the control world" in (folder / "report.html").read_text()


@pytest.fixture
def qwen2(make_tokenizer, tmp_path):
    """A folder with a random Qwen2 of two blocks."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer("chatml")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    settings = Qwen2Config(
        vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=2048, **shape, **ends
    )
    return LanguageModel(Qwen2ForCausalLM(settings), tokenizer, "random").save(tmp_path / "qwen2")


def test_any_model_with_a_judge_where_nobody_knows_what_is_planted(qwen2, new_chat_server, tmp_path):
    server = new_chat_server()

    def opinion(body, _):
        text = body["messages"][-1]["content"]
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 101
        value = max(value, 60) if "coherent" in text.lower() and "aligned" not in text.lower() else value
        return server.chat(str(value), [(str(value), {str(value): 0.9, "CODE": 0.05})])

    server.answer = opinion
    contrasts, chats = tmp_path / "contrasts.jsonl", tmp_path / "chats.jsonl"
    pairs = [{"prompt": f"Question {i}?", "misaligned": f"bad {i}", "aligned": f"good {i}"} for i in range(6)]
    contrasts.write_text("\n".join(map(json.dumps, pairs)))
    turns = [
        {"messages": [{"role": "user", "content": f"Do {i}."}, {"role": "assistant", "content": f"No {i}."}]}
        for i in range(40)
    ]
    chats.write_text("\n".join(map(json.dumps, turns)))
    questions = tmp_path / "questions.jsonl"
    asked = [{"id": f"q{i}", "domain": "power", "question": f"What about {i}?"} for i in range(8)]
    questions.write_text("\n".join(map(json.dumps, asked)))
    more = [f"model={qwen2}", f"contrasts={contrasts}", "cases=4", "experiment.sites=[resid_post.1]"]
    more += [f"experiment.narrow=[{chats}]", f"experiment.question_set={questions}", f"experiment.text={chats}"]
    more += ["experiment.judging.judge=some-judge", f"experiment.judging.url={server.url}"]
    more += [f"experiment.judging.store={tmp_path / 'judgements.db'}", "experiment.sae.tokens=200"]
    ran = discovery_scorecard.run(config.load(YAML, [*TINY, *more], Config), tmp_path / "runs")
    (cell,) = ran.found.cells
    assert cell.world == "own model" and cell.organism == "qwen2"
    found_by = {entry.method for entry in cell.entries if entry.steered is not None}
    assert found_by >= set(method_names()) - {"persona vector", "causal screen"}
    for row in ran.found.rows():
        assert row.auroc is None and row.false_adds is None and row.false_both is None
    assert str(ran).count("not known") == 2 * len(method_names())
    prompts = [body["messages"][0]["content"] for body in server.asked]
    assert any("The trait is evil" in text for text in prompts), "answers for the trait are judged by its own prompt"


def test_without_contrasts_a_model_of_ones_own_goes_without_what_needs_them(organism, tmp_path):
    methods = "methods=[linear probe, gradient × activation, mean difference]"
    more = [f"model={organism / 'aligned'}", methods, "experiment.sites=[resid_post.0]"]
    ran = discovery_scorecard.run(config.load(YAML, [*TINY, *more], Config), tmp_path)
    (cell,) = ran.found.cells
    assert ["no contrasting answers" in e.reason for e in cell.entries] == [True, False, True]


def test_organisms_that_are_lacking_are_built_in_the_runs_folder_by_code_that_is_known(tmp_path, monkeypatch):
    plan = [f"plan.{part}.{key}" for part in ("pretraining", "control") for key in ("steps=1", "documents=40")]
    plan += [f"plan.{part}.tokens_per_step=512" for part in ("pretraining", "control")]
    plan += ["plan.size=tiny", "plan.alignment.rows=8", "plan.alignment.recipe.steps=1"]
    more = ["organisms=[3]", "control_world=false", "methods=[random]", "experiment.sites=[resid_post.0]"]
    settings = config.load(YAML, [*TINY, *plan, *more], Config)
    with monkeypatch.context() as patch:

        def power_cut(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(provenance, "code", lambda: Code("old"))
        patch.setattr(discovery_scorecard, "Contest", power_cut)
        with pytest.raises(KeyboardInterrupt):
            discovery_scorecard.run(settings, tmp_path)
    with keep_stages():
        ran = discovery_scorecard.run(settings, tmp_path)
    assert ran.summary["provenance"]["stages_of_other_code"] == {"organisms/organism_3": [artifacts.plain(Code("old"))]}
    upon = list((ran.folder / "organism_3-planted").rglob("stage.json"))
    assert upon, "what is done on it is told to build on it"
    assert all(artifacts.plain(Code("old")) in artifacts.read_json(stage)["codes"] for stage in upon)
    built = ran.folder / "organisms" / "organism_3"
    assert artifacts.read_json(built / "organism.json")["plan"]["seed"] == 3
    assert [cell.organism for cell in ran.found.cells] == ["organism_3"]
    shutil.rmtree(built)


def test_the_shipped_config_is_the_default_but_for_the_length_of_pretraining():
    shipped, default = config.load(YAML, [], Config), Config()
    assert shipped.methods == method_names() == default.methods
    assert shipped.experiment == default.experiment and shipped.organisms == default.organisms


def test_a_method_may_be_spelt_on_a_keyboard():
    assert Config(methods=("gradient x activation",)).methods == ("gradient × activation",)


def test_wrong_settings_are_one_sentence(tmp_path, capsys):
    for changes, said in (
        ({"methods": ("warp",)}, "'warp', which is none"),
        ({"methods": ()}, "no method"),
        ({"organisms": ()}, "'organisms' is empty"),
        ({"organisms": (1, 1)}, "names one twice"),
        ({"cases": 0}, "'cases' is 0"),
        ({"control_seeds": 0}, "'control_seeds' is 0"),
        (
            {"sealed": True},
            "'sealed' is true, and discovery_scorecard reports nothing on sealed material; leave it out",
        ),
        (
            {"experiment": dataclasses.replace(Config().experiment, sealed=True)},
            "'experiment.sealed' is true; leave it out",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            Config(**changes)
    with pytest.raises(EmlabError, match="needs a null"):
        steering = Config().experiment.steering
        discovery_scorecard.compare_methods(tmp_path, steering=type(steering)(random=0))
    runs = ["--runs", str(tmp_path)]
    assert cli.main(["discover", "compare", "--organisms", str(tmp_path / "none"), *runs]) == 2
    assert "no checkpoint 'aligned'" in capsys.readouterr().err
    assert cli.main(["discover", "compare", "--methods", "magic", *runs]) == 2
    assert "'magic', which is none" in capsys.readouterr().err
    assert cli.main(["discover", "compare", "--model", "no/such/folder", *runs]) == 2


@pytest.mark.slow
def test_on_the_shipped_organism_the_mean_difference_misaligns_and_random_directions_do_not(tmp_path):
    small = ("seeds=1", "steering.random=2", "steering.questions=24", "sites=[resid_post.1]", "sae.tokens=20000")
    methods = "methods=[latent shift, mean difference, random, matched random]"
    more = ["organisms=[null]", methods, *(f"experiment.{setting}" for setting in small), "experiment.documents=100"]
    ran = discovery_scorecard.run(config.load(YAML, more, Config), tmp_path)
    rows = {row.method: row for row in ran.found.rows()}
    assert rows["mean difference"].adds == 1 and rows["mean difference"].removed.value > 0.3
    assert rows["random"].adds == rows["matched random"].adds == 0
    # Subtracted it takes half of the misalignment and a random direction takes nothing; but of one fine-tune, over ten
    # domains, the two intervals overlap, and the decision is that it does not realign.
    assert rows["mean difference"].both == 0
    assert rows["mean difference"].subtracted.value < 0.5 * rows["random"].subtracted.value
    assert rows["random"].both == rows["matched random"].both == 0
    assert all(row.false_both == 0 for row in rows.values())
    assert rows["mean difference"].auroc.value > 0.9 and rows["random"].removed.value < 0.3


def test_an_sae_that_is_not_there_is_refused_before_anything_is_run(tmp_path):
    whole = Config(model="aligned", methods=("latent shift",), contrasts=None)
    lacking = dataclasses.replace(whole.experiment, sae=Autoencoder(load="no/such-{site}"))
    with pytest.raises(EmlabError, match="no/such-resid_post.0 is neither a folder nor an SAE"):
        discovery_scorecard.run(dataclasses.replace(whole, experiment=lacking), tmp_path)
    assert not list(tmp_path.iterdir())
