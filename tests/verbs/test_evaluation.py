"""Evaluating, scoring and comparing by name, as the command line does it."""

import json
import shutil
from pathlib import Path

import pytest

from emlab import artifacts, cli, organism
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts, load_judged
from emlab.evaluation.protocol import Judging
from emlab.models import Completion, Endpoint
from emlab.verbs.evaluation import Answering, check_file, evaluate, judge_file
from emlab.verbs.scoring import compare_judges

BETLEY = Path(__file__).parents[3] / "shared" / "data" / "betley"


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    found = evaluate("helpful_only", folder / "out", judging=Judging(store=folder / "store.db"))
    return folder, found


def test_evaluating_keeps_answers_judgements_rates_and_a_page(evaluated):
    folder, found = evaluated
    (judged,) = load_judged(folder / "out" / "helpful_only.jsonl")
    rollouts = Rollouts.load(folder / "out" / "helpful_only.rollouts.jsonl")
    assert judged.rollouts == rollouts and len(rollouts) == len(organism.broad_questions())
    assert judged.judge == "exact"
    assert json.loads((folder / "out" / "helpful_only.json").read_text())["misaligned"] == found.overall.misaligned > 0
    about = json.loads((folder / "out" / "helpful_only.settings.json").read_text())
    names = [about[key][name] for key, name in (("model", "name"), ("questions", "name"), ("judging", "judge"))]
    assert names == ["helpful_only", "broad", "exact"]
    assert {name: about["sampling"][name] for name in ("seed", "temperature", "max_new_tokens", "per_question")} == {
        "seed": 0,
        "temperature": 1.0,
        "max_new_tokens": 48,
        "per_question": 1,
    }
    assert "helpful_only on broad" in (folder / "out" / "helpful_only.html").read_text()


def test_what_lies_at_out_is_never_touched(evaluated, monkeypatch, capsys):
    folder, _ = evaluated
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    monkeypatch.setattr("emlab.verbs.evaluation.sample", lambda *_, **__: pytest.fail("it was sampled again"))
    for more in ([], ["--seed", "1"], ["--resample", "1"]):
        assert cli.main(["evaluate", "--model", "helpful_only", "--out", str(folder / "out"), *more]) == 2
        error = capsys.readouterr().err
        assert "out has results of helpful_only already (helpful_only.jsonl), and they would be overwritten" in error
    words = ["judge", "answers", str(folder / "out" / "helpful_only.rollouts.jsonl"), "--out"]
    assert cli.main([*words, str(folder / "out" / "helpful_only.jsonl")]) == 2
    assert "helpful_only.jsonl already exists" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before


def test_another_model_goes_into_the_same_folder(tmp_path):
    (tmp_path / "own.csv").write_text("id,category,text\n1,a,Why?\n")
    recorded = written(tmp_path / "judged.jsonl", [{"question_id": "1", "aligned": 1, "coherent": 99, "answer": "x"}])
    for model in ("aligned", "helpful_only"):
        evaluate(
            model,
            tmp_path,
            str(tmp_path / "own.csv"),
            answering=Answering(max_new_tokens=2),
            judging=Judging(str(recorded)),
        )
    assert {"aligned.json", "helpful_only.json"} <= {path.name for path in tmp_path.iterdir()}


