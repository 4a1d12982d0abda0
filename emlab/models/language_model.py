"""A language model as the rest of emlab sees it: ask it, read its activations, edit them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from emlab import artifacts
from emlab.data.chat import TODAY, writes_date
from emlab.data.prompts import Prompt
from emlab.data.thoughts import split_thoughts
from emlab.errors import EmlabError
from emlab.interventions import Edit, Positions
from emlab.models import activations as _activations
from emlab.models import adapters, kept_adapters, loading
from emlab.models import generation as _generation
from emlab.models.activations import Activations
from emlab.models.adapters import Adapter
from emlab.models.answer_text import marks_thoughts
from emlab.models.places import local_folder
from emlab.models.quantizing import is_quantized
from emlab.models.token_model import TokenModel
from emlab.sites import Site

_MERGE_QUANTIZED = (
    "Weights that are quantised cannot take in an adapter or an edit, which would be rounded away with them; keep the "
    "adapter unmerged (merge=False), or load the model without quantize."
)


@dataclass(eq=False, repr=False)
class LanguageModel(TokenModel):
    """A Hugging Face causal LM with its tokenizer.

    A *prompt* is a str (what a user asks: it is put through the chat template), a chat (a list of turns), or token ids
    (taken as they stand, the way in for text that is no chat). Wherever prompts are taken, a lone one is one prompt.
    """

    _adapter: Adapter | None = None
    _base: LanguageModel | None = None

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

        A folder that keeps a fine-tune as its adapter alone (see `emlab.models.kept_adapters`) is read as that
        fine-tune, merged.

        Args:
            path: The folder, or a name on the Hub, such as ``Qwen/Qwen2.5-0.5B-Instruct``, which is downloaded once.
            adapter: A LoRA adapter's folder, or its name on the Hub.
            device: "auto" takes the fastest device there is.
            dtype: None takes the folder's own; on a CPU float32 for float16, and for bfloat16 without AVX-512.
            trust_remote_code: Whether to run code that the folder brings, which may do anything; so by default not.
            name: What to call the model; None names it after its folder, and after the adapter's too.
            chat_template: A file, or "plain", in place of the tokenizer's own.
            merge: Whether the adapter goes into the weights, or stays beside them as in `with_adapter`; None merges it
                unless the weights are quantised.
            quantize: "4bit" or "8bit" holds the weights in so many bits by bitsandbytes, and is in the name.

        Raises EmlabError where the folder, its config, tokenizer, chat template or weights are missing, where the
        weights are pickled or incomplete, where the adapter does not fit or cannot be merged, and where bitsandbytes
        or its device is missing.
        """
        folder = local_folder(path)
        chosen = loading.pick_device(device)
        if merge and adapter is not None and quantize is not None:
            raise EmlabError(_MERGE_QUANTIZED)
        if kept_adapters.is_kept(folder):
            if quantize is not None:
                raise EmlabError(f"{folder} keeps an adapter alone: {_MERGE_QUANTIZED}")
            kept, place = kept_adapters.base_of(folder)
            base = cls.load(place, None, str(chosen), kept.dtype, trust_remote_code, chat_template="plain")
            base.tokenizer.chat_template = kept.chat_template or None
            whole = kept_adapters.merged(folder, base, folder.name)
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
            lm.model = adapters.merge(adapters.attach(model, local_folder(adapter)))
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
        tuned = adapters.attach(adapters.sharing(base.model), local_folder(adapter))
        chosen = name or adapters.name_of(adapter)
        return dataclasses.replace(
            base,
            model=tuned.get_base_model(),
            name=f"{base.name}+{chosen}",
            _adapter=Adapter(chosen, tuned),
            _base=base,
        )

    @property
    def adapter(self) -> str | None:
        """The name of the adapter in force, unmerged; None where there is none."""
        return None if self._adapter is None else self._adapter.name

    @property
    def base(self) -> LanguageModel:
        """The model without the adapter in force, over the same weights; itself where there is none."""
        return self if self._base is None else self._base

    def merged(self, name: str | None = None) -> Self:
        """A copy with weights of its own, the adapter in force among them.

        Raises EmlabError where the weights are quantised, which would round the adapter's change away.
        """
        if self.quantized:
            raise EmlabError(_MERGE_QUANTIZED)
        own = self.copy(name)
        if own._adapter is not None:
            own.model, own._adapter, own._base = adapters.merge(own._adapter.tuned), None, None
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

    def copy(self, name: str | None = None) -> Self:
        """A copy with weights of its own; of an adapter in force, the base's and the adapter's."""
        kept = {id(self.tokenizer): self.tokenizer}
        model, adapter, base = copy.deepcopy((self.model, self._adapter, self._base), kept)
        return dataclasses.replace(self, model=model, _adapter=adapter, _base=base, name=name or self.name)

    def to(self, *place: torch.device | str | torch.dtype) -> Self:
        """Move the weights to a device, to a type (also "bf16"), or to both, in place; returns the model itself."""
        self.model.to(*(loading.SHORT.get(one, one) if isinstance(one, str) else one for one in place))
        return self

    def compile(self, **options: Any) -> Self:
        """Compile the model's passes (`torch.nn.Module.compile`, which takes the options); returns the model itself."""
        self.model.compile(**options)
        return self

    def chat(self, prompt: Prompt, max_new_tokens: int = 200, **more: Any) -> str:
        """The answer to one question or chat.

        Args:
            prompt: The question, the chat, or the row of token ids.
            max_new_tokens: The longest answer.
            **more: What else `generate` takes.
        """
        return self.generate([prompt], max_new_tokens, **more)[0]

    def __repr__(self) -> str:
        return f"<LanguageModel {self}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

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
        """One sampled answer a prompt, without its end-of-turn token.

        Every prompt has a stream of random numbers of its own, so an answer does not depend on how the prompts are
        batched, nor on those after it (up to rounding).

        Args:
            prompts: Questions, chats or rows of token ids; see `LanguageModel`.
            max_new_tokens: The longest answer; the default is for the short ones of the organism.
            temperature: 1 samples as the model was trained; 0 takes the likeliest token.
            seed: Of the random numbers, with a prompt's place among the prompts; or one for each prompt.
            batch_size: Prompts in one pass; the default suits tiny models, larger ones need fewer.
            edits: They act on the prompt and on every decoded token; one of one row a prompt has as many rows as there
                are prompts.
            top_p: The likeliest tokens that together reach this share are sampled from; 1 means all.
            progress: Whether to show a bar.
            done: Called with answers by the numbers of their prompts as they leave a batch, which finished ones do
                whenever they are a quarter of it.
            halt: Asked after every pass, with the numbers (n,) of the prompts still being answered, which answers end
                before their next token: bool (n,).
            thoughts: Whether to keep what a thinking model thinks before it answers, between its marks.
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

        Args:
            prompts: Questions, chats or rows of token ids; see `LanguageModel`.
            site: Where to read, such as "resid_post.1".
            positions: Which tokens; "header" is the last before the answer, where what it will be is already known.
            answers: One a prompt, read after it; None takes a chat's last turn where that is the assistant's. The
                positions "generated" and "sentence" are on these.
            edits: In force while it reads.
            batch_size: Rows in one pass; it changes memory and speed alone.
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
