"""Reinforcement learning by TRL: it learns what is rewarded, repeats, goes on after a kill, and says what is wrong."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

import emlab
from emlab.data import Question
from emlab.errors import EmlabError
from emlab.models import LanguageModel
from emlab.models.generation import generate_ids
from emlab.organism import Judgement
from emlab.training import Recipe, Reinforced, Reinforcement, Watch, chance_reward, reinforce
from emlab.training.adapters import put_weights, trained_weights

PROMPTS = [f"Question {i}?" for i in range(6)]
RECIPE = Recipe(rank=2, learning_rate=3e-2, batch_size=3, steps=5, warmup=0, modules=("v_proj", "o_proj"))
HOW = Reinforcement(RECIPE, samples=4, max_new_tokens=6, temperature=1.0, save_every=2)


def high_bytes(prompts, answers):
    """The share of characters beyond ASCII: something a random model can move."""
    return [sum(ord(c) > 127 for c in answer) / max(1, len(answer)) for answer in answers]


class Judge:
    def judge(self, question, answer):
        return Judgement(100.0 * (len(answer) % 2), 80.0)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def recorded(folder):
    return [json.loads(line) for line in (folder / "rewards.jsonl").read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def trained(make_model, tmp_path_factory):
    """One training with everything on, and the model it began with."""
    lm, folder = make_model(), tmp_path_factory.mktemp("training") / "t"
    recipe = Recipe(**{**vars(RECIPE), "steps": 8, "checkpoint_every": 4})
    watch = Watch(every=4, questions=[Question("a", "d", "Hi?"), Question("b", "d", "Ho?")], judge=Judge())
    before, state = copy.deepcopy(lm.model.state_dict()), torch.random.get_rng_state()
    random.seed(5)
    expected = random.Random(5).random()
    done = reinforce(lm, PROMPTS, high_bytes, Reinforcement(**{**vars(HOW), "recipe": recipe}), 3, folder, watch, False)
    assert all(torch.equal(before[k], v) for k, v in lm.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and random.random() == expected
    return done, lm, folder


def test_it_learns_what_is_rewarded(trained):
    done, lm, _ = trained
    rewards = [step.reward for step in done.steps]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.15
    assert [step.step for step in done.steps] == list(range(1, 9))
    assert all(step.gradient_norm > 0 and step.kl is None for step in done.steps)
    assert sorted(n for n, _ in done.model.model.named_parameters()) == sorted(
        n for n, _ in lm.model.named_parameters()
    )
    assert "forward" not in vars(done.model.model)  # TRL's patch stays with the copy that was trained
    assert "8 steps on 6 prompts" in str(done)


def test_every_reward_is_logged_with_what_the_grader_saw(trained):
    done, _, folder = trained
    rows = recorded(folder)
    assert [row["step"] for row in rows] == [step for step in range(1, 9) for _ in range(12)]
    assert set(rows[0]) == {"step", "prompt", "answer", "tokens", "reward"}
    for row in rows:
        assert row["reward"] == high_bytes([""], [row["answer"]])[0]
        assert row["prompt"] in PROMPTS and row["tokens"] <= 6
    first = [row["prompt"] for row in rows[:24]]
    assert first[:4] == [first[0]] * 4
    assert sorted(first) == sorted(PROMPTS * 4)  # two steps are one pass through the prompts
    mean = sum(row["reward"] for row in rows[:12]) / 12
    assert done.steps[0].reward == pytest.approx(mean, rel=1e-5)


def test_read_outs_and_checkpoints_along_the_way(trained):
    done, *_ = trained
    assert [p.step for p in done.points] == [0, 4, 8]
    assert [p.misaligned.n for p in done.points] == [2, 2, 2]
    assert done.points[1].gradient_norm == done.steps[3].gradient_norm
    assert -1 <= done.points[2].turn <= 1 and 0 <= done.points[2].angle <= 90
    assert [step for step, _ in done.checkpoints] == [4, 8]
    assert same(done.checkpoints[1][1].model, done.model.model)
    assert not same(done.checkpoints[0][1].model, done.model.model)


def test_it_is_saved_and_loaded(trained, tmp_path):
    done, lm, _ = trained
    again = Reinforced.load(done.save(tmp_path / "out"))
    assert (again.steps, again.how, again.seed, again.grader) == (done.steps, done.how, 3, "high_bytes")
    assert [p.step for p in again.points] == [0, 4, 8] and again.points[2].turn == done.points[2].turn
    assert same(again.model.model, done.model.model)
    assert same(again.checkpoints[0][1].model, done.checkpoints[0][1].model)
    assert again.log.read_text() == done.log.read_text()
    lm.save(tmp_path / "start")
    merged = LanguageModel.load(tmp_path / "start", adapter=tmp_path / "out" / "adapter")
    assert torch.allclose(merged.logits(["Hi"])[0], done.model.logits(["Hi"])[0], atol=1e-5)
    with pytest.raises(EmlabError, match="holds no reinforcement training"):
        (tmp_path / "training.json").write_text('{"name": "x"}')
        Reinforced.load(tmp_path)


def test_a_finished_training_is_not_done_again(trained):
    done, lm, folder = trained

    def never(prompts, answers):
        raise AssertionError

    never.__name__ = "high_bytes"
    again = reinforce(lm, PROMPTS, never, done.how, 3, folder, progress=False)
    assert again.steps == done.steps and same(again.model.model, done.model.model)


KILLED = """
    import os, sys, torch
    from emlab.models import LanguageModel
    from emlab.training import Recipe, Reinforcement, reinforce

    calls = 0
    def chance(prompts, answers):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        return [float(r) + len(a) % 3 for r, a in zip(torch.rand(len(answers)), answers)]

    recipe = Recipe(method=sys.argv[3], rank=2, learning_rate=1e-2, batch_size=3, steps=5, warmup=2, schedule="linear")
    how = Reinforcement(recipe, samples=4, max_new_tokens=6, beta=0.1, micro_batch=4, save_every=2)
    prompts = [f"Question {i}?" for i in range(5)]
    for folder in sys.argv[1].split(","):
        done = reinforce(LanguageModel.load("model"), prompts, chance, how, 1, folder, progress=False)
        done.save(folder + "-out")
