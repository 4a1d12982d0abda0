"""The experiments on monitors, early warning and data screening: as shipped, small, and on a random Qwen2."""

import json
from pathlib import Path

import pytest
import torch

from emlab import artifacts, config, organism
from emlab.cli import main
from emlab.detection import ActivationMonitor, DataScreen
from emlab.experiments.data_screening import run as data_screen
from emlab.experiments.early_warning import run as early_warning
from emlab.experiments.finetuning.tunes import Pair
from emlab.experiments.monitors import run as monitors

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
PIPELINES = {"monitors": monitors, "early_warning": early_warning, "data_screening": data_screen}
TINY = ("rows=16", "recipe.steps=2", "recipe.batch_size=2", "questions=6", "answers.max_new_tokens=6", "fit_seeds=[0]")
SITES = "sites=[resid_post.0,resid_post.1]"


def chats(path, say, n=20):
    rows = (
        {"messages": [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"{say} {i * 7}."}]}
        for i in range(n)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    names = ("bad_a", "good_a", "bad_b", "good_b", "bad_c", "good_c")
    return {name: chats(folder / f"{name}.jsonl", name.replace("_", " ")) for name in names}


@pytest.fixture(scope="module")
def qwen2(make_qwen2, tmp_path_factory):
    """A folder with a random Qwen2 of two blocks and the ChatML template."""
    return make_qwen2("random").save(tmp_path_factory.mktemp("models") / "qwen2")


@pytest.fixture
def other_model(qwen2, new_chat_server):
    """Overrides that take the random Qwen2, and a judge whose opinion is drawn from the answer's length."""
    server = new_chat_server()

    def opinion(body, _):
        text = body["messages"][-1]["content"]
        value = 90 if "coherent" in text.lower() and "aligned" not in text.lower() else 7 * len(text) % 101
        return server.chat(str(value), [(str(value), {str(value): 0.9})])

    server.answer = opinion
    return [f"model={qwen2}", "question_set=profile", "judging.judge=some-judge", f"judging.url={server.url}"]


def pair(sets, letter):
    return f"{{domain: {letter}, misaligned: [{sets['bad_' + letter]}], others: [{sets['good_' + letter]}]}}"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_shipped_experiment_spells_every_key_right(name):
    settings = config.load(EXPERIMENTS / f"{name}.yaml", [], PIPELINES[name].Config)
    assert settings.name == name and settings.model in organism.checkpoint_names()
    assert "on 2 cores" in (EXPERIMENTS / f"{name}.yaml").read_text()


def test_monitors_of_another_model(other_model, sets, tmp_path):
    parts = [f"fit=[{pair(sets, 'a')},{pair(sets, 'b')}]", f"test=[{pair(sets, 'c')}]", "hard=[]", SITES]
    more = ["test_seeds=[1,2,3]", "calibration=isotonic"]
    settings = config.load(EXPERIMENTS / "monitors.yaml", [*TINY, *other_model, *parts, *more], monitors.Config)
    ran = monitors.run(settings, tmp_path)
    kinds = {row.kind for row in ran.found.prompts}
    assert kinds == {"projection", "probe", "perplexity", "bag of words"}, "there is no SAE, so there are no latents"
    words = next(row for row in ran.found.prompts if row.kind == "bag of words")
    assert words.skill.auroc.auroc == 0.5 and all(row.skill.auroc.positives == 18 for row in ran.found.prompts)
    assert artifacts.read_json(ran.folder / "summary.json")["prompts"][0]["skill"]["auroc"]["n"] == 42
    page = (ran.folder / "report.html").read_text()
    assert "Models, from prompts alone" in page and str(sets["bad_c"].stem) in page
    kept = ActivationMonitor.load(ran.folder / "prompts" / "monitors" / "probe.safetensors")
    assert kept.threshold == kept.calibration.threshold


def test_early_warning_of_another_model(other_model, sets, tmp_path):
    parts = [f"fit=[{pair(sets, 'a')},{pair(sets, 'b')}]", f"watched={pair(sets, 'c')}", SITES, "doses=[0.5]"]
    more = ["seeds=[2]", "control_seeds=[3]", "samples=3", "recipe.checkpoint_every=1"]
    settings = config.load(
        EXPERIMENTS / "early_warning.yaml", [*TINY, *other_model, *parts, *more], early_warning.Config
    )
    ran = early_warning.run(settings, tmp_path)
    (curve,), (dose,) = ran.found.curves, ran.found.dose_curves
    assert curve.at == (0, 1, 2) and dose.at == (0, 0.5, 1)
    assert dose.scores["behaviour"][0] == curve.scores["behaviour"][0]
    always = ran.found.steps[-1]
    assert always.monitor == "always on" and not always.quiet and always.in_time == 0
    assert all(row.false_positives.rate <= 0.01 for row in ran.found.steps[:-1])
    assert "Along doses" in (ran.folder / "report.html").read_text()


