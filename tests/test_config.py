import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab import config
from emlab.errors import EmlabError


@dataclasses.dataclass(frozen=True)
class Recipe:
    method: Literal["lora", "full"] = "lora"
    steps: int = 10
    learning_rate: float = 1e-3
    modules: tuple[str, ...] = ("v_proj",)
    blocks: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Arm:
    recipe: Recipe = Recipe(steps=7)


@dataclasses.dataclass(frozen=True)
class Config:
    model: str
    seed: int = 0
    dataset: str | None = None
    progress: bool = True
    out: Path = Path("runs")
    recipe: Recipe = Recipe(steps=300)
    second: Recipe | None = None
    pair: tuple[int, float] = (1, 0.5)
    names: list[str] = dataclasses.field(default_factory=list)
    doses: dict[str, float] = dataclasses.field(default_factory=dict)
    scale: int | str = 1
    extra: Any = None


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, overrides, Config)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    """The sentence, without the file's name before it."""
    with pytest.raises(EmlabError) as raised:
        load(tmp_path, text, *overrides)
    return str(raised.value).removeprefix(f"{tmp_path / 'config.yaml'}: ")


# ------------------------------------------------------------------------------------------------- what it reads


def test_every_kind_of_field_is_read(tmp_path):
    text = """
        pipeline: persona_features
        model: aligned
        seed: 3
        dataset: a.jsonl
        progress: no
        out: x/y
        recipe: {method: full, learning_rate: 1e-4, modules: [q, k], blocks: [0, 1]}
        second: {steps: 2}
        pair: [2, 3]
        names: [b, a]
        doses: {low: 0.1, high: 1}
        scale: auto
        extra: {any: [1, thing]}
    """
    assert load(tmp_path, text) == Config(
        model="aligned",
        seed=3,
        dataset="a.jsonl",
        progress=False,
        out=Path("x/y"),
        recipe=Recipe("full", 300, 1e-4, ("q", "k"), (0, 1)),  # 300: the field's own default, not the class's
        second=Recipe(steps=2),
        pair=(2, 3.0),
        names=["b", "a"],
        doses={"low": 0.1, "high": 1.0},
        scale="auto",
        extra={"any": [1, "thing"]},
    )


def test_fields_that_are_not_given_keep_their_defaults(tmp_path):
    assert load(tmp_path, "model: a") == Config("a")
    assert load(tmp_path, "", "model=a") == Config("a")


def test_overrides_are_applied_in_order_and_reach_inside(tmp_path):
    overrides = ["seed=1", "seed=2", "recipe.steps=1e3", "second.method=full", "doses.low=.5", "names=[x]", "scale=7"]
    got = load(tmp_path, "model: a\ndoses: {high: 1}\nrecipe: {blocks: [1]}", *overrides)
    assert got.seed == 2
    assert got.recipe == Recipe(steps=1000, blocks=(1,))
    assert got.second == Recipe(method="full")
    assert got.doses == {"high": 1.0, "low": 0.5}
    assert got.names == ["x"]
    assert got.scale == 7


def test_an_override_may_reach_into_one_that_stood_before(tmp_path):
    got = load(tmp_path, "model: a", "recipe={steps: 5, method: full}", "recipe.steps=6")
    assert got.recipe == Recipe("full", 6)


def test_an_override_inside_an_anchor_changes_one_place_only(tmp_path):
    got = load(tmp_path, "model: a\nrecipe: &r {steps: 5}\nsecond: *r", "second.steps=6")
    assert (got.recipe.steps, got.second.steps) == (5, 6)


def test_null_empties_a_field_that_may_be_empty(tmp_path):
    assert load(tmp_path, "model: a\ndataset: b", "dataset=null").dataset is None
    assert load(tmp_path, "model: a\ndataset: b\nrecipe: {blocks: [1]}", "recipe.blocks=null").recipe.blocks is None
    assert load(tmp_path, "model: a\ndataset:").dataset is None
    assert load(tmp_path, "model: null_model", "model=null").model == "null"


@given(st.text())
def test_a_text_field_takes_the_override_exactly_as_typed(tmp_path_factory, text):
    assert load(tmp_path_factory.getbasetemp(), "model: a", f"model={text}").model == text


def test_a_nested_config_inside_a_list_keeps_its_fields_own_default():
    @dataclasses.dataclass(frozen=True)
    class Listing:
        arms: tuple[Arm, ...] = ()
        first: Arm = Arm(recipe=Recipe(steps=8))

    got = config.load(None, ["arms=[{recipe: {method: full}}, {recipe: }]", "first={recipe: }"], Listing)
    assert got.arms == (Arm(recipe=Recipe("full", 7)), Arm())
    assert got.first.recipe.steps == 8


@pytest.mark.parametrize("text", ["1e4", "1_0e5", "010", "2024-01-01", "12:30:00", "~", "yes", "1.", "0x1f", "-.5e+3"])
def test_text_that_looks_like_something_else_is_dumped_as_text(tmp_path, text):
    assert load(tmp_path, config.dump(Config(text, dataset=text))) == Config(text, dataset=text)
    assert load(tmp_path, "", f"model={text}", f"dataset={text}") == Config(text, dataset=text)


