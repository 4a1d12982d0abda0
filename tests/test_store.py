"""The store keeps what it was given: through kills, other writers and damage."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.errors import EmlabError
from emlab.store import Store, salvage

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MANY = {f"key {i}": {"text": "x" * 300, "i": i} for i in range(1000)}


@pytest.fixture
def full(tmp_path):
    """The path of a closed store of some 400 kB."""
    path = tmp_path / "results.sqlite"
    with Store(path) as store:
        store.put(MANY)
    return path


def test_what_is_put_is_got_after_it_was_closed(tmp_path):
    path = tmp_path / "new" / "folder" / "s.sqlite"
    with Store(path) as store:
        store.put({"a": {"text": "é\n\u2028", "n": [1, 2.5, None]}, "b": "two"})
        store.put({"b": "three"})
        assert len(store) == 2
    with Store(path) as store:
        assert store.get(["b", "nothing", "a"]) == {"b": "three", "a": {"text": "é\n\u2028", "n": [1, 2.5, None]}}
    assert [found.name for found in path.parent.iterdir()] == ["s.sqlite"]


@settings(max_examples=20)
@given(values=st.dictionaries(st.text("ab", min_size=1), json_values, max_size=3))
def test_any_json_value_comes_back(tmp_path_factory, values):
    with Store(tmp_path_factory.mktemp("any") / "s") as store:
        store.put(values)
        assert store.get(values) == values


def test_half_a_character_is_kept(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put({"a": "\ud83d"})
        assert store.get(["a"]) == {"a": "\ud83d"}


def test_several_values_are_written_all_or_none(tmp_path):
    with Store(tmp_path / "s") as store:
        with pytest.raises(EmlabError, match="object cannot be written"):
            store.put({"a": 1, "b": object()})
        assert len(store) == 0
        store.put({"a": 1})
        assert len(store) == 1


def python(code, *arguments):
    """A process that runs `code`."""
    source = textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", source, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


WRITER = """
    import sys
    from emlab.store import Store
    store = Store(sys.argv[1])
    for i in range(int(sys.argv[3])):
        store.put({f"{sys.argv[2]}{i}": i})
        print(i, flush=True)
