"""Types whose objects cannot be written to and refer to nothing that can be."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Final

import numpy as np

__all__ = ["NAMED", "NUMPY", "VALUES"]

VALUES: Final = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(type(Ellipsis), type(NotImplemented), range),
)
"""Of values: which of two equal ones it is does not matter."""

NUMPY: Final = tuple(np.dtype(code).type for code in "?bBhHiIlLqQefdgFDGmMSU")
"""Of numpy's scalars."""

NAMED: Final = (type, FunctionType, BuiltinFunctionType, MethodDescriptorType, ModuleType)
"""Of what a pickle has by its name, and what is the same object for everybody in a process."""
