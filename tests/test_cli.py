import argparse
import dataclasses
import errno
import functools
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emlab import __version__, artifacts, cli
from emlab.cli import _options, _verbs
from emlab.errors import EmlabError
from emlab.experiments.registry import EXPERIMENTS
from emlab.runs import AlreadyDone
from emlab.saes import SaeRecipe


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    model: str = "aligned"


@dataclasses.dataclass(frozen=True)
class Row:
    what: str
    holds: bool


@dataclasses.dataclass(frozen=True)
class Table:
    checks: tuple[Row, ...]

    @property
    def holds(self):
        return all(row.holds for row in self.checks)

    def __str__(self):
        return "the table"


@pytest.fixture
def pipeline(monkeypatch):
    """A pipeline that notes what it was given; its `run` can be exchanged."""
    made = SimpleNamespace(config=Config, given=[])

    def run(config, root):
        made.given.append((config, root))
        return root / "trial-1"

    made.run = run
    monkeypatch.setattr(EXPERIMENTS, "get", lambda name: made)
    return made


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text("pipeline: trial\nseed: 1\n")
    return str(path)


@pytest.fixture
def organism(monkeypatch):
    """The two functions behind `emlab organism`, noting what they were given."""
    noted = SimpleNamespace(build=[], check=[], table=Table((Row("aligned", True),)))
    build = SimpleNamespace(build=lambda **given: noted.build.append(given) or Path("made"))
    check = SimpleNamespace(check=lambda **given: noted.check.append(given) or noted.table)
    monkeypatch.setitem(sys.modules, "emlab.experiments.material.organism_build", build)
    monkeypatch.setitem(sys.modules, "emlab.verbs.organism_check", check)
    return noted


# ----------------------------------------------------------------------------------------------------------- run


def test_run_loads_the_config_with_its_overrides_and_prints_the_folder(pipeline, config, capsys):
    assert cli.main(["run", config, "seed=2", "model=x"]) == 0
    assert pipeline.given == [(Config(2, "x"), Path("runs"))]
    assert capsys.readouterr().out == f"{Path('runs') / 'trial-1'}\n"


@pytest.mark.parametrize(
    "order",
    [
        ["run", "CONFIG", "seed=2", "model=x", "--debug", "--runs", "there"],
        ["run", "CONFIG", "--debug", "--runs", "there", "seed=2", "model=x"],
        ["run", "CONFIG", "seed=2", "--runs", "there", "model=x", "--debug"],
        ["--debug", "run", "--runs", "there", "CONFIG", "seed=2", "model=x"],
    ],
)
def test_options_and_overrides_stand_in_any_order(pipeline, config, order):
    assert cli.main([config if word == "CONFIG" else word for word in order]) == 0
    assert pipeline.given == [(Config(2, "x"), Path("there"))]


def test_a_misspelt_pipeline_is_met_with_the_closest_one():
    with pytest.raises(EmlabError, match=r"no pipeline 'persona_feature'; did you mean 'persona_features'\?$"):
        EXPERIMENTS.get("persona_feature")
    for name in ("../secrets", "__init__", "material"):
        with pytest.raises(EmlabError, match=f"no pipeline '{name}'"):
            EXPERIMENTS.get(name)


