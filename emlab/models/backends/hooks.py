"""Edits applied by PyTorch forward hooks on the modules of a Hugging Face model.

The hooks are removed when the block ends, whatever happened in it, and the model then computes what it did before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from emlab.errors import EmlabError
from emlab.interventions import Edit, Tokens, check_rows, where
from emlab.interventions.overflow import SHORT, overflowed, room_of
from emlab.models.backends.places import Act, acting, check_edits, check_site
from emlab.sites import Site


class Editor:
    """The edits in force on a model; it must be told, by `see`, which tokens the next forward pass holds."""

    def __init__(self, edits: Sequence[Edit], sentence_ends: Callable[[], Tensor]) -> None:
        self.edits = list(edits)
        self._sentence_ends = sentence_ends
        self._ends: Tensor | None = None
        self._masks: list[Tensor] | None = None
        self._rooms: dict[int, Tensor] = {}
        self._dtype = torch.float32

    def see(self, tokens: Tokens) -> None:
        """Say which tokens the next forward pass holds (without those in the cache)."""
        for edit in self.edits:
            check_rows(edit, len(tokens.ids))
        device = tokens.ids.device
        if self._ends is None and any(isinstance(e.positions, str) and e.positions == "sentence" for e in self.edits):
            self._ends = self._sentence_ends().to(device)  # once, and not with every token
        self._masks = [where(edit.positions, tokens, self._ends) for edit in self.edits]

    def keep(self, index: Tensor) -> None:
        """From now on the batch holds only its rows `index`, int64 (n,)."""
        self.edits = [e if e.n_rows is None else e.rows(index) for e in self.edits]

    def apply(self, number: int, h: Tensor) -> Tensor:
        """Edit `number` applied to the activation h (batch, position, d_model)."""
        edit = self.edits[number]
        if self._masks is None:
            raise EmlabError("The edits do not know this forward pass's tokens; call editor.see(tokens) before it.")
        mask = self._masks[number].to(h.device)
        if mask.shape != h.shape[:2]:
            raise EmlabError(
                f"The edit at {edit.site} expects a batch of {tuple(mask.shape)} tokens and the forward pass holds "
                f"{tuple(h.shape[:2])}; call editor.see(tokens) before every forward pass."
            )
        new = edit.edit(h, mask)
        if h.dtype in SHORT:
            room, self._dtype = room_of(edit, h.detach(), new.detach(), mask), h.dtype
            self._rooms[number] = torch.minimum(room, self._rooms.get(number, room))
        return new

    def check(self) -> None:
        """EmlabError where an edit since the last check overflowed its 16-bit dtype; a float32 model costs nothing.

        It is asked once a pass or less often, as reading the answer waits for the device.
        """
        rooms, self._rooms = self._rooms, {}
        if rooms and bool((torch.stack(list(rooms.values())) < 1).any()):
            number = min(number for number, room in rooms.items() if room < 1)
            raise overflowed(self.edits[number], float(rooms[number]), self._dtype)


@contextmanager
def edited(
    model: nn.Module,
    edits: Sequence[Edit],
    sentence_ends: Callable[[], Tensor],
    active: Callable[[], bool] | None = None,
) -> Iterator[Editor]:
    """Apply `edits` in every forward pass of `model` by this thread inside the block, at one site in the order given.

    EmlabError where the model lacks a site or has another width there, before the block runs; and at the end of a pass
    in which an edit overflows the model's dtype.

    Args:
        model: A Hugging Face causal LM; it gets hooks, which are gone after the block.
        edits: What to do, and at which sites.
        sentence_ends: Returns the token ids (n,) that end a sentence; called only where an edit asks for them.
        active: Says in which threads' passes the edits act; None means this thread's. Training needs others: where
            activations are computed anew for the backward pass, that is in a thread of autograd's.
    """
    editor = Editor(edits, sentence_ends)
    handles: list[Any] = []
    acts_now = active or of_this_thread()

    def checked(*_: Any) -> None:
        if acts_now():
            editor.check()

    check_edits(editor.edits, model.config)
    try:
        for number, edit in enumerate(editor.edits):
            handles.append(on_site(model, edit.site, partial(editor.apply, number), acts_now))
        if editor.edits:
            handles.append(model.register_forward_hook(checked))
        yield editor
        editor.check()  # of a pass that ended early
    finally:
        for handle in handles:
            handle.remove()


class _Reached(Exception):
    """Raised at a site to end a forward pass that has nothing more to tell."""


@contextmanager
def caught(model: nn.Module, site: Site, stop: bool = True, gradient: bool = False) -> Iterator[list[Tensor]]:
    """Collect the site's activation (batch, position, d_model) of the forward pass inside the block, edits applied.

    With `stop`, the pass ends there: the block is left when the site is reached. With `gradient` what is collected can
    be differentiated by the model's weights.
    """
    seen: list[Tensor] = []

    def catch(h: Tensor) -> None:
        seen.append(h if gradient else h.detach())
        if stop:
            raise _Reached

    handle = on_site(model, site, catch)
    try:
        yield seen
    except _Reached:
        pass
    finally:
        handle.remove()


def of_this_thread() -> Callable[[], bool]:
    """Says whether it is called in the thread that it was made in."""
    thread = threading.get_ident()
    return lambda: threading.get_ident() == thread


def on_site(model: nn.Module, site: Site, act: Act, active: Callable[[], bool] | None = None) -> Any:
    """Hook `act` to a site: it gets the activation and returns its replacement, or None. Returns the handle.

    It acts on the passes in which `active` says so; by default on those of the thread that hooks it, and no others.
    """
    config: Any = model.config
    check_site(site, config)
    hook = site.hook(config.model_type)
    try:
        module = model.get_submodule(hook.module)
    except AttributeError:
        raise EmlabError(
            f"The model of type {config.model_type} has no site {site}: add its module names to emlab.sites.FAMILIES "
            f"(looked for {hook.module})."
        ) from None
    acts_now, place = active or of_this_thread(), acting(act, site, config)

    def here(h: Tensor) -> Tensor | None:
        return place(h) if acts_now() else None

    if hook.side == "output":
        return module.register_forward_hook(lambda _module, _inputs, output: _replaced(output, here))
    return module.register_forward_pre_hook(lambda _module, args, kwargs: _before(args, kwargs, here), with_kwargs=True)


def _replaced(output: Any, act: Act) -> Any:
    # A decoder layer returns a tensor or, in other versions and architectures, a tuple that begins with it.
    if isinstance(output, torch.Tensor):
        return act(output)
    if isinstance(output, tuple) and isinstance(output[0], torch.Tensor):
        new = act(output[0])
        return None if new is None else (new, *output[1:])
    raise EmlabError(f"A block of this model returns a {type(output).__name__}, which emlab cannot edit.")


def _before(args: tuple[Any, ...], kwargs: dict[str, Any], act: Act) -> Any:
    if args:
        new = act(args[0])
        return None if new is None else ((new, *args[1:]), kwargs)
    new = act(kwargs["hidden_states"])
    return None if new is None else (args, {**kwargs, "hidden_states": new})
