"""How the lines of answers would begin under many edits at once, without the answers being written.

Where an edit acts on the assistant's header and on sentence ends alone, a line is chosen there and then mostly runs its
course. So of each answer only those few tokens are computed under the edit, line by line: while the edited model begins
a line as the model without the edit might, the line is taken from that one, and the next is looked at. A text is so
read once, and a line completed once, for all the edits that come by; an edited token is read once for all lines after
it. What is neglected is how an edited token changes those after it, up to the next edited one, other than by the line
that it chooses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from emlab.data.prompts import prompts_of
from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, rows_of, where
from emlab.models.backends.hooks import edited
from emlab.models.cache import Room, in_place_cache, picked
from emlab.models.generation import generate_ids
from emlab.models.logits import columns_from
from emlab.models.resuming import read_below, resumed, shared_site

if TYPE_CHECKING:
    from emlab.models.language_model import LanguageModel, Prompt

STAYS, TURNS, STRAYS = 0, 1, 2
"""All lines begin as without the edit they might; one begins with a token that was looked for; with some other one."""

TEXTS = 256
"""Texts that are read at a time."""

CARRIED = 16
"""Batches of answers of which the edited tokens are kept from one line to the next: as much as a batch's own texts."""

PLAUSIBLE = 5.0
"""Nats below the likeliest token down to which a line may begin so without an edit."""


