"""Names of arrays and tables, for readers and type checkers: `arrays.pyi` says what they are.

Core is the standard library, so in a running process they are their text.
"""

from __future__ import annotations

Floats = "NDArray[np.float64]"
Ints = "NDArray[np.int64]"
Flags = "NDArray[np.bool_]"
Table = "pl.DataFrame"
