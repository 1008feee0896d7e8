"""Two-sample tests on rows: do a reference and a window come from the same distribution?

Each file is one method, one function `(reference (n, d), window (m, d), ...) -> Evidence`. Arrays are checked by `samples.py`.
"""