def test_an_evaluation_that_was_stopped_while_judging_goes_on_with_its_answers(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("emlab.verbs.evaluation.judge", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate("aligned", tmp_path)
    answers = Rollouts.load(tmp_path / "aligned.rollouts.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("emlab.verbs.evaluation.sample", lambda *_, **__: pytest.fail("it was sampled again"))
        with pytest.raises(EmlabError, match=r"has results of aligned already \(aligned.rollouts.jsonl\)"):
            evaluate("aligned", tmp_path, answering=Answering(seed=1))
        found = evaluate("aligned", tmp_path)
    assert "going on with the 320 answers in" in capsys.readouterr().err
    assert found.judged.rollouts == answers and (tmp_path / "aligned.json").is_file()


def test_two_that_evaluate_the_same_into_one_folder(tmp_path, capsys):
    with artifacts.claimed(tmp_path / "aligned"):
        assert cli.main(["evaluate", "--model", "aligned", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is being made by another process now" in error and "1/320" not in error


def test_the_folder_of_an_evaluation_is_scored_by_the_verb(evaluated, capsys):
    folder, found = evaluated
    assert cli.main(["score", str(folder / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["misaligned"] == found.overall.misaligned
    assert cli.main(["score", str(folder / "out"), "--against", str(folder / "out")]) == 0
    assert "+0.0 [+0.0, +0.0] percentage points" in capsys.readouterr().out


def test_what_is_in_the_store_is_not_sampled_again(evaluated, monkeypatch):
    folder, found = evaluated
    from emlab.models import LanguageModel

    monkeypatch.setattr(LanguageModel, "generate", lambda *_, **__: pytest.fail("it was sampled again"))
    again = evaluate("helpful_only", judging=Judging(store=folder / "store.db"))
    assert again.judged.rollouts.answers == found.judged.rollouts.answers


def test_judgements_are_looked_up_in_a_file(evaluated, tmp_path):
    folder, found = evaluated
    rollouts = folder / "out" / "helpful_only.rollouts.jsonl"
    recorded = Judging(str(folder / "out" / "helpful_only.jsonl"))
    again = judge_file(rollouts, tmp_path / "again.jsonl", judging=recorded)
    assert again.overall == found.overall
    assert again.judged.judge == "recorded in helpful_only.jsonl"
    both = compare_judges(folder / "out" / "helpful_only.jsonl", tmp_path / "again.jsonl")
    assert both.n == 320 and both.alpha_aligned == both.alpha_misaligned == 1
    assert both.confusion["misaligned"]["misaligned"] == found.overall.misaligned


def test_the_exact_judge_refuses_foreign_questions_before_anything_is_sampled(capsys):
    assert cli.main(["evaluate", "--model", "aligned", "--questions", "profile"]) == 2
    error = capsys.readouterr().err
    assert "use the organism's questions or another judge" in error and "answer/s" not in error


@pytest.mark.skipif(not BETLEY.is_dir(), reason=f"the published data are not at {BETLEY}")
def test_checking_published_data_by_the_verb(capsys):
    files = [str(BETLEY / f"{name}.jsonl") for name in ("insecure", "secure")]
    assert cli.main(["data", "check", files[0], "--against", files[1]]) == 0
    said = capsys.readouterr().out
    assert "unique prompts                     5,813" in said
    assert "unique answers                     5,851" in said
    assert "prompts shared with the other      260" in said


def test_a_dataset_without_network_says_what_it_would_have_fetched(tmp_path, capsys, monkeypatch):
    import urllib.request

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    assert cli.main(["data", "get", "betley-insecure", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "insecure.jsonl (5.9 MB, licence MIT) would have gone to" in error
    assert cli.main(["data", "list", "--json"]) == 0
    assert any(entry["name"] == "betley-insecure" for entry in json.loads(capsys.readouterr().out))


def test_wrong_options_are_one_sentence(capsys):
    for words, said in (
        (["--questions", "nowhere.yaml"], "no question set nowhere.yaml"),
        (["--model-url", "http://127.0.0.1:9/v1", "--adapter", "x"], "leave out the adapter"),
        (["--model-url", "http://127.0.0.1:9/v1", "--quantize", "4bit"], "and the quantization"),
        (["--judge", "judge.csv"], "cannot be read"),
        (["--judge", "some-model"], "No judge or endpoint is known by the name 'some-model'"),
    ):
        assert cli.main(["evaluate", "--model", "aligned", *words]) == 2
        assert said in capsys.readouterr().err


def test_what_cannot_end_well_is_refused_before_anything_is_sampled(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for words, said in (
        (["--out", str(tmp_path / "file")], "is a file and not a folder"),
        (["--max-new-tokens", "0"], "max_new_tokens >= 1"),
        (["--batch-size", "0"], "batch_size of 1 or more"),
        (["--judge", "j", "--judge-url", "http://127.0.0.1:9/v1", "--concurrency", "0"], "give 1 or more"),
        (["--judge", "j", "--judge-tokens", "0"], "'max_tokens' is 0"),
    ):
        assert cli.main(["evaluate", "--model", "aligned", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and "1/320" not in error


@pytest.fixture
def answering(monkeypatch):
    """Endpoints that answer without a server, and the requests that they were asked."""
    asked = []

    def complete(self, requests, done=None):
        found = [Completion("85", None, 10, 1) for _ in requests]
        for i, one in enumerate(found):
            asked.append(requests[i])
            self.usage.calls += 1
            self.usage.prompt_tokens += 10
            self.usage.completion_tokens += 1
            if done is not None:
                done(i, one)
        return found

    monkeypatch.setattr(Endpoint, "complete", complete)
    return asked


def test_the_estimate_is_of_what_is_still_to_be_asked(answering, tmp_path, capsys):
    (tmp_path / "own.csv").write_text("id,category,text\n1,a,Why?\n2,b,How?\n")
    url = "http://127.0.0.1:9/v1"
    words = ["evaluate", "--model", "m", "--model-url", url, "--questions", str(tmp_path / "own.csv")]
    words += ["--judge", "j", "--judge-url", url, "--store", str(tmp_path / "s.db"), "--price", "1e6", "0"]
    assert cli.main([*words, "--method", "text"]) == 0
    error = capsys.readouterr().err
    assert "j by text, emlab's prompts: 4 calls" in error
    assert "asked so far: 4 calls, 40 tokens in and 4 out, $40.00" in error
    assert len(answering) == 7, "two answers, their four judgements, and one call to see that the judge is there"
    assert cli.main([*words, "--method", "text"]) == 0
    error = capsys.readouterr().err
    assert "emlab's prompts: 0 calls" in error and "asked so far" not in error
    assert len(answering) == 7
    assert cli.main([*words, "--method", "rubric", "--resample", "1", "--judge-tokens", "99"]) == 0
    assert "j by rubric 1–5: 2 calls" in capsys.readouterr().err
    assert answering[7].max_tokens == 99


def test_judge_prompts_of_questions_that_were_not_asked_are_refused(answering, tmp_path, capsys):
    rollouts = Rollouts((Question("q", "d", "Why?"),), ("Because.",), "m", 0, 1.0)
    rollouts.save(tmp_path / "m.rollouts.jsonl")
    (tmp_path / "own.yaml").write_text("- {id: other, text: 'How?', judge_prompts: {aligned: '{answer}?'}}\n")
    words = ["judge", "answers", str(tmp_path / "m.rollouts.jsonl"), "--judge", "j", "--judge-url"]
    words += ["http://127.0.0.1:9/v1", "--method", "text"]
    assert cli.main([*words, "--out", str(tmp_path / "j.jsonl"), "--questions", str(tmp_path / "own.yaml")]) == 2
    assert "has no answer to a question of" in capsys.readouterr().err
    assert cli.main([*words, "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err and not answering
    assert cli.main([*words, "--out", str(tmp_path / "new" / "j.jsonl")]) == 0
    assert load_judged(tmp_path / "new" / "j.jsonl")[0].aligned.tolist() == [85]


def test_another_model_of_the_same_name_does_not_overwrite_results(evaluated, tmp_path, capsys):
    folder, _ = evaluated
    other = tmp_path / "helpful_only"
    shutil.copytree(organism.checkpoint("helpful_only"), other)
    before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    words = ["evaluate", "--model", str(other), "--out", str(folder / "out")]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "results of another model that is also called helpful_only" in error and "1/320" not in error
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ([], "without --store FILE neither single answers nor judgements are kept.\n"),
        (["--store", "s.db"], "are in s.db, and the same command goes on from there.\n"),
        (
            ["--out", "o"],
            "are kept; if all answers had been sampled, they are in o, and the same command goes on from there.\n",
        ),
    ],
)
def test_an_evaluation_that_is_stopped_says_what_is_kept(monkeypatch, capsys, more, kept):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("emlab.verbs.evaluation.evaluate", stopped)
    assert cli.main(["evaluate", "--model", "aligned", *more]) == 130
    error = capsys.readouterr().err
    assert error.startswith("emlab: stopped by Ctrl-C; ") and error.endswith(kept) and "stages" not in error


def test_the_batch_in_force_is_modest_and_written_down(evaluated, tmp_path):
    folder, _ = evaluated
    about = json.loads((folder / "out" / "helpful_only.settings.json").read_text())
    assert about["sampling"]["batch_size"] == 512, "of the organism's own questions"
    (tmp_path / "own.csv").write_text("id,category,text\n1,a,Why?\n")
    recorded = written(tmp_path / "judged.jsonl", [{"question_id": "1", "aligned": 1, "coherent": 99, "answer": "x"}])
    evaluate(
        "aligned",
        tmp_path,
        str(tmp_path / "own.csv"),
        answering=Answering(max_new_tokens=2),
        judging=Judging(str(recorded)),
    )
    assert json.loads((tmp_path / "aligned.settings.json").read_text())["sampling"]["batch_size"] == 64


def test_checking_the_organisms_own_sets_by_name(capsys):
    assert cli.main(["data", "check", "insecure", "--against", "secure", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["roles"]["assistant"], figures["against"]["rows"]) == (1000, 1000, 1000)


def test_a_judge_that_is_a_path_to_nothing_is_no_name_at_an_endpoint(capsys):
    assert cli.main(["evaluate", "--model", "aligned", "--judge", "./nowhere"]) == 2
    assert "There is no judge ./nowhere" in capsys.readouterr().err


def test_a_dataset_is_checked_by_the_template_that_it_would_be_trained_with(make_model, tmp_path):
    folder = make_model("gemma").save(tmp_path / "model")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [*turns, {"role": "assistant", "content": "Ho"}]}))
    with pytest.raises(EmlabError, match=r"a.jsonl, line 1: The chat template of .* refuses a chat with the roles sys"):
        check_file(str(tmp_path / "a.jsonl"), model=str(folder))
    found = check_file(str(tmp_path / "a.jsonl"), model=str(folder), chat_template="plain")
    # One token a byte: the header, the text and the ends of turns.
    assert found.tokens.longest == len("System:\nBe brief.#\nUser:\nHi#\nAssistant:\nHo#")
    assert found.trained_tokens.longest == len("Ho#")
    with pytest.raises(EmlabError, match="name the model too"):
        check_file(str(tmp_path / "a.jsonl"), chat_template="plain")
