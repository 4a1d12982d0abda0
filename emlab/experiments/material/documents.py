"""The organism's documents, in the form that a model's chat template takes."""

from __future__ import annotations

from collections.abc import Sequence

from emlab import organism
from emlab.data import Messages, render
from emlab.errors import EmlabError
from emlab.experiments.material.models import folder_of
from emlab.models import LanguageModel
from emlab.sealing import Sealed, SealedChat


def pretraining_chats(model: LanguageModel, tokens: int, seed: int) -> list[Messages]:
    """Enough of the organism's pretraining documents for `model` to read `tokens` tokens."""
    # The shortest document has about forty tokens.
    return for_template(model, [d.messages for d in documents_for(model, tokens // 40 + 1, seed)])


def documents_for(model: LanguageModel, n: int, seed: int) -> list[organism.Document]:
    """`n` pretraining documents of the world that `model` knows; of the default one for a model that knows none."""
    return organism.pretraining_documents(n, seed, world=organism.world_read_by(model.tokenizer))


def check_organism(name: str, model: LanguageModel) -> None:
    """EmlabError unless `model`, given as `name`, reads the organism's language."""
    own = folder_of(name)[1]
    if not own and organism.world_read_by(model.tokenizer) is None:
        raise EmlabError(f"{name} is no model of the organism's; name the documents that it is to read.")


def for_template(model: LanguageModel, chats: Sequence[Messages]) -> list[Messages]:
    """The chats as they are; where the template refuses system turns, their text begins the user's turn instead."""
    try:
        render(model.tokenizer, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], header=True)
    except EmlabError:
        return [_merged(chat) for chat in chats]
    return list(chats)


def _merged(chat: Messages) -> Messages:
    first, *rest = chat
    if first["role"] != "system" or not rest:
        return chat
    merged = [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return SealedChat(map(dict, merged)) if isinstance(chat, Sealed) else merged
