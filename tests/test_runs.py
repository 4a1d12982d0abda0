import dataclasses
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import yaml

from emlab import artifacts, config, provenance, runs
from emlab.errors import EmlabError
from emlab.runs import AlreadyDone, Run, keep_stages, once


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    blocks: tuple[int, ...] = (1, 2)


def test_a_run_folder_holds_its_config_environment_and_log(tmp_path):
    run = Run.create("trial", Config(seed=3), tmp_path / "runs")
    assert run.folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"trial-\d{8}-\d{6}", run.folder.name)
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == {"seed": 3, "blocks": [1, 2]}
    assert config.load(run.folder / "config.yaml", [], Config) == Config(seed=3)
    environment = artifacts.read_json(run.folder / "environment.json")
    assert environment["python"] == platform.python_version()
    assert environment["packages"]["hypothesis"]
    assert environment["cpu_count"] >= 1
    assert (run.folder / "log.txt").read_text().endswith("  trial begins\n")


def test_two_runs_never_share_a_folder(tmp_path):
    made = [Run.create("trial", Config(), tmp_path).folder for _ in range(3)]
    assert len(set(made)) == 3
    assert all((folder / "config.yaml").exists() for folder in made)


def counted(run, name="sample", value=1):
    """A stage that writes a number, and notes that it worked."""
    done = []

    def work(folder):
        done.append(name)
        artifacts.write_json(folder / "value.json", value)

    return run.fill(name, work, lambda folder: artifacts.read_json(folder / "value.json")), done


def test_a_stage_is_worked_once_and_read_every_time(tmp_path):
    run = Run.create("trial", Config(), tmp_path)
    assert counted(run, "part/sample") == (1, ["part/sample"])
    assert counted(run, "part/sample", value=2) == (1, [])
    assert list(run.seconds) == ["part/sample"] and run.seconds["part/sample"] >= 0


def test_a_stage_that_fails_leaves_nothing_behind(tmp_path):
    run = Run.create("trial", Config(), tmp_path)

    def half(folder):
        (folder / "value.json").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.fill("sample", half, lambda folder: folder)
    assert not (run.folder / "sample").exists()
    assert counted(run) == (1, ["sample"])


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone", "record", "no record"])
def test_a_stage_whose_files_are_damaged_begins_anew_and_says_so(tmp_path, capsys, damage):
    run = Run.create("trial", Config(), tmp_path)
    counted(run)
    file = run.folder / "sample" / ("stage.json" if "record" in damage else "value.json")
    if damage == "flipped":
        file.write_text("3\n")  # still JSON, and another number
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"[]" if damage == "no record" else file.read_bytes()[:-2])
    assert counted(run, value=2) == (2, ["sample"])
    said = f"sample: {file.name} is not what was written, or damaged; the stage begins anew."
    assert said in capsys.readouterr().err and said in (run.folder / "log.txt").read_text()
    assert counted(run, value=4) == (2, [])


def let_go(run):
    """As if the run's process had ended."""
    run._lock.release()


@pytest.fixture(autouse=True)
def code_a(monkeypatch):
    """The code that runs are begun by."""
    by(monkeypatch, "a")


def by(monkeypatch, letter):
    """As if the package's files were others."""
    code = provenance.Code(letter * 16, "0.1.0", letter * 40, False)
    monkeypatch.setattr(provenance, "code", lambda: code)


def test_stages_of_other_code_begin_anew_and_one_line_says_so_and_how_to_keep_them(tmp_path, monkeypatch, capsys):
    first = Run.resume("trial", Config(), tmp_path)
    counted(first, "one")
    counted(first, "two")
    let_go(first)
    by(monkeypatch, "b")
    again = Run.resume("trial", Config(), tmp_path)
    assert again.folder == first.folder
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"2 of its 2 stages, 0 s of work, come from other code \(aaaaaaaa, commit a{10}\) than this \(bbbbbbbb, commit "
        r"b{10}\)\. They begin anew; to keep them, stop this and add --keep-stages .*\.",
        line,
    )
    assert counted(again, "one", value=2) == (2, ["one"])
    assert again.told() == [] and again.other_code == {}
    let_go(again)
    by(monkeypatch, "a")  # the edit is taken back: what it did not reach still stands
    third = Run.resume("trial", Config(), tmp_path)
    assert "1 of its 2 stages" in capsys.readouterr().err.splitlines()[-1]
    assert counted(third, "two", value=3) == (1, [])


