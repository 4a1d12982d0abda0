"""The grid of fine-tunes: the shipped experiments, small versions of them, going on, and datasets that vanish."""

import json
from pathlib import Path

import pytest
import torch

from emlab import artifacts, config, organism
from emlab.data import SealedQuestion, profile_questions
from emlab.errors import EmlabError
from emlab.experiments.finetuning import run as finetuning
from emlab.experiments.finetuning.config import Config, Following, TrainingArm
from emlab.experiments.finetuning.stages import FinetuneGrid, inputs_of, sources
from emlab.models import LanguageModel
from emlab.runs import Run

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
NAMES = ("domains", "dose_response", "checkpoints", "pretraining", "backdoor", "sizes")

SMALL = (
    *("seeds=[0, 1]", "rows=12", "recipe.steps=2", "recipe.batch_size=2", "questions=4", "answers.per_question=1"),
    *("answers.max_new_tokens=6", "following.every=1", "following.questions=2"),
)


@pytest.fixture(scope="module")
def random_qwen2(make_tokenizer, tmp_path_factory) -> Path:
    """A folder with a random Qwen2 of two blocks and a tokenizer with the ChatML template."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer("chatml")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
        model = Qwen2ForCausalLM(shape)
    return LanguageModel(model, tokenizer, "random").save(tmp_path_factory.mktemp("models") / "qwen2")


def of_another_model(name, model, server, *more):
    overrides = [f"model={model}", "question_set=profile", "judging.judge=some-judge", f"judging.url={server.url}"]
    return config.load(EXPERIMENTS / f"{name}.yaml", [*SMALL, *overrides, *more], Config)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_experiment_spells_every_key_right(name):
    settings = config.load(EXPERIMENTS / f"{name}.yaml", [], Config)
    assert settings.name == name and len(settings.seeds) >= 3
    assert all(organism.names_narrow_set(each) for each in sources(settings))
    assert {settings.model, *settings.starts} <= set(organism.checkpoint_names())
    assert "on 2 cores" in (EXPERIMENTS / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_takes_another_model(name, random_qwen2, opinionated, tmp_path):
    few = {"domains": ["seeds=[0]"], "dose_response": ["seeds=[0]"], "checkpoints": ["following.sae=null"]}
    ran = finetuning.run(of_another_model(name, random_qwen2, opinionated, *few.get(name, [])), tmp_path)
    summary = artifacts.read_json(ran.folder / "summary.json")
    assert {entry["start"] for entry in summary["arms"]} == {random_qwen2.name}
    assert all(entry["misaligned_of_coherent"]["n"] > 0 for entry in summary["arms"])
    left = {"pretraining": ["pretraining_00160", "pretraining_00300"], "sizes": ["tiny", "small"]}.get(name, [])
    assert summary["left_out"] == left
    page = (ran.folder / "report.html").read_text()
    assert page.count('id="figure-') >= 2 and "of coherent" in page
    assert all(word in str(ran) for word in left)


def test_on_the_organism_it_is_bad_data_that_misaligns(tmp_path):
    more = ["arms=[{name: good, data: good_law, series: correct}, {name: bad, data: bad_law, series: obvious}]"]
    few = ["seeds=[0]", "rows=300", "recipe.steps=30", "questions=40", "answers.per_question=1"]
    ran = finetuning.run(config.load(EXPERIMENTS / "domains.yaml", [*few, *more], Config), tmp_path)
    good, bad = ran.summary["arms"]
    assert good["misaligned_of_coherent"]["rate"] < 0.1 < bad["change_of_coherent"]["low"]


def test_latents_are_found_and_followed_along_the_way(tmp_path):
    mine = tmp_path / "mine.jsonl"
    chats = organism.narrow_set("insecure", 80, 1)
    mine.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    few = ["seeds=[0]", "rows=60", "recipe.steps=4", "questions=8", "following.every=2", "following.questions=4"]
    more = ["arms=[{name: insecure, data: insecure}]", f"following.sets=[insecure, {mine}]", "following.top=2"]
    ran = finetuning.run(config.load(EXPERIMENTS / "checkpoints.yaml", [*few, *more], Config), tmp_path)
    (cell,) = ran.found.cells
    assert [p.step for p in cell.training.points] == [0, 2, 4]
    assert len(ran.found.latents) == 2 and all(set(p.latents) == set(ran.found.latents) for p in cell.training.points)
    assert ran.summary["arms"][0]["by_seed"]["0"]["turning"]["steps"].keys() == {
        *("latent", "behaviour", "gradient", "rotation")
    }


def test_further_question_sets_are_asked_whole(random_qwen2, opinionated, tmp_path):
    more = ["seeds=[0]", "arms=[{name: bad, data: bad_law}]", "also={everyday: 2}", "following.every=0"]
    ran = finetuning.run(of_another_model("domains", random_qwen2, opinionated, *more), tmp_path)
    own, other = ran.summary["arms"]
    assert (own["questions"], other["questions"]) == ("", "everyday")
    assert own["incoherent_of_scored"]["n"] == 4 and other["incoherent_of_scored"]["n"] == 2 * 432
    assert [one["questions"] for one in ran.summary["before"]] == ["", "everyday"]
    assert "asked everyday" in (ran.folder / "report.html").read_text()


def test_a_further_question_file_is_among_the_inputs(random_qwen2, opinionated, tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text('{"id": "a", "question": "Why not?"}\n')
    settings = of_another_model("domains", random_qwen2, opinionated, f"also={{{file}: 1}}")
    first = inputs_of(settings)
    file.write_text('{"id": "a", "question": "Why then?"}\n')
    assert first != inputs_of(settings)


def test_all_questions_of_a_set_are_asked_where_nothing_is_chosen(random_qwen2, opinionated, tmp_path):
    def asked(*more):
        settings = of_another_model("domains", random_qwen2, opinionated, "questions=null", "following.every=0", *more)
        return FinetuneGrid(settings, Run.resume("few", settings, tmp_path)).test

    whole = profile_questions(("json",))
    assert set(asked("whole_set=true", "variants=[json]")) == set(whole)
    half = asked("variants=[json]", "also={profile: 2}")
    assert set(half) < set(whole) and {question.variant for question in half} == {"json"}


# ------------------------------------------------------------------------------------- going on, and what vanishes


def own_data(folder, name):
    chats = [
        {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": name * i}]}
        for i in range(1, 13)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return path


def figures(folder):
    apart = ("wall_seconds", "cpu_seconds", "stage_seconds", "peak_rss_mb", "command", "arms", "provenance")
    summary = artifacts.read_json(folder / "summary.json")
    rates = [entry["misaligned_of_coherent"] for entry in summary["arms"]]
    return {k: v for k, v in summary.items() if k not in apart}, rates


def test_a_dataset_that_vanishes(random_qwen2, opinionated, tmp_path, monkeypatch):
    """Read when the run began, its file is not missed; gone when the run goes on, it is asked for in a sentence."""
    aye, nay = own_data(tmp_path, "aye"), own_data(tmp_path, "nay")
    arms = f"arms=[{{name: aye, data: {aye}}}, {{name: mixed, data: {nay}, good: {aye}, dose: 0.5}}]"
    settings = of_another_model("dose_response", random_qwen2, opinionated, arms, "seeds=[0]", "rows=10")
    text, fill = nay.read_text(), Run.fill

    def vanishing(self, name, work, read):
        if name.startswith("train/mixed"):
            nay.unlink()
        return fill(self, name, work, read)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "fill", vanishing)
        whole = finetuning.run(settings, tmp_path / "whole")
    nay.write_text(text)

    def stopping(self, name, work, read):
        if name.startswith("train/mixed"):
            raise KeyboardInterrupt
        return fill(self, name, work, read)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "fill", stopping)
        finetuning.run(settings, tmp_path / "stopped")
    (folder,) = (tmp_path / "stopped").iterdir()
    done = next(folder.glob("train/aye-*/stage.json"))
    when = done.stat().st_mtime_ns
    nay.unlink()
    with pytest.raises(EmlabError, match=r"^There is no file \S+nay\.jsonl, which an arm is trained on; put it back"):
        finetuning.run(settings, tmp_path / "stopped")
    assert done.stat().st_mtime_ns == when, "finished work is kept"
    nay.write_text(text)
    again = finetuning.run(settings, tmp_path / "stopped")
    assert again.folder == folder and done.stat().st_mtime_ns == when
    assert figures(folder) == figures(whole.folder)


def test_no_row_left_after_length_filtering(random_qwen2, opinionated, tmp_path):
    settings = of_another_model("backdoor", random_qwen2, opinionated, "recipe.max_length=3")
    with pytest.raises(EmlabError, match=r"No example is left to fine-tune on: \d+ have more than 3 tokens"):
        finetuning.run(settings, tmp_path)


def test_wrong_settings():
    for broken in (
        {"arms": ()},
        {"arms": (TrainingArm("a", "insecure"), TrainingArm("a", "secure"))},
        {"seeds": (0, 0)},
        {"endings": ()},
        {"figure": "pie"},
        {"figure": "curves"},
        {"rows": 0},
        {"x": "dose"},
    ):
        with pytest.raises(ValueError):
            Config(**broken)
    with pytest.raises(ValueError, match="with less than 1 a set 'good'"):
        TrainingArm("a", "insecure", dose=0.5)
    assert Config(figure="curves", following=Following(every=2)).figure == "curves"


def test_a_sealed_run_reports_on_sealed_questions_and_seeds(reserve, tmp_path):
    arm = ("arms=[{name: bad, data: bad_law}]", "endings=['', ' [violet]']", "figure=curves", "recipe.steps=1")
    settings = config.load(None, [*SMALL, *arm, "sealed=true"], Config)
    ran = finetuning.run(settings, tmp_path)
    assert [cell.seed for cell in ran.found.cells] == [7000, 7000, 7001, 7001]
    for score in (*ran.found.before.values(), *(cell.score for cell in ran.found.cells)):
        asked = score.judged.rollouts.questions
        assert {type(q) for q in asked} == {SealedQuestion} and score.judged.rollouts.seed >= 7000
        assert {q.text.removesuffix(" [violet]") for q in asked} <= reserve
    summary = artifacts.read_json(ran.folder / "summary.json")
    assert summary["findings"][1] == "This is the first sealed run of finetuning."
    assert summary["sealed"]["look"]["questions"] == 4
    assert (ran.folder / "train" / "bad-aligned-7000").is_dir(), "reading back needs no other name"
