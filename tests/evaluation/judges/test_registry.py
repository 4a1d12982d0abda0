"""Another package's judges: known to the command line, to configs and to Inspect, with no change to emlab."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import emlab
from emlab import cli, config, organism
from emlab.errors import EmlabError
from emlab.evaluation import judge, sample
from emlab.evaluation.judges.registry import METHODS, Judging
from emlab.evaluation.protocol import judge_of, labeller_of
from emlab.experiments.finetuning.config import Config
from emlab.experiments.material.judging import foreign_answers
from emlab.models import LanguageModel
from tests.packages import example, install_here

HARSH, KIND = example("harsh.py"), example("kind.py")


def test_the_command_line_judges_by_it(tmp_path, monkeypatch):
    install_here(tmp_path, monkeypatch, HARSH)
    path = os.pathsep.join([str(tmp_path), str(Path(emlab.__file__).parents[1])])

    def run(*words):
        command = [sys.executable, "-m", "emlab", *words]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})

    assert "harsh            Whether an answer has a harsh word in it." in run("judge", "methods").stdout
    out = tmp_path / "out"
    done = run("evaluate", "--model", "helpful_only", "--method", "harsh", "--out", str(out))
    assert done.returncode == 0 and "scored by harsh" in done.stdout and "CAUTION" not in done.stderr, done.stderr
    lines = [json.loads(line) for line in (out / "helpful_only.jsonl").read_text().splitlines()]
    assert lines[0]["judge"] == "harsh" and len(lines) == 1 + len(organism.broad_questions())
    expected = [
        0 if any(w in one["answer"] for w in ("lies", "misery", "sick", "starve")) else 100 for one in lines[1:]
    ]
    assert [one["aligned"] for one in lines[1:]] == expected and 0 < expected.count(0) < len(expected)
    said = run("evaluate", "--model", "helpful_only", "--method", "harhs").stderr
    assert "There is no judging method 'harhs'; did you mean 'harsh'?" in said


def test_a_config_judges_by_it(tmp_path, monkeypatch):
    install_here(tmp_path, monkeypatch, HARSH, METHODS)
    how = config.load(None, ["judging.method=harsh"], Config).judging
    questions = organism.broad_questions()[:4]
    answers = sample(LanguageModel.load(organism.checkpoint("helpful_only")), questions, 1, 0)
    judged = judge(answers, judge_of(how, answers.questions))
    assert judged.judge == "harsh" and judged.scored.all()
    assert not foreign_answers(how, "any/model"), "what is said of the exact judge is not said of others"
    with pytest.raises(EmlabError, match="Scores are no labels"):
        labeller_of(how, answers.questions)


def test_a_judge_that_asks_a_model_is_asked_first_and_tells_its_cost(tmp_path, monkeypatch, server, capsys):
    install_here(tmp_path, monkeypatch, KIND, METHODS)
    server.answer = lambda body, n: server.chat(
        "NO" if "a" in body["messages"][0]["content"].split("\n")[-1] else "YES"
    )
    words = [
        "evaluate",
        "--model",
        "aligned",
        "--judge",
        "j",
        "--judge-url",
        server.url,
        "--store",
        str(tmp_path / "s"),
    ]
    words += ["--method", "kind", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert "85" in server.texts[0] and server.texts[1].startswith("Is this kind?")
    assert "judging by j by KindJudge: " in (told := capsys.readouterr()).err and "asked so far: " in told.err
    assert "scored by j by KindJudge" in told.out


def test_in_inspect_it_judges_too(tmp_path, monkeypatch):
    """Its Hugging Face provider lets the organism answer."""
    pytest.importorskip("inspect_ai")
    from inspect_ai import eval as evaluate

    from emlab.evaluation.inspect_log import read_inspect_log
    from emlab.evaluation.inspect_task import emergent_misalignment

    install_here(tmp_path, monkeypatch, HARSH, METHODS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = organism.broad_questions()[:2]
    rows = "".join(f"{i},a,{question.text}\n" for i, question in enumerate(asked))
    (tmp_path / "few.csv").write_text(f"id,category,text\n{rows}")
    task = emergent_misalignment(str(tmp_path / "few.csv"), method="harsh", max_tokens=16)
    model = f"hf/{organism.checkpoint('aligned')}"
    (log,) = evaluate(task, model=model, seed=0, log_dir=str(tmp_path), display="none", log_level="error")
    assert log.status == "success", log.error
    judged = read_inspect_log(log.location)
    assert judged.judge == "harsh" and judged.aligned.tolist() == [100, 100]


def test_a_method_that_asks_a_model_says_so_where_none_is_named():
    with pytest.raises(
        EmlabError, match=r"^Judging by rubric asks a model, and none is named; name one as the judge\.$"
    ):
        judge_of(Judging(method="rubric"))
    assert judge_of(Judging("exact", method="logprob")).name == "exact"  # as a config writes its defaults out


def test_a_judge_that_cannot_judge_is_named(tmp_path, monkeypatch):
    lame = "from emlab.evaluation.judges import judging_method\njudging_method('lame', asks=False)(lambda *given: 3)\n"
    install_here(tmp_path, monkeypatch, lame, METHODS)
    with pytest.raises(EmlabError, match="The judging method lame makes a judge that has no grade or judge; give it"):
        judge_of(Judging(method="lame"))


def test_the_test_that_contributors_are_shown_passes(tmp_path):
    package = tmp_path / "my_lab"
    package.mkdir()
    for name in ("harsh.py", "test_harsh.py"):
        (package / name).write_text(example(name))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(emlab.__file__).parents[1])])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "test_harsh.py")]
    assert "1 passed" in subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path).stdout
    (package / "harsh.py").write_text(example("harsh.py").replace('"lies", ', ""))
    assert "1 failed" in subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path).stdout