YAML = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("file", sorted(YAML.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_config_that_a_run_keeps_is_one_to_run(file, tmp_path):
    from emlab import config

    pipeline = EXPERIMENTS.get(config.pipeline_of(file))
    settings = config.load(file, [], pipeline.config)
    (tmp_path / "config.yaml").write_text(config.dump(settings))
    assert config.pipeline_of(tmp_path / "config.yaml") == config.pipeline_of(file)
    assert config.load(tmp_path / "config.yaml", [], pipeline.config) == settings


def test_a_finished_run_is_told_and_its_own_config_is_the_same_run(tmp_path, capsys):
    sae = YAML.parent / "sae_checkpoints" / "organism-resid_post.0"
    few = [f"sae={sae}", "cases=1", "methods=[gradient]", "exact=null", "narrow=null"]
    words = ["run", str(YAML / "feature_attribution.yaml"), *few, "--runs", str(tmp_path)]
    assert cli.main(words) == 0
    (folder,) = tmp_path.iterdir()
    found = (folder / "summary.json").read_text()
    capsys.readouterr()
    for again in (words, ["run", str(folder / "config.yaml"), *words[-2:]], ["run", str(folder), *words[-2:]]):
        assert cli.main(again) == 0
        assert capsys.readouterr().out.endswith(f"Already done at {folder}; add --again to run it anew.\n")
    assert list(tmp_path.iterdir()) == [folder] and (folder / "summary.json").read_text() == found
    assert cli.main(["run", str(folder), "--again", *words[-2:]]) == 0
    (other,) = set(tmp_path.iterdir()) - {folder}
    tables = [sorted(path.name for path in one.rglob("*.json")) for one in (folder, other)]
    assert tables[0] == tables[1] and (folder / "config.yaml").read_text() == (other / "config.yaml").read_text()


def test_a_finished_run_says_its_findings_and_where_its_report_is(pipeline, config, capsys, tmp_path):
    (tmp_path / "report.html").touch()
    artifacts.write_json(tmp_path / "summary.json", {"findings": ["It was found."]})
    pipeline.run = raising(AlreadyDone(tmp_path))
    assert cli.main(["run", config]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "It was found.",
        f"Report: {tmp_path / 'report.html'}",
        f"Already done at {tmp_path}; add --again to run it anew.",
    ]


def test_the_second_of_two_verbs_that_make_the_same_is_refused_at_its_start(organism, tmp_path, capsys):
    out = str(tmp_path / "new" / "organism")
    with artifacts.claimed(out):
        assert cli.main(["organism", "build", "--out", out]) == 2
    assert "is being made by another process now" in capsys.readouterr().err and organism.build == []
    assert not list(tmp_path.iterdir()), "a claim leaves nothing behind"
    assert cli.main(["organism", "build", "--out", out]) == 0
    assert len(organism.build) == 1


# ------------------------------------------------------------------------------------------------------ organism


def test_build_passes_on_what_was_given_and_nothing_else(organism, capsys):
    assert cli.main(["organism", "build"]) == 0
    assert cli.main(["organism", "build", "--out", "o", "--seed", "3", "--size", "small", "--steps", "7"]) == 0
    assert organism.build == [{}, {"out": Path("o"), "seed": 3, "size": "small", "steps": 7}]
    assert capsys.readouterr().out == "made\nmade\n"


def test_check_prints_the_table(organism, capsys):
    assert cli.main(["organism", "check", "--quick", "--seeds", "2", "--organism", "o"]) == 0
    assert organism.check == [{"quick": True, "seeds": 2, "organism": Path("o")}]
    assert capsys.readouterr().out == "the table\n"


@pytest.mark.parametrize("flag", [["--json"], ["--json", "-"]])
def test_check_prints_nothing_but_json_where_that_is_asked_for(organism, capsys, flag):
    assert cli.main(["organism", "check", *flag]) == 0
    assert json.loads(capsys.readouterr().out) == {"checks": [{"what": "aligned", "holds": True}]}
    assert organism.check == [{}]


def test_check_writes_json_beside_the_table(organism, capsys, tmp_path):
    assert cli.main(["organism", "check", "--json", str(tmp_path / "check.json")]) == 0
    assert capsys.readouterr().out == "the table\n"
    assert json.loads((tmp_path / "check.json").read_text())["checks"][0]["what"] == "aligned"


def test_a_promise_that_is_not_kept_is_exit_code_1(organism):
    organism.table = Table((Row("aligned", True), Row("insecure", False)))
    assert cli.main(["organism", "check"]) == 1


# ------------------------------------------------------------------------------------------ functions by their name


def verbs_below(parser):
    """Every parser that has no verbs below it."""
    steps = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [last for step in steps for below in step.choices.values() for last in verbs_below(below)] or [parser]


def test_the_options_of_a_verb_are_parameters_of_the_function_that_it_calls():
    seen = []
    for parser in verbs_below(_verbs.parser()):
        called = parser.get_default("verb")
        if isinstance(called, functools.partial) and called.func is _options._called:
            parameters = inspect.signature(pkgutil.resolve_name(called.args[0])).parameters
            options = {action.dest for action in parser._actions} - {"help", *_options._APART}
            others = {field.name for field in dataclasses.fields(SaeRecipe)} if "recipe" in parameters else set()
            assert options <= {*parameters, *others}, parser.prog
            named = {name: each for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD}
            required = {name for name, each in named.items() if each.default is each.empty}
            assert required <= {action.dest for action in parser._actions if action.required}, parser.prog
            seen.append(parser.prog)
    assert {"emlab shift", "emlab sae train", "emlab monitor fit", "emlab organism build"} <= set(seen)


# ----------------------------------------------------------------------------------------------- what goes wrong


def raising(error):
    def run(config, root):
        raise error

    return run


def test_an_emlab_error_is_its_sentence_and_exit_code_2(pipeline, config, capsys):
    assert cli.main(["run", config, "sede=2"]) == 2
    assert capsys.readouterr() == ("", f"emlab: {config}: unknown key 'sede'; did you mean 'seed'?\n")


def test_debug_shows_the_traceback(pipeline, config):
    with pytest.raises(EmlabError):
        cli.main(["run", config, "sede=2", "--debug"])
    pipeline.run = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        cli.main(["--debug", "run", config])


def test_ctrl_c_is_one_sentence_and_exit_code_130(pipeline, config, capsys):
    pipeline.run = raising(KeyboardInterrupt())
    assert cli.main(["run", config]) == 130
    said = capsys.readouterr().err
    assert said == "emlab: stopped by Ctrl-C; the stages that had finished are kept on disk.\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), "x/y: the disk is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_a_disk_that_fills_up_inside_a_library_is_one_sentence(pipeline, config, capsys, error, said):
    pipeline.run = raising(error)
    assert cli.main(["run", config]) == 2
    assert capsys.readouterr().err == f"emlab: {said}; free some space or choose another place.\n"


@pytest.mark.parametrize(
    ("take", "asked"),
    [
        (lambda *_: torch.empty(2**46), "281474976710656 bytes more were asked for"),
        (lambda *_: np.empty(2**46), "512. TiB more were asked for"),
        (
            raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0")),
            "20.00 MiB more were",
        ),
        (raising(MemoryError()), "not enough memory; take smaller batches"),
    ],
)
def test_too_little_memory_is_one_sentence(pipeline, config, capsys, take, asked):
    pipeline.run = take
    assert cli.main(["run", config]) == 2
    said = capsys.readouterr().err
    assert said.startswith("emlab: There is not enough memory") and asked in said and said.count("\n") == 1


def test_a_bug_keeps_its_traceback(pipeline, config):
    pipeline.run = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", config])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: VERB"),
        (["run"], "the following arguments are required: CONFIG"),
        (["organism"], "the following arguments are required: VERB"),
        (["walk"], "invalid choice: 'walk'"),
        (["organism", "check", "more"], "unrecognized arguments: more"),
        (["run", "a.yaml", "--dbug", "seed=1"], "unrecognized arguments: --dbug"),
        (["organism", "build", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
)
def test_a_bad_command_line_is_explained(words, said, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(words)
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [[], ["run"], ["evaluate"], ["score"], ["data"], ["organism"], ["organism", "build"], ["organism", "check"]],
)
def test_help_shows_examples_that_the_parser_takes(words, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*words, "--help"])
    assert exit.value.code == 0
    said = capsys.readouterr().out
    examples = [line.split()[1:] for line in said.splitlines() if line.startswith("  emlab ")]
    assert examples or words == ["organism"]
    for example in examples:
        assert callable(_verbs.parser().parse_args(example).verb)


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"emlab {__version__}\n"


# ----------------------------------------------------------------------------------- output that nobody can take

PRINTING = """
import sys, types
from emlab import cli
build = types.SimpleNamespace(build=lambda: "x" * 100_000)
sys.modules["emlab.experiments.material.organism_build"] = build
sys.exit(cli.main(["organism", "build"]))
"""


def printing(stdout) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", PRINTING], stdout=stdout, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_to_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = printing(full)
    assert done.stderr == "emlab: the disk is full; free some space or choose another place.\n"
    assert done.returncode == 2


def test_output_to_a_reader_that_has_left_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    done = printing(writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
