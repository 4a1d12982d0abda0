"""Faults planted in a few lines: those that are made, those that are not, and which tests they are tried on."""

import json
import subprocess
import sys
import textwrap

import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper

from tests import mutants


def faults(code):
    """The lines that the faults of a module put there, by kind."""
    text = textwrap.dedent(code).strip() + "\n"
    finder = mutants._Finder("room", "emlab/room/file.py", text.encode())
    MetadataWrapper(cst.parse_module(text.encode())).visit(finder)
    found = {}
    for mutant in finder.found.values():
        found.setdefault(mutant.kind, []).append(mutant.now.strip())
    return found


def test_numbers_and_operators():
    assert faults("share = bad / (n - 1)") == {
        "number": ["share = bad / (n - 2)"],
        "operator": ["share = bad * (n - 1)", "share = bad / (n + 1)"],
    }
    assert faults("over = rate.low >= cap") == {"operator": ["over = rate.low > cap"]}


def test_what_is_taken_for_another():
    assert faults("high = rate.low\nwidth = rate.high - rate.low")["names exchanged"] == [
        "high = rate.high",
        "width = rate.low - rate.low",
        "width = rate.high - rate.high",
    ]
    assert "names exchanged" not in faults("width = rate.low"), "nothing there is called high"
    assert faults("screen(discovery, test)")["arguments exchanged"] == ["screen(test, discovery)"]
    assert "arguments exchanged" not in faults("low = min(0.0, found)"), "that changes nothing"


def test_arguments_left_out():
    assert faults("score(answers, judge, seed=seed)")["argument left out"] == [
        "score(answers, seed=seed)",
        "score(answers, judge, )",
    ]
    assert "argument left out" not in faults("score(answers)")


def test_texts_guards_and_annotations_are_left_alone():
    code = """
    def f(x: tuple[int, 2]) -> Literal[3]:
        \"\"\"It is 1 + 1.\"\"\"
        assert x is not None and n > 1
        if len(x) > n:
            raise EmlabError(f"{x + 1} is too much", 4)
        return f"{n + 1}"
    """
    assert faults(code) == {"operator": ["if len(x) >= n:"]}
    assert "argument left out" not in faults("zip(a, strict=True)")


def test_bars_and_types_have_no_faults():
    assert faults("finetune(model, progress=False)") == {}
    assert faults("def f(progress: bool = True, seed: int = 1): ...") == {
        "number": ["def f(progress: bool = True, seed: int = 2): ..."]
    }
    assert faults('R = TypeVar("R", bound=Remedy)') == {}


def test_a_draw_hangs_on_a_faults_own_lines():
    def fault(line, was):
        return mutants.Mutant("room", "file.py", line, "number", was, "x = 3", b"")

    assert fault(1, "x = 2").place(0) == fault(9, "x = 2").place(0) != fault(1, "x = 1").place(0)
    assert fault(1, "x = 2").place(0) != fault(1, "x = 2").place(1)
    # Alike lines of one file have one place in the draw, and a result each.
    names = mutants.named_apart([fault(1, "x = 2"), fault(9, "x = 2"), fault(5, "x = 1")], 0)
    assert len(set(names)) == 3 and names[0] == mutants.named_apart([fault(9, "x = 2")], 0)[0]


def test_it_is_tried_on_what_runs_its_statement_its_own_file_first():
    name = "emlab/mitigation/cost.py"
    at = next(i for i, line in enumerate((mutants.ROOT / name).read_text().splitlines(), 1) if "return" in line)
    mutant = mutants.Mutant("mitigation", name, at, "number", "", "", b"")
    far, near, slow = (f"tests/mitigation/test_{test}" for test in ("a.py::far", "cost.py::near", "a.py::slow"))
    ran = {"seconds": {far: 0.1, near: 1.0, slow: 59.0}, "lines": {name: {str(at): [far, near, slow]}}}
    assert mutants.Tests({"a file": ran}).of(mutant) == [near, far]


def test_a_default_is_tried_on_all_tests_of_the_files_that_run_its_file():
    name = "emlab/mitigation/cost.py"
    at = next(i for i, line in enumerate((mutants.ROOT / name).read_text().splitlines(), 1) if "read: int = 0" in line)
    uses, reads, other = (f"tests/mitigation/test_{test}" for test in ("a.py::uses", "a.py::reads", "b.py::other"))
    ran = {"seconds": {uses: 2.0, reads: 1.0, other: 1.0}, "lines": {name: {"1": [uses]}}}
    mutant = mutants.Mutant("mitigation", name, at, "number", "", "", b"")
    assert mutants.Tests({"a file": ran}).of(mutant) == [reads, uses]


def test_what_a_shared_fixture_runs_counts_for_each_test_that_uses_it(tmp_path):
    room, tests = tmp_path / "emlab/mitigation", tmp_path / "tests/mitigation"
    room.mkdir(parents=True)
    tests.mkdir(parents=True)
    for package in (room.parent, room):
        (package / "__init__.py").touch()
    (room / "twice.py").write_text("def twice(x):\n    return 2 * x\n\ndef other():\n    return 3\n")
    (tests / "test_twice.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from emlab.mitigation.twice import other, twice

            @pytest.fixture(scope="module")
            def four():
                return twice(2)

            def test_first(four): ...
            def test_second(four): other()
            def test_alone(): other()
            """
        )
    )
    file = "tests/mitigation/test_twice.py"
    code = f"from pathlib import Path; from tests import mutants; mutants.watch(Path({str(tmp_path)!r}), [{file!r}], "
    code += f"Path({str(tmp_path / 'ran.json')!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=mutants.ROOT, check=True, stdout=subprocess.DEVNULL)
    lines = json.loads((tmp_path / "ran.json").read_text())[file]["lines"]["emlab/mitigation/twice.py"]
    assert {line: sorted(test.partition("::")[2] for test in ran) for line, ran in lines.items()} == {
        "2": ["test_first", "test_second"],
        "5": ["test_alone", "test_second"],
    }


@pytest.mark.parametrize(
    ("fates", "share"),
    [
        (["killed"] * 9 + ["survived"], 0.9),
        (["killed"] * 8 + ["timed out"] + ["survived"], 0.9),
        (["killed"] * 9 + ["equivalent"], 1.0),
    ],
)
def test_the_share_is_of_those_that_change_a_result(fates, share):
    assert mutants.share([{"fate": fate} for fate in fates])["share_killed"] == share