def test_kept_stages_are_used_and_told_of_and_so_is_what_builds_on_them(tmp_path, monkeypatch, capsys):
    first = Run.resume("trial", Config(), tmp_path)
    counted(first, "one")
    let_go(first)
    by(monkeypatch, "b")
    with keep_stages():
        again = Run.resume("trial", Config(), tmp_path)
        assert "They are kept, and the report says so." in capsys.readouterr().err.splitlines()[-1]
        again.caution("CAUTION: beware.")
        assert counted(again, "one", value=2) == (1, [])
        assert counted(again, "two") == (1, ["two"])
    assert again.told() == [
        "CAUTION: beware.",
        "CAUTION: stages come from other code (aaaaaaaa, commit aaaaaaaaaa) than the rest (bbbbbbbb, commit "
        "bbbbbbbbbb), or build on such: one.",
    ]
    let_go(again)
    third = Run.resume("trial", Config(), tmp_path)  # by the code that made the second upon the first
    assert "2 of its 2 stages" in capsys.readouterr().err.splitlines()[-1]
    assert counted(third, "two", value=3) == (3, ["two"]), "it was made of what other code made"


def test_a_folder_that_fills_bit_by_bit_goes_on_by_the_same_code_only(tmp_path, monkeypatch):
    run = Run.resume("trial", Config(), tmp_path)
    place = run.workplace("organisms/one")
    assert not place.exists(), "its work makes it"
    place.mkdir(parents=True)
    (place / "half").touch()
    assert list(run.workplace("organisms/one").iterdir()) == [place / "half"]
    by(monkeypatch, "b")
    with keep_stages():
        assert list(run.workplace("organisms/one").iterdir()) == [place / "half"] and list(run.other_code)
    run.other_code.clear()
    assert not run.workplace("organisms/one").exists()


def test_a_stage_of_an_earlier_form_names_no_code_and_is_begun_anew(tmp_path):
    run = Run.resume("trial", Config(), tmp_path)
    counted(run)
    artifacts.write_json(run.folder / "sample" / "stage.json", {"seconds": 1.0})
    assert counted(run, value=2) == (2, ["sample"])


