"""Edits in force inside a block: the same as those handed to emlab, and gone without a trace afterwards."""

import threading

import pytest
import torch

from emlab.errors import EmlabError
from emlab.interventions import Ablate, Steer, random_directions
from emlab.models import edit
from emlab.sites import Site

SITE = Site("resid_post", 1)
ONE, TWO = random_directions(2, 32, SITE, seed=0)
PROMPTS = ["Hi", "What should I do with my money?"]


def steer(direction=ONE, strength=4.0, positions="all"):
    return Steer(SITE, direction, strength, positions=positions)


def whole(lm, prompts=PROMPTS):
    """Logits of a padded batch, by the Hugging Face model itself."""
    tokens = lm.encode([lm.prompt_text(prompt) for prompt in prompts])
    with torch.no_grad():
        out = lm.model(
            input_ids=tokens.ids, attention_mask=tokens.real.long(), position_ids=tokens.position_ids, use_cache=False
        )
    return [row[real] for row, real in zip(out.logits, tokens.real, strict=True)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def hooks(lm):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@pytest.mark.parametrize("positions", ["all", "prompt", "header", "last"])
def test_it_is_the_edit_that_emlab_applies(tiny, positions):
    edits = [steer(positions=positions), Ablate(SITE, TWO, positions)]
    expected = tiny.logits(PROMPTS, edits=edits)
    with edit(tiny, edits):
        inside = whole(tiny)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(inside, expected, strict=True))
    with edit(tiny.model, edits):
        assert same(whole(tiny), inside), "the Hugging Face model by itself"


@pytest.mark.parametrize("positions", ["all", "generated", "header", "last"])
def test_it_fires_on_every_decoded_token_of_hugging_faces_generate(tiny, positions):
    ids = torch.tensor([tiny.prompt_ids(PROMPTS[1])])
    edits = [steer(strength=8.0, positions=positions)]
    plain = tiny.generate([PROMPTS[1]], max_new_tokens=12, temperature=0)
    with edit(tiny, edits):
        out = tiny.model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=tiny.stop_ids, pad_token_id=0)
    answer = tiny.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert [answer] == tiny.generate([PROMPTS[1]], max_new_tokens=12, temperature=0, edits=edits)
    if positions != "header":
        assert [answer] != plain


@pytest.mark.parametrize("positions", ["all", "generated", "header", "prompt"])
def test_prompts_that_begin_alike_are_edited_as_if_each_were_asked_alone(tiny, positions):
    """Inside the block a prompt is read in one pass: what comes after a filled cache would be taken for the answer."""
    edits = [steer(strength=8.0, positions=positions)]
    alone = [tiny.generate([prompt], max_new_tokens=12, temperature=0, edits=edits)[0] for prompt in PROMPTS]
    for lm in (tiny, tiny.model):
        with edit(lm, edits):
            assert tiny.generate(PROMPTS, max_new_tokens=12, temperature=0) == alone
    assert tiny.generate(PROMPTS, max_new_tokens=12, temperature=0, edits=edits) == alone


def test_nothing_is_left_behind(tiny):
    before, count = whole(tiny), hooks(tiny)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), edit(tiny, steer()):
            assert not same(whole(tiny), before)
            raise error
        assert same(whole(tiny), before) and hooks(tiny) == count
    with pytest.raises(EmlabError, match="no site"), edit(tiny, [steer(), Steer(Site("resid_post", 9), ONE)]):
        raise AssertionError("the block must not run")
    assert hooks(tiny) == count


def test_an_overflow_is_told_after_the_pass_and_nothing_is_left_behind(make_model):
    half = make_model()
    half.model.to(torch.float16)
    before = whole(half)
    for call in (lambda: whole(half), lambda: half.model.generate(torch.tensor([[5, 6]]), max_new_tokens=2)):
        said = "overflows the model's float16: the largest strength that fits is"
        with pytest.raises(EmlabError, match=said), edit(half, steer(strength=1e6)):
            call()
        assert same(whole(half), before) and hooks(half) == 0
    edits = [steer(strength=1e6)]
    for call in (
        lambda: half.logits(PROMPTS, edits=edits),
        lambda: half.activations(PROMPTS, SITE, edits=edits),
        lambda: half.generate(PROMPTS, 4, top_p=0.5, edits=edits),
    ):
        with pytest.raises(EmlabError, match="overflows"):
            call()
    assert half.generate(PROMPTS, 4, edits=[steer()]) != half.generate(PROMPTS, 4)


