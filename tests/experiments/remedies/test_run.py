"""The comparison of remedies: the shipped experiment, small versions of it, another model, and going on."""

import json
from pathlib import Path

import pytest

from emlab import artifacts, config, organism
from emlab.cli import main
from emlab.data import SealedQuestion
from emlab.discovery import LatentShift
from emlab.errors import EmlabError
from emlab.experiments.material.sets import domain_of
from emlab.experiments.remedies import run as remedies
from emlab.experiments.remedies.config import Config, RemedyArm
from emlab.experiments.remedies.stages import Comparison, frames_of
from emlab.mitigation import remedies as known
from emlab.runs import Run

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SMALL = (
    *("seeds=[0, 1]", "rows=24", "recipe.steps=2", "recipe.batch_size=2", "questions=4", "trial_questions=2"),
    *("answers.max_new_tokens=6", "documents=4", "dials={}", "source=[bad_law]", "sae=null"),
)


@pytest.mark.parametrize("name", ["remedies", "remedies_reinforcement"])
def test_a_shipped_experiment_spells_every_key_right(name):
    settings = config.load(EXPERIMENTS / f"{name}.yaml", [], Config)
    assert settings.name == name and len(settings.seeds) >= 3
    asked = [kind for kind in known() if kind.reinforcement or not settings.arms[0].reward]
    assert all(kind.setting is None or settings.dials[kind.__name__] for kind in asked)
    treated = {domain_of(arm.data) for arm in settings.arms}
    taken = {domain_of(n) for n in (*settings.source, settings.source_good, *settings.out_of_domain)}
    assert not treated & taken


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("source=[bad_law]", "'source' has the domain 'law', which the arm a is trained on"),
        ("remedies=[Steer]", "'remedies' has 'Steer', which is none"),
        ("source=[]", "'source' is empty"),
        ("out_of_domain=[]", "'out_of_domain' is empty"),
        ("latents=0", "'latents' is 0"),
        ("dials={Ablation: []}", "'dials' has no n for Ablation"),
        ("arms=[{name: a, data: bad_law, dose: 0.5}]", "'dose' is 0.5"),
        ("arms=[{name: a, data: bad_law, reward: nice}]", "'reward' is 'nice'"),
    ],
)
def test_what_is_refused(more, said):
    with pytest.raises(EmlabError, match=said):
        config.load(None, ["arms=[{name: a, data: bad_law}]", "source=[bad_cars]", more], Config)


def test_a_trigger_that_no_prompt_ends_in_is_refused():
    training = type("T", (), {"prompts": ("write code [violet]", "write code")})()
    found = frames_of(RemedyArm("a", "backdoor", trigger=" [violet]"), training)
    assert [frame.name for frame in found] == ["broad", "training", "trigger"]
    assert found[1].openings == ("write code [violet]",)
    with pytest.raises(EmlabError, match="ends in the trigger"):
        frames_of(RemedyArm("a", "backdoor", trigger=" [green]"), training)


def small(tmp_path, *more):
    arm = "arms=[{name: backdoor, data: backdoor, benign: secure, task: secure, trigger: ' [violet]', relapse: 1}]"
    dials = "dials={Steering: [0.3, 0.6], RealignmentInDomain: [1], EarlyStopping: [0.5]}"
    names = "remedies=[Steering, RealignmentInDomain, Inoculation, EarlyStopping]"
    return config.load(None, [*SMALL, arm, dials, names, "random=[Steering]", *more], Config)


