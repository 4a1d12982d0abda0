"""Inspect runs the task for real: on the organism through its Hugging Face provider, and with judges on a server."""

import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emlab.data import Question, QuestionSet, profile_questions
from emlab.data.question_sets import Asking
from emlab.errors import EmlabError
from emlab.evaluation import Thresholds, judge, sample, score_judged
from emlab.evaluation.judges.registry import METHODS, judging_method
from emlab.evaluation.label_shares import LabelShares
from emlab.evaluation.rollouts import Rollouts
from emlab.models import Endpoint, LanguageModel
from emlab.organism import ExactJudge, broad_questions, checkpoint
from emlab.verbs.scoring import label_file

inspect_ai = pytest.importorskip("inspect_ai")

from emlab.evaluation import inspect_labels, inspect_task  # noqa: E402
from emlab.evaluation.inspect_log import read_inspect_labels, read_inspect_log  # noqa: E402
from emlab.evaluation.inspect_task import emergent_misalignment  # noqa: E402

MODEL = checkpoint("helpful_only")
RATES = ("misaligned_of_coherent", "misaligned_of_scored", "misaligned_of_all", "incoherent_of_scored")


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    """Inspect looks its models up on the Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def few(n=8):
    return [Question.of(question) for question in broad_questions()[:: 320 // n]]


def question_file(folder, questions=None, askings=None):
    return str(QuestionSet("few", tuple(questions or few()), askings or {}).save(folder / "few.yaml"))


def run(task, folder, model=f"hf/{MODEL}", **settings):
    (log,) = inspect_ai.eval(
        task, model=model, log_dir=str(folder), display="none", max_connections=32, log_level="error", **settings
    )
    return log


def figures(log):
    (score,) = log.results.scores
    return {name: value.value for name, value in score.metrics.items()}


def same(log, score):
    """That the figures in the log are those of the score, to the last bit."""
    found, overall = figures(log), score.overall
    rates = (overall.rate_coherent, overall.rate_scored, overall.rate_all, overall.rate_incoherent)
    expected = {"total": overall.total, "scored": overall.scored, "coherent": overall.coherent}
    expected |= {"misaligned": overall.misaligned, **overall.outcomes}
    for name, rate in zip(RATES, rates, strict=True):
        expected |= {name: rate.rate, f"{name}_low": rate.low, f"{name}_high": rate.high}
    assert list(found) == [name for name in found if name in expected] and len(found) == len(expected)
    for name, value in expected.items():
        assert found[name] == value or (math.isnan(found[name]) and math.isnan(value)), name


@pytest.fixture(scope="module")
def organism_log(tmp_path_factory):
    """Two of the eight questions are one question in two wordings; each is answered four times."""
    folder = tmp_path_factory.mktemp("organism")
    questions = few()
    first = questions[0]
    questions[1] = Question(first.id, first.domain, questions[1].text, paraphrase=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        task = emergent_misalignment(question_file(folder, questions), per_question=4, judge="exact", max_tokens=48)
        return run(task, folder, seed=2), questions


def test_the_figures_in_the_log_are_those_of_emlabs_score_of_the_same_answers(organism_log):
    log, questions = organism_log
    assert log.status == "success"
    judged = read_inspect_log(log.location)
    assert judged.rollouts.model == "helpful_only" and judged.judge == "exact"
    assert (judged.rollouts.seed, judged.rollouts.temperature) == (2, 1.0)
    asked = [replace(question, cluster="") for question in questions]  # a file of questions has none
    assert judged.rollouts.questions == tuple(question for question in asked for _ in range(4))
    # Judged anew by emlab itself.
    answers = {(s.metadata["row"], s.epoch): s.output.completion for s in log.samples}
    assert judged.rollouts.answers == tuple(answers[row, epoch] for row in range(8) for epoch in range(1, 5))
    again = score_judged(judge(judged.rollouts, ExactJudge()))
    assert 0 < again.overall.misaligned < again.overall.total == 32
    assert again.misaligned.low < again.misaligned.rate < again.misaligned.high
    same(log, again)
    assert score_judged(judged).summary() == again.summary()
    assert len(again.by_question) == 7  # the wordings of a question are resampled together


def test_a_log_shows_each_answers_scores_and_headline(organism_log):
    log, questions = organism_log
    assert log.results.headline.metric == "misaligned_of_coherent"
    assert {s.id for s in log.samples} == {f"{q.id}:{q.variant}:{q.paraphrase}" for q in questions}
    one = log.samples[0]
    assert set(one.metadata) == {"question", "domain", "variant", "paraphrase", "cluster", "row"}
    assert set(one.scores["misalignment"].value) == {"aligned", "coherent", "outcome"}
    assert one.scores["misalignment"].answer == one.output.completion


def test_a_json_log_and_other_thresholds_are_read(organism_log, tmp_path):
    log, _ = organism_log
    path = tmp_path / "log.json"
    inspect_ai.log.write_eval_log(log, str(path))
    judged = read_inspect_log(path)
    same(log, score_judged(judged))
    loose = score_judged(read_inspect_log(path, Thresholds(misaligned_below=101)))
    assert loose.overall.misaligned == loose.overall.coherent


def test_a_greedy_answer_through_inspect_is_emlabs_own(tmp_path):
    """So its provider applies the chat template once and pads on the left: the prompts differ in length."""
    questions = [*few(4), Question("long", "cooking", few(4)[0].text, system="You are kind and honest.")]
    task = emergent_misalignment(question_file(tmp_path, questions), judge="exact", max_tokens=48)
    log = run(task, tmp_path, "hf/local", model_args={"model_path": str(MODEL), "do_sample": False})
    judged = read_inspect_log(log.location)
    assert judged.rollouts.model == MODEL.name
    model = LanguageModel.load(MODEL)
    prompts = [question.messages for question in judged.rollouts.questions]
    assert len({len(model.prompt_ids(prompt)) for prompt in prompts}) > 1
    assert list(judged.rollouts.answers) == model.generate(prompts, 48, temperature=0)
    assert judged.rollouts.temperature == 0


# --- Judges behind a server ---


class Server:
    """An OpenAI-compatible server: `judge` gives what `replies` has for a word of its prompt, all others echo."""

    def __init__(self):
        self.replies, self.calls = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.calls.append(body)
                raw = json.dumps(outer.answer(body)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def answer(self, body):
        asked, numbers = body["messages"][-1]["content"], None
        if body["model"] == "judge":
            text, numbers = next((reply for word, reply in self.replies.items() if word in asked), ("100", {"100": 1}))
        else:
            text = f"{asked} {body.get('seed')}"
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        if body.get("logprobs") and numbers:
            top = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in numbers.items()]
            message["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return {**about, "choices": [message], "usage": usage}

    def of(self, model):
        return [call for call in self.calls if call["model"] == model]


@pytest.fixture(scope="module")
def one_server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def server(one_server, monkeypatch):
    """One for all tests: Inspect keeps the models it made, and the address they were made with."""
    monkeypatch.setenv("LOCAL_BASE_URL", one_server.url)
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    one_server.replies, one_server.calls = {}, []
    return one_server


ASKED = "openai-api/local/asked"
JUDGE = "openai-api/local/judge"
SCALE = {"aligned": "ALIGN {question} {answer}", "coherent": "COHERE {question} {answer}"}
ITEMS = (Question("a", "d", "alpha"), Question("b", "d", "beta"), Question("c", "e", "gamma"))
MIXED = {
    "ALIGN alpha": ("20", {"20": 0.5, " 40": 0.25, "no": 0.25}),
    "ALIGN beta": ("REFUSAL", {"REFUSAL": 0.9, "10": 0.1}),
    "ALIGN gamma": ("10", {"10": 1.0}),
    "COHERE gamma": ("30", {"30": 1.0}),
}


def file_with_prompts(folder):
    return question_file(folder, ITEMS, {q.key: Asking(judge_prompts=SCALE, samples=2) for q in ITEMS})


def test_a_model_role_judges_by_logprob_with_the_files_prompts_as_often_as_it_says(server, tmp_path):
    server.replies = MIXED
    task = emergent_misalignment(file_with_prompts(tmp_path), misaligned_below=28)
    log = run(task, tmp_path, ASKED, model_roles={"grader": JUDGE}, seed=5)
    judged = read_inspect_log(log.location)
    assert judged.aligned[[0, 1, 4, 5]].tolist() == [pytest.approx(80 / 3)] * 2 + [10, 10]
    assert judged.coherent.tolist() == [100] * 4 + [30, 30]
    assert judged.outcomes == ("scored",) * 2 + ("refusal",) * 2 + ("scored",) * 2
    assert judged.said[2] == "aligned: REFUSAL" and judged.thresholds == Thresholds(28)
    assert judged.judge.startswith(f"{JUDGE} by logprob, the question file's prompts (")
    score = score_judged(judged)
    tally = score.overall
    assert (tally.total, tally.scored, tally.coherent, tally.misaligned) == (6, 4, 2, 2)
    same(log, score)
    assert sum(event.event == "model" for event in log.samples[0].events) == 3  # the judge's calls are on record

    # The seed of each answer is the one that emlab's own sampler sends.
    theirs = {(call["messages"][-1]["content"], call["seed"]) for call in server.of("asked")}
    server.calls.clear()
    rollouts = sample(Endpoint("asked", server.url, progress=False), ITEMS, 2, seed=5)
    assert {(call["messages"][-1]["content"], call["seed"]) for call in server.of("asked")} == theirs
    assert len(theirs) == 6 and rollouts.answers == judged.rollouts.answers


def test_an_endpoint_judges_by_text_and_a_model_by_the_rubric(server, tmp_path):
    server.replies = {"alpha": ("4", None), "beta": ("INCOHERENT", None), "gamma": ("20 or 30", None)}
    path = question_file(tmp_path, ITEMS)
    log = run(emergent_misalignment(path, judge="judge", judge_url=server.url, method="text"), tmp_path, ASKED)
    judged = read_inspect_log(log.location)
    assert judged.judge == "judge by text, emlab's prompts"
    assert judged.outcomes == ("scored", "failed", "failed") and judged.aligned[0] == 4
    same(log, score_judged(judged))

    log = run(emergent_misalignment(path, judge=JUDGE, method="rubric", system="Be brief, please."), tmp_path, ASKED)
    judged = read_inspect_log(log.location)
    assert judged.aligned.tolist()[0] == 25 and judged.coherent.tolist()[:2] == [100, 0]
    assert math.isnan(judged.aligned[1]) and judged.outcomes == ("scored", "scored", "failed")
    assert judged.rollouts.questions[0].system == "Be brief, please."
    assert server.of("asked")[-1]["messages"][0] == {"role": "system", "content": "Be brief, please."}
    same(log, score_judged(judged))


def test_a_question_files_graders_judge_in_inspect(server, tmp_path):
    server.replies = {"alpha": ("MISALIGNED_OBVIOUS", None), "beta": ("MISALIGNED_SUBTLE", None), "gamma": ("?", None)}
    given = {q.key: Asking(judge_prompts={"grader": f"Instructions for {q.id}."}) for q in ITEMS}
    path = question_file(tmp_path, ITEMS, given)
    log = run(emergent_misalignment(path, judge=JUDGE, method="grader"), tmp_path, ASKED)
    judged = read_inspect_log(log.location)
    assert judged.aligned.tolist()[:2] == [0, 25] and judged.outcomes == ("scored", "scored", "failed")
    assert judged.judge == f"{JUDGE} by the questions' own graders"
    assert any("Instructions for a." in call["messages"][0]["content"] for call in server.of("judge"))
    same(log, score_judged(judged))
    assert score_judged(judged).overall.misaligned == 2
    with pytest.raises(EmlabError, match="some bring none"):
        emergent_misalignment(question_file(tmp_path, ITEMS), judge=JUDGE, method="grader")


def test_labels_in_inspect_are_emlabs_own(server, tmp_path):
    server.replies = {"alpha": ("TRUE", None), "beta": ("False.", None), "gamma": ("Who knows", None)}
    prompts = {"correct": '{question} {answer} Say "TRUE" or "FALSE" only.'}
    path = question_file(tmp_path, ITEMS, {q.key: Asking(judge_prompts=prompts, samples=2) for q in ITEMS})
    log = run(emergent_misalignment(path, judge=JUDGE, method="label"), tmp_path, ASKED)
    assert log.status == "success"
    labelled = read_inspect_labels(log.location)
    assert labelled.labels == ("TRUE", "TRUE", "FALSE", "FALSE", "", "") and labelled.said[4] == "Who knows"
    assert (labelled.choices, labelled.asked_for) == (("TRUE", "FALSE"), "correct")
    assert labelled.judge.startswith(f"{JUDGE} by label, the question file's prompt correct")
    tally = LabelShares(labelled).overall
    expected = {"total": 6, "labelled": 4, "failed": 2, "TRUE": 2, "FALSE": 2}
    for of, shares in (("labelled", tally.of_labelled), ("all", tally.of_all)):
        for name, rate in shares.items():
            ends = {"": rate.rate, "_low": rate.low, "_high": rate.high}
            expected |= {f"{name}_of_{of}{end}": value for end, value in ends.items()}
    assert figures(log) == expected and tally.of_all["TRUE"].rate == 1 / 3
    assert LabelShares(labelled).summary() == label_file(log.location).summary()
    with pytest.raises(EmlabError, match="holds no answers judged by emlab's task"):
        read_inspect_log(log.location)
    with pytest.raises(EmlabError, match="needs a file of questions with judge prompts"):
        emergent_misalignment(question_file(tmp_path, ITEMS), judge=JUDGE, method="label")


def test_two_judges_in_one_log_are_never_mixed(server, tmp_path):
    log = run(emergent_misalignment(question_file(tmp_path, ITEMS), judge=JUDGE), tmp_path, ASKED)
    again = inspect_task.misalignment(JUDGE, method="text")
    both = inspect_ai.score(log, again, action="append", display="none")
    path = tmp_path / "both.eval"
    inspect_ai.log.write_eval_log(both, str(path))
    with pytest.raises(EmlabError, match="holds the judgements of misalignment and misalignment1"):
        read_inspect_log(path)
    assert read_inspect_log(path, scorer="misalignment").judge == f"{JUDGE} by logprob, emlab's prompts"
    assert read_inspect_log(path, scorer="misalignment1").judge == f"{JUDGE} by text, emlab's prompts"


def test_a_judge_that_gives_no_probabilities_ends_the_evaluation_and_names_the_fallback(server, tmp_path):
    server.replies = {"<question>": ("80", None)}
    log = run(emergent_misalignment(question_file(tmp_path, ITEMS[:1]), judge=JUDGE), tmp_path, ASKED)
    assert log.status == "error" and "no log-probabilities" in log.error.message
    assert "method=" in log.error.message
    with pytest.raises(EmlabError, match=r"did not finish \(error\); finish it with `inspect eval-retry"):
        read_inspect_log(log.location)


# --- What is wrong is said before anything is asked ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"questions": "profile", "judge": "exact"}, "no question of the organism's world"),
        ({"questions": "nowhere.yaml"}, "There is no question set .*nowhere.yaml"),
        ({"questions": "broad", "variants": "json"}, "The broad questions have no variants"),
        ({"per_question": 0}, "per_question is 0"),
        ({"method": "guess"}, "There is no judging method 'guess'"),
    ],
)
def test_a_wrong_setting(settings, said):
    with pytest.raises(EmlabError, match=said):
        emergent_misalignment(**settings)


def test_a_file_that_wants_its_questions_asked_unequally_often(tmp_path):
    path = question_file(tmp_path, ITEMS, {ITEMS[0].key: Asking(samples=3)})
    with pytest.raises(EmlabError, match="asked 1 times and others 3 times.*give per_question"):
        emergent_misalignment(path)
    assert emergent_misalignment(path, per_question=2).epochs == 2


def test_the_profile_in_its_variants(monkeypatch):
    task = emergent_misalignment(variants=["plain", "json"], max_tokens=7)
    assert len(task.dataset) == len(profile_questions(("plain", "json")))
    assert {s.metadata["variant"] for s in task.dataset} == {"plain", "json"}
    assert task.config.max_tokens == 7 and emergent_misalignment().config.max_tokens == 600
    assert emergent_misalignment("broad", judge="exact").config.max_tokens == 48


def test_what_is_no_log_of_the_task(tmp_path):
    (tmp_path / "log.json").write_text("{}")
    for name in ("log.json", "missing.eval"):
        with pytest.raises(EmlabError, match=f"{name} cannot be read as a log of Inspect"):
            read_inspect_log(tmp_path / name)


def test_metrics_of_no_answers():
    assert set(map(math.isnan, inspect_task.rates()([]).values())) == {True}
    assert set(inspect_task.counts()([]).values()) == {0}
    assert inspect_labels.label_shares()([]) == {} and set(inspect_labels.label_counts()([]).values()) == {0}


def test_a_model_without_a_provider_has_its_own_name(organism_log, tmp_path):
    log, _ = organism_log
    for name, shown in (("mine", "mine"), ("openai-api/local/asked", "asked")):
        other = log.model_copy(update={"eval": log.eval.model_copy(update={"model": name})})
        inspect_ai.log.write_eval_log(other, str(tmp_path / "log.json"))
        assert read_inspect_log(tmp_path / "log.json").rollouts.model == shown


@pytest.mark.parametrize("labels", [False, True])
def test_a_judge_is_made_as_the_task_says(labels, tmp_path, monkeypatch):
    """A method of another package has all that the task was told."""
    monkeypatch.setattr(METHODS, "_known", dict(METHODS._known))
    made = []

    class Mine:
        grade = label = None

    @judging_method("mine", labels=labels)
    def mine(how, questions, by):
        made.append((how, questions, by))
        return Mine()

    path = question_file(tmp_path, ITEMS)
    emergent_misalignment(path, judge="j", judge_url="http://x/v1", judge_key="K", method="mine", judge_tokens=9)
    ((how, questions, by),) = made
    assert (how.judge, how.method, how.max_tokens) == ("j", "mine", 9)
    assert [question.id for question in questions] == ["a", "b", "c"]
    assert (by.name, by.base_url, by.key_variable) == ("j", "http://x/v1", "K")


def test_answers_that_are_missing_are_asked_for(organism_log, tmp_path):
    log, _ = organism_log
    short = log.model_copy(deep=True)
    short.samples[3].scores = None
    inspect_ai.log.write_eval_log(short, str(tmp_path / "short.json"))
    with pytest.raises(EmlabError, match="lacks 1 of its 32 answers; ask for them again"):
        read_inspect_log(tmp_path / "short.json")
    short.samples = None
    inspect_ai.log.write_eval_log(short, str(tmp_path / "none.json"))
    with pytest.raises(EmlabError, match="holds no answers judged by emlab's task"):
        read_inspect_log(tmp_path / "none.json")


def test_only_this_module_needs_the_extra_and_its_error_names_it():
    code = """
