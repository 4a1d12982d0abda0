"""What results say of where they come from: code, commit, machine, what processes took; and that they name no place."""

import getpass
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emlab import artifacts, provenance
from emlab.provenance import Code, Ledger, code_hash, footer, without_places
from tests.packages import install


@pytest.fixture
def package(tmp_path):
    """A small package, with what decides results and what does not."""
    folder = tmp_path / "one" / "lab"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    (folder / "inner" / "world.yaml").write_text("a: 1\n")
    (folder / "inner" / "model.safetensors").write_bytes(b"head" + b"0" * 100_000)
    return folder


def test_the_hash_of_code_follows_what_decides_results_and_nothing_else(package, tmp_path):
    before = code_hash({"lab": package})
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert code_hash({"lab": shutil.copytree(package, tmp_path / "two")}) == before, "as it does not tell where it lies"
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.py").write_text("byte code")
    (package / "README.md").write_text("words")
    os.utime(package / "__init__.py", (0, 0))
    assert code_hash({"lab": package}) == before

    found = {before}
    for change in (
        lambda: (package / "__init__.py").write_text("x = 1  # a comment\n"),
        lambda: (package / "inner" / "world.yaml").write_text("a: 2\n"),
        lambda: (package / "inner" / "model.safetensors").write_bytes(b"head" + b"0" * 99_999 + b"1"),
        lambda: (package / "new.py").write_text(""),
        lambda: (package / "new.py").rename(package / "newer.py"),
    ):
        change()
        found.add(code_hash({"lab": package}))
    assert len(found) == 6
    assert code_hash({"lab": package, "more": package / "newer.py"}) not in found


def test_the_hash_takes_no_time_and_is_taken_once():
    took = []
    for _ in range(5):
        begun = time.process_time()  # of this process alone: others may be busy
        code_hash({"emlab": provenance.PACKAGE})
        took.append(time.process_time() - begun)
    assert min(took) < 0.05
    assert provenance.code() is provenance.code()
    assert provenance.code().hash == code_hash({"emlab": provenance.PACKAGE, **provenance._additions()})


def test_what_another_package_adds_is_part_of_the_code(tmp_path, monkeypatch):
    before = provenance._additions()
    monkeypatch.syspath_prepend(str(install(tmp_path, "my_tools", "x = 1\n")))
    found = provenance._additions()
    assert {Path(found[name]) for name in found.keys() - before.keys()} == {tmp_path / "my_tools.py"}
    assert "my_tools" not in sys.modules, "it is read, not imported"


def test_the_commit_is_told_for_a_checkout_of_emlab_only_and_whether_the_package_differs(tmp_path):
    package = tmp_path / "emlab"
    package.mkdir()
    (package / "old.py").write_text("")
    assert provenance.commit(package) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "core.hooksPath=/dev/null"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert provenance.commit(package) is None  # no commit yet
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    found = provenance.commit(package)
    assert re.fullmatch("[0-9a-f]{40}", found["commit"]) and found["modified"] is False
    (tmp_path / "result.json").write_text("{}")
    assert provenance.commit(package)["modified"] is False, "a result beside the package is no change of it"
    (package / "new.py").write_text("")
    assert provenance.commit(package) == {"commit": found["commit"], "modified": True}
    (package / "new.py").unlink()
    (package / "old.py").write_text("x = 1\n")
    assert provenance.commit(package)["modified"] is True


def test_code_is_named_by_its_commit_or_its_version():
    assert str(Code("0123456789abcdef", "0.1.0", "f" * 40, True)) == "01234567, commit ffffffffff, modified"
    assert str(Code("0123456789abcdef", "0.1.0", "f" * 40, False)) == "01234567, commit ffffffffff"
    assert str(Code("0123456789abcdef", "0.1.0")) == "01234567, emlab 0.1.0"


def test_the_machine_is_described_and_not_named():
    found = provenance.machine()
    assert found["cpu"] and found["cores"] == provenance.usable_cpus() and platform.system() in found["system"]
    if Path("/proc/meminfo").is_file():
        kilobytes = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1])
        assert found["memory_gb"] == pytest.approx(kilobytes * 1024 / 1e9, abs=0.1)
    said = str([found, provenance.environment()["command"], provenance.versions()])
    assert socket.gethostname() not in said and str(Path.home()) not in said


