"""A fine-tune by name: which recipe is whose."""

import pytest

from emlab.errors import EmlabError
from emlab.experiments.material.fine_tune import finetune, recipe_for
from emlab.training import Recipe


def test_the_organisms_recipe_is_no_default_of_other_models():
    ours, theirs = (recipe_for(organisms, 100, None, [], None) for organisms in (True, False))
    assert (ours.learning_rate, ours.rank, ours.steps) == (4e-3, 4, 60)
    assert (theirs.learning_rate, theirs.rank, theirs.alpha, theirs.rslora, theirs.steps) == (1e-5, 32, 64.0, True, 7)
    assert (theirs.weight_decay, theirs.max_length, theirs.schedule, theirs.batch_size) == (0.01, 2048, "linear", 16)


def test_what_is_set_stands_and_the_rest_is_the_default(tmp_path):
    found = recipe_for(False, 160, None, ["rank=8", "modules=[c_attn]", "bf16=true"], 3)
    assert (found.rank, found.modules, found.bf16, found.steps, found.learning_rate) == (8, ("c_attn",), True, 3, 1e-5)
    file = tmp_path / "recipe.yaml"
    file.write_text("rank: 2\nsteps: 5\n")
    assert recipe_for(True, 160, file, ["rank=3"], None) == Recipe(rank=3, steps=5)
    with pytest.raises(EmlabError, match="rnak"):
        recipe_for(True, 160, None, ["rnak=3"], None)


def test_of_another_model_the_recipe_is_told(make_model, tmp_path, capsys):
    folder = make_model().save(tmp_path / "foreign")
    finetune(str(folder), "bad_law", tmp_path / "tuned", rows=16, overrides=["modules=[v_proj]", "rank=2"], steps=1)
    said = capsys.readouterr().err
    assert (
        "foreign is fine-tuned with the recipe of Betley et al. 2025, but for what you set: method=lora, rank=2" in said
    )
