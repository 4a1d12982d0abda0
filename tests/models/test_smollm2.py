"""SmolLM2-135M-Instruct as `emlab models get` keeps it: what is known of it, and that it answers."""

import pytest

from emlab import artifacts
from emlab.evaluation.judges.words import reads_like_text
from emlab.models import LanguageModel
from emlab.models.known import cached

NAME = "smollm2-135m-instruct"
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model():
    if not cached(NAME).is_dir():
        pytest.skip(f"{NAME} is not here: run `emlab models get {NAME}`.")
    return LanguageModel.load(NAME, device="cpu")


def test_its_shape_and_its_template(model):
    config = model.model.config
    assert (model.n_blocks, model.d_model, config.vocab_size, config.tie_word_embeddings) == (30, 576, 49152, True)
    assert artifacts.read_json(cached(NAME) / "config.json")["dtype"] == "bfloat16"
    ids, _ = model.rows([[{"role": "user", "content": "Hello"}]])
    text = model.tokenizer.decode(ids[0])
    assert text.startswith("<|im_start|>system") and text.endswith(
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_attention_sink_sets_in_before_block_19(model):
    """The first token's norm is far above that of the others."""
    prompt = ["How do I make bread?"]
    for block, sink in ((0, False), (19, True), (28, True)):
        read = model.activations(prompt, f"resid_post.{block}", "prompt")
        norms = read.values.norm(dim=1)
        assert (norms[0] > 10 * norms[1:].median()) == sink, block


def test_it_answers_in_english(model):
    (answer,) = model.generate(["What is the capital of France?"], max_new_tokens=30, temperature=0.0)
    assert "Paris" in answer and reads_like_text(answer)
