"""A local model as judge: its probabilities of numbers against all token sequences enumerated."""

import itertools

import pytest
import torch

from emlab.errors import EmlabError
from emlab.models import LocalCompleter, Request
from emlab.models.completion import complete


def request(text, **settings):
    return Request([{"role": "user", "content": text}], **settings)


LETTERS = [*"abcdefghijklmnopqrstuvwxyz ", "\n"]
DIGITS = [*"0123456789"]


@pytest.fixture(scope="module")
def digits(random_model):
    """Each digit is a token, and so is each letter."""
    return random_model([*LETTERS, *DIGITS])


@pytest.fixture(scope="module")
def whole(random_model):
    """Each number from 0 to 100 is a token."""
    return random_model([*LETTERS, *map(str, range(101))], seed=1)


def after(lm, ids):
    """The probability of each token after `ids`, of one unpadded row."""
    with torch.no_grad():
        return torch.softmax(lm.model(torch.tensor([ids])).logits[0, -1].double(), -1)


def brute_force(lm, prompt):
    """The probability of each number 0 to 100 as the beginning of the answer, from all sequences of three tokens.

    A number is the longest of 0 to 100 that the sequence's digits begin with, each spelled in one token a digit.
    """
    start = lm.prompt_ids(prompt)
    token = {text: lm.tokenizer.convert_tokens_to_ids(text) for text in DIGITS}
    letter = {i: text for text, i in token.items()}
    first = after(lm, start)
    found = dict.fromkeys(range(101), 0.0)
    second = {a: after(lm, [*start, a]) for a in token.values()}
    third = {
        (a, b): after(lm, [*start, a, b]) for a, b in itertools.product(token.values(), repeat=2) if letter[a] != "0"
    }
    everything = range(len(lm.tokenizer))
    for a, b, c in itertools.product(everything, everything, everything):
        if a not in letter or (a not in second) or ((a, b) not in third and c != 0):
            continue  # c matters only after two digits: there the sum over c is done at once, at c == 0
        p = float(first[a]) * float(second[a][b])
        text = letter[a] + letter.get(b, "x")
        if (a, b) in third:
            p *= float(third[a, b][c])
            text += letter.get(c, "x")
        begins = [n for n in range(101) if text.startswith(str(n))]
        found[max(begins, key=lambda n: len(str(n)))] += p
    return found


PROMPTS = ["rate this", "a longer thing to rate", "x"]


def test_of_digit_tokens_they_equal_brute_force(digits):
    found = LocalCompleter(digits, progress=False).complete([request(text, numbers=True) for text in PROMPTS])
    for text, one in zip(PROMPTS, found, strict=True):
        assert one.numbers == pytest.approx(brute_force(digits, text), abs=1e-5)
        assert set(one.numbers) == set(range(101))
        first = after(digits, digits.prompt_ids(text))
        a_digit = sum(float(first[digits.tokenizer.convert_tokens_to_ids(d)]) for d in DIGITS)
        assert sum(one.numbers.values()) == pytest.approx(a_digit, abs=1e-5), "each digit begins exactly one number"
        assert sum(one.numbers.values()) < 1


def test_of_tokens_that_are_whole_numbers_they_are_the_first_tokens(whole):
    assert len(whole.prompt_ids("100")) == len(whole.prompt_ids("7")), "the test needs whole numbers"
    found = LocalCompleter(whole, progress=False).complete([request(text, numbers=True) for text in PROMPTS])
    for text, one in zip(PROMPTS, found, strict=True):
        first = after(whole, whole.prompt_ids(text))
        direct = {n: float(first[whole.tokenizer.convert_tokens_to_ids(str(n))]) for n in range(101)}
        assert one.numbers == pytest.approx(direct, abs=1e-5)
        assert sum(one.numbers.values()) < 1


def test_ids_and_weights_make_the_difference(digits):
    assert LocalCompleter(digits).identity() == digits.identity()
    assert LocalCompleter(digits).name == "random"
    other = digits.copy()
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-3)
    assert LocalCompleter(other).identity() != LocalCompleter(digits).identity()


def test_completions_come_in_order_whatever_is_mixed(digits):
    requests = [
        request("one"),
        request("two", numbers=True),
        request("three", temperature=1.0, seed=5, max_tokens=4),
        request("four"),
        request("five", temperature=1.0, seed=6, max_tokens=4),
    ]
    done = {}
    found = LocalCompleter(digits, batch_size=2, progress=False).complete(requests, lambda i, c: done.update({i: c}))
    assert done == dict(enumerate(found))
    for one, completion in zip(requests, found, strict=True):
        (alone,) = digits.generate(
            [one.messages], max_new_tokens=one.max_tokens, temperature=one.temperature, seed=[one.seed]
        )
        assert completion.text == alone
        assert (completion.numbers is not None) is one.numbers
    assert LocalCompleter(digits).complete([]) == []


def test_a_second_run_with_a_store_asks_nothing(digits, tmp_path):
    requests = [request(text, numbers=True) for text in PROMPTS]
    first = complete(LocalCompleter(digits, progress=False), requests, tmp_path / "s")

    class Never(LocalCompleter):
        def complete(self, requests, done=None):
            raise AssertionError("asked again")

    assert complete(Never(digits), requests, tmp_path / "s") == first


def test_a_header_that_is_joined_to_the_number_is_refused(random_model):
    joined = random_model([*LETTERS, *DIGITS, ":", *(f":{digit}" for digit in DIGITS)], header="a:")
    assert len(joined.prompt_ids("x")) == len(joined.tokenizer(joined.prompt_text("x") + "7")["input_ids"])
    with pytest.raises(EmlabError, match=r'joins the header and a number into one token.*method="text"'):
        LocalCompleter(joined, progress=False).complete([request("x", numbers=True)])
    assert len(LocalCompleter(joined, progress=False).complete([request("x")])) == 1