def test_nested_blocks_act_in_the_order_they_were_entered(tiny):
    ablate = Ablate(SITE, ONE, "all")
    with edit(tiny, [steer(), ablate]):
        steered_first = whole(tiny)
    with edit(tiny, steer()), edit(tiny, ablate):
        assert same(whole(tiny), steered_first)
    with edit(tiny, ablate), edit(tiny, steer()):
        assert not same(whole(tiny), steered_first), "ablated first, the push stays"


def test_another_thread_is_left_alone(tiny):
    before, seen, errors = whole(tiny), [], []
    inside, done = threading.Event(), threading.Event()

    def other():
        try:
            inside.wait(10)
            seen.append(whole(tiny))
            with edit(tiny, steer(TWO)):
                seen.append(whole(tiny))
        except BaseException as error:  # noqa: BLE001  # shown by the test's own thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with edit(tiny, steer()):
        mine = whole(tiny)
        inside.set()
        done.wait(30)
        assert same(whole(tiny), mine)
    thread.join()
    assert not errors and same(seen[0], before)
    with edit(tiny, steer(TWO)):
        assert same(seen[1], whole(tiny))
    assert same(whole(tiny), before)


def test_another_threads_answers_are_left_alone_while_an_edited_one_is_written(tiny):
    """`LanguageModel.generate`, `logits` and `activations` in two threads, one of them edited."""

    def ask(edits):
        read = tiny.activations(PROMPTS, SITE, "all", edits=edits).values
        return [tiny.generate(PROMPTS, 8, temperature=0, edits=edits), *tiny.logits(PROMPTS, edits=edits), read]

    def alike(one, other):
        return one[0] == other[0] and same(one[1:], other[1:])

    count, wanted = hooks(tiny), {True: ask([steer(strength=8.0)]), False: ask([])}
    assert not alike(wanted[True], wanted[False])
    together, wrong = threading.Barrier(2), []

    def work(is_edited):
        together.wait()
        for _ in range(6):
            try:
                if not alike(ask([steer(strength=8.0)] if is_edited else []), wanted[is_edited]):
                    wrong.append(is_edited)
            except Exception as error:  # noqa: BLE001  # shown by the test's own thread
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and hooks(tiny) == count


def test_each_row_has_its_own_edit_and_pads_are_left_alone(tiny):
    rows = steer(torch.stack([ONE.vector, TWO.vector]), torch.tensor([4.0, -2.0]))
    with edit(tiny, rows):
        together = whole(tiny)
    for i, (direction, strength) in enumerate(((ONE, 4.0), (TWO, -2.0))):
        with edit(tiny, steer(direction, strength)):
            (alone,) = whole(tiny, [PROMPTS[i]])
        assert torch.allclose(together[i], alone, atol=1e-5)
    with edit(tiny, rows), pytest.raises(EmlabError, match="has 2 rows for 1 prompts"):
        whole(tiny, PROMPTS[:1])


def test_what_cannot_be_edited_is_said(tiny):
    with edit(tiny, steer()), pytest.raises(EmlabError, match="pass input_ids"):
        tiny.model(inputs_embeds=torch.zeros(1, 3, 32))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    with edit(tiny, steer()), pytest.raises(EmlabError, match=r"attention_mask of \(batch, position\)"):
        tiny.model(torch.ones(1, 3, dtype=torch.long), attention_mask=mask)
    with pytest.raises(EmlabError, match="width 5"), edit(tiny, steer(torch.ones(5))):
        raise AssertionError("the block must not run")
    with edit(tiny.model, steer(positions="sentence")), pytest.raises(EmlabError, match="edit a LanguageModel"):
        whole(tiny)
    with pytest.raises(EmlabError, match="not finite"):
        steer(strength=float("nan"))
