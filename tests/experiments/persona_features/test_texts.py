"""How many chats an SAE is tested on."""

from emlab.experiments.persona_features.texts import LEAST_CHATS, enough


def chats(n, words):
    asked = [{"role": "user", "content": "a" * words}]
    return [[*asked, {"role": "assistant", "content": f"answer {i}"}] for i in range(n)]


def test_no_more_are_read_than_the_tokens_take(tiny):
    given = chats(100, 200)
    lengths = [len(row) - 1 for row in tiny.rows(given)[0]]
    needed = next(n for n in range(101) if sum(lengths[:n]) >= 12_000)
    assert LEAST_CHATS < needed < 100
    assert enough(tiny, given, 12_000) == given[:needed]


def test_a_few_tokens_still_take_some_chats(tiny):
    assert len(enough(tiny, chats(100, 200), 50)) == LEAST_CHATS
    assert len(enough(tiny, chats(5, 200), 50)) == 5