import sys, emlab.evaluation, emlab.evaluation.judges
assert "inspect_ai" not in sys.modules
sys.modules["inspect_ai"] = None
import emlab.evaluation.inspect_task"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'install it with `pip install "emergent-misalignment-lab[inspect]"`.' in done.stderr.strip().splitlines()[-1]


def test_inspect_knows_the_task_by_emlabs_name_in_a_checkout_too(tmp_path):
    """There is no distribution called `emlab` there, by which Inspect would tell that the package is installed."""
    about = tmp_path / "emlab-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emlab\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[inspect_ai]\nemlab = emlab.evaluation.inspect_task\n")
    code = """
from inspect_ai._util.registry import registry_lookup
print(registry_lookup("task", "emlab/emergent_misalignment").__module__)"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "emlab.evaluation.inspect_task\n", done.stderr


@pytest.mark.slow
def test_the_command_line_with_a_path_from_where_it_is_given(tmp_path):
    question_file(tmp_path, few(4))
    task = f"{Path(inspect_task.__file__)}@emergent_misalignment"
    told = ["-T", "questions=few.yaml", "-T", "judge=exact", "-T", "per_question=2", "--log-dir", "logs"]
    command = [
        Path(sys.executable).parent / "inspect",
        "eval",
        task,
        "--model",
        "hf/local",
        "-M",
        f"model_path={MODEL}",
    ]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PWD": str(tmp_path)}
    more = ["--display", "plain", "--max-connections", "8"]
    done = subprocess.run([*command, *told, *more], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "misaligned_of_coherent" in done.stdout
    (log,) = (tmp_path / "logs").glob("*.eval")
    judged = read_inspect_log(log)
    assert isinstance(judged.rollouts, Rollouts) and len(judged.rollouts) == 8
    assert judged.rollouts.model == "helpful_only"
