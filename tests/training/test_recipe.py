"""Recipes: what is refused, and the learning rate by hand."""

import pytest

from emlab.errors import EmlabError
from emlab.training import Recipe


def test_one_module_and_one_block_need_no_list():
    one = Recipe(modules="v_proj", blocks=2)
    assert one == Recipe(modules=("v_proj",), blocks=(2,)) and one.modules == ("v_proj",) and one.blocks == (2,)


def test_constant_rate_by_hand():
    recipe = Recipe(learning_rate=0.6, warmup=2, steps=5)
    assert [recipe.rate(s) for s in range(1, 6)] == pytest.approx([0.2, 0.4, 0.6, 0.6, 0.6])
    assert Recipe(learning_rate=0.6, warmup=0).rate(1) == 0.6


def test_linear_rate_by_hand():
    recipe = Recipe(learning_rate=1.0, warmup=1, steps=5, schedule="linear")
    assert [recipe.rate(s) for s in range(1, 6)] == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"method": "qlora"}, "method is 'qlora' and must be lora or full"),
        ({"schedule": "cosine"}, "schedule"),
        ({"no_think": "drop"}, "no_think is 'drop' and must be strip or keep"),
        ({"rank": 0}, "rank is 0 and must be 1 or more"),
        ({"steps": 0}, "steps"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"warmup": -1}, "warmup"),
        ({"modules": ()}, "modules"),
    ],
)
def test_what_is_refused(wrong, match):
    with pytest.raises(EmlabError, match=match):
        Recipe(**wrong)


def test_lists_from_a_config_become_tuples():
    recipe = Recipe(modules=["v_proj"], blocks=[0, 1])
    assert (recipe.modules, recipe.blocks) == (("v_proj",), (0, 1))
    assert "modules=('v_proj',)" in str(recipe)