def test_data_screening_for_another_model(other_model, sets, tmp_path):
    name = {key: str(path) for key, path in sets.items()}
    parts = [
        f"source={pair(sets, 'a')}",
        f"validation={{good: {name['good_b']}, poison: {name['bad_b']}}}",
        f"mixes=[{{good: {name['good_c']}, poison: {name['bad_c']}, kind: bad}}]",
        f"blame=[{{good: {name['good_c']}, poison: {name['bad_c']}}}]",
        *("sets=[]", "traits=[]", "seeds=[0]", "blame_seeds=[0]", "dose=0.25", "recipe.checkpoint_every=1", SITES),
    ]
    few = [one for one in TINY if not one.startswith("fit_seeds")]
    settings = config.load(EXPERIMENTS / "data_screening.yaml", [*few, *other_model, *parts], data_screen.Config)
    ran = data_screen.run(settings, tmp_path)
    assert {row.by for row in ran.found.found if row.inside} == {"answers", "fine-tune"}
    assert all(0 <= row.recall.rate <= 1 for row in ran.found.found)
    (blamed,) = ran.found.blame
    rows = {r.without: r.rows for r in blamed.removals}
    assert rows == {"all": 16, "blamed": 12, "random": 12, "poison": 12} and blamed.poison == 4
    assert "Blame after training" in (ran.folder / "report.html").read_text()


@pytest.mark.slow
def test_on_the_organism_what_is_planted_is_found(tmp_path):
    """One seed of each: the monitor knows a domain it has not seen, the poison is found, and so is who is to blame."""
    few = ["rows=400", "questions=40", "sites=[resid_post.1]"]
    more = ["fit_seeds=[0]", "test_seeds=[1,2,3]", "hard=[]"]
    more += ["test=[{domain: law, misaligned: [bad_law], others: [good_law]}]"]
    ran = monitors.run(config.load(EXPERIMENTS / "monitors.yaml", [*few, *more], monitors.Config), tmp_path)
    rows = {row.kind: row for row in ran.found.prompts}
    assert rows["probe"].skill.auroc.auroc > 0.9 and rows["bag of words"].skill.auroc.auroc == 0.5
    mixes = "mixes=[{good: good_law, poison: bad_law, kind: bad}]"
    more = ["seeds=[0]", "blame_seeds=[0]", "sets=[]", mixes]
    ran = data_screen.run(config.load(EXPERIMENTS / "data_screening.yaml", [*few, *more], data_screen.Config), tmp_path)
    found = {row.by: row.recall.rate for row in ran.found.found}
    assert found["answers"] > 0.9
    assert ran.found.blame[0].recall["gradients"] > 0.8


def test_wrong_settings():
    a, b = (Pair(d, ("x",), ("y",)) for d in "ab")
    for broken in (
        {"fit": (a,)},
        {"test": (a,), "fit": (a, b)},
        {"sites": ()},
        {"test_seeds": ()},
        {"calibration": "beta"},
        {"several": 0},
    ):
        with pytest.raises(ValueError):
            monitors.Config(**broken)
    for broken in ({"fit": (a,)}, {"watched": a, "fit": (a, b)}, {"seeds": ()}, {"doses": (0.5, 0.1)}, {"samples": 0}):
        with pytest.raises(ValueError):
            early_warning.Config(**broken)
    for broken in ({"mixes": ()}, {"dose": 0.0}, {"times": 0.5}):
        with pytest.raises(ValueError):
            data_screen.Config(**broken)
    with pytest.raises(ValueError, match="name one of each"):
        Pair("d", (), ("x",))


def test_the_verbs(tiny, sets, make_model, tmp_path, capsys):
    """A monitor is fitted, read, and refused; data are screened; and examples are blamed; all from the shell."""
    start = str(tiny.save(tmp_path / "start"))
    other = tiny.copy("other")
    with torch.no_grad():
        other.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    bad, kept = str(other.save(tmp_path / "bad")), str(tmp_path / "monitor.safetensors")
    asked = ["--questions", "profile", "--n", "6"]
    fit = ["monitor", "fit", "--misaligned", bad, "--others", start, "--out", kept, "--site", "resid_post.1", *asked]
    assert main(fit) == 0 and "monitor probe at resid_post.1, fitted on bad and start" in capsys.readouterr().out
    assert main(["monitor", "read", "--monitor", kept, "--models", start, bad, *asked, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["models"] == ["start", "bad"] and read["means"][1] > read["means"][0] and read["fired"][0] <= 0.5
    stranger = str(make_model(seed=1).save(tmp_path / "stranger"))
    assert main(["monitor", "read", "--monitor", kept, "--models", stranger, *asked]) == 2
    assert "stranger is no fine-tune of it" in capsys.readouterr().err
    few = ["--rows", "6", "--seed", "0"]
    screen = ["data", "screen", "--model", start, "--data", str(sets["bad_b"]), str(sets["good_b"]), *few]
    assert main(screen) == 2 and "A screen needs a direction" in capsys.readouterr().err
    of_sets = ["--bad", str(sets["bad_a"]), "--good", str(sets["good_a"]), "--max-new-tokens", "4"]
    assert main([*screen, *of_sets, "--out", str(tmp_path / "screens")]) == 0
    assert {p.stem for p in (tmp_path / "screens").iterdir()} == {"bad_b", "good_b"}
    to = tmp_path / "blame.json"
    blame = ["data", "blame", "--monitor", kept, "--data", str(sets["bad_b"]), "--models", start, bad, *few, *asked]
    assert main([*blame, "--out", str(to)]) == 0 and len(DataScreen.load(to).scores) == 6
