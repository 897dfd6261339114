"""``%load_ext mori``: notebooks show under a shared frame where it lies.

A shared frame is of pandas' own class, which has no room for such a line; so it is opt-in.
"""

from __future__ import annotations

import sys
from typing import Any

from mori import api
from mori.objects.containers.view import where

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Show where shared frames lie, in the notebook that loads this."""
    import pandas as pd

    shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, _frame)


def unload_ipython_extension(shell: Any) -> None:
    """Show frames as pandas does."""
    shell.display_formatter.formatters["text/html"].pop(sys.modules["pandas"].DataFrame, None)


def _frame(frame: Any) -> str | None:
    shown: str | None = frame._repr_html_()
    node = api.node_of(frame)
    if shown is None or node is None:
        return shown
    return f"{shown}<p>shared, {where(node, True)}</p>"