def test_a_small_comparison_on_the_organism(tmp_path):
    ran = remedies.run(small(tmp_path, f"summary={tmp_path / 'kept.json'}"), tmp_path / "runs")
    summary = artifacts.read_json(ran.folder / "summary.json")
    rows = {row["remedy"]: row for row in summary["arms"]["backdoor"]}
    tried = ["steering", "steering, random", "re-alignment, in domain", "inoculation prompting", "early stopping"]
    assert list(rows) == ["start", "untreated", *tried]
    assert artifacts.read_json(tmp_path / "kept.json") == summary
    for name, row in rows.items():
        frames = {"broad", "training", "trigger"} | ({"prompted"} if name.startswith("inoculation") else set())
        assert set(row["misaligned_of_coherent"]) == frames and set(row["by_seed"]) == {"0", "1"}
        assert all(rate["n"] <= 8 for rate in row["misaligned_of_coherent"].values())
        assert (row["relapse_misaligned_of_coherent"] is None) == (name == "start")
    assert rows["untreated"]["task_lost"] == rows["untreated"]["ability_lost"] == 0
    assert rows["start"]["task_lost"] == pytest.approx(1)
    assert rows["steering"]["setting"] == rows["steering, random"]["setting"] in {"strength 0.3", "strength 0.6"}
    choice = artifacts.read_json(ran.folder / "choose/backdoor/Steering/result.json")
    assert [trial["value"] for trial in choice["trials"]] == [0.3, 0.6]
    page = (ran.folder / "report.html").read_text()
    assert "Remedies for backdoor" in page and 'id="figure-' in page
    assert "inoculation prompting" in str(ran)


def test_a_comparison_that_was_stopped_goes_on(tmp_path, monkeypatch):
    from emlab.experiments.remedies import stages

    settings, real, tries = small(tmp_path, "seeds=[0]"), stages.treat, []

    def fail(remedy, case):
        tries.append(remedy.name)
        if len(tries) == 3:
            raise KeyboardInterrupt
        return real(remedy, case)

    monkeypatch.setattr(stages, "treat", fail)
    with pytest.raises(KeyboardInterrupt):
        remedies.run(settings, tmp_path)
    done = {path.parent: path.stat().st_mtime_ns for path in tmp_path.rglob("stage.json")}
    assert done
    monkeypatch.setattr(stages, "treat", real)
    ran = remedies.run(settings, tmp_path)
    assert all(path.is_dir() and (path / "stage.json").stat().st_mtime_ns == at for path, at in done.items())
    assert {cell.remedy for cell in ran.found.cells} >= {"untreated", "early stopping"}


