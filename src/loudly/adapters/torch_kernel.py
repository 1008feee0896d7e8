"""The Gaussian kernel of MMD on PyTorch, on a CPU or a GPU: same rows, same bandwidth, same permutations, same p-value.

Cost: as in numpy, on the device; 20,000 pooled rows need 1.6 GB for the kernel.
"""

from __future__ import annotations

import numpy as np
import torch

from loudly.core.seams import Floats, Ints
from loudly.errors import ConfigError

AT_ONCE = 1024


class TorchKernel:
    """MMD² of many splits on a device: "cpu", "cuda", "cuda:1", "mps". Give it to `mmd(..., kernel=TorchKernel("cuda"))`.

    Raises: ConfigError where PyTorch cannot use that device here. It never falls back to another one in silence.
    """

    def __init__(self, device: str = "cuda") -> None:
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as wrong:
            raise ConfigError(
                f"PyTorch cannot use the device {device!r} here.", seen=str(wrong)[:120], do='Use TorchKernel("cpu"), or no kernel.'
            ) from wrong

    def __call__(self, rows: Floats, bandwidth: float, windows: Ints) -> Floats:
        """Unbiased MMD² of window against rest in each split. Shapes: rows (pool, d), windows (b, n) -> (b,)."""
        x = torch.as_tensor((rows - rows.mean(axis=0)).astype(np.float32), device=self.device)
        norms = (x * x).sum(dim=1)
        squared = (norms[:, None] + norms[None, :] - 2 * (x @ x.T)).clamp_min_(0.0).fill_diagonal_(0.0)
        kernel = squared.mul_(-0.5 / bandwidth**2).exp_()
        total, pool, n = float(kernel.sum(dtype=torch.float64)), len(x), windows.shape[1]
        m, found = pool - n, []
        for at in range(0, len(windows), AT_ONCE):
            chosen = torch.as_tensor(windows[at : at + AT_ONCE], device=self.device)
            inside = torch.zeros((len(chosen), pool), device=self.device).scatter_(1, chosen, 1.0)
            sums = inside @ kernel
            within = (sums * inside).sum(dim=1, dtype=torch.float64)
            across = sums.sum(dim=1, dtype=torch.float64) - within
            rest = total - within - 2 * across
            value = (within - n) / (n * (n - 1)) + (rest - m) / (m * (m - 1)) - 2 * across / (n * m)
            found.append(value.cpu().numpy())
        return np.concatenate(found)
