"""Representations: rows to fewer, more telling columns, fitted on reference rows once and applied to every window.

Each file is one method: a function `(rows, ...) -> Represent`, where a `Represent` maps (n, d) to (n, k).
"""
