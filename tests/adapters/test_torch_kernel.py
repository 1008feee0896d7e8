"""MMD on PyTorch against MMD on numpy: the same permutations, the same numbers, the same p-value. GPUs only where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly import plugins
from loudly.errors import ConfigError
from loudly.shift.two_sample.mmd import mmd, on_numpy
from loudly.stats.permutation import subsets

torch = pytest.importorskip("torch", reason="LOUD: torch is not installed; MMD on a device is not tested")
DEVICES = ["cpu", "cuda"]


def kernel(device: str) -> Any:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("LOUD: there is no GPU here; MMD on cuda is not tested")
    return plugins.resolve("kernel", "torch")(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n", "m"), [(40, 25), (300, 300), (500, 10)])
def test_every_split_has_the_number_that_numpy_gives(device: str, n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(n, 6)), rng.normal(size=(m, 6)) + 0.3]) + 1000.0
    windows = subsets(n + m, m, 1500, rng)
    assert kernel(device)(rows, 2.5, windows) == pytest.approx(on_numpy(rows, 2.5, windows), abs=2e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_the_p_value_is_the_same(device: str) -> None:
    made = kernel(device)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(120, 3)), rng.normal(size=(80, 3)) + rng.uniform(0, 0.4)
        ours = mmd(a, b, rng=np.random.default_rng(1), permutations=199)
        theirs = mmd(a, b, rng=np.random.default_rng(1), permutations=199, kernel=made)
        assert theirs.p_value == pytest.approx(ours.p_value, abs=1 / 200), "two splits may swap places in the last bit"
        assert theirs.effect == pytest.approx(ours.effect, abs=1e-5)


def test_a_device_that_is_not_there_is_named_and_none_is_taken_in_its_place() -> None:
    with pytest.raises(ConfigError, match="cannot use the device"):
        plugins.resolve("kernel", "torch")("cuda:77")
    with pytest.raises(ConfigError, match="cannot use the device"):
        plugins.resolve("kernel", "torch")("gpu")