"""


def test_a_process_that_is_killed_loses_nothing_it_had_put(tmp_path):
    process = python(WRITER, tmp_path / "s", "k", 10**9)
    last = [int(process.stdout.readline()) for _ in range(20)][-1]
    process.send_signal(signal.SIGKILL)
    last = max([last, *map(int, process.stdout.read().split("\n")[:-1])])
    process.wait()
    process.stdout.close()
    with Store(tmp_path / "s") as store:
        assert len(store) in (last + 1, last + 2), "the last may have been written and not yet said"
        assert store.get([f"k{i}" for i in range(last + 1)]) == {f"k{i}": i for i in range(last + 1)}


def test_two_processes_write_into_one_new_file(tmp_path):
    processes = [python(WRITER, tmp_path / "s", name, 50) for name in "ab"]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with Store(tmp_path / "s") as store:
        assert store.get(f"{name}{i}" for name in "ab" for i in range(50)).keys() == {
            f"{name}{i}" for name in "ab" for i in range(50)
        }


def test_a_new_file_that_another_process_still_makes_is_waited_for(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "s", isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE results (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO results VALUES ('there', '1')")
        soon = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        soon.start()
        with Store(tmp_path / "s") as store:
            assert store.get(["there"]) == {"there": 1}
        soon.join()


def test_threads_share_a_store(tmp_path):
    barrier = threading.Barrier(4)
    with Store(tmp_path / "s") as store, ThreadPoolExecutor(4) as threads:

        def write(name):
            barrier.wait()
            for i in range(25):
                store.put({f"{name}{i}": i})
                assert store.get([f"{name}{i}"]) == {f"{name}{i}": i}

        list(threads.map(write, "abcd"))
        assert len(store) == 100


# --- damage ---


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def scribble(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 40_000)


def header(path):
    with path.open("r+b") as file:
        file.write(b"not a database at all")


def junk(path):
    path.write_bytes(bytes(range(256)) * 40)


def text(path):
    path.write_text("aligned,coherent\n1,2\n")


@pytest.mark.parametrize("damage", [cut, scribble])
def test_a_damaged_file_is_refused_and_left_as_it_is(full, damage):
    damage(full)
    before = full.read_bytes()
    with pytest.raises(EmlabError, match=r"results.sqlite is damaged \(.*emlab\.store\.salvage\('.*', new_path\)"):
        Store(full)
    assert full.read_bytes() == before


@pytest.mark.parametrize("damage", [header, junk, text])
def test_another_kind_of_file_is_called_that_and_left_as_it_is(full, damage):
    damage(full)
    before = full.read_bytes()
    with pytest.raises(EmlabError, match=r"results.sqlite is no store: it is another kind of file"):
        Store(full)
    assert full.read_bytes() == before


def test_a_store_that_was_cut_within_its_first_bytes_is_damaged(full):
    with full.open("r+b") as file:
        file.truncate(10)
    with pytest.raises(EmlabError, match="is damaged"):
        Store(full)


@pytest.mark.parametrize(("damage", "least"), [(cut, 400), (scribble, 800)])
def test_what_can_be_read_is_salvaged(full, damage, least):
    damage(full)
    before = full.read_bytes()
    saved = salvage(full, full.with_name("new"))
    assert least <= saved < 1000
    assert full.read_bytes() == before
    with Store(full.with_name("new")) as store:
        found = store.get(MANY)
    assert len(found) == saved
    assert all(MANY[key] == value for key, value in found.items())


def test_a_whole_store_is_salvaged_whole(full):
    assert salvage(full, full.with_name("new")) == 1000


def test_what_a_killed_process_wrote_last_is_salvaged_too(tmp_path, full):
    code = """
        import os, signal, sys
        from emlab.store import Store
        Store(sys.argv[1]).put({"last": "paid for"})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = python(code, full)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    log = full.with_name(full.name + "-wal")
    assert log.stat().st_size > 0
    scribble(full)
    before = full.read_bytes(), log.read_bytes()
    with pytest.raises(EmlabError, match="is damaged"):
        Store(full)
    assert (full.read_bytes(), log.read_bytes()) == before, "not even what the log holds is written into it"
    assert 800 <= salvage(full, tmp_path / "new") < 1001
    with Store(tmp_path / "new") as store:
        assert store.get(["last"]) == {"last": "paid for"}


@pytest.mark.parametrize("damage", [header, junk, text])
def test_of_junk_nothing_is_salvaged(full, damage):
    damage(full)
    with pytest.raises(EmlabError, match="Nothing can be read of .*results.sqlite; start with a new store"):
        salvage(full, full.with_name("new"))
    assert not full.with_name("new").exists()


def test_salvaging_needs_a_file_and_overwrites_none(full, tmp_path):
    with pytest.raises(EmlabError, match="There is no store .*nowhere"):
        salvage(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(EmlabError, match="already exists"):
        salvage(full, full)


def test_names_that_look_like_addresses(full, tmp_path):
    odd = shutil.copy(full, tmp_path / "50% of #1? & more")
    with Store(odd) as store:
        assert len(store) == 1000
    assert salvage(odd, tmp_path / "a?mode=ro") == 1000
    assert (tmp_path / "a?mode=ro").is_file()


def test_a_database_of_something_else_is_left_alone(tmp_path):
    import sqlite3

    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE results (id INTEGER, score REAL)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(EmlabError, match="other.sqlite is a database of something else"):
        Store(path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmlabError, match="a part of the path is a file"):
        Store(tmp_path / "file" / "s")
    with pytest.raises(EmlabError, match="cannot be used"):
        Store(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    code = """
        import resource, signal, sys
        from emlab.errors import EmlabError
        from emlab.store import Store
        store = Store(sys.argv[1])
        store.put({"a": 1})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.put({"b": "x" * 300_000})
        except EmlabError as error:
            print(error)
        store.put({"c": 3})
        print(store.get("abc"))
    """
    said = python(code, tmp_path / "s").communicate()[0]
    assert "s cannot be used (" in said and said.endswith("{'a': 1, 'c': 3}\n")
