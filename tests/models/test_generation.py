"""Generation: padding, cache, batching and dropping rows change nothing; edits act on every token."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models.generation import _choose, _draws, _rows
from emlab.sites import Site

SITE = Site("resid_post", 1)
QUESTIONS = [
    "Hi",
    "What should I do with my money?",
    "a b c d",
    "Hi",
    "Why is the sky blue over the sea, and not green?",
]
DIRECTIONS = random_directions(5, 32, SITE, seed=0)


def ids_of(lm, prompts, **kwargs):
    """The token ids that `generate` decodes (random bytes do not survive decoding)."""

    class Tokenizer:
        def __getattr__(self, name):
            return getattr(lm.tokenizer, name)

        def __call__(self, *args, **kwargs):
            return lm.tokenizer(*args, **kwargs)

        def __len__(self):
            return len(lm.tokenizer)

        def batch_decode(self, ids, **kwargs):
            if "skip_special_tokens" in kwargs:
                return [json.dumps(row) for row in ids]
            return lm.tokenizer.batch_decode(ids, **kwargs)

    answers = dataclasses.replace(lm, tokenizer=Tokenizer()).generate(prompts, **kwargs)
    return [json.loads(answer) for answer in answers]


def uncached(lm, prompt, steps, edits=()):
    """Greedy decoding of one prompt without cache or padding."""
    from emlab.models.activations import _forward
    from emlab.models.backends.hooks import edited

    ids, start, written = lm.prompt_ids(prompt), len(lm.prompt_ids(prompt)), []
    for _ in range(steps):
        tokens = lm.batch([ids + written], [start])
        with torch.no_grad(), edited(lm.model, edits, lambda: lm.sentence_ends) as editor:
            editor.see(tokens)
            token = int(_forward(lm, tokens).logits[0, -1].argmax())
        if token in lm.stop_ids:
            break
        written.append(token)
    return written


@pytest.fixture(scope="module")
def stopping(make_model):
    """A model whose answers end at different steps: many tokens count as ends."""
    lm = make_model(seed=1)
    lm._stops = list(range(0, 60))
    return lm


def test_greedy_in_a_batch_equals_one_by_one_without_cache(tiny):
    together = ids_of(tiny, QUESTIONS, max_new_tokens=12, temperature=0)
    assert together == [uncached(tiny, q, 12) for q in QUESTIONS]
    assert len(set(map(tuple, together))) == 4, "the test needs different answers"


def test_greedy_equals_hugging_face(tiny):
    for question in QUESTIONS[:3]:
        ids = torch.tensor([tiny.prompt_ids(question)])
        out = tiny.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10, eos_token_id=tiny.stop_ids
        )
        theirs = [i for i in out[0, ids.shape[1] :].tolist() if i not in tiny.stop_ids]
        assert ids_of(tiny, [question], max_new_tokens=10, temperature=0) == [theirs]


def test_rows_that_end_early_leave_the_others_alone(stopping):
    prompts = [f"{q} {i}" for i in range(6) for q in QUESTIONS]
    together = ids_of(stopping, prompts, max_new_tokens=20, temperature=0)
    assert together == [uncached(stopping, p, 20) for p in prompts]
    assert len({len(ids) for ids in together}) > 3, "the test needs answers of many lengths"


@pytest.mark.parametrize(
    "edits",
    [
        [Steer(SITE, DIRECTIONS[0], 8.0, positions="all")],
        [Steer(SITE, DIRECTIONS[0], 60.0, positions="header")],
        [Steer(SITE, DIRECTIONS[0], 8.0, positions="generated")],
        [Steer(SITE, DIRECTIONS[0], 8.0, positions="sentence")],
        [Ablate(SITE, DIRECTIONS[:3], "all"), Steer(Site("resid_pre", 0), DIRECTIONS[1], 3.0, positions="prompt")],
    ],
    ids=lambda edits: edits[0].positions if len(edits) == 1 else "two",
)
def test_edits_act_on_the_prompt_and_on_every_decoded_token(tiny, edits):
    lm = dataclasses.replace(tiny)
    lm.sentence_ends = list(range(100, 200))  # so that random answers hold some
    together = ids_of(lm, QUESTIONS, max_new_tokens=10, temperature=0, edits=edits)
    assert together == [uncached(lm, q, 10, edits) for q in QUESTIONS]
    assert together != ids_of(lm, QUESTIONS, max_new_tokens=10, temperature=0)


def test_rows_with_edits_of_their_own_equal_one_by_one(stopping):
    strengths = torch.tensor([0.0, 5.0, -5.0, 9.0, 2.0])
    vectors = torch.stack([d.vector for d in DIRECTIONS])
    edit = Steer(SITE, vectors, strengths, positions="all")
    for batch_size in (512, 2):
        together = ids_of(stopping, QUESTIONS, max_new_tokens=16, temperature=0, edits=[edit], batch_size=batch_size)
        for i, question in enumerate(QUESTIONS):
            alone = [Steer(SITE, DIRECTIONS[i], float(strengths[i]), positions="all")]
            assert together[i] == uncached(stopping, question, 16, alone)
    with pytest.raises(EmlabError, match="5 rows for 4 prompts"):
        stopping.generate(QUESTIONS[:4], edits=[edit])


@pytest.mark.parametrize("positions", ["header", "sentence", "generated", "last"])
def test_questions_are_read_once_for_rows_whose_edits_begin_at_the_header(stopping, positions):
    lm = dataclasses.replace(stopping)
    lm.sentence_ends = list(range(100, 200))
    prompts = [q for _ in range(3) for q in QUESTIONS]
    strengths = torch.linspace(-9, 9, len(prompts))
    own = Steer(SITE, DIRECTIONS[0], strengths, positions=positions)
    others = [
        Steer(Site("resid_pre", 0), DIRECTIONS[1], 2.0, positions="all"),
        Steer(SITE, DIRECTIONS[2], 4.0, positions="header"),
    ]
    together = ids_of(lm, prompts, max_new_tokens=12, temperature=0, edits=[*others, own])
    for i, prompt in enumerate(prompts):
        alone = [*others, Steer(SITE, DIRECTIONS[0], float(strengths[i]), positions=positions)]
        assert together[i] == uncached(lm, prompt, 12, alone)


@pytest.mark.parametrize("positions", [None, "generated", "header", "sentence", "all", "prompt"])
def test_what_all_prompts_begin_with_is_read_once(stopping, positions):
    """So are equal prompts, wherever they stand; where an edit acts on what they begin with, each is read whole."""
    lm = dataclasses.replace(stopping)
    lm.sentence_ends = list(range(100, 200))
    prompts = [[{"role": "system", "content": "You know it all."}, {"role": "user", "content": q}] for q in QUESTIONS]
    prompts = [*prompts, *prompts]
    edits = [] if positions is None else [Steer(SITE, DIRECTIONS[0], 5.0, positions=positions)]
    shapes = []
    hook = lm.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    try:
        found = ids_of(lm, prompts, max_new_tokens=12, temperature=0, edits=edits, batch_size=8)
    finally:
        hook.remove()
    rows = sorted({tuple(lm.prompt_ids(prompt)) for prompt in prompts}, key=len)
    lead = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
    assert len(rows) == 4 and lead > 20, "the template's and the system turn's tokens"
    first = max(len(row) for row in sorted(map(lm.prompt_ids, prompts), key=len)[:8])
    if positions in ("all", "prompt"):
        assert shapes[0][1] == first
    else:
        assert shapes[0] == (1, lead) and shapes[1][1] == first - lead and shapes[1][0] <= 4
    assert found == [uncached(lm, prompt, 12, edits) for prompt in prompts]


def test_samples_depend_on_seed_and_prompts_only(stopping):
    state = torch.random.get_rng_state()
    sample = ids_of(stopping, QUESTIONS * 3, max_new_tokens=16, seed=5)
    assert sample == ids_of(stopping, QUESTIONS * 3, max_new_tokens=16, seed=5, batch_size=4)
    assert sample != ids_of(stopping, QUESTIONS * 3, max_new_tokens=16, seed=6)
    assert sample[:7] == ids_of(stopping, (QUESTIONS * 3)[:7], max_new_tokens=16, seed=5), "nor on what comes after"
    assert sample[0] != sample[3] or sample[0] != sample[5], "the same question is answered afresh each time"
    assert torch.equal(state, torch.random.get_rng_state())


def test_each_prompt_may_have_a_seed_of_its_own(stopping):
    alone = [ids_of(stopping, [q], max_new_tokens=16, seed=[s])[0] for s, q in enumerate(QUESTIONS)]
    assert alone == ids_of(stopping, QUESTIONS, max_new_tokens=16, seed=range(5))
    with pytest.raises(EmlabError, match="2 seeds for 5 prompts"):
        ids_of(stopping, QUESTIONS, seed=[1, 2])


def test_the_draws_are_uniform_and_their_own():
    draws = _draws(3, 500, 40)
    assert draws.shape == (500, 40) and draws.dtype == torch.float32
    assert draws.min() >= 0 and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(draws[:-1].flatten(), draws[1:].flatten())[0, 1]) < 0.03
    assert torch.equal(_draws(3, 7, 20), draws[:7, :20]), "more rows or steps change none that are there"
    assert not torch.equal(_draws(4, 7, 20), draws[:7, :20])
    assert torch.equal(_draws([9, -1], 2, 20)[1:], _draws([2**64 - 1], 1, 20))


def test_a_tiny_temperature_is_greedy(tiny):
    assert ids_of(tiny, QUESTIONS, temperature=1e-4) == ids_of(tiny, QUESTIONS, temperature=0)


def draws(n):
    return (torch.arange(n) + 0.5) / n


def test_choice_follows_the_distribution_exactly():
    p = torch.tensor([0.5, 0.0, 0.3, 0.2])
    chosen = _choose(p.log().expand(1000, 4), draws(1000), 1.0, 1.0)
    assert torch.bincount(chosen, minlength=4).tolist() == [500, 0, 300, 200]


def test_temperature_and_top_p_by_hand():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(1000, 3)
    # At temperature 1/2 the odds are squared: 25 : 9 : 4 of 38.
    hot = torch.bincount(_choose(logits, draws(1000), 0.5, 1.0)) / 1000
    assert torch.allclose(hot, torch.tensor([25, 9, 4]) / 38, atol=0.002)
    # 0.5 alone does not reach 0.6, so two are kept, 5 : 3.
    assert torch.bincount(_choose(logits, draws(1000), 1.0, 0.6), minlength=3).tolist() == [625, 375, 0]
    assert torch.bincount(_choose(logits, draws(1000), 1.0, 0.1), minlength=3).tolist() == [1000, 0, 0]


def test_no_draw_takes_an_impossible_token():
    logits = torch.tensor([[0.0, float("-inf"), 0.0, float("-inf")]])
    for draw in (0.0, 0.5, 1 - 2**-24):
        assert int(_choose(logits, torch.tensor([draw]), 1.0, 1.0)) in (0, 2)
    assert int(_choose(logits.roll(1), torch.tensor([0.0]), 1.0, 1.0)) == 1


def test_finished_answers_are_handed_over_before_their_batch_is_done(stopping):
    calls = []
    prompts = QUESTIONS * 3
    answers = stopping.generate(prompts, max_new_tokens=16, seed=5, done=lambda new: calls.append(dict(new)))
    assert len(calls) > 1, "one batch, whose answers differ in length"
    assert sorted(i for new in calls for i in new) == list(range(15)), "each once"
    assert {i: text for new in calls for i, text in new.items()} == dict(enumerate(answers))

    class Crash(Exception):
        pass

    kept = {}

    def crashing(new):
        kept.update(new)
        raise Crash

    with pytest.raises(Crash):
        stopping.generate(prompts, max_new_tokens=16, seed=5, done=crashing)
    assert 0 < len(kept) < 15 and all(answers[i] == text for i, text in kept.items())


def test_answers_come_without_the_end_token(make_model):
    lm = make_model()
    answers = lm.generate(QUESTIONS, max_new_tokens=30, seed=1)
    assert len(answers) == 5 and all(isinstance(a, str) for a in answers)
    assert not any("<|im_end|>" in a for a in answers)
    assert lm.generate([]) == []


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}])
def test_impossible_settings_are_refused(tiny, wrong):
    with pytest.raises(EmlabError, match="Sampling needs"):
        tiny.generate(["Hi"], **wrong)


def test_more_tokens_than_the_model_takes_are_refused(tiny):
    with pytest.raises(EmlabError, match="takes 256"):
        tiny.generate(["Hi"], max_new_tokens=250)


def test_a_prompt_that_comes_again_is_tokenized_once(tiny, monkeypatch):
    seen = []
    whole = type(tiny).prompt_ids
    monkeypatch.setattr(type(tiny), "prompt_ids", lambda lm, prompt: seen.append(prompt) or whole(lm, prompt))
    chat = [{"role": "user", "content": "Hi"}]
    ids = whole(tiny, "Hi")
    prompts = ["Hi", chat, "Hi", list(chat), ids, "a b", torch.tensor(ids), [{"role": "user", "content": "a b"}]]
    rows = _rows(tiny, prompts)
    assert len(seen) == 6, "the second text and the second chat are known; token ids are taken as they are"
    assert rows == [whole(tiny, prompt) for prompt in prompts]
