"""How results show themselves: as text, in a notebook, as a table and as a figure."""

from __future__ import annotations

import dataclasses
import html
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


class Shown:
    """A mixin for results, dataclasses with `repr=False` and a `__str__`: what a notebook and a shell make of them."""

    def __repr__(self) -> str:
        """In one line: the class and the first line of the text."""
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0].strip()}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_pandas(self) -> pd.DataFrame:
        """A table of pandas: of its `rows()`, where it has some; else one row, of all that is a single value."""
        import pandas as pd

        made = getattr(self, "rows", None)
        rows = made() if callable(made) else [single_values(self)]
        try:
            return pd.DataFrame(rows)
        except UnicodeEncodeError:  # half of a surrogate pair, which pandas' own texts cannot hold
            return pd.DataFrame(rows, dtype=object)

    def plot(self) -> Figure:
        """Its figure, of plotly. EmlabError where a result of this kind has none."""
        # By name, since figures lie in a room above the results, which imports them.
        figure: Figure = importlib.import_module("emlab.reporting.own_figures").figure_of_result(self)
        return figure


def single_values(result: Any) -> dict[str, Any]:
    """The fields of a dataclass that are no sequences, vectors or parts, as plain values."""
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    texts = {name: str(value) if hasattr(type(value), "parse") else value for name, value in fields.items()}
    return {name: value for name, value in texts.items() if value is None or isinstance(value, str | int | float)}