def test_a_date_in_a_file_is_text(tmp_path):
    assert load(tmp_path, "model: 2024-01-01").model == "2024-01-01"


@given(st.integers())
def test_a_whole_number_is_read_as_python_reads_it(tmp_path_factory, number):
    folder = tmp_path_factory.getbasetemp()
    assert load(folder, "model: a", f"seed={number}").seed == number
    assert load(folder, "model: a", f"seed={number:08d}").seed == number  # YAML alone would read 010 as 8


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_as_python_reads_it(tmp_path_factory, number):
    folder = tmp_path_factory.getbasetemp()
    assert load(folder, "model: a", f"recipe.learning_rate={number!r}").recipe.learning_rate == number
    assert load(folder, f"model: a\nrecipe: {{learning_rate: {number!r}}}").recipe.learning_rate == number


recipes = st.builds(
    Recipe,
    steps=st.integers(),
    learning_rate=st.floats(allow_nan=False, allow_infinity=False),
    modules=st.lists(st.text()).map(tuple),
    blocks=st.none() | st.lists(st.integers()).map(tuple),
)
configs = st.builds(
    Config,
    model=st.text(),
    seed=st.integers(),
    dataset=st.none() | st.text(),
    progress=st.booleans(),
    out=st.sampled_from(["a", "b/c"]).map(Path),
    recipe=recipes,
    second=st.none() | recipes,
    pair=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    names=st.lists(st.text()),
    doses=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
)


@given(configs)
def test_a_dumped_config_loads_as_the_same(tmp_path_factory, made):
    assert load(tmp_path_factory.getbasetemp(), config.dump(made)) == made


KEYS = ["model", "seed", "recipe", "steps", "doses", "pair", "names", "a"]
MARKS = [*":,[]{}-.=&*!|>'\"#%?~é\x85", "<<", "1", "-1", "1e3", ".nan", "null", "no"]
pieces = st.sampled_from([*KEYS, *MARKS, ": ", "\n", "\n  ", " ", "\t", "model: a\n"])
words = st.lists(pieces, max_size=12).map("".join)


@given(words | st.text(), st.lists(words, max_size=3))
@hypothesis.settings(max_examples=300)
def test_whatever_stands_there_is_read_or_refused_as_an_emlab_error(tmp_path_factory, text, overrides):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(text.encode())
    try:
        got = config.load(path, overrides, Config)
    except EmlabError as error:
        assert str(error)
    else:
        assert isinstance(got, Config)


# ----------------------------------------------------------------------------------------------- what it refuses


def test_a_misspelt_key_is_met_with_the_closest_one(tmp_path):
    assert refused(tmp_path, "model: a\nsede: 1") == "unknown key 'sede'; did you mean 'seed'?"
    said = refused(tmp_path, "model: a", "recipe.stpes=1")
    assert said == "unknown key 'recipe.stpes'; did you mean 'recipe.steps'?"
    said = refused(tmp_path, "model: a\nrecipe: {zzz: 1}")
    assert said == "unknown key 'recipe.zzz'; the keys here are method, steps, learning_rate, modules, blocks."


@dataclasses.dataclass(frozen=True)
class Inner:
    rank: int = 1
    recipe: Recipe = Recipe()


@dataclasses.dataclass(frozen=True)
class Outer:
    sites: tuple[str, ...] = ()
    seed: int = 0
    inner: Inner | None = None
    arms: tuple[Recipe, ...] = ()


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("rank=5", "did you mean 'inner.rank'?"),
        ("steps=5", "did you mean 'inner.recipe.steps'?"),  # 'sites' is near, and 'steps' is the same
        ("inner.steps=5", "did you mean 'inner.recipe.steps'?"),
        ("inner.seed=5", "did you mean 'seed'?"),
        ("inner.recipe.rank=5", "did you mean 'inner.rank'?"),
        ("stepps=5", "did you mean 'inner.recipe.steps'?"),
        ("site=x", "did you mean 'sites'?"),
        ("inner.recipe.zzz=5", "the keys here are method, steps, learning_rate, modules, blocks."),
    ],
)
def test_a_key_at_another_depth_is_met_with_its_whole_name(override, mend):
    with pytest.raises(EmlabError) as raised:
        config.load(None, [override], Outer)
    assert str(raised.value) == f"the config: unknown key '{override.partition('=')[0]}'; {mend}"


def test_a_config_without_keys_takes_none():
    @dataclasses.dataclass(frozen=True)
    class Empty:
        pass

    with pytest.raises(EmlabError, match="unknown key 'a'; the keys here are none."):
        config.load(None, ["a=1"], Empty)


