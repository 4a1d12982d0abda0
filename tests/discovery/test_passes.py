"""Passes through models are counted as they are made: rows, tokens without pads, and rows that gradients were of."""

import pytest

from emlab.discovery import Contrast, attribute
from emlab.discovery.passes import Passes, counted
from emlab.models.cache import common_start
from emlab.saes import train_sae
from emlab.sites import Site

SITE = Site("resid_post", 1)


def test_reading_costs_a_row_a_prompt_and_its_real_tokens(tiny):
    prompts = ["a", "a much longer question", "b?"]
    lengths = [len(ids) for ids in tiny.rows(prompts)[0]]
    assert len(set(lengths)) > 1, "so that there are pads"
    with counted([tiny]) as count:
        tiny.activations(prompts, SITE, "header")
    assert count.passes == Passes(3, 0, sum(lengths))
    tiny.activations(prompts, SITE, "header")
    assert count.passes.forwards == 3, "nothing is counted outside of the block"


def test_every_written_token_but_the_last_is_one_more_row(tiny):
    model = tiny.copy()
    model._stops = [10**6]  # none ends early
    prompts = ["one", "another"]
    rows = model.rows(prompts)[0]
    lead = common_start(rows)
    assert lead > 8, "what both begin with is read once, as one row more"
    with counted([model]) as count:
        model.generate(prompts, max_new_tokens=4, temperature=0)
    assert count.passes == Passes(1 + 2 + 2 * 3, 0, sum(map(len, rows)) - lead + 2 * 3)


def test_a_model_that_is_named_twice_is_counted_once_and_another_apart(tiny):
    other = tiny.copy()
    with counted([tiny, tiny, other]) as count:
        tiny.activations(["a"], SITE, "header")
        other.activations(["a", "b"], SITE, "header")
    assert count.passes.forwards == 3


@pytest.mark.parametrize("method", ["gradient", "integrated", "patching"])
def test_attribution_costs_what_it_says(tiny, method):
    sae = train_sae(tiny.activations(["one", "two", "three"], SITE, "all").values, SITE, d_sae=16, k=4, passes=5.0)
    asked = [Contrast("a question", "bad", "good answer"), Contrast("b", "worse", "better")]
    with counted([tiny]) as count:
        cost = attribute(tiny, sae, asked, SITE, method, steps=2, blocks=2).cost
    assert (count.passes.forwards, count.passes.backwards) == (cost.forwards, cost.backwards)
    assert cost.backwards > 0


def test_passes_add_up_and_say_what_they_are():
    both = Passes(1000, 2, 30) + Passes(1, 0, 4)
    assert both == Passes(1001, 2, 34)
    assert str(both) == "1,001 rows forward (34 tokens), 2 backward"
