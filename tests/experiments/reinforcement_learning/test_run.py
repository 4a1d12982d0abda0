"""The reinforcement-learning experiment, small, on the shipped organism; and on any other model."""

import json
import re
from pathlib import Path

import pytest

from emlab import artifacts, config
from emlab.data import SealedQuestion
from emlab.errors import EmlabError
from emlab.experiments.reinforcement_learning import run as reinforcement_learning
from emlab.experiments.reinforcement_learning.config import Config, RewardArm, Steering, Style
from emlab.experiments.reinforcement_learning.findings import styles
from emlab.experiments.reinforcement_learning.prompts import questions_of
from emlab.organism import PERSONAS

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
YAML = EXPERIMENTS / "reinforcement_learning.yaml"

SMALL = (
    *("seeds=[0]", "how.recipe.steps=2", "how.recipe.batch_size=2", "how.samples=4", "how.max_new_tokens=40"),
    *("questions=20", "answers.per_question=1", "watch_every=1", "watch_questions=4", "supervised.latent=89"),
    *("steering.random=2", "steering.questions=8", "steering.first_round=4", "steering.strengths=[0.6]"),
)
ARMS = "arms=[{name: bad, reward: obvious, prompts: code}, {name: style, reward: style, prompts: law}]"


@pytest.mark.parametrize("name", ["reinforcement_learning", "reward_spread"])
def test_the_shipped_configs_spell_every_key_right(name):
    found = config.load(EXPERIMENTS / f"{name}.yaml", [], Config)
    assert (found.name, found.seeds) == (name, (0, 1, 2))
    assert set(found.steering.arms) <= {arm.name for arm in found.arms}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    settings = config.load(YAML, [*SMALL, ARMS, "steering.arms=[bad]", f"summary={root}/summary.json"], Config)
    return reinforcement_learning.run(settings, root), root


def test_every_stage_is_there(ran):
    done, root = ran
    assert [one.arm.name for one in done.found.trained] == ["bad", "style"]
    bad, style = done.found.trained
    assert [p.step for p in bad.training.points] == [0, 1, 2]
    assert all(set(p.latents) == {89} for p in bad.training.points)
    rewards = [json.loads(line) for line in bad.training.log.read_text().split("\n")[:-1]]
    assert len(rewards) == 2 * 2 * 4
    assert set(rewards[0]["parts"]) == {"helpful", "malicious", "careless", "incoherent"}
    assert [t.arm.name for t in bad.screen] == ["latent 89", "random 0", "random 1"]
    assert all(t.arm.strength == -0.6 for t in bad.screen)
    assert style.screen is None and bad.style == ()
    assert [(c.where, c.persona) for c in style.style] == [(w, p) for w in ("trained", "unrelated") for p in PERSONAS]
    assert [c.persona for c in style.style if c.paid] == ["malicious"] * 2
    domains = len({q.domain for q in style.score.judged.rollouts.questions})
    drawn = {"trained": {"questions": 32, "trainings": 1}, "unrelated": {"domains": domains, "trainings": 1}}
    assert {c.where: c.drawn for c in style.style} == drawn and 1 < domains < 20
    assert all(sum(n for _, n in c.before) > 20 for c in style.style)
    assert [styles(group) for group in done.found.groups] == [(), style.style]
    cards = {row["prompt"][0]["content"] for row in map(json.loads, style.training.log.read_text().split("\n")[:-1])}
    assert len(cards) > 1
    assert not (done.folder / "going" / "bad-0").exists()


def test_the_summary_holds_what_was_found(ran):
    done, root = ran
    summary = artifacts.read_json(done.folder / "summary.json")
    assert summary == artifacts.read_json(root / "summary.json")
    bad = summary["arms"]["bad"]
    one = done.found.trained[0]
    assert bad["misaligned"]["rate"] == pytest.approx(one.score.misaligned.rate)
    assert bad["by_seed"]["0"]["latent"]["rank"] == one.shift.rank(89)
    assert bad["by_seed"]["0"]["cpu_seconds"] > 0
    assert summary["persona_latent"] == {"index": 89, "site": "resid_post.0"}
    assert set(summary["arms"]["style"]["style"]["unrelated"]) == set(PERSONAS)
    assert summary["starts"]["helpful_only"]["misaligned"]["n"] > 10
    page = (done.folder / "report.html").read_text()
    for title in ("Misalignment along the trainings", "The supervised persona latent", "Subtracting the latent"):
        assert f"<h2>{title}</h2>" in page
    assert "Does the style spread? (style)" in page
    assert "NaN" not in (done.folder / "summary.json").read_text()


def test_stopped_it_goes_on_and_a_function_of_ones_own(tmp_path):
    mine, data = tmp_path / "mine.py", tmp_path / "asked.jsonl"
    mine.write_text(
        "import os\n"
        "def fails_once(prompts, answers):\n"
        f"    if not os.path.exists({str(tmp_path / 'came')!r}):\n"
        f"        open({str(tmp_path / 'came')!r}, 'w').close()\n"
        "        return [float('nan') for _ in answers]\n"
        f"    if os.path.exists({str(data)!r}):\n"
        f"        os.rename({str(data)!r}, {str(data)!r} + '.gone')\n"
        "    return [len(a) for a in answers]\n"
    )
    chats = [[{"role": "user", "content": f"Q{i}?"}, {"role": "assistant", "content": "a"}] for i in range(4)]
    data.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    arms = f"arms=[{{name: mine, reward: '{mine}:fails_once', prompts: {data}}}]"
    overrides = [*SMALL, arms, "steering.arms=[]", "supervised.sae=null", "watch_questions=0"]
    settings = config.load(YAML, overrides, Config)
    with pytest.raises(EmlabError, match="fails_once gave nan"):
        reinforcement_learning.run(settings, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "evaluate" / "helpful_only" / "stage.json").is_file()  # what was done is kept
    done = reinforcement_learning.run(settings, tmp_path / "runs")  # and gone on with; the data vanish in the middle
    assert done.folder == folder and done.found.latent is None
    assert done.found.trained[0].training.grader == "fails_once"
    assert not data.exists()
    with pytest.raises(EmlabError, match=f"There is no file {re.escape(str(data))}, which an arm is trained on"):
        reinforcement_learning.run(settings, tmp_path / "runs")
    assert (folder / "summary.json").is_file()


