"""How results show themselves in a notebook."""

from __future__ import annotations

import html


class ShownAsText:
    """A mixin: a notebook shows what `str` gives, its columns in line."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