KILLED = """
import os, signal, sys
from tests.test_runs import Config, Run

def work():
    import time
    end = time.process_time() + 0.5
    while time.process_time() < end: pass
    return 1

run = Run.resume("trial", Config(), sys.argv[1])
run.stage(sys.argv[2], work, int)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_time_of_killed_processes_counts(tmp_path):
    for stage in ("one", "two"):
        command = [sys.executable, "-c", KILLED, str(tmp_path), stage]
        assert subprocess.run(command, cwd=Path(__file__).parents[1]).returncode == -9
    run = Run.resume("trial", Config(), tmp_path)
    first, second, third = run.processes()
    for one in (first, second):
        assert one["cpu_seconds"] > 0.5 and one["wall_seconds"] > 0.5
    assert third["cpu_seconds"] < 0.5
    with pytest.raises(KeyboardInterrupt):
        run.stage("three", stopped, int)
    assert len(artifacts.read_json(run.folder / runs.LEDGER)) == 3, "the time of a stage that was stopped counts too"


def stopped():
    raise KeyboardInterrupt


def test_an_unfinished_run_of_the_same_config_and_inputs_goes_on(tmp_path):
    first = Run.resume("trial", Config(), tmp_path, {"data": "a"})
    counted(first)
    (first.folder / f".sample.1234{artifacts.PARTIAL}").mkdir()  # as kill -9 leaves it
    let_go(first)
    for other in (
        Run.resume("trial", Config(seed=1), tmp_path, {"data": "a"}),
        Run.resume("trial", Config(), tmp_path),
    ):
        assert other.folder != first.folder
        let_go(other)
    again = Run.resume("trial", Config(), tmp_path, {"data": "a"})
    assert again.folder == first.folder
    assert counted(again, value=2) == (1, [])
    assert not list(again.folder.glob(f"*{artifacts.PARTIAL}"))
    again.finish()
    assert Run.resume("trial", Config(), tmp_path, {"data": "a"}).folder != first.folder


def test_a_run_that_another_process_works_on_is_left_alone(tmp_path):
    code = (
        "import sys\nfrom tests.test_runs import Config, Run\n"
        "run = Run.resume('trial', Config(), sys.argv[1])\nprint(run.folder, flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    held = Path(process.stdout.readline().strip())
    second = Run.resume("trial", Config(), tmp_path)
    assert held.parent == tmp_path and second.folder != held
    let_go(second)
    process.communicate()
    assert Run.resume("trial", Config(), tmp_path).folder in (held, second.folder)


def test_a_run_that_another_thread_works_on_is_left_alone(tmp_path):
    first, folders = Run.resume("trial", Config(), tmp_path), []
    thread = threading.Thread(target=lambda: folders.append(Run.resume("trial", Config(), tmp_path).folder))
    thread.start()
    thread.join()
    assert folders[0] != first.folder


def test_a_stopped_run_goes_on_while_its_traceback_is_kept(tmp_path):
    """As in a notebook, which keeps the last one."""

    def stopped():
        run = Run.resume("trial", Config(), tmp_path)
        raise KeyboardInterrupt(run.folder)

    with pytest.raises(KeyboardInterrupt) as kept:
        stopped()
    assert Run.resume("trial", Config(), tmp_path).folder == kept.value.args[0]


def test_a_folder_that_was_hardly_made_is_passed_over(tmp_path):
    (tmp_path / "trial-20990101-000000").mkdir()
    assert Run.resume("trial", Config(), tmp_path).folder.name != "trial-20990101-000000"


def test_a_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a").write_text("1")
    before = runs.fingerprint(tmp_path)
    assert runs.fingerprint(tmp_path) == before
    (tmp_path / "b").write_text("")
    assert runs.fingerprint(tmp_path) != before


def test_the_log_grows_line_by_line_and_speaks_on_stderr(tmp_path, capsys):
    run = Run.create("trial", Config(), tmp_path)
    run.log("one")
    run.log("zwei ü", echo=False)
    lines = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["trial begins", "one", "zwei ü"]
    assert capsys.readouterr() == ("", "one\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_on_a_full_disk_is_one_sentence(tmp_path):
    run = Run.create("trial", Config(), tmp_path)
    (run.folder / "log.txt").unlink()
    (run.folder / "log.txt").symlink_to("/dev/full")
    with pytest.raises(EmlabError, match=r"log\.txt: the disk is full"):
        run.log("one", echo=False)


@pytest.mark.parametrize("name", ["", "a/b", "a/"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(EmlabError, match="cannot name a run"):
        Run.create(name, Config(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmlabError, match="a part of the path is a file"):
        Run.create("trial", Config(), tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EmlabError, match="a part of the path is a file"):
        Run.create("trial", Config(), tmp_path / "link")


# ------------------------------------------------------------------------------------------------ once from the shell


def test_a_finished_run_is_not_begun_again(tmp_path):
    done = Run.resume("trial", Config(), tmp_path, {"data": "a"})
    done.finish()
    with once(tmp_path), pytest.raises(AlreadyDone, match="already done at .*trial-") as found:
        Run.resume("trial", Config(), tmp_path, {"data": "a"})
    assert found.value.folder == done.folder
    with once(tmp_path):  # another file, another seed, another place: other runs
        for config_, root, inputs in (
            (Config(), tmp_path, {"data": "b"}),
            (Config(seed=1), tmp_path, {"data": "a"}),
            (Config(), tmp_path / "below", {"data": "a"}),
        ):
            assert Run.resume("trial", config_, root, inputs).folder != done.folder
    assert Run.resume("trial", Config(), tmp_path, {"data": "a"}).folder != done.folder, "in Python it is run"


def test_other_code_runs_it_anew_and_says_so(tmp_path, monkeypatch, capsys):
    done = Run.resume("trial", Config(), tmp_path)
    done.finish()
    by(monkeypatch, "b")
    with once(tmp_path), keep_stages(), pytest.raises(AlreadyDone) as found:
        Run.resume("trial", Config(), tmp_path)
    assert found.value.folder == done.folder and capsys.readouterr().err == ""
    with once(tmp_path):
        again = Run.resume("trial", Config(), tmp_path)
    assert again.folder != done.folder
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"{done.folder} was finished by other code (aaaaaaaa, commit aaaaaaaaaa) than this (bbbbbbbb, commit "
        "bbbbbbbbbb): this is a new run; to be shown that one, stop this and add --keep-stages."
    )
    again.finish()
    with once(tmp_path), pytest.raises(AlreadyDone) as found:
        Run.resume("trial", Config(), tmp_path)
    assert found.value.folder == again.folder


def test_what_was_finished_upon_other_code_is_not_done_for_this_one(tmp_path, monkeypatch):
    first = Run.resume("trial", Config(), tmp_path)
    counted(first)
    let_go(first)
    by(monkeypatch, "b")
    with keep_stages():
        mixed = Run.resume("trial", Config(), tmp_path)
        assert counted(mixed, value=2) == (1, [])
        mixed.finish()
    with once(tmp_path):
        assert Run.resume("trial", Config(), tmp_path).folder != mixed.folder


def test_a_runs_own_config_on_other_files_is_said_to_be_a_new_run(tmp_path, capsys):
    first = Run.resume("trial", Config(), tmp_path, {"data": "a"})
    first.finish()
    with once(tmp_path, own=first.folder):
        Run.resume("trial", Config(), tmp_path, {"data": "b"})
    said = f"{first.folder} was run on files that have changed since, or by another version of emlab: this is a new run"
    assert said in capsys.readouterr().err
    with once(tmp_path / "elsewhere", own=first.folder):
        Run.resume("trial", Config(), tmp_path / "elsewhere", {"data": "a"})
    assert capsys.readouterr().err == ""


def test_runs_that_a_run_begins_elsewhere_are_its_own_affair(tmp_path):
    Run.resume("inner", Config(), tmp_path / "searches").finish()
    with once(tmp_path):
        outer = Run.resume("outer", Config(), tmp_path)
        assert Run.resume("inner", Config(), tmp_path / "searches").folder.parent == tmp_path / "searches"
        outer.finish()


def test_a_run_that_was_stopped_goes_on_once(tmp_path):
    first = Run.resume("trial", Config(), tmp_path)
    let_go(first)
    with once(tmp_path):
        assert Run.resume("trial", Config(), tmp_path).folder == first.folder


HELD = (
    "import sys\nfrom tests.test_runs import Config, Run, once\n"
    "with once(sys.argv[1]):\n"
    "    run = Run.resume('trial', Config(), sys.argv[1])\n    print(run.folder, flush=True)\n    sys.stdin.read()"
)


def test_the_second_of_two_simultaneous_runs_is_refused_at_its_start(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    held = Path(process.stdout.readline().strip())
    with once(tmp_path), pytest.raises(EmlabError, match=f"trial is being run with this config in {held} by another"):
        Run.resume("trial", Config(), tmp_path)
    with once(tmp_path):
        Run.resume("trial", Config(seed=1), tmp_path)  # another config
    assert len(list(tmp_path.iterdir())) == 2, "nothing was begun for the one that was refused"
    process.communicate()
    with once(tmp_path):
        assert Run.resume("trial", Config(), tmp_path).folder == held, "and when the first has ended, it can be had"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems give memory back in their own way")
def test_what_a_stage_has_let_go_of_is_the_systems_again(tmp_path):
    """Pieces between others that stay: glibc would keep them for this process."""
    kept = []

    def work(folder):
        pieces = []
        for _ in range(20_000):
            pieces.append(b"x" * 20_000)
            kept.append(b"x" * 1000)
        del pieces

    before = psutil.Process().memory_info().rss
    Run.create("trial", Config(), tmp_path).fill("work", work, lambda folder: None)
    assert psutil.Process().memory_info().rss < before + 100e6
