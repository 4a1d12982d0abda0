"""Registries find emlab's own things by their files, and other packages' by their entry points."""

import importlib
import sys

import pytest

from emlab.errors import EmlabError
from emlab.registry import Registry
from tests.packages import install_here


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `tools_of_test` with a registry beside two files that register, and one that does not."""
    folder = tmp_path / "tools_of_test"
    folder.mkdir()
    files = {
        "__init__": "",
        "registry": "from emlab.registry import Registry\nTOOLS = Registry('tool', 'tools_of_test')\n",
        "hammer": "from tools_of_test.registry import TOOLS\n@TOOLS.register('hammer')\ndef hit(): return 'hit'\n",
        "saws": "from tools_of_test.registry import TOOLS\n@TOOLS.register('jigsaw')\ndef cut(): return 'cut'\n",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("tools_of_test.registry").TOOLS
    for name in [name for name in sys.modules if name.startswith("tools_of_test")]:
        del sys.modules[name]


def test_a_thing_is_found_by_its_file_or_by_importing_all(package):
    assert package.get("hammer")() == "hit"
    assert "tools_of_test.saws" not in sys.modules  # the file of that name was enough
    assert package.get("jigsaw")() == "cut"
    assert package.names() == ("hammer", "jigsaw")


def test_a_name_that_is_not_there_is_met_with_the_closest(package):
    with pytest.raises(EmlabError, match=r"^There is no tool 'hamer'; did you mean 'hammer'\?$"):
        package.get("hamer")
    with pytest.raises(EmlabError, match=r"^There is no tool 'x'; there are hammer, jigsaw\.$"):
        package.get("x")


def test_a_name_is_given_once(package):
    package.get("hammer")
    with pytest.raises(EmlabError, match=r"^Two tools are called 'hammer' \(tools_of_test.hammer.hit, "):

        @package.register("hammer")
        def other():
            pass


def test_another_package_adds_by_an_entry_point(tmp_path, monkeypatch, package):
    install_here(
        tmp_path, monkeypatch, "from tools_of_test.registry import TOOLS\n@TOOLS.register('axe')\ndef axe(): ...\n"
    )
    assert package.names() == ("axe", "hammer", "jigsaw")
    assert package.get("axe").__module__ == "more_tools"


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch, package):
    install_here(tmp_path, monkeypatch, "import nothing_of_that_name\n")
    with pytest.raises(
        EmlabError, match=r"^The package more-tools adds to emlab by more_tools, which cannot be import"
    ):
        package.names()
    with pytest.raises(EmlabError, match="^The package more-tools adds"):
        package.names()  # and again, and does not go on without it


def test_a_module_that_is_run_again_puts_its_new_form_in_the_old_ones_place(package):
    hit = package.get("hammer")
    importlib.reload(sys.modules["tools_of_test.hammer"])
    assert package.get("hammer") is not hit and package.get("hammer")() == "hit"
    made = {"of": hit}  # no function itself, but made of one
    package.register("anvil", hit)(made)
    package.register("anvil", package.get("hammer"))(dict(made))
    assert package.get("anvil") == made and package.get("anvil") is not made
    with pytest.raises(
        EmlabError, match=r"^Two tools are called 'anvil' \(tools_of_test.hammer.hit, tools_of_test.saws"
    ):
        package.register("anvil", package.get("jigsaw"))(made)


def test_a_registry_without_things_says_so(tmp_path, monkeypatch):
    (tmp_path / "empty_of_test").mkdir()
    (tmp_path / "empty_of_test" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EmlabError, match="there are none"):
        Registry("thing", "empty_of_test").get("x")
