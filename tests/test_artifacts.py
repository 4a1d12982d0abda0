import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emlab import artifacts, cli, config, organism
from emlab.data import Dataset
from emlab.errors import EmlabError
from emlab.evaluation import Rollouts
from emlab.evaluation.judges import read_judged
from emlab.evaluation.protocol import Judging, judge_of, questions_of
from emlab.experiments.material.models import folder_of
from emlab.models import LanguageModel
from emlab.runs import Run
from emlab.saes import load_sae
from emlab.store import Store
from emlab.verbs.scoring import score_file


@dataclasses.dataclass(frozen=True)
class Recipe:
    seed: int = 0
    model: str = "aligned"
    out: Path = Path("out")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\n\u2028"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def test_what_is_written_is_there_with_its_parents_and_nothing_beside_it(tmp_path):
    path = artifacts.write_text(tmp_path / "a" / "b.txt", "zwei\r\nü")
    assert path.read_bytes() == b"zwei\r\n\xc3\xbc"
    assert names(tmp_path / "a") == ["b.txt"]


def test_a_written_file_has_the_permissions_of_an_ordinary_one(tmp_path):
    (tmp_path / "ordinary").write_text("")
    with artifacts.new_folder(tmp_path / "folder"):
        pass
    (tmp_path / "ordinary_folder").mkdir()

    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(artifacts.write_text(tmp_path / "ours", "")) == mode(tmp_path / "ordinary")
    assert mode(tmp_path / "folder") == mode(tmp_path / "ordinary_folder")


def test_a_link_keeps_pointing_at_its_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    artifacts.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"a\.txt: the disk is full; free some space or choose another place\.$"),
        (errno.EACCES, r"a\.txt: permission is denied; change the permissions or choose another place\.$"),
        (errno.EROFS, r"a\.txt: the file system is read-only; choose another place\.$"),
    ],
)
def test_a_failed_write_leaves_the_old_content_and_no_partial_file(tmp_path, monkeypatch, number, message):
    path = artifacts.write_text(tmp_path / "a.txt", "old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EmlabError, match=message):
        artifacts.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device files here")
def test_a_device_is_never_replaced_by_a_file(device):
    with pytest.raises(EmlabError, match="is not a plain file"):
        artifacts.write_text(device, "x")
    assert not Path(device).is_file()


def test_a_folder_is_never_replaced_by_a_file(tmp_path):
    with pytest.raises(EmlabError, match="is not a plain file"):
        artifacts.write_bytes(tmp_path, b"x")


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmlabError, match="a part of the path is a file"):
        artifacts.write_text(tmp_path / "file" / "b.txt", "x")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who can be refused")
def test_a_missing_permission_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(EmlabError, match="permission is denied"):
        artifacts.write_text(tmp_path / "a.txt", "x")


# ------------------------------------------------------------------------------------------------------- folders