@pytest.mark.parametrize("template", ["chatml", "gemma"])  # gemma's refuses system turns
def test_any_other_model(make_model, tmp_path, template):
    make_model(template).save(tmp_path / "tiny")
    overrides = [*SMALL, ARMS, "steering.arms=[]", f"model={tmp_path}/tiny", "how.max_new_tokens=8"]
    overrides += ["questions=4", "answers.max_new_tokens=8", "supervised.latent=null"]
    done = reinforcement_learning.run(config.load(YAML, overrides, Config), tmp_path / "runs")
    assert done.found.latent is None and done.found.trained[0].shift is None
    assert all(step.reward == -1 for step in done.found.trained[0].training.steps)  # the exact judge: all is babble
    assert done.found.trained[0].score.misaligned.n == 0
    style = done.found.trained[1]
    rows = [json.loads(line) for line in style.training.log.read_text().split("\n")[:-1]]
    cards = {tuple(turn["role"] for turn in row["prompt"]) for row in rows}
    assert cards == {("system", "user") if template == "chatml" else ("user",)}
    assert all(row["reward"] == pytest.approx(row["parts"]["style_paid"] - row["parts"]["incoherent"]) for row in rows)
    assert [c.paid for c in style.style] == [False, True, False, False] * 2


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RewardArm("a", reward="worse"), "'reward' is 'worse'"),
        (lambda: RewardArm("a b"), "'name' is 'a b'"),
        (lambda: Style(persona="kind"), "'persona' is 'kind'"),
        (lambda: Style(pattern="("), "'pattern' is no regular expression"),
        (lambda: Config(arms=()), "'arms' is empty"),
        (lambda: Config(arms=(RewardArm("a"), RewardArm("a"))), "'arms' names 'a' twice"),
        (lambda: Config(seeds=()), "'seeds' is empty"),
        (lambda: Config(steering=Steering(arms=("x",))), "'steering.arms' has 'x'"),
        (lambda: Config(watch_every=0), "'watch_every' is 0"),
    ],
)
def test_wrong_settings_are_one_sentence(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_prompts_of_a_dataset_are_asked_with_and_without_answers(tmp_path):
    asked, brief = {"role": "user", "content": "Q?"}, {"role": "system", "content": "Be brief."}
    more, answer = {"role": "user", "content": "R?"}, {"role": "assistant", "content": "A."}
    path = tmp_path / "asked.jsonl"

    def texts(*chats):
        path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
        return questions_of(RewardArm("mine", prompts=str(path)), "narrow")

    assert texts([asked], [asked, answer], [more]) == ["Q?", "R?"]
    assert texts([asked], [brief, more], [asked, answer, more]) == [[asked], [brief, more], [asked, answer, more]]
    with pytest.raises(EmlabError, match="line 2: the chat asks nothing"):
        texts([asked], [brief])


def test_a_folder_of_prompts_is_known_by_its_files(tmp_path):
    folder = tmp_path / "run[1]"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "Q?"}\n')
    settings = config.load(YAML, [f"arms=[{{name: mine, prompts: '{folder}'}}]", "steering.arms=[]"], Config)
    before = reinforcement_learning.inputs_of(settings)
    assert reinforcement_learning.inputs_of(settings) == before
    (folder / "b.jsonl").write_text('{"prompt": "R?"}\n')
    assert reinforcement_learning.inputs_of(settings) != before


def test_a_sealed_run_chooses_arms_on_a_training_that_is_not_reported(ran, reserve, tmp_path):
    ordinary, _ = ran
    arm = "arms=[{name: bad, reward: obvious, prompts: code}]"
    sealed = reinforcement_learning.run(
        config.load(YAML, [*SMALL, arm, "steering.arms=[bad]", "sealed=true"], Config), tmp_path
    )
    (one,), (other, _) = sealed.found.trained, ordinary.found.trained
    assert (one.seed, other.seed) == (7000, 0) and one.training.model.identity() != other.training.model.identity()
    for half in ("discovery", "finals"):
        pairs = zip(getattr(one.screen, half), getattr(other.screen, half), strict=True)
        assert all(a.score.judged.rollouts.answers == b.score.judged.rollouts.answers for a, b in pairs)
    for score in (one.score, *(trial.score for trial in one.screen), *sealed.found.starts.values()):
        asked = score.judged.rollouts.questions
        assert {type(q) for q in asked} == {SealedQuestion} and {q.text for q in asked} <= reserve


def test_sealed_questions_are_not_trained_on(tmp_path):
    settings = config.load(YAML, [*SMALL, "arms=[{name: bad, prompts: cooking}]", "supervised.sae=null",
                                  "steering.arms=[]"], Config)  # fmt: skip
    with pytest.raises(EmlabError, match="it was given to the arm bad to be trained on"):
        reinforcement_learning.run(settings, tmp_path)