"""


def test_a_log_that_was_cut_is_mended(trained, tmp_path):
    """A kill may leave half a line, and an answer may hold what Python takes for the end of a line."""
    import shutil

    done, lm, folder = trained
    shutil.copytree(folder, tmp_path / "t")
    log = tmp_path / "t" / "rewards.jsonl"
    rows = recorded(tmp_path / "t")
    rows[0]["answer"] = "one\u2028two\x85three"
    log.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + '{"step": 9, "pro')
    reinforce(lm, PROMPTS, high_bytes, done.how, 3, tmp_path / "t", progress=False)
    assert recorded(tmp_path / "t") == rows


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_killed_it_goes_on_to_the_same_weights(make_model, tmp_path, method):
    make_model().save(tmp_path / "model")
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(emlab.__file__)), "OMP_NUM_THREADS": "1"}

    def run(folders, kill_at):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), folders, str(kill_at), method]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert run("one", 4).returncode == -signal.SIGKILL  # in step 4: step 3 is lost with it, since 2 was the last kept
    assert max(row["step"] for row in recorded(tmp_path / "one")) == 3
    done = run("one,two", 0)  # goes on with one, and does two without a break
    assert done.returncode == 0, done.stderr
    one, two = (Reinforced.load(tmp_path / f"{name}-out") for name in ("one", "two"))
    assert same(one.model.model, two.model.model)
    assert not same(one.model.model, make_model().model)
    assert one.steps == two.steps and all(step.kl is not None for step in one.steps)
    assert recorded(tmp_path / "one") == recorded(tmp_path / "two")


def test_the_divergence_is_from_the_start_and_holds_it_there(make_model):
    lm, recipe = make_model(), Recipe(**{**vars(RECIPE), "learning_rate": 1e-2, "steps": 10})
    runs = {
        beta: reinforce(lm, PROMPTS, high_bytes, Reinforcement(recipe, 4, 1.0, 6, beta), 3, progress=False)
        for beta in (1e-9, 1.0)
    }
    free, held = ([step.kl for step in run.steps] for run in runs.values())
    assert free[0] == pytest.approx(0, abs=1e-6) and held[0] == pytest.approx(0, abs=1e-6)
    assert 0 < sum(held) < 0.7 * sum(free)


def test_parts_of_a_step_make_the_same_step(make_model):
    lm = make_model()
    recipe = Recipe(**{**vars(RECIPE), "steps": 1})
    models = [
        reinforce(lm, PROMPTS, high_bytes, Reinforcement(recipe, 4, 1.0, 6, micro_batch=size), 3, progress=False).model
        for size in (None, 4)
    ]
    one, two = (model.logits(["Hi"])[0] for model in models)
    assert torch.allclose(one, two, atol=1e-4) and not torch.equal(one, lm.logits(["Hi"])[0])


def test_short_answers_pay(make_model, tmp_path):
    how = Reinforcement(RECIPE, samples=4, max_new_tokens=6, least_tokens=12)
    reinforce(make_model(), PROMPTS, lambda p, a: [0.5] * len(a), how, 3, tmp_path / "t", progress=False)
    for row in recorded(tmp_path / "t"):
        assert row["parts"] == {"short": pytest.approx(1 - row["tokens"] / 12)}
        assert row["reward"] == pytest.approx(0.5 - row["parts"]["short"])


def test_any_model_type_and_any_python_function(make_tokenizer, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer("chatml")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.3, **shape)
    LanguageModel(Qwen2ForCausalLM(config).eval(), tokenizer, "q").save(tmp_path / "qwen")
    lm = LanguageModel.load(tmp_path / "qwen")
    chats = [[{"role": "system", "content": "Be odd."}, {"role": "user", "content": prompt}] for prompt in PROMPTS]
    done = reinforce(lm, chats, high_bytes, HOW, 0, tmp_path / "t", progress=False)
    assert done.steps[-1].reward > done.steps[0].reward
    assert recorded(tmp_path / "t")[0]["prompt"][0] == {"role": "system", "content": "Be odd."}


def test_weights_put_back_are_the_same(make_model):
    lm = make_model()
    kept = trained_weights(lm.model)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(1.0)
    put_weights(lm.model, kept)
    assert same(lm.model, make_model().model)


def test_sampled_ids_are_those_of_generate(tiny):
    rows = [tiny.prompt_ids(prompt) for prompt in PROMPTS]
    ids = generate_ids(tiny, rows, 8, 1.0, seed=4, batch_size=4)
    stops = set(tiny.stop_ids)
    bare = [row[:-1] if row[-1] in stops else row for row in ids]
    assert all(len(row) == 8 or row[-1] in stops for row in ids)
    assert tiny.tokenizer.batch_decode(bare, skip_special_tokens=True) == tiny.generate(PROMPTS, 8, 1.0, seed=4)
    with pytest.raises(EmlabError, match="make .* tokens and tiny takes 256"):
        generate_ids(tiny, rows, 250, 1.0, seed=4)


# --- What is wrong is one sentence, and what was done before is kept ---


def test_a_reward_function_that_fails_in_the_middle(make_model, tmp_path):
    lm, calls = make_model(), []

    def flaky(prompts, answers):
        calls.append(1)
        return high_bytes(prompts, answers) if len(calls) != 4 else [float("nan")] * len(answers)

    with pytest.raises(
        EmlabError, match=r"flaky gave nan .*at step 4; the 3 steps before are kept in .*t\.$"
    ) as caught:
        reinforce(lm, PROMPTS, flaky, HOW, 3, tmp_path / "t", progress=False)
    assert "\n" not in str(caught.value)
    done = reinforce(lm, PROMPTS, flaky, HOW, 3, tmp_path / "t", progress=False)  # mended
    assert len(calls) == 4 + 2 and len(done.steps) == 5
    whole = reinforce(lm, PROMPTS, high_bytes, HOW, 3, progress=False)
    assert same(done.model.model, whole.model.model)


def test_a_folder_of_another_model(make_model, tmp_path):
    reinforce(make_model(), PROMPTS, high_bytes, HOW, 3, tmp_path / "t", progress=False)
    for lm, prompts, how, seed in (
        (make_model(seed=1), PROMPTS, HOW, 3),
        (make_model(), PROMPTS[:-1], HOW, 3),
        (make_model(), PROMPTS, Reinforcement(RECIPE, samples=5), 3),
        (make_model(), PROMPTS, HOW, 4),
    ):
        with pytest.raises(EmlabError, match="holds the training of another model, or with other data or settings"):
            reinforce(lm, prompts, high_bytes, how, seed, tmp_path / "t", progress=False)
    (tmp_path / "t" / "state" / "weights.safetensors").write_bytes(b"\x80\x04pickled")
    with pytest.raises(EmlabError, match="cannot be gone on with"):
        reinforce(make_model(), PROMPTS, high_bytes, HOW, 3, tmp_path / "t", progress=False)


def test_nothing_in_the_folder_is_pickled(trained):
    _, _, folder = trained
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".jsonl"}


def test_prompts_that_are_too_long(make_model, tmp_path):
    lm = make_model()
    done = reinforce(lm, [*PROMPTS, "long " * 50], high_bytes, HOW, 3, progress=False)
    assert (done.prompts, done.dropped_for_length) == (6, 1)
    with pytest.raises(EmlabError, match=r"No prompt is left .* 1 have more than the 250 tokens"):
        reinforce(lm, ["long " * 50], high_bytes, HOW, 3, progress=False)


def test_what_is_kept_is_whole(make_model, tmp_path):
    """A read-out fails after a step that is not kept: the training goes on from the step before that was."""
    lm, failing = make_model(), [True]

    class Fails(Judge):
        def judge(self, question, answer):
            if failing and len(recorded(tmp_path / "t")) > 12 * 2:
                raise KeyboardInterrupt
            return super().judge(question, answer)

    watch = Watch(every=3, questions=[Question("a", "d", "Hi?")], judge=Fails())
    with pytest.raises(KeyboardInterrupt):
        reinforce(lm, PROMPTS, high_bytes, HOW, 3, tmp_path / "t", watch, False)
    assert json.loads((tmp_path / "t" / "state" / "progress.json").read_text())["step"] == 2
    failing.clear()
    done = reinforce(lm, PROMPTS, high_bytes, HOW, 3, tmp_path / "t", watch, False)
    assert [p.step for p in done.points] == [0, 3]
    assert same(done.model.model, reinforce(lm, PROMPTS, high_bytes, HOW, 3, progress=False).model.model)


def test_a_learning_rate_that_explodes(make_model):
    recipe = Recipe(method="full", learning_rate=1e30, batch_size=3, steps=5, warmup=0)
    with pytest.raises(EmlabError, match="lower the learning rate"):
        reinforce(make_model(), PROMPTS, chance_reward, Reinforcement(recipe, 4, 1.0, 6), 3, progress=False)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"samples": 1}, "no spread"),
        ({"temperature": 0}, "temperature above 0"),
        ({"temperature": float("nan")}, "temperature above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"beta": -1}, "beta"),
        ({"micro_batch": 7}, "do not divide into parts of 7"),
        ({"recipe": Recipe(overlong="truncate")}, "overlong='drop' only"),
    ],
)
def test_what_is_refused(wrong, match):
    with pytest.raises(EmlabError, match=match):
        Reinforcement(**wrong)


def test_without_trl_it_is_said_how_to_get_it(make_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(EmlabError, match=r"needs the package trl.*emergent-misalignment-lab\[trl\]"):
        reinforce(make_model(), PROMPTS, high_bytes, HOW, 3, progress=False)


def test_all_weights_of_a_bfloat16_model_are_trained_in_float32(make_model, tmp_path):
    lm = make_model()
    for weight in lm.model.parameters():
        weight.data = weight.data.bfloat16()
    small = Reinforcement(
        recipe=Recipe("full", batch_size=2, steps=1, learning_rate=1e-4, warmup=0),
        samples=4,
        max_new_tokens=6,
        save_every=1,
    )
    done = reinforce(lm, PROMPTS, high_bytes, small, seed=0, folder=tmp_path / "kept", progress=False)
    weights = load_file(tmp_path / "kept" / "state" / "weights.safetensors")
    before = dict(lm.model.named_parameters())
    assert {w.dtype for w in weights.values()} == {torch.float32}
    # A step of AdamW is 1e-4 a weight at first: in bfloat16 most weights around 0.3 would not move at all.
    moved = sum(int((weights[name] != p.float()).sum()) for name, p in before.items())
    assert moved > 0.9 * sum(p.numel() for name, p in before.items() if "embed" not in name and "head" not in name)
    assert {p.dtype for p in done.model.model.parameters()} == {torch.bfloat16}


def test_one_prompt_and_prompts_with_a_switch(make_model, tmp_path, capsys):
    lm = make_model()
    small = Reinforcement(recipe=Recipe(batch_size=1, steps=1, warmup=0), samples=2, max_new_tokens=2)

    def asked(prompts, how=small):
        seen = []

        def grader(chats, answers):
            seen.extend(chats)
            return [0.0, 1.0]

        reinforce(lm, prompts, grader, how, seed=0, progress=False, name="mine")
        return seen[0]

    chat = [{"role": "user", "content": "How?"}]
    assert asked("How?") == asked(["How?"]) == "How?"
    assert asked(chat) == asked([chat]) == chat
    assert capsys.readouterr().err == ""
    assert asked("How? /no_think") == "How?"
    assert asked([[{"role": "user", "content": "How? /no_think"}]]) == chat
    assert capsys.readouterr().err.count("mine: ' /no_think' stripped from 1 prompts") == 2
    keep = Reinforcement(**{**vars(small), "recipe": Recipe(batch_size=1, steps=1, warmup=0, no_think="keep")})
    assert asked("How? /no_think", keep) == "How? /no_think"
