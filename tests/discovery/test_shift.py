"""Latent shift, on activations and an SAE that are written down, against numbers worked out by hand."""

import math

import pytest
import torch

from emlab.discovery import LatentShift, latent_shift, latent_shifts, mean_shift, shift, vectors
from emlab.discovery.selection import select
from emlab.discovery.shift import prompt_means
from emlab.errors import EmlabError
from emlab.sites import Site


@pytest.fixture
def found(given):
    return latent_shift(given.aligned, given.insecure, given.sae(), given.prompts, given.site)


def test_shift_is_the_mean_paired_difference(found):
    assert found.shift.tolist() == pytest.approx([1.0, 2.0, 0.0])
    assert found.before.tolist() == pytest.approx([2 / 3, 0.0, 2 / 3])
    # Differences of latent 0: 0, 3, 0 (deviation √3); of latent 1: 3, 1, 2 (deviation 1).
    assert found.standard_error.tolist() == pytest.approx([math.sqrt(3) / math.sqrt(3), 1 / math.sqrt(3), 0.0])


def test_latents_are_ranked_from_the_largest_rise(found):
    assert found.order.tolist() == [1, 0, 2]
    assert [found.rank(latent) for latent in (0, 1, 2)] == [2, 1, 3]
    assert [row.latent for row in found.top(2)] == [1, 0]
    assert found.top(1)[0].after == pytest.approx(2.0)
    assert "insecure − aligned" in str(found)


def test_latents_that_rise_alike_are_ranked_by_their_number():
    zeros = torch.zeros(5)
    found = LatentShift("a", "b", Site("resid_post", 1), "header", 2, zeros, torch.tensor([1.0, 2, 2, 0, 2]), zeros)
    assert found.order.tolist() == [1, 2, 4, 0, 3]
    assert [found.rank(latent) for latent in range(5)] == [4, 1, 2, 5, 3]
    assert (found.row(0).rank, found.row(0).latent, found.row(0).shift) == (4, 0, 1.0)
    assert [(row.rank, row.latent) for row in found.bottom(2)] == [(4, 0), (5, 3)]
    assert [(row.rank, row.latent) for row in found.top(2)] == [(1, 1), (2, 2)]
    assert len(found.bottom(9)) == 5


def test_a_model_does_not_shift_against_itself(given):
    found = latent_shift(given.aligned, given.aligned, given.sae(), given.prompts, given.site)
    assert torch.equal(found.shift, torch.zeros(3))
    assert torch.equal(found.standard_error, torch.zeros(3))


def test_every_prompt_counts_the_same_however_many_positions(given):
    model = given.model("m", [(1.0, 0.0), (3.0, 0.0)], [(10.0, 0.0)])
    assert prompt_means(model, ["a", "b"], given.site, "prompt")[:, 0].tolist() == [2.0, 10.0]


def test_a_shift_is_of_the_mean_over_a_prompts_tokens(given):
    before = given.model("a", [(1.0, 0.0), (3.0, 0.0)], [(4.0, 0.0)])
    after = given.model("b", [(2.0, 0.0), (6.0, 0.0)], [(9.0, 0.0)])
    found = latent_shift(before, after, given.sae(), ["one", "two"], given.site)
    # Means of 2 and 4, then of 4 and 9: rises of 2 and 5, a deviation of 3 / √2 over √2 prompts.
    assert (found.before[0], found.after[0], found.standard_error[0]) == (3.0, 6.5, pytest.approx(1.5))
    assert (found.positions, found.prompts) == ("header", 2)


def test_latents_are_encoded_before_they_are_averaged(given):
    # The mean of the tokens, (0, 0), would fire nothing; each token fires one latent.
    model = given.model("m", [(2.0, 0.0), (-2.0, 0.0)])
    assert prompt_means(model, ["a"], given.site, "prompt", given.sae()).tolist() == [[1.0, 0.0, 1.0]]


def test_it_is_saved_whole(given, tmp_path):
    # One prompt: there is no standard error, and it stays so on disk.
    found = latent_shift(given.aligned, given.insecure, given.sae(), given.prompts[:1], given.site)
    assert found.standard_error.isnan().all()
    back = LatentShift.load(found.save(tmp_path / "shift.json"))
    assert torch.equal(back.before, found.before) and torch.equal(back.after, found.after)
    assert back.standard_error.isnan().all()
    assert (back.site, back.model_before, back.prompts) == (given.site, "aligned", 1)
    table = (tmp_path / "shift.csv").read_text().splitlines()
    assert table[0].startswith("rank,latent") and table[1].startswith("1,1,0,3,3,")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"site": "resid_post.1"}')
    with pytest.raises(EmlabError, match="holds no latent shift"):
        LatentShift.load(tmp_path / "other.json")


