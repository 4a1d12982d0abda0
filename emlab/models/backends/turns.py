"""Threads take turns with what a library can only do once at a time with a model."""

from __future__ import annotations

import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any

_LOCKS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


def turn(owner: Any) -> AbstractContextManager[Any]:
    """A block that one thread at a time is in, of all that name the same `owner`; a thread may enter it again."""
    with _MAKING:
        return _LOCKS.setdefault(owner, threading.RLock())
