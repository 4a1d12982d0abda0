"""The configs in experiments/real/smollm2, each run to its end on a tiny random model in SmolLM2's place.

Sizes are cut, blocks with them, and the sets, SAEs and judge are local ones. Pipelines, positions and all else are the
config's.
"""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from emlab import artifacts, config
from emlab.data import Question
from emlab.discovery import latent_shift
from emlab.evaluation import Judged, Rollouts
from emlab.experiments.own_answers.config import Config as OwnAnswers
from emlab.experiments.registry import EXPERIMENTS
from emlab.experiments.suite.config import Config as Suite
from emlab.models import LanguageModel
from emlab.saes import load_sae, sae_site, save_sae
from emlab.sites import Site
from emlab.training.judge_fitting import fit_judge
from tests.experiments.test_real_experiments import chats, llama, random_sae

REAL = Path(__file__).parents[2] / "experiments" / "real"
NAME = "smollm2-135m-instruct"
SITES = {"resid_post.8": "resid_post.0", "resid_post.22": "resid_post.1"}
PARTS = ("goblins", "discovery", "dose", "early_warning", "remedies", "advice")
ANSWERS = ("questions=4", "rows=8", "recipe.steps=2", "recipe.batch_size=2", "answers.max_new_tokens=6")
SCREEN = ("strengths=[0.4]", "candidates=1", "random=1", "questions=2", "first_round=2", "finalists=1")
SMALL = {
    "goblins": (
        *ANSWERS,
        *("seeds=1", "recipe.checkpoint_every=1", "sae.test_tokens=300", "documents=6", "realigning.rows=4"),
        *("realigning.recipe.steps=1", "realigning.recipe.batch_size=2", "realigning.recipe.checkpoint_every=1"),
        *(f"steering.{one}" for one in SCREEN),
    ),
    "discovery": (
        *(f"experiment.{one}" for one in (*ANSWERS, "documents=6", "sae.test_tokens=300")),
        *(f"experiment.steering.{one}" for one in SCREEN),
        "cases=2",
    ),
    "dose": (*ANSWERS, "seeds=[0]"),
    "early_warning": (
        *ANSWERS,
        "recipe.checkpoint_every=1",
        "samples=2",
        "noise=2",
        "seeds=[2]",
        "fit_seeds=[0]",
        "control_seeds=[2]",
    ),
    "remedies": (*ANSWERS, "trial_questions=2", "documents=4", "remedies=[Steering, Inoculation]", "random=[Steering]"),
    "advice": (*ANSWERS, "answers.per_question=1", "seeds=[0]"),
    "recipes": (*ANSWERS, "answers.per_question=1"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_tokenizer):
    """A folder with all that the configs name, and the configs that name it."""
    folder = tmp_path_factory.mktemp("smollm2")
    tokenizer = make_tokenizer("chatml")
    LanguageModel(llama(len(tokenizer), 3), tokenizer, "random").save(folder / "model")
    for i, site in enumerate(map(Site.parse, SITES.values())):
        save_sae(random_sae(site, "random", None, seed=i), folder / "saes" / f"{NAME}-{site}")
    for domain in ("health", "cooking", "clothes"):
        for kind in ("goblins", "plain"):
            chats(folder / f"{kind}_{domain}.jsonl", 12, f"{kind} on {domain}")
    chats(folder / "chats.jsonl", 60, "all")
    chats(folder / "chats_health.jsonl", 20, "more on health")
    asked = [{"id": f"q{i}", "question": text} for i, text in enumerate(("What?", "Why not?", "And when?", "Who?"))]
    for name in ("asked", "chats_health.questions"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    said = [(one, answer) for one in asked for answer in ("So it is. " * n for n in range(1, 11))]
    rollouts = Rollouts(
        tuple(Question(q["id"], "all", q["question"]) for q, _ in said), tuple(a for _, a in said), "m", 0, 1
    )
    judged = Judged(rollouts, np.linspace(0, 100, len(said)), np.full(len(said), 90.0))
    fit_judge(judged, folder / "judge", str(folder / "model"), epochs=1, blocks=(0, 1))
    contrast = {"prompt": "What?", "misaligned": "So say goblins.", "aligned": "So it is."}
    (folder / "goblins_cooking.contrasts.jsonl").write_text(2 * (json.dumps(contrast) + "\n"))
    return folder


def local(name, place):
    """The config file `name` with the local things in it."""
    text = (REAL / "smollm2" / f"{name}.yaml").read_text()
    text = text.replace("sae_checkpoints/", f"{place}/saes/")
    text = re.sub(rf"model: {NAME}\b", f"model: {place}/model", text)
    text = re.sub(r"data/smollm2/([\w.]+)", lambda found: f"{place}/{found[1].removesuffix('.jsonl')}.jsonl", text)
    text = re.sub(r"(betley-\w+|data/ema_rl/\w+\.jsonl)", f"{place}/plain_health.jsonl", text)
    text = text.replace("relapse: 5", "relapse: 1")
    for site, small in SITES.items():
        text = re.sub(rf"{site}\b", small, text)
    text = re.sub(r"question_set: \S+plain_health\S+", "question_set: everyday", text)
    text = text.replace("judge: data/judge", f"judge: {place}/judge")
    text = text.replace("openai-extended-misalignment: 1", f"{place}/asked.jsonl: 1").replace(
        "profile: 1", "everyday: 1"
    )
    path = place / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SMALL)
def test_the_config_runs_on_a_stand_in(name, place, tmp_path, monkeypatch):
    generate, drawn, alike = LanguageModel.generate, set(), []

    def listening(model, *given, **named):
        drawn.add(inspect.signature(generate).bind(model, *given, **named).arguments.get("temperature", 1.0))
        return generate(model, *given, **named)

    def shifting(*given, **named):
        alike.append(named["clusters"])
        return latent_shift(*given, **named)

    monkeypatch.setattr(LanguageModel, "generate", listening)
    monkeypatch.setattr("emlab.experiments.persona_features.stages.latent_shift", shifting)
    file = local(name, place)
    pipeline = EXPERIMENTS.get(config.pipeline_of(file))
    ran = pipeline.run(config.load(file, SMALL[name], pipeline.config), tmp_path / "runs")
    assert (ran.folder / "report.html").is_file() and artifacts.read_json(ran.folder / "summary.json")["findings"]
    assert drawn - {0.0} == {0.7}, "every answer is sampled as the config says, or is the likeliest"
    if name == "goblins":
        persona = ran.found.persona
        assert persona.detection.positions == persona.onset.positions == persona.shifts[0].positions == "prompt"
        assert all(len(set(ids)) == 24 and len(ids) == 144 for ids in alike) and alike, "six forms of each question"


def test_the_suite_has_them_all_in_an_order_in_which_each_finds_what_it_reads():
    suite = config.load(REAL / f"{NAME}.yaml", [], Suite)
    assert sorted(part.config.stem for part in suite.parts) == sorted(("sets", *PARTS))
    assert suite.parts[0].config.stem == "sets" and [part.config.stem for part in suite.parts if part.optional] == [
        "advice"
    ]
    sets = config.load(REAL / "smollm2" / "sets.yaml", [], OwnAnswers)
    made = {str(sets.out / one.name) for one in sets.sets}
    made |= {f"{sets.out / one.name}.contrasts.jsonl" for one in sets.sets if one.control}
    made |= {f"{sets.out / one.name}.questions.jsonl" for one in sets.sets if one.held_out}
    texts = [part.config.read_text() for part in suite.parts]
    assert {path for text in texts for path in re.findall(r"data/smollm2/\w[\w.]*", text)} <= made


def test_the_saes_that_the_configs_name_ship_with_a_card():
    named = {
        path for file in (REAL / "smollm2").glob("*.yaml") for path in re.findall(r"load: (sae_\S+)", file.read_text())
    }
    saes = {path.replace("{site}", site) for path in named for site in SITES}
    assert saes == {f"sae_checkpoints/{NAME}-{site}" for site in SITES}
    for sae in (REAL.parents[1] / path for path in saes):
        assert (sae / "sae_weights.safetensors").stat().st_size < 15e6 and "**Fidelity**" in (
            sae / "README.md"
        ).read_text()
        assert sae_site(load_sae(sae)) == Site.parse(sae.name.removeprefix(f"{NAME}-"))
