"""Times of stages."""

from emlab.pipelines._clock import Clock, peak_rss_mb
from emlab.runs import Run


def test_stages_are_timed_announced_and_get_a_folder(tmp_path, capsys):
    run = Run.create("trial", {"seed": 0}, tmp_path)
    clock = Clock(run)
    with clock("sae") as folder:
        assert folder == run.folder / "sae" and folder.is_dir()
        assert clock.stages == {}
    with clock("report"):
        pass
    assert list(clock.stages) == ["sae", "report"]
    assert 0 <= sum(clock.stages.values()) <= clock.total
    assert "sae" in capsys.readouterr().err
    assert "] sae" in (run.folder / "log.txt").read_text()


def test_memory_is_in_megabytes():
    # A Python process with torch's tests around it holds tens of MB at least, and less than a TB.
    assert 10 < peak_rss_mb() < 1e6