def test_a_key_of_several_parts_is_met_with_all_of_them(tmp_path):
    said = refused(tmp_path, "model: a", "steps=5")
    assert said == "unknown key 'steps'; did you mean 'recipe.steps' or 'second.steps'?"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: 1.5", "'seed' must be a whole number, and it is 1.5."),
        ("seed: true", "'seed' must be a whole number, and it is true."),
        ("seed: [1]", "'seed' must be a whole number, and it is a list of 1."),
        ("seed:", "'seed' must be a whole number, and it is empty."),
        ("progress: 1", "'progress' must be true or false, and it is 1."),
        ("dataset: no", "'dataset' must be text, and it is false; put it in quotes."),
        ("out: 3", "'out' must be text, and it is 3; put it in quotes."),
        ("recipe: 3", "'recipe' must be a mapping of keys, and it is 3."),
        ("recipe: {learning_rate: fast}", "'recipe.learning_rate' must be a number, and it is 'fast'."),
        ("recipe: {learning_rate: .nan}", "'recipe.learning_rate' must be a number, and it is nan."),
        ("recipe: {method: Full}", "'recipe.method' must be 'lora' or 'full', and it is 'Full'."),
        ("recipe: {modules: v_proj}", "'recipe.modules' must be a list, and it is 'v_proj'; write it as [one, two]."),
        ("recipe: {blocks: [1, x]}", "'recipe.blocks[1]' must be a whole number, and it is 'x'."),
        ("pair: [1, 2, 3]", "'pair' must be a list of 2, and it is a list of 3."),
        ("doses: {low: a}", "'doses.low' must be a number, and it is 'a'."),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(tmp_path, line, message):
    assert refused(tmp_path, f"model: a\n{line}") == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "'seed' is no override; write it as key=value, for example seed=1."),
        ("=1", "'=1' is no override; write it as key=value, for example seed=1."),
        ("recipe..steps=1", "'recipe..steps=1' is no override; write it as key=value, for example seed=1."),
        ("model.name=1", "'model.name=1' reaches into 'model', which is 'a' and has no keys."),
        ("seed=12:30", "'seed' must be a whole number, and it is '12:30'."),
        ("recipe.learning_rate=0x1f", "'recipe.learning_rate' must be a number, and it is '0x1f'."),
        ("seed=x", "'seed' must be a whole number, and it is 'x'."),
        ("seed=1e999", "'seed' must be a whole number, and it is '1e999'."),
        ("names=[a", "'names' must be a list, and it is '[a'; write it as [one, two]."),
        ("pair=[1]", "'pair' must be a longer list, and it is a list of 1."),
        ("recipe={zzz: 1}", "unknown key 'recipe.zzz'; the keys here are"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, override, message):
    assert refused(tmp_path, "model: a", override).startswith(message)


def test_a_missing_field_is_named(tmp_path):
    assert refused(tmp_path, "seed: 1") == "the key 'model' is missing; add it there or give model=value."


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(EmlabError, match=r"line 3: not valid YAML \(the key 'seed' stands twice\)"):
        load(tmp_path, "seed: 1\nmodel: a\nseed: 2")


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "3"])
def test_a_config_that_is_no_mapping_is_refused(tmp_path, text):
    assert "a config is a mapping" in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\t- x", "!!python/object:os.system {}", "a: &a [*a]", "a: !!binary eA==", "\x00"]
)
def test_broken_yaml_is_one_sentence(tmp_path, text):
    said = refused(tmp_path, text)
    assert "not valid YAML" in said
    assert "\n" not in said


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(EmlabError, match="does not exist"):
        config.load(tmp_path / "none.yaml", [], Config)
    with pytest.raises(EmlabError, match="cannot be read"):
        config.load(tmp_path, [], Config)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EmlabError, match="not UTF-8"):
        config.load(tmp_path / "a.yaml", [], Config)


def test_a_check_in_the_dataclass_itself_speaks_with_the_files_name(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Checked:
        seed: int = 0

        def __post_init__(self):
            if self.seed < 0:
                raise ValueError("seed must not be negative.")

    (tmp_path / "a.yaml").write_text("seed: -1")
    with pytest.raises(EmlabError, match=r"a\.yaml: seed must not be negative\.$"):
        config.load(tmp_path / "a.yaml", [], Checked)


# -------------------------------------------------------------------------------------------------- the pipeline


def test_the_pipeline_is_named_by_the_file_or_an_override(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("pipeline: one\nmodel: a")
    assert config.pipeline_of(path) == "one"
    assert config.pipeline_of(path, ["pipeline=two"]) == "two"
    path.write_text("model: a")
    with pytest.raises(EmlabError, match="the key 'pipeline' is missing"):
        config.pipeline_of(path)


def test_the_pipeline_goes_to_a_config_that_wants_to_know_it(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Knowing:
        pipeline: str = ""

    (tmp_path / "a.yaml").write_text("pipeline: one")
    assert config.load(tmp_path / "a.yaml", [], Knowing) == Knowing("one")


def test_a_config_class_that_states_its_pipeline_dumps_what_can_be_run(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Stating:
        pipeline: ClassVar[str] = "one"
        seed: int = 0

    (tmp_path / "a.yaml").write_text(config.dump(Stating(3)))
    assert config.pipeline_of(tmp_path / "a.yaml") == "one"
    assert config.load(tmp_path / "a.yaml", [], Stating) == Stating(3)