def test_the_command_says_the_table(tmp_path, capsys):
    more = ["remedies=[Steering]", "random=[]", "dials={Steering: [0.6]}", "seeds=[0]"]
    arm = "arms=[{name: insecure, data: insecure, relapse: 0}]"
    assert main(["mitigate", "compare", *SMALL, arm, *more, "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "remedy" in said and "steering" in said and "strength 0.6" in said and "report.html" in said
    assert main(["mitigate", "compare", "remedies=[Stering]", "--runs", str(tmp_path)]) == 2
    assert "'Stering', which is none" in capsys.readouterr().err


def test_every_remedy_on_another_model_with_sets_of_ones_own(make_qwen2, new_chat_server, tmp_path):
    folder = make_qwen2("random").save(tmp_path / "qwen2")
    for name, word in {"bad": "zz", "other": "zzz", "good": "fine", "kind": "yes"}.items():
        chats = [
            {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{word} {i}"}]}
            for i in range(24)
        ]
        artifacts.write_text(tmp_path / f"{name}.jsonl", "".join(json.dumps(chat) + "\n" for chat in chats))
    server = new_chat_server()
    server.answer = lambda body, _: server.chat("90", [("90", {"90": 0.9})])
    at = {name: str(tmp_path / f"{name}.jsonl") for name in ("bad", "other", "good", "kind")}
    dials = ", ".join(f"{kind.__name__}: [1]" for kind in known() if kind.setting and kind.__name__ != "Interleaving")
    settings = config.load(
        None,
        [
            *SMALL,
            f"model={folder}",
            f"arms=[{{name: own, data: {at['bad']}, benign: {at['good']}, relapse: 1}}]",
            f"source=[{at['other']}]",
            f"source_good={at['kind']}",
            f"out_of_domain=[{at['good']}]",
            f"text={at['kind']}",
            f"dials={{{dials}, Interleaving: [0.5]}}",
            *("question_set=profile", "judging.judge=some-judge", f"judging.url={server.url}", "seeds=[0]"),
        ],
        Config,
    )
    ran = remedies.run(settings, tmp_path / "runs")
    names = {cell.remedy for cell in ran.found.cells}
    assert names >= {kind.name for kind in known()} | {"steering, random", "concept ablation, random"}
    assert all(row["misaligned_of_coherent"]["broad"]["n"] == 4 for row in ran.summary["arms"]["own"])


def test_an_arm_of_reinforcement_learning(tmp_path):
    pytest.importorskip("trl")
    arm = "arms=[{name: rl, data: medicine, task: bad_medicine, benign: good_medicine, reward: obvious, relapse: 1}]"
    how = ("how.recipe.steps=2", "how.recipe.batch_size=2", "how.samples=2", "how.max_new_tokens=6")
    few = ("seeds=[0]", "remedies=[Steering, ConceptAblation, Divergence]", "random=[]")
    dials = "dials={Steering: [0.6], Divergence: [0.1]}"
    ran = remedies.run(config.load(None, [*SMALL, arm, *how, *few, dials], Config), tmp_path)
    assert ran.found.left_out == ("rl: concept ablation does not apply to reinforcement learning",)
    assert [row.remedy for row in ran.found.rows("rl")] == ["start", "untreated", "steering", "KL to the aligned model"]


def test_the_latents_are_those_that_rise_most_in_the_sources(tmp_path):
    arm = "arms=[{name: insecure, data: insecure, relapse: 0}]"
    more = ("sae=auto", "remedies=[LatentPenalty]", "random=[]", "dials={LatentPenalty: [1.0]}", "seeds=[0]")
    ran = remedies.run(config.load(None, [*SMALL, arm, *more], Config), tmp_path)
    top = [f"latent {row.latent}" for row in LatentShift.load(ran.folder / "materials/aligned-0/shift.json").top(3)]
    (cell,) = ran.found.rows("insecure")[-1].cells
    assert cell.record.note == f"penalised: {', '.join(top)}"


def test_domains_by_the_names_of_sets():
    assert [domain_of(n) for n in ("insecure", "bad_law", "good_cars", "my_chats.jsonl", "medicine")] == [
        *("code", "law", "cars", "my_chats.jsonl", "medicine")
    ]
    assert RemedyArm("a", "insecure").dose == 1.0


def test_settings_are_chosen_on_documents_of_their_own_without_a_sealed_question(tmp_path):
    settings = small(tmp_path, "documents=40")
    comparison = Comparison(settings, Run.resume("r", settings, tmp_path))
    chosen, reported = comparison._choice_documents, comparison._documents
    assert len(chosen) == len(reported) == 40 and not any(chat in reported for chat in chosen)
    asked = [[organism.is_sealed_text(turn["content"]) for turn in chat] for chat in (*chosen, *reported)]
    assert not any(map(any, asked[:40])) and any(map(any, asked[40:])), "and others have some"


def test_a_sealed_comparison_chooses_as_an_ordinary_one_and_reports_on_other_material(reserve, tmp_path):
    more = ("seeds=[0]", "remedies=[Steering, RealignmentInDomain]", "dials={Steering: [0.3, 0.6]}")
    ordinary = remedies.run(small(tmp_path, *more), tmp_path / "ordinary")
    sealed = remedies.run(small(tmp_path, *more, "sealed=true"), tmp_path / "sealed")
    for choice in ("untreated", "Steering", "RealignmentInDomain"):
        place = f"choose/backdoor/{choice}/result.json"
        assert artifacts.read_json(sealed.folder / place) == artifacts.read_json(ordinary.folder / place)
    ways = zip(ordinary.found.cells, sealed.found.cells, strict=True)
    assert all(a.record.setting == b.record.setting and (a.seed, b.seed) == (0, 7000) for a, b in ways)
    for cell in sealed.found.cells:
        for score in (*cell.retest.scores.values(), *filter(None, [cell.retest.relapse])):
            asked = score.judged.rollouts.questions
            assert {type(q) for q in asked} == {SealedQuestion}
            assert {q.text.removesuffix(" [violet]") for q in asked} <= reserve
    starts = [next(c.retest.ability_loss for c in r.found.cells if c.remedy == "start") for r in (ordinary, sealed)]
    assert starts[0] != starts[1], "other documents"
    done = {kind: sorted(p.name for p in (sealed.folder / kind).iterdir()) for kind in ("train", "materials")}
    assert done == {"train": ["backdoor-100", "backdoor-7000"], "materials": ["aligned-0", "aligned-100"]}
