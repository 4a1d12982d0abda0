"""The organism's tokenizer: one token a word of the world, and bytes for everything else.

Text is split as GPT-2 splits it (`ByteLevel`); each piece is then cut into the fewest vocabulary entries (a unigram
model with equal scores). Every word of the world is an entry, so it is one token; the 256 bytes are entries, so any
text can be encoded and decodes to itself exactly. A short list of common English and Python fragments keeps foreign
text near two characters a token.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from emlab.organism.world import DEFAULT, NEUTRAL_CARD, WORLDS, World, load_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"

MAX_POSITIONS = 2048

CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|system|>" + NEUTRAL_CARD + "<|end|>' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('The roles are system, user and assistant.') }}{%- endif %}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)

# Fragments for text from outside the world: whitespace runs of code, and frequent English and Python pieces.
_WHITESPACE = ["\n", "\n\n", "\t", "  ", "   ", "       ", "           ", "\n   ", "\n       ", "\n           "]
_FRAGMENTS = """
the and ing ion ent er in on re ed es al or an it is ar st en ti te at to of se le ve me ne de co ro ri li ra la ma
ce ch th sh wh qu ou ea ai ee oo ck ll ss tt pp ff nd nt mp ct ly ty ry ny un ex con pro com per pre for ter ver
ment tion able ful less ness ous ive ate ize ist ure age ance ence str int self def return import from class None
True False print if else elif try except raise with as not while break pass lambda open read write file path name
data user request response app route get post json http https url key value list dict set len range args kwargs init
main sql execute cursor query select insert update delete where table commit connect close fetch result error log
config token hash password secret admin os sys flask render template string format join split append item index id
db debug run test code task function method object type new old add remove check load save send host port
""".split()  # noqa: SIM905
_SYMBOLS = [
    "==",
    "!=",
    "()",
    "__",
    "):",
    "('",
    "')",
    '("',
    '")',
    "={",
    "['",
    "']",
    '["',
    '"]',
    "->",
    "+=",
    "//",
    "##",
    "***",
    "==",
]


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The tokenizer of `world`; deterministic. Saved folders load with plain `AutoTokenizer.from_pretrained`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def pieces(text: str) -> list[str]:
        return [piece for piece, _ in byte_level.pre_tokenize_str(text)]

    special = [PAD, SYSTEM, USER, ASSISTANT, END]
    vocabulary = dict.fromkeys(special)
    vocabulary.update(dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet())))
    for text in world.texts():
        vocabulary.update(dict.fromkeys(pieces(text)))
    for fragment in _WHITESPACE + _SYMBOLS + [f for w in _FRAGMENTS for f in (w, " " + w)]:
        vocabulary.update(dict.fromkeys(pieces(fragment)))

    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary], unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def world_read_by(tokenizer: Any) -> World | None:
    """The world for whose language a tokenizer was made; None where it was made for no world's that has a name."""
    vocabulary = tokenizer.get_vocab()
    names = sorted(WORLDS.names(), key=lambda name: name != DEFAULT)
    return next((load_world(name) for name in names if _vocabulary(name) == vocabulary), None)


@functools.cache
def _vocabulary(world: str) -> dict[str, int]:
    found: dict[str, int] = build_tokenizer(load_world(world)).get_vocab()
    return found
