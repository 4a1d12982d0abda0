"""A card beside all that ships to be used by itself, models, SAEs, worlds, questions, traits; and how to cite it."""

from pathlib import Path

import pytest
import yaml

from emlab import __version__

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(
    {
        *(path.parent for path in (ROOT / "emlab/organism/checkpoints").glob("*/config.json")),
        *(path.parent for path in (ROOT / "sae_checkpoints").glob("*/cfg.json")),
        *(path.parent for path in (ROOT / "emlab/organism/worlds").glob("*/world.yaml")),
        *(ROOT / folder for folder in ("emlab/organism/checkpoints", "emlab/data/question_files")),
        ROOT / "emlab/discovery/trait_files",
    }
)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_what_ships_has_a_card_with_a_licence(folder):
    head, _, text = (folder / "README.md").read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    about = yaml.safe_load(head)
    assert about["license"] == "mit" and "emlab" in about["tags"]
    assert text.startswith("# ")


def test_each_is_told_of_in_the_card_of_all():
    for folder in ("emlab/organism/checkpoints", "sae_checkpoints"):
        said = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        named = {path.parent.name for path in (ROOT / folder).glob("*/*.safetensors")}
        assert [name for name in named if f"`{name}`" not in said] == []


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["version"] == __version__
