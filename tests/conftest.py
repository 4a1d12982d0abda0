"""For all tests: tiny models; hypothesis draws the same examples every time, and leaves slow machines in peace."""

import hypothesis
import pytest

hypothesis.settings.register_profile("emlab", derandomize=True, deadline=None)
hypothesis.settings.load_profile("emlab")


# --- Tiny random models and tokenizers, for tests of mechanics ---
# The chat templates are those published with each kind of model (shortened where that changes nothing here).

CHAT_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] "
        "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}"
        "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    ),
}
END_OF_TURN = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>"}
SPECIAL = (
    "<pad>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
SPECIAL += ("<start_of_turn>", "<end_of_turn>")


@pytest.fixture(scope="session")
def chat_templates():
    return CHAT_TEMPLATES


@pytest.fixture(scope="session")
def end_of_turn():
    return END_OF_TURN


@pytest.fixture(scope="session")
def make_tokenizer():
    """make_tokenizer(template name or text, merges=()): one token a byte, the special tokens, and the merges."""

    def make(template="chatml", merges=()):
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        vocab = {token: i for i, token in enumerate((*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        bare = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
        bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        bare.decoder = decoders.ByteLevel()
        bare.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        return PreTrainedTokenizerFast(
            tokenizer_object=bare,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            padding_side="right",  # emlab must not depend on it
            chat_template=CHAT_TEMPLATES.get(template, template),
        )

    return make


@pytest.fixture(scope="session")
def make_model(make_tokenizer):
    """make_model(template="chatml", seed=0, **config): a LanguageModel of random weights, Llama with three blocks."""

    def make(template="chatml", seed=0, **config):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from emlab.models import LanguageModel

        tokenizer = make_tokenizer(template)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    max_position_embeddings=256,
                    initializer_range=0.3,  # large, so that answers differ from prompt to prompt
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    **{**shape, **config},
                )
            )
        return LanguageModel(model.eval(), tokenizer, "tiny")

    return make


@pytest.fixture(scope="session")
def tiny(make_model):
    """A tiny random LanguageModel. It is shared: do not change it."""
    return make_model()
