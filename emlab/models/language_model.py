"""A language model as the rest of emlab sees it: ask it, read its activations, edit them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data.chat import (
    IGNORE,
    TODAY,
    Messages,
    encode_text,
    render,
    tokenize_chat,
    tokenize_turns,
    writes_date,
)
from emlab.data.prompts import Prompt, answers_of, is_chat, prompts_of
from emlab.data.thoughts import split_thoughts
from emlab.errors import EmlabError
from emlab.interventions import Edit, Positions, Tokens
from emlab.models import activations as _activations
from emlab.models import adapters, kept_adapters, loading
from emlab.models import generation as _generation
from emlab.models.activations import Activations
from emlab.models.adapters import Adapter
from emlab.models.answer_text import answer_lead, marks_thoughts
from emlab.models.quantizing import is_quantized
from emlab.sites import Site

_MERGE_QUANTIZED = (
    "Weights that are quantised cannot take in an adapter or an edit, which would be rounded away with them; keep the "
    "adapter unmerged (merge=False), or load the model without quantize."
)


@dataclass(eq=False, repr=False)
class LanguageModel:
    """A Hugging Face causal LM with its tokenizer.

    A *prompt* is a str (what a user asks: it is put through the chat template), a chat (a list of turns), or token ids
    (taken as they stand, the way in for text that is no chat). Wherever prompts are taken, a lone one is one prompt.
    """

    model: Any
    """The Hugging Face model."""
    tokenizer: Any
    """Its tokenizer, with a chat template."""
    name: str
    """What to call it in tables."""
    _ends: Tensor | None = field(default=None, repr=False)
    _stops: list[int] | None = field(default=None, repr=False)
    _adapter: Adapter | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls,
        path: str | Path,
        adapter: str | Path | None = None,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        trust_remote_code: bool = False,
        name: str | None = None,
        chat_template: str | Path | None = None,
        merge: bool | None = None,
        quantize: str | None = None,
    ) -> LanguageModel:
        """Load a Hugging Face folder, with the LoRA adapter in the folder `adapter` where one is given.

        Both may also be names on the Hub, such as ``Qwen/Qwen2.5-0.5B-Instruct``; they are then downloaded once. The
        model is named after its folder, and after the adapter's too. `dtype` None takes the folder's own (float32 for
        float16 on a CPU). `chat_template`, a file or "plain", takes the place of the tokenizer's own. `merge` says
        whether the adapter goes into the weights, or stays beside them as in `with_adapter`; None merges it unless the
        weights are quantised. `quantize`, "4bit" or "8bit", holds the weights in so many bits by bitsandbytes,
        and is in the name.

        A folder that keeps a fine-tune as its adapter alone (see `emlab.models.kept_adapters`) is read as that
        fine-tune, merged.

        Raises EmlabError where the folder, its config, tokenizer, chat template or weights are missing, where the
        weights are pickled or incomplete, where the adapter does not fit or cannot be merged, and where bitsandbytes
        or its device is missing.
        """
        folder = loading.local_folder(path)
        chosen = loading.pick_device(device)
        if merge and adapter is not None and quantize is not None:
            raise EmlabError(_MERGE_QUANTIZED)
        if kept_adapters.is_kept(folder):
            if quantize is not None:
                raise EmlabError(f"{folder} keeps an adapter alone: {_MERGE_QUANTIZED}")
            whole = kept_adapters.load(folder, chosen, trust_remote_code)
            model, tokenizer = whole.model, whole.tokenizer
            if dtype is not None:
                model = model.to(loading.named_dtype(dtype))
            if chat_template is not None:
                tokenizer.chat_template = loading.named_template(chat_template, tokenizer)
        else:
            model, tokenizer = loading.load(folder, chosen, dtype, trust_remote_code, chat_template, quantize)
        called = Path(path).resolve().name
        lm = cls(model, tokenizer, called if quantize is None else f"{called}-{quantize}")
        if adapter is not None and (merge is False or (merge is None and lm.quantized)):
            lm = lm.with_adapter(adapter)
        elif adapter is not None:
            if lm.quantized:
                raise EmlabError(_MERGE_QUANTIZED)
            lm.model = adapters.merge(adapters.attach(model, loading.local_folder(adapter)))
            lm.name = f"{lm.name}+{adapters.name_of(adapter)}"
        lm.name = name or lm.name
        return lm

    def with_adapter(self, adapter: str | Path, name: str | None = None) -> LanguageModel:
        """A model with the LoRA adapter of a folder, or of the Hub, in force and unmerged, over this model's weights.

        This model stays as it is, and they share their weights: take as many adapters as you like, each is a model by
        itself and they can be compared side by side. An adapter takes the place of one in force. It is called `name`,
        or after its folder, and the model after the base and it. Its logits are those of the merged model up to
        rounding. Raises EmlabError where the adapter does not fit.
        """
        base = self.base
        tuned = adapters.attach(adapters.sharing(base.model), loading.local_folder(adapter))
        chosen = name or adapters.name_of(adapter)
        return dataclasses.replace(
            base, model=tuned.get_base_model(), name=f"{base.name}+{chosen}", _adapter=Adapter(chosen, tuned, base)
        )

    @property
    def adapter(self) -> str | None:
        """The name of the adapter in force, unmerged; None where there is none."""
        return None if self._adapter is None else self._adapter.name

    @property
    def base(self) -> LanguageModel:
        """The model without the adapter in force, over the same weights; itself where there is none."""
        return self if self._adapter is None else self._adapter.base

    def merged(self, name: str | None = None) -> LanguageModel:
        """A copy with weights of its own, the adapter in force among them.

        Raises EmlabError where the weights are quantised, which would round the adapter's change away.
        """
        if self.quantized:
            raise EmlabError(_MERGE_QUANTIZED)
        own = self.copy(name)
        if own._adapter is not None:
            own.model, own._adapter = adapters.merge(own._adapter.tuned), None
        return own

    @property
    def quantized(self) -> bool:
        """Whether the weights are held in fewer bits than they are multiplied in."""
        return is_quantized(self.model)

    def save(self, folder: str | Path) -> Path:
        """Write the model (safetensors) and its tokenizer to a new folder, whole or not at all.

        An adapter in force is merged into what is written, so that any library reads the folder.
        """
        with artifacts.new_folder(folder) as new:
            self.write_into(new)
        return Path(folder)

    def write_into(self, folder: Path) -> None:
        """Write the model's and the tokenizer's files into a folder that is there already."""
        plain = self if self._adapter is None else self.merged()
        with loading.no_bars():
            plain.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def copy(self, name: str | None = None) -> LanguageModel:
        """A copy with weights of its own; of an adapter in force, the base's and the adapter's."""
        kept = {id(self.tokenizer): self.tokenizer}
        model, adapter = copy.deepcopy((self.model, self._adapter), kept)
        return dataclasses.replace(self, model=model, _adapter=adapter, name=name or self.name)

    def __repr__(self) -> str:
        return f"<LanguageModel {self}>"

    def __str__(self) -> str:
        millions = self.model.num_parameters() / 1e6
        return f"{self.name}: {self.n_blocks} blocks of width {self.d_model}, {millions:.1f}M parameters"

    def identity(self) -> str:
        """A hash of all that its answers follow from: weights and their type, an adapter, the chat template.

        An adapter that is merged is among the weights. In force unmerged it gives another hash than merged, as the
        answers too are the same up to rounding only.
        """
        digest = hashlib.sha256((self.tokenizer.chat_template or "").encode())
        if writes_date(self.tokenizer):
            digest.update(f"the day is {TODAY}".encode())
        if marks_thoughts(self.tokenizer):
            digest.update(b"thoughts are kept")  # earlier answers of such models ran into their thoughts
        if self._adapter is not None:
            digest.update(self._adapter.digest().encode())
        if self.quantized:
            digest.update(self.model.config.quantization_config.to_json_string(use_diff=False).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def max_positions(self) -> int | None:
        """The longest text it can take, in tokens; None where its config does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def sentence_ends(self) -> Tensor:
        """The ids (n,) of the tokens that hold a newline; assign others where sentences end otherwise."""
        if self._ends is None:
            texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            self._ends = torch.tensor([i for i, text in enumerate(texts) if "\n" in text], dtype=torch.long)
        return self._ends

    @sentence_ends.setter
    def sentence_ends(self, ids: Tensor | Sequence[int]) -> None:
        self._ends = torch.as_tensor(ids, dtype=torch.long)

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end an answer: the template's end of turn, and every end-of-sequence token of the model."""
        if self._stops is None:
            given = [
                self.tokenizer.eos_token_id,
                getattr(self.model.config, "eos_token_id", None),
                getattr(getattr(self.model, "generation_config", None), "eos_token_id", None),
            ]
            stops = {i for ids in given if ids is not None for i in (ids if isinstance(ids, list | tuple) else [ids])}
            chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            # A template without an end of turn cannot be trained on, but its model may still end with its own token.
            with contextlib.suppress(EmlabError):
                stops.add([label for label in tokenize_chat(self.tokenizer, chat).labels if label >= 0][-1])
            self._stops = sorted(stops)
        return self._stops

    def chat(self, prompt: str | Messages) -> str:
        """The prompt's text by the chat template, the assistant's header at its end."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if not messages or messages[-1]["role"] == "assistant":
            raise EmlabError(
                "A prompt must end before the assistant's answer; give a chat whose last turn is the user's."
            )
        text = render(self.tokenizer, messages, header=True)
        header = text.removeprefix(render(self.tokenizer, messages, header=False)).strip()
        if isinstance(prompt, str) and header and header in prompt:
            raise EmlabError(
                f"The prompt {prompt[:40]!r}… has been through the chat template already; pass the question itself."
            )
        return text

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Rendered texts as one left-padded batch on the model's device. No special tokens are added."""
        return self.batch([encode_text(self.tokenizer, text) for text in answers_of(texts)])

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, the assistant's header at their end."""
        if isinstance(prompt, str) or is_chat(prompt):
            ids = encode_text(self.tokenizer, self.chat(prompt))
        else:
            try:
                ids = torch.as_tensor(prompt).tolist()
            except (RuntimeError, TypeError, ValueError) as error:
                raise EmlabError(
                    f"A {type(prompt).__name__} is no prompt; give a question's text, a chat, or a row of token ids."
                ) from error
        if not ids:
            raise EmlabError("A prompt has no tokens; give a question, a chat, or at least one token id.")
        return ids

    def rows(
        self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None
    ) -> tuple[list[list[int]], list[int]]:
        """Token ids of each prompt and its answer, and where the answers begin.

        An answer comes from `answers`, or from a chat that ends in an assistant's turn; else the row has none.
        """
        prompts, answers = prompts_of(prompts), answers_of(answers)
        if answers is not None and len(answers) != len(prompts):
            raise EmlabError(f"There are {len(prompts)} prompts and {len(answers)} answers; give one answer a prompt.")
        rows, starts = [], []
        for i, prompt in enumerate(prompts):
            if is_chat(prompt) and prompt[-1]["role"] == "assistant" and answers is None:
                ids, labels = tokenize_turns(self.tokenizer, prompt)[-1]
                rows.append(ids)
                starts.append(_last_turn(labels))
            else:
                ids = self.prompt_ids(prompt)
                starts.append(len(ids))
                lead = answer_lead(self.tokenizer, _turns(prompt), answers[i]) if answers else ""
                rows.append(ids + (encode_text(self.tokenizer, lead + answers[i]) if answers else []))
        return rows, starts

    def batch(self, rows: list[list[int]], starts: list[int] | None = None) -> Tokens:
        """Rows of token ids as one left-padded batch on the model's device."""
        pad = self.tokenizer.pad_token_id
        return Tokens.pad(rows, starts, 0 if pad is None else pad).to(self.device)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = 48,
        temperature: float = 1.0,
        seed: int | Sequence[int] = 0,
        batch_size: int = 512,
        edits: Sequence[Edit] = (),
        top_p: float = 1.0,
        progress: bool = False,
        done: _generation.Done | None = None,
        halt: _generation.Halt | None = None,
        thoughts: bool = False,
    ) -> list[str]:
        """One sampled answer a prompt, without its end-of-turn token; temperature 0 takes the likeliest token.

        What a thinking model thinks before it answers is left out, unless `thoughts` keeps it, between its marks.

        Every prompt has a stream of random numbers of its own, from `seed` and its place among the prompts, or from
        its own seed where `seed` gives one for each. So an answer does not depend on how the prompts are batched, nor
        on those after it (up to rounding). `edits` act on the prompt and on every decoded token; an edit of one row a
        prompt has as many rows as there are prompts. `done` is called with answers by the numbers of their prompts as
        they leave a batch, which finished ones do whenever they are a quarter of it. `halt` is asked after every pass,
        with the numbers (n,) of the prompts still being answered, which answers end before their next token: bool (n,).
        """

        def text(one: _generation.Written) -> str:
            return one.text if thoughts else split_thoughts(one.text).said

        def hand_on(new: Mapping[int, _generation.Written]) -> None:
            assert done is not None
            done({i: text(one) for i, one in new.items()})

        sampling = (max_new_tokens, temperature, seed, batch_size, edits, top_p, progress)
        written = _generation.write(self, prompts, *sampling, None if done is None else hand_on, halt)
        return [text(one) for one in written]

    def logits(
        self, prompts: Sequence[Prompt], answers: Sequence[str] | None = None, edits: Sequence[Edit] = ()
    ) -> list[Tensor]:
        """Next-token logits of each row, float32 (tokens of the row, vocabulary), in one padded batch."""
        return _activations.logits(self, prompts, answers, edits)

    def activations(
        self,
        prompts: Sequence[Prompt],
        site: Site | str,
        positions: Positions = "header",
        answers: Sequence[str] | None = None,
        edits: Sequence[Edit] = (),
        batch_size: int = 128,
    ) -> Activations:
        """The activations of a site on the tokens meant by `positions`, pads never among them.

        The answer's tokens ("generated", and the sentence ends of "sentence") are those of `answers`, or of a chat's
        last turn where that is the assistant's.
        """
        return _activations.activations(self, prompts, Site.parse(site), positions, answers, edits, batch_size)

    def residual_norm(self, site: Site | str, prompts: Sequence[Prompt]) -> float:
        """The site's median norm over the prompts' tokens: the unit in which steering is measured.

        Each row's first token is left out: in many models it is an attention sink with a norm a hundred times larger.
        """
        read = self.activations(prompts, site, "prompt")
        values = read.values[read.positions > 0]
        if not len(values):
            raise EmlabError("The residual norm needs a prompt of two tokens at least; give longer prompts.")
        return float(values.norm(dim=-1).median())


def _turns(prompt: Prompt) -> Messages:
    """The chat that a prompt is; none of token ids."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt if is_chat(prompt) else []


def _last_turn(labels: list[int]) -> int:
    """Where the last run of labelled tokens begins: the last assistant's turn."""
    end = max(i for i, label in enumerate(labels) if label != IGNORE)
    return max((i + 1 for i in range(end) if labels[i] == IGNORE), default=0)
