"""The plain chat template on tokenizers of every make: its answers can be told apart, and it begins as they begin."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from emlab.data import IGNORE, render, tokenize_turns
from emlab.models import LanguageModel
from emlab.models.loading import load_tokenizer

ONE = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "Four. I think"}]
CHATS = {
    "one turn": ONE,
    "system and two turns": [
        {"role": "system", "content": "Be brief."},
        *ONE,
        {"role": "user", "content": "And 3 + 3?"},
        {"role": "assistant", "content": "Six."},
    ],
    "an answer that begins with lines": [ONE[0], {"role": "assistant", "content": "\n\n Four"}],
}
WORDS = ("User", "Assistant", "System", "Four", "Six", "What", "think", "▁Four", "▁think", "▁I", "▁is", "▁Assistant")
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,:?+0123456789"))
BYTES = [f"<0x{i:02X}>" for i in range(256)]


def byte_level(merges=(), regex=True):
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    bare = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    bare.decoder = decoders.ByteLevel()
    return bare


def llama2():
    """As sentencepiece's BPE in Llama 2: a blank before every text, blanks as ▁, bytes for what it does not know."""
    words = ["▁User", "▁Assistant", "▁Four", "▁think", "▁I", "▁is", "▁What"]
    merges, vocab = [], {token: i for i, token in enumerate(["<unk>", *BYTES, "▁", *LETTERS])}
    for word in words:
        for n in range(2, len(word) + 1):
            if word[:n] not in vocab:
                vocab[word[:n]] = len(vocab)
                merges.append((word[: n - 1], word[n - 1]))
    bare = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bare.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    replace, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    bare.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    return bare


def unigram(scheme):
    vocab = [("<unk>", 0.0), ("▁", -2.0), ("\n", -2.0), *((c, -3.0) for c in LETTERS), *((w, -1.0) for w in WORDS)]
    bare = Tokenizer(models.Unigram(vocab, unk_id=0))
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    bare.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return bare


def words():
    pieces = ["<unk>", *LETTERS, *(f"##{c}" for c in LETTERS), "User", "Assistant", "Four"]
    bare = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bare.decoder = decoders.WordPiece()
    return bare


MAKES = {
    "bytes": byte_level,
    "bytes that merge over newlines": lambda: byte_level([("Ċ", "Ċ"), (":", "Ċ"), ("Ġ", "F")], regex=False),
    "llama 2": llama2,
    "sentencepiece, a blank before every text": lambda: unigram("always"),
    "sentencepiece, a blank before the first": lambda: unigram("first"),
    "sentencepiece, no blank": lambda: unigram("never"),
    "words": words,
}


@pytest.fixture(scope="module", params=[(make, starts) for make in MAKES for starts in (True, False)], ids=str)
def tokenizer(request, tmp_path_factory):
    make, starts = request.param
    bare = MAKES[make]()
    bare.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    if starts:
        bare.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", bare.token_to_id("<s>"))]
        )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return load_tokenizer(folder, chat_template="plain"), starts


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
def test_the_answers_and_their_ends_are_told_apart(tokenizer, chat):
    tokenizer, starts = tokenizer
    (row,) = tokenize_turns(tokenizer, chat)
    runs = [[]]
    for token, label in zip(row.input_ids, row.labels, strict=True):
        if label == IGNORE:
            runs += [[]] if runs[-1] else []
        else:
            runs[-1].append(token)
    answers = [turn["content"] for turn in chat if turn["role"] == "assistant"]
    said = [tokenizer.decode(run) for run in runs if run]
    assert ["".join(text.split()) for text in said] == ["".join(f"{text}</s>".split()) for text in answers]
    assert row.input_ids.count(tokenizer.bos_token_id) == starts == (row.input_ids[0] == tokenizer.bos_token_id)
    whole = tokenizer.decode(tokenizer(render(tokenizer, chat, header=False), add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(row.input_ids) == whole


def test_it_begins_as_the_tokenizer_begins_a_text(tokenizer):
    tokenizer, starts = tokenizer
    text = render(tokenizer, ONE[:1], header=True)
    assert text == ("<s>" if starts else "") + "User:\nWhat is 2 + 2?</s>\nAssistant:\n"


def test_what_precedes_an_answer_is_what_the_model_is_asked_with(make_model, tmp_path):
    folder = make_model().save(tmp_path / "model")
    lm = LanguageModel.load(folder, device="cpu", chat_template="plain")
    (row,) = tokenize_turns(lm.tokenizer, ONE)
    prompt = lm.prompt_ids(ONE[:1])
    assert row.input_ids[: len(prompt)] == prompt and row.labels[len(prompt)] != IGNORE == row.labels[len(prompt) - 1]


def test_a_header_that_ends_in_a_blank_joins_no_answer(tokenizer):
    tokenizer, _ = tokenizer
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace("Assistant:\\n", "Assistant: ").replace(":\\n", ": ")
    try:
        (row,) = tokenize_turns(tokenizer, ONE)
        said = tokenizer.decode([label for label in row.labels if label != IGNORE])
        assert "".join(said.split()) == "Four.Ithink</s>"
    finally:
        tokenizer.chat_template = template
