"""The GPU benchmark at small size, on whatever there is."""

import json

import pytest
import torch


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    import _load
    import gpu

    monkeypatch.setattr(_load, "LOOK", 0.1)

    def run(*words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["gpu.py", "--busy", "--out", str(tmp_path / "gpu.json"), *words])
            gpu.main()
        return {path.stem: json.loads(path.read_text()) for path in (tmp_path / "gpu").glob("*.json")}

    return run


def test_every_part_at_small_size(gpu):
    found = gpu("--small", "--only", "kernels", "organism", "qwen2.5-0.5b", "qwen2.5-7b", "real")
    assert set(found) == {"kernels", "organism", "qwen2.5-0.5b", "qwen2.5-7b", "real"}
    assert found["kernels"]["apart"] < 1e-5 and found["kernels"]["small"]
    assert found["organism"]["losses"][1] < found["organism"]["losses"][0]
    for name in ("qwen2.5-0.5b", "qwen2.5-7b"):
        one = found[name]
        assert one["dtype"] == "torch.bfloat16" and one["screen"]["directions"] == 10
        assert one["sae_step"]["d_in"] == 64 and one["sae_step"]["over_encode"] > 0
        assert min(one["harvest"]["tokens_per_second"], one["edit"]["tokens_per_second"], one["screen"]["seconds"]) > 0


def test_a_part_that_fails_holds_up_none_of_the_others(gpu, monkeypatch, capsys):
    import gpu as benchmark

    monkeypatch.setitem(benchmark.PARTS, "tests", lambda place: 1 / 0)
    with pytest.raises(SystemExit, match="Failed, see above: tests"):
        gpu("--small", "--only", "tests", "real")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_command_that_fails_or_takes_too_long_is_a_failed_part(gpu):
    import gpu as benchmark

    assert benchmark._run("-c", "print(1)", minutes=1) == ["1"]
    with pytest.raises(RuntimeError, match="ended with 3: .*why"):
        benchmark._run("-c", "import sys; print('why'); sys.exit(3)", minutes=1)
    with pytest.raises(RuntimeError, match=r"took longer than 0.01 minutes"):
        benchmark._run("-c", "import time; time.sleep(20)", minutes=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(gpu):
    with pytest.raises(SystemExit, match="There is no CUDA device here"):
        gpu("--only", "kernels")
