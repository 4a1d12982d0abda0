"""Which room may import which. The order itself stands in pyproject.toml, where import-linter reads it."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "emlab").rglob("*.py"))

GROUND_FLOOR = {
    "errors": set(),
    "artifacts": {"errors"},
    "config": {"artifacts", "errors", "shipped"},
    "records": {"artifacts", "errors"},
    "sites": {"artifacts", "errors"},
    "registry": {"errors"},
    "sealing": {"errors"},
    "organism": {"artifacts", "errors", "registry", "sealing"},
}
"""The rooms that stand at the bottom, and all that each may import of emlab besides itself."""

LATE = {"sae_lens", "transformer_lens", "nnsight"}
"""Libraries that take seconds to import, or change others as they are: only inside the function that needs them."""

LATE_MODULES = {"emlab.saes.fast_topk", "emlab.saes.scaled_topk", "emlab.saes.sparse_products_triton"}
"""Modules made of a slow library's classes or kernels, which they import at their top: imported late themselves."""


def imported(node: ast.AST, file: Path) -> list[str]:
    """The dotted names of the modules that one import statement may load; none for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = file.relative_to(ROOT).with_suffix("").parts[: -node.level]
        base = ".".join([*package, *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def test_imports_inside_emlab_run_downwards():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_upwards_is_found(tmp_path):
    """The check above can fail: it does on a copy in which artifacts imports a run folder."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in FILES:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text(encoding="utf-8") + ("import emlab.runs\n" if file.stem == "artifacts" else ""))
    lint = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", lint], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "emlab.artifacts -> emlab.runs" in done.stdout


def circles(package: str) -> set[frozenset[str]]:
    """The files of a package that import each other around, also from inside functions and for type checkers alone."""
    graph = grimp.build_graph(package, cache_dir=None)
    around = {
        file: graph.find_upstream_modules(file) & graph.find_downstream_modules(file) | {file} for file in graph.modules
    }
    return {frozenset(files) for files in around.values() if len(files) > 1}


def test_no_files_import_each_other_in_a_circle():
    found = circles("emlab")
    assert not found, "\n".join("in a circle: " + ", ".join(sorted(files)) for files in found)


def test_a_circle_is_found(tmp_path, monkeypatch):
    """The check above can fail: it knows imports of both kinds that do no harm at import time."""
    files = {
        "__init__": "",
        "one": "def f():\n    from round_house import two\n",
        "two": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from round_house.three import x\n",
        "three": "import round_house.one\nx = 0\n",
        "four": "from round_house import one\n",
    }
    (tmp_path / "round_house").mkdir()
    for name, text in files.items():
        (tmp_path / "round_house" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert circles("round_house") == {frozenset(f"round_house.{file}" for file in ("one", "two", "three"))}


@pytest.mark.parametrize("room", GROUND_FLOOR)
def test_the_ground_floor_stands_on_nothing_else(room):
    files = [file for file in FILES if file.relative_to(ROOT / "emlab").parts[0] in (room, f"{room}.py")]
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in imported(node, file):
                if name.split(".")[0] == "emlab" and len(name.split(".")) > 1:
                    assert name.split(".")[1] in {room, *GROUND_FLOOR[room]}, f"{file}:{node.lineno} imports {name}"


def test_no_room_reaches_for_the_public_names_at_the_top():
    """`from emlab import Run` inside emlab would load a room above without naming it."""
    rooms = {file.relative_to(ROOT / "emlab").parts[0].removesuffix(".py") for file in FILES}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in imported(node, file):
                if name.startswith("emlab."):
                    assert name.split(".")[1] in {*rooms, "__version__"}, f"{file}:{node.lineno} imports {name}"


def test_slow_libraries_are_imported_only_when_they_are_needed():
    for file in FILES:
        late = LATE | LATE_MODULES
        if ".".join(file.relative_to(ROOT).with_suffix("").parts) in LATE_MODULES:
            late = LATE_MODULES
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inside = {id(node) for function in functions(tree) for node in ast.walk(function)}
        for node in ast.walk(tree):
            for name in imported(node, file):
                parents = {".".join(name.split(".")[: i + 1]) for i in range(name.count(".") + 1)}
                if parents & late and not typing_only(node, tree):
                    assert id(node) in inside, f"{file}:{node.lineno} imports {name} at once"


def functions(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def typing_only(node: ast.AST, tree: ast.AST) -> bool:
    guards = [part for part in ast.walk(tree) if isinstance(part, ast.If) and "TYPE_CHECKING" in ast.unparse(part.test)]
    return any(node is inner for guard in guards for inner in ast.walk(guard))


def test_reporting_reads_results_and_never_models():
    for file in (file for file in FILES if file.relative_to(ROOT / "emlab").parts[0] == "reporting"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for name in imported(node, file):
                assert not name.startswith("emlab.models"), f"{file}:{node.lineno} imports {name}"