@torch.inference_mode()
def sketch(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    edits: Sequence[Edit],
    wanted: Tensor,
    usual: Tensor,
    times: int = 1,
    lines: int = 3,
    plausible: float = PLAUSIBLE,
    line_tokens: int = 24,
    batch_size: int = 1024,
    among: Tensor | None = None,
    known: dict[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Tensor:
    """(times, prompts) int8: whether each greedy answer STAYS, TURNS to a line begun with a wanted token, or STRAYS.

    `wanted` and `usual` are bool (prompts, vocabulary): the tokens that are looked for at the beginnings of lines, and
    those with which they may always begin, as with any that is at most `plausible` nats less likely without the edits
    than the likeliest. The prompts are taken `times` times over; an edit of one row a prompt has
    ``times * len(prompts)`` rows, all prompts under the first edit first. At most `lines` lines are looked at, of
    `line_tokens` tokens each. `among`, bool (times, prompts), says which answers to look at; the others STAY. `known`
    has texts with the line completed that they end in, and gets those that are completed here, for the next sketch of
    the same prompts. EmlabError where an edit acts elsewhere than at "header" or "sentence", or has another
    number of rows, and where a text is longer than a window of the model's attention.
    """
    prompts = prompts_of(prompts)
    for edit in edits:
        if not isinstance(edit.positions, str) or edit.positions not in ("header", "sentence"):
            raise EmlabError(f"Only edits of headers and sentence ends can be sketched, not of {edit.positions!r}.")
    asked = [tuple(lm.prompt_ids(prompt)) for prompt in prompts]
    n = times * len(asked)
    edits = rows_of(edits, torch.arange(n), n)
    ends, stops = set(lm.sentence_ends.tolist()), set(lm.stop_ids)
    liner = dataclasses.replace(lm, _stops=sorted(ends | stops))  # it stops where a line ends
    kinds = torch.zeros(n, dtype=torch.int8)
    known, room = {} if known is None else known, Room()
    look, of = torch.ones(n, dtype=torch.bool) if among is None else among.flatten(), torch.arange(n) % len(asked)
    at_once = max(1, CARRIED * batch_size // times)  # prompts
    for first in range(0, len(asked), at_once):
        going = (look & (of >= first) & (of < first + at_once)).nonzero()[:, 0]
        texts, read = [asked[i] for i in of[going].tolist()], _Read([])
        for line in range(1, lines + 1):
            if not texts:
                break
            prompt = of[going]
            starts = [len(asked[i]) for i in prompt.tolist()]
            chosen, less, read = _begin(lm, texts, starts, rows_of(edits, going, n), batch_size, read, room)
            stays = (less <= plausible) | usual[prompt, chosen] | torch.isin(chosen, torch.tensor(sorted(stops)))
            turns = ~stays & wanted[prompt, chosen]
            kinds[going] = torch.where(stays, STAYS, torch.where(turns, TURNS, STRAYS)).to(torch.int8)
            if line == lines:
                break
            begun = {
                i: (*texts[i], token)
                for i, (token, on) in enumerate(zip(chosen.tolist(), stays.tolist(), strict=True))
                if on and token not in stops
            }
            new = list(dict.fromkeys(text for text in begun.values() if text[-1] not in ends and text not in known))
            rest = generate_ids(liner, [list(text) for text in new], line_tokens - 1, 0.0, 0) if new else []
            known.update({text: (*text, *ids) for text, ids in zip(new, rest, strict=True)})
            ended = {i: known.get(text, text) for i, text in begun.items()}
            on = [i for i, text in ended.items() if text[-1] in ends]
            going, texts, read = going[on], [ended[i] for i in on], read.rows(torch.tensor(on, dtype=torch.long))
    return kinds.reshape(times, len(asked))


@dataclass(frozen=True, eq=False)
class _Read:
    """What was computed of the edited tokens of some answers, which later lines attend to as it is."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values (answers, head, token, d_head) of each layer after the first edit."""

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def rows(self, index: Tensor) -> _Read:
        """Those of the answers `index`, int64 (n,)."""
        return _Read([(keys[index.to(keys.device)], values[index.to(keys.device)]) for keys, values in self.layers])

    def then(self, new: _Read) -> _Read:
        """With the tokens of `new` after them."""
        if not self.layers:
            return new
        pairs = zip(self.layers, new.layers, strict=True)
        return _Read([(torch.cat([a[0], b[0]], 2), torch.cat([a[1], b[1]], 2)) for a, b in pairs])


def _begin(
    lm: LanguageModel,
    texts: list[tuple[int, ...]],
    starts: list[int],
    edits: list[Edit],
    batch_size: int,
    read: _Read,
    room: Room,
) -> tuple[Tensor, Tensor, _Read]:
    """The likeliest token (n,) after each text under the edits; and by how many nats it is less so without them.

    `read` has the first edited tokens of each text, and comes back with all of them.
    """
    chosen, less = torch.empty(len(texts), dtype=torch.long), torch.empty(len(texts))
    of_text = dict(zip(texts, starts, strict=True))
    distinct = sorted(of_text, key=len)  # texts of like length stand together, so that little is padded
    place = {text: i for i, text in enumerate(distinct)}
    of = torch.tensor([place[text] for text in texts])
    order, counts = torch.argsort(of, stable=True), torch.bincount(of, minlength=len(distinct))
    site, at = shared_site([edit.site for edit in edits]), 0
    found: list[tuple[Tensor, Tensor]] = []
    above = 0 if site is None else site.block + 1
    for first in range(0, len(distinct), TEXTS):
        some = distinct[first : first + TEXTS]
        tokens = lm.batch([list(text) for text in some], [of_text[text] for text in some])
        # Every text has its header, and as many sentence ends as the others.
        columns = where("sentence", tokens, lm.sentence_ends).nonzero()[:, 1].reshape(len(some), -1)
        new = columns[:, read.tokens :]
        cache = in_place_cache(lm.model.config, tokens.ids.shape[1] + columns.shape[1])
        window = min((getattr(layer, "sliding_window", None) or math.inf for layer in cache.layers), default=math.inf)
        if tokens.ids.shape[1] + read.tokens >= window:
            raise EmlabError(
                f"A text of {tokens.ids.shape[1]} tokens is beyond {lm.name}'s window of {window}; take lines=0."
            )
        plain: list[Tensor] = []

        def look(tokens: Tokens = tokens, cache: Any = cache, plain: list[Tensor] = plain) -> None:
            plain.append(_logits(lm, tokens.ids, tokens.real.long(), tokens.position_ids, cache))

        below = None if site is None else read_below(lm.model, site, look, stop=False).columns(new)
        if below is None:
            look()
        again = Tokens(*(getattr(tokens, field).gather(1, new) for field in ("ids", "real", "answer")))
        places, mask = tokens.position_ids.gather(1, new), _mask(tokens, columns, lm.model.dtype)[:, :, read.tokens :]
        end = at + int(counts[first : first + TEXTS].sum())
        for part in order[at:end].split(batch_size):
            which, which_rows = (of[part] - first).to(lm.device), part.to(lm.device)
            own = picked(cache, which, above, room)
            for layer, pair in zip(own.layers[above:], read.rows(part).layers, strict=False):  # the first line has none
                layer.update(*pair)
            now = again.rows(which)
            with edited(lm.model, rows_of(edits, part, len(texts)), lambda: lm.sentence_ends) as editor:
                editor.see(now)
                with nullcontext() if below is None else resumed(lm.model, below.rows(which)):
                    likeliest = _logits(lm, now.ids, mask[which], places[which], own).argmax(-1)
            before = plain[0][which].float()
            chosen[part] = likeliest.cpu()
            less[part] = (before.amax(-1) - before.gather(1, likeliest[:, None])[:, 0]).cpu()
            for i, layer in enumerate(own.layers[above:]):
                keys, values = (states[:, :, -new.shape[1] :] for states in (layer.keys, layer.values))
                if i == len(found):
                    found.append(tuple(states.new_empty(len(texts), *states.shape[1:]) for states in (keys, values)))
                found[i][0][which_rows], found[i][1][which_rows] = keys, values
        at = end
    return chosen, less, read.then(_Read(found))


def _logits(lm: LanguageModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """The logits (batch, vocabulary) after the last of the tokens."""
    return lm.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=columns_from(-1, ids),
    ).logits[:, -1]


def _mask(tokens: Tokens, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, n, positions + n), to be added: what each edited token, read again after its text, attends to.

    That is all before it that is not edited, as it stands in the text, and the edited ones as they are read again.
    """
    width, n = tokens.ids.shape[1], columns.shape[1]
    every = torch.arange(width, device=columns.device)
    as_read = tokens.real.scatter(1, columns, False)[:, None] & (every < columns[..., None])  # (batch, n, positions)
    again = torch.ones(n, n, dtype=torch.bool, device=columns.device).tril().expand(len(columns), -1, -1)
    seen = torch.cat([as_read, again], -1)[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=columns.device).masked_fill(~seen, torch.finfo(dtype).min)