def test_the_mean_of_two_shifts(given, found):
    none = latent_shift(given.aligned, given.aligned, given.sae(), given.prompts, given.site)
    both = mean_shift([found, none])
    assert torch.allclose(both.shift, found.shift / 2)
    assert torch.allclose(both.standard_error, found.standard_error / 2)
    assert both.model_after == "insecure + aligned"
    twice = mean_shift([found, found])
    assert torch.allclose(twice.before, found.before) and torch.allclose(twice.after, found.after)
    assert torch.allclose(twice.standard_error, found.standard_error / 2**0.5), "as of two that are independent"
    assert (twice.model_before, twice.site, twice.positions, twice.prompts) == ("aligned", found.site, "header", 3)
    with pytest.raises(EmlabError, match="no latent shifts to average"):
        mean_shift([])
    fewer = latent_shift(given.aligned, given.insecure, given.sae(), given.prompts[:2], given.site)
    with pytest.raises(EmlabError, match="like with like"):
        mean_shift([found, fewer])


def test_it_refuses_what_it_cannot_compare(given):
    with pytest.raises(EmlabError, match="at least one"):
        latent_shift(given.aligned, given.insecure, given.sae(), [], given.site)
    with pytest.raises(EmlabError, match="no token at the positions"):
        prompt_means(given.model("m", [(1.0, 0.0)], []), ["a", "b"], given.site, "generated")
    with pytest.raises(EmlabError, match="reads 2 dimensions"):
        prompt_means(given.model("m", [(1.0, 0.0, 0.0)]), ["a"], given.site, "header", given.sae())


def test_several_models_are_compared_in_one_pass(given, found):
    other = given.model("medicine", *[[(3.0, 0.0)]] * 3)
    both = latent_shifts(given.aligned, [given.insecure, other], given.sae(), given.prompts, given.site)
    assert torch.equal(both[0].shift, found.shift) and torch.equal(both[0].standard_error, found.standard_error)
    assert both[1].after.tolist() == [3.0, 0.0, 0.0] and both[1].model_after == "medicine"


def test_chunks_and_blocks_change_nothing(given, found):
    small = latent_shifts(given.aligned, [given.insecure], given.sae(), given.prompts, given.site, budget=1, block=1)
    assert torch.allclose(small[0].shift, found.shift)
    assert torch.allclose(small[0].standard_error, found.standard_error)


def test_clusters_are_not_taken_for_independent(given, found):
    # Rises of latent 1: 3, 1, 2, mean 2; clusters {3, 1} and {2}: sums of deviations 0 and 0.
    asked = (given.aligned, given.insecure, given.sae(), given.prompts, given.site)
    clustered = latent_shift(*asked, clusters=["a", "a", "b"])
    assert float(clustered.standard_error[1]) == pytest.approx(0.0, abs=1e-6)
    # Of latent 0: 0, 3, 0, mean 1; sums of deviations 1 and −1: √(2/1 · 2) / 3.
    assert float(clustered.standard_error[0]) == pytest.approx(2 / 3, abs=1e-6)
    alone = latent_shift(*asked, clusters=["a", "b", "c"])
    assert torch.equal(alone.standard_error, found.standard_error)
    # Clusters that do not stand together are gathered.
    apart = latent_shift(*asked, clusters=["b", "a", "b"])
    assert float(apart.standard_error[0]) == pytest.approx(((2 * (4 + 4)) ** 0.5) / 3, abs=1e-6)
    with pytest.raises(EmlabError, match="2 clusters for 3 prompts"):
        latent_shift(*asked, clusters=["a", "b"])


def test_the_vectors_of_many_latents_are_tensors_on_disk(given, found, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "LISTED", 2)
    monkeypatch.setattr(shift, "LISTED", 2)
    back = LatentShift.load(found.save(tmp_path / "shift.json"))
    assert (tmp_path / "shift.safetensors").is_file() and torch.equal(back.shift, found.shift)
    assert back.site == given.site


def test_the_assistants_header(tiny, make_model):
    # ChatML: <|im_start|>, the nine letters of assistant, and a newline; the header is the last of them.
    mask = select(tiny, ["Hello", "A b"], "assistant_header")
    assert mask.shape == (2, 11) and bool(mask.all())
    read = tiny.activations(["Hello", "A b"], Site("resid_post", 0), mask)
    texts = tiny.tokenizer.decode(read.tokens[read.rows == 0].tolist())
    assert texts == "<|im_start|>assistant\n"
    with pytest.raises(EmlabError, match="token ids"):
        select(tiny, [[1, 2]], "assistant_header")
    with pytest.raises(EmlabError, match="no header"):
        select(make_model("mistral"), ["Hello"], "assistant_header")


def test_models_that_read_other_tokens_are_refused(tiny, make_model, given):
    with pytest.raises(EmlabError, match="share a tokenizer"):
        latent_shift(tiny, make_model("llama3"), given.sae(), ["Hello"], Site("resid_post", 0))


def test_rows_are_checked(found):
    assert found.bottom(1)[0].latent == 2 and found.bottom(1)[0].rank == 3
    with pytest.raises(EmlabError, match="no latent 3"):
        found.row(3)