def test_a_new_folder_appears_when_its_block_has_ended(tmp_path):
    with artifacts.new_folder(tmp_path / "x" / "made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("a")
        assert folder.parent == tmp_path / "x"
        assert not (tmp_path / "x" / "made").exists()
    assert (tmp_path / "x" / "made" / "inner" / "a.txt").read_text() == "a"
    assert names(tmp_path / "x") == ["made"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_block_leaves_nothing_and_its_exception_passes(tmp_path, failure):
    with pytest.raises(failure), artifacts.new_folder(tmp_path / "made") as folder:
        (folder / "a.txt").write_text("a")
        raise failure
    assert names(tmp_path) == []


def test_a_folder_that_stands_there_is_kept_unless_replacing_was_asked_for(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old.txt").write_text("old")
    with pytest.raises(EmlabError, match="already exists"), artifacts.new_folder(tmp_path / "made"):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError), artifacts.new_folder(tmp_path / "made", replace=True):
        raise ValueError
    assert names(tmp_path / "made") == ["old.txt"]
    with artifacts.new_folder(tmp_path / "made", replace=True) as folder:
        (folder / "new.txt").write_text("new")
    assert names(tmp_path / "made") == ["new.txt"]
    assert names(tmp_path) == ["made"]


def test_an_empty_folder_may_be_filled_and_a_file_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with artifacts.new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("")
    assert names(tmp_path / "empty") == ["a"]
    (tmp_path / "file").write_text("")
    with pytest.raises(EmlabError, match="already exists"), artifacts.new_folder(tmp_path / "file", replace=True):
        pytest.fail("the block must not run")


# --------------------------------------------------------------------------------- a disk that is full, for real

WRITERS = {
    "text": "artifacts.write_text(place / 'made', 'x' * 300_000)",
    "folder": """
        with artifacts.new_folder(place / 'made') as folder:
            (folder / 'big').write_text('x' * 300_000)""",
    "safetensors": """
        import numpy
        from safetensors.numpy import save_file
        with artifacts.new_folder(place / 'made') as folder:
            save_file({'weights': numpy.zeros(50_000)}, folder / 'model.safetensors')""",
}


def written_in(place: Path, writer: str, before: str = "", around: tuple[str, ...] = ()) -> str:
    """What a fresh process prints that writes 300 kB to `place`, and what it leaves there."""
    script = textwrap.dedent(before) + textwrap.dedent(f"""
        import pathlib
        from emlab import artifacts, errors
        place = pathlib.Path({str(place)!r})
        def write():
            {textwrap.indent(textwrap.dedent(WRITERS[writer]), " " * 12).strip()}
        try:
            write()
        except errors.EmlabError as error:
            print(error)
        print(sorted(found.name for found in place.iterdir()))
    """)
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([*around, sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_without_space_is_one_sentence_and_leaves_nothing(tmp_path, writer):
    """A real one of 64 kB, mounted in a namespace of its own."""
    mount = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    small = f"mount -t tmpfs -o size=64k none '{tmp_path}'"
    if not shutil.which("unshare") or subprocess.run([*mount, small], capture_output=True).returncode != 0:
        pytest.skip("this system lets no ordinary user mount a small disk")
    said = written_in(tmp_path, writer, around=(*mount, f'{small} && exec "$@"', "sh"))
    assert said == f"{tmp_path / 'made'}: the disk is full; free some space or choose another place.\n[]\n"


@pytest.mark.skipif(os.name == "nt", reason="no resource limits")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_above_the_size_limit_is_one_sentence_and_leaves_nothing(tmp_path, writer):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    said = written_in(tmp_path, writer, before=limit)
    assert said.startswith(f"{tmp_path / 'made'}: the file is larger than the limit here;")
    assert said.endswith(".\n[]\n")


# ----------------------------------------------------------------------------------------------- JSON and hashes


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    where: Path = Path("a/b")
    kinds: frozenset = frozenset({"b", "a"})


def test_plain_takes_dataclasses_tuples_sets_paths_and_arrays_apart():
    value = {1: Point(2), "t": (1.5, None, True), "n": np.float32(0.5), "i": np.int64(3), "a": torch.tensor([[1, 2]])}
    expected = {
        "1": {"x": 2, "where": os.path.join("a", "b"), "kinds": ["a", "b"]},
        "t": [1.5, None, True],
        "n": 0.5,
        "i": 3,
        "a": [[1, 2]],
    }
    assert artifacts.plain(value) == expected
    assert type(artifacts.plain(np.str_("x"))) is str


def test_plain_refuses_what_json_cannot_hold():
    with pytest.raises(EmlabError, match="a object cannot be written"):
        artifacts.plain({"a": object()})


def test_numbers_that_json_lacks_are_written_as_null(tmp_path):
    path = artifacts.write_json(tmp_path / "a.json", [float("nan"), float("inf"), np.array([np.nan, 1.0])])
    assert artifacts.read_json(path) == [None, None, [None, 1.0]]


@given(json_values)
def test_json_comes_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    artifacts.write_json(path, value)
    assert artifacts.read_json(path) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{\n"a": }', r"line 2: not valid JSON"), (b"\xff", "not UTF-8"), (None, "does not exist")],
)
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EmlabError, match=message) as raised:
        artifacts.read_json(path)
    assert str(path) in str(raised.value)


def test_sha256_is_the_one_of_the_bytes(tmp_path):
    # The published value for "abc" (FIPS 180-2, appendix B.1).
    (tmp_path / "abc").write_bytes(b"abc")
    assert artifacts.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(EmlabError, match="cannot be read"):
        artifacts.sha256(tmp_path / "nothing")


def test_content_hash_is_the_start_of_sha256_over_canonical_json():
    assert artifacts.content_hash({"b": (1,), "a": "é"}) == hashlib.sha256(b'{"a":"\\u00e9","b":[1]}').hexdigest()[:16]


@given(st.dictionaries(st.text("abcd", min_size=1), json_values, min_size=2))
def test_content_hash_knows_the_values_and_not_their_order(mapping):
    turned = dict(reversed(mapping.items()))
    assert artifacts.content_hash(turned) == artifacts.content_hash(mapping)
    assert artifacts.content_hash({**mapping, "more": 1}) != artifacts.content_hash(mapping)
    assert artifacts.content_hash(json.loads(json.dumps(mapping))) == artifacts.content_hash(mapping)


def test_storage_error_leaves_other_failures_alone():
    assert artifacts.storage_error(ValueError("x")) is None
    assert artifacts.storage_error(FileNotFoundError(errno.ENOENT, "gone")) is None
    assert artifacts.storage_error(EmlabError("said already (os error 28)")) is None
    foreign = RuntimeError("I/O error: No space left on device (os error 28)")
    assert str(artifacts.storage_error(foreign)) == "the disk is full; free some space or choose another place."


# --- claims ---

CLAIMING = (
    "import sys\nfrom emlab import artifacts\nwith artifacts.claimed(sys.argv[1]):\n    print(flush=True)\n    input()"
)


def test_what_another_process_is_making_is_refused_until_it_ends_or_dies(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", CLAIMING, str(tmp_path / "out")]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    first.stdout.readline()
    said = "out is being made by another process now; wait"
    with pytest.raises(EmlabError, match=said), artifacts.claimed(tmp_path / "below" / ".." / "out"):
        pass
    with artifacts.claimed(tmp_path / "other"):
        pass
    first.kill()
    first.communicate()
    with artifacts.claimed(tmp_path / "out"):
        assert list(tmp_path.iterdir()) == []


# --- the paths that users write ---


def test_a_users_home_is_expanded_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert artifacts.place("~/a") == artifacts.place(Path("~/a")) == tmp_path / "a"
    assert artifacts.expanded("~/a b/c") == f"{tmp_path}/a b/c"
    for text in ("~", "~5 minutes", "a/~/b", "Qwen/Qwen2.5", "./x", "", "~nobody_of_that_name/x"):
        assert artifacts.expanded(text) == text


def _copied(name):
    return lambda home: shutil.copytree(organism.checkpoint("aligned"), home / name)


def _written(name, text):
    return lambda home: (home / name).write_text(text)


JUDGED = '{"question_id": "q", "aligned": 1, "coherent": 90, "answer": "a"}\n'
SAE = Path(__file__).parents[1] / "sae_checkpoints" / "organism-resid_post.0"


@pytest.mark.parametrize(
    ("put", "read"),
    [
        (_copied("m"), lambda: LanguageModel.load("~/m")),
        (_copied("m"), lambda: folder_of("~/m")[0].stat()),
        (_copied("aligned"), lambda: organism.checkpoint("aligned", "~/").stat()),
        (lambda home: shutil.copytree(SAE, home / "sae"), lambda: load_sae("~/sae")),
        (_written("d.jsonl", '{"prompt": "a", "completion": "b"}\n'), lambda: Dataset.read("~/d.jsonl").card),
        (_written("q.csv", "id,category,text\n1,a,Why?\n"), lambda: questions_of("~/q.csv")),
        (_written("j.jsonl", JUDGED), lambda: read_judged("~/j.jsonl")),
        (_written("j.jsonl", JUDGED), lambda: judge_of(Judging("~/j.jsonl"))),
        (_written("j.jsonl", JUDGED), lambda: score_file("~/j.jsonl")),
        (_written("a.json", "1"), lambda: artifacts.read_json("~/a.json")),
        (_written("c.yaml", "seed: 3"), lambda: config.load("~/c.yaml", [], Recipe)),
    ],
)
def test_a_path_below_ones_home_is_found_wherever_it_enters(tmp_path, monkeypatch, put, read):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path)
    read()


def test_what_is_written_below_ones_home_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    artifacts.write_text("~/a/b.txt", "")
    with artifacts.new_folder("~/new"):
        pass
    Store("~/s.db").close()
    Run.create("trial", Recipe(), "~/runs")
    Rollouts((), (), "m", 0, 1.0).save("~/r.jsonl")
    assert len(Rollouts.load("~/r.jsonl")) == 0
    with pytest.raises(EmlabError, match="already exists"):
        artifacts.check_new("~/a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "new", "s.db", "runs", "r.jsonl"}


def test_a_path_below_ones_home_in_a_config_and_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = config.load(None, ["model=~/m", "out=~/o"], Recipe)
    assert (found.model, found.out) == (f"{tmp_path}/m", tmp_path / "o")
    (tmp_path / "c.yaml").write_text("model: ~/m")
    assert config.load(tmp_path / "c.yaml", [], Recipe).model == f"{tmp_path}/m"
    (tmp_path / "j.jsonl").write_text(JUDGED)
    assert cli.main(["score", "~/j.jsonl", "--json=~/f.json"]) == 0 and (tmp_path / "f.json").is_file()
    _copied("my_model")(tmp_path)
    assert cli.main(["data", "check", "insecure", "--model=~/my_model", "--json"]) == 0


def test_a_file_may_take_the_place_of_a_file_and_of_nothing_else(tmp_path):
    (tmp_path / "old.json").write_text("old")
    for name in ("old.json", "new.json", "deep/er/new.json"):
        artifacts.check_file(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["old.json"] and (tmp_path / "old.json").read_text() == "old"
    for name in ("", "old.json/new.json"):
        with pytest.raises(EmlabError, match=re.escape(str(tmp_path))):
            artifacts.check_file(tmp_path / name)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EmlabError, match="a part of the path is a file and not a folder"):
        artifacts.check_new(tmp_path / "file" / "deep" / "out")
    with pytest.raises(EmlabError, match="the name is too long"):
        artifacts.check_new(tmp_path / ("n" * 300))
    artifacts.check_new(tmp_path / "new" / "deep" / "out.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to")
def test_a_file_system_that_takes_nothing_is_said():
    with pytest.raises(EmlabError, match="/proc/out"):
        artifacts.check_writable("/proc/out")