WORKS = """
import subprocess, sys, time
from pathlib import Path
from emlab.provenance import Ledger

ledger = Ledger(Path(sys.argv[1]))
burn = "import time\\nwhile time.process_time() < 0.4: pass"
exec(burn)
subprocess.run([sys.executable, "-c", burn], check=True)
ledger.write()
print("written", flush=True)
time.sleep(60)
"""


def test_the_time_of_processes_and_of_their_children_adds_up_although_one_was_killed(tmp_path):
    path = tmp_path / "processes.json"
    for count in (1, 2):
        with subprocess.Popen([sys.executable, "-c", WORKS, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "written\n"
            process.kill()
        assert len(artifacts.read_json(path)) == count
    *before, now = Ledger(path).processes()
    assert len(before) == 2 and now["cpu_seconds"] < 0.4
    for one in before:
        # The process itself had taken some of its 0.4 s before it opened the ledger.
        assert one["cpu_seconds"] > 0.4 and one["wall_seconds"] > 0.4
    assert artifacts.read_json(path) == before, "nothing is written until it is asked for"


def test_the_footer_tells_it_in_one_line():
    told = {
        "code": Code("0123456789abcdef", "0.1.0", "f" * 40, True),
        "config": "fedcba9876543210",
        "seeds": {"seeds": [3, 4], "fit_seeds": [0], "plan.seed": 7},
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gb": 8.0, "gpu": None, "system": "Linux 6"},
        "processes": [
            {"load_average": {"start": 0.2, "end": 1.04}},
            {"load_average": {"start": None, "end": None}},
        ],
    }
    said = footer(told).split(" · ")
    assert said[:-1] == [
        "emlab, seeds 3, 4, fit seeds 0, plan.seed 7",
        "code 01234567, commit ffffffffff, modified",
        "config fedcba98",
        "Some CPU, 2 cores, 8 GB, Linux 6",
        "load 0.2 to 1.0",
    ]
    assert said[-1].startswith("emlab ") and f"python {platform.python_version()}" in said[-1]


def test_every_seed_of_a_config_is_told_and_where_the_summary_goes_is_not_part_of_its_hash():
    asked = {"seed": 1, "control_seeds": 2, "plan": {"seed": 3, "inner": {"fit_seeds": (4, 5)}}, "steps": 6}
    found = provenance.provenance(asked, [])
    assert found["seeds"] == {"seed": 1, "control_seeds": 2, "plan.seed": 3, "plan.inner.fit_seeds": [4, 5]}
    assert provenance.provenance({**asked, "summary": "docs/a.json"}, [])["config"] == found["config"]
    assert provenance.provenance({**asked, "steps": 7}, [])["config"] != found["config"]


def test_places_of_the_machine_go_and_all_else_stays(tmp_path, monkeypatch):
    work, home = tmp_path / "work", tmp_path / "home" / "somebody"
    work.mkdir()
    home.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["/bin/emlab", "run", "a.yaml", "dataset=/data/somebody/mine.jsonl"])
    settings = {"models": ["/a/qwen", "/b/qwen"], "trigger": "/no_think"}
    before = {
        "command": provenance.shlex.join(["emlab", *sys.argv[1:]]),
        "/a/qwen": f"{work}/docs/a.json and {home}/models/x, {work}",
        "/b/qwen": [{"said": "open('/etc/passwd') and /no_think and https://a.b/c/d", "n": 1, "none": None}],
        "metric": "/elsewhere/metric.py",
        "run": f"{tmp_path}/runs/trial/summary.json",
        "near": f"{work}shop",
    }
    assert without_places(before, settings, tmp_path / "runs" / "trial") == {
        "command": "emlab run a.yaml dataset=mine.jsonl",
        "qwen": "docs/a.json and ~/models/x, ",
        "qwen'": [{"said": "open('/etc/passwd') and /no_think and https://a.b/c/d", "n": 1, "none": None}],
        "metric": "/elsewhere/metric.py",
        "run": "trial/summary.json",
        "near": f"{work}shop",
    }
    monkeypatch.chdir("/")
    assert without_places({"a": "/b"}, {}) == {"a": "/b"}


def test_the_command_line_is_told_without_places(monkeypatch):
    user = getpass.getuser()
    monkeypatch.setattr(sys, "argv", [f"/home/{user}/x/bin/emlab", "run", f"models=[/data/{user}/a,/data/{user}/b]"])
    assert provenance.command() == "emlab run 'models=[a,b]'"
