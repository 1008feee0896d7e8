"""Failing Loudly (Rabanser, Günnemann & Lipton, NeurIPS 2019) on MNIST and Fashion-MNIST, and loudly's default beside it.

Ten shifts at three strengths, windows of 10 to 1,000 rows, five random splits, and windows without any shift. Detection is
p <= 0.05. Every method of the paper is the library's own (`loudly.shift`); a perceptron stands for its ResNet-18.
Run: python benchmarks/failing_loudly.py [--runs 5] [--quick]     (about 15 minutes on two cores)
Data: ../shared/data (mnist_full, fashion_mnist); where it is absent this says so and measures nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from loudly.shift import rank_embedding
from loudly.shift.represent.autoencoder import trained_encoder, untrained_encoder
from loudly.shift.represent.black_box import decision, softmax
from loudly.shift.represent.linear import principal_components, sparse_projection
from loudly.shift.two_sample.chi_squared import chi_squared
from loudly.shift.two_sample.classifier import classifier
from loudly.shift.two_sample.kolmogorov_smirnov import kolmogorov_smirnov, ks_distances, ks_p_values
from loudly.shift.two_sample.mmd import mmd
from loudly.testing.image_shifts import SHIFTS, shifted

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"MNIST": "mnist_full", "Fashion-MNIST": "fashion_mnist"}
SIZES = (10, 20, 50, 100, 200, 500, 1000)
SHARES = (0.1, 0.5, 1.0)
NULLS = 10
TRAIN, POOL = 50_000, 10_000
DEFAULT, BEST = "loudly's default", "univ BBSDs"
# Figures on MNIST and Fashion-MNIST that were measured before with an independent program, and the paper's (MNIST and CIFAR-10).
KNOWN = {
    "univ BBSDs": ((0.12, 0.32, 0.41, 0.52, 0.57, 0.63, 0.69), (0.19, 0.28, 0.47, 0.47, 0.51, 0.65, 0.70)),
    "univ NoRed": ((0.06, 0.26, 0.32, 0.51, 0.59, 0.67, 0.71), (0.03, 0.15, 0.26, 0.36, 0.41, 0.47, 0.54)),
    "univ PCA": ((0.02, 0.18, 0.30, 0.37, 0.40, 0.48, 0.57), (0.11, 0.15, 0.30, 0.36, 0.41, 0.46, 0.54)),
    "univ SRP": ((0.04, 0.21, 0.31, 0.32, 0.41, 0.50, 0.58), (0.15, 0.15, 0.23, 0.27, 0.34, 0.42, 0.55)),
    "univ UAE": ((0.06, 0.14, 0.30, 0.48, 0.55, 0.63, 0.72), (0.12, 0.16, 0.27, 0.33, 0.41, 0.49, 0.56)),
    "univ TAE": ((0.02, 0.12, 0.18, 0.33, 0.38, 0.46, 0.54), (0.18, 0.23, 0.31, 0.38, 0.43, 0.47, 0.55)),
    "chi2 BBSDh": ((0.07, 0.16, 0.22, 0.35, 0.42, 0.49, 0.56), (0.03, 0.07, 0.12, 0.22, 0.22, 0.40, 0.46)),
    "classifier": ((0.06, 0.17, 0.25, 0.29, 0.35, 0.50, 0.57), (0.01, 0.03, 0.11, 0.21, 0.28, 0.42, 0.51)),
    "MMD UAE": ((0.24, 0.32, 0.44, 0.54, 0.58, 0.63, 0.71), (0.20, 0.27, 0.40, 0.43, 0.45, 0.53, 0.61)),
    "MMD PCA": ((0.21, 0.27, 0.33, 0.41, 0.50, 0.55, 0.68), (0.15, 0.18, 0.33, 0.38, 0.40, 0.46, 0.55)),
}


def idx(path: Path) -> Any:
    """An array of an .idx.gz file."""
    with gzip.open(path) as file:
        data = file.read()
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def images(folder: str) -> tuple[Any, Any]:
    """All 70,000 images in [0, 1] as rows, and their labels; the training part first."""
    parts = [
        (idx(DATA / folder / f"{p}-images-idx3-ubyte.gz"), idx(DATA / folder / f"{p}-labels-idx1-ubyte.gz"))
        for p in ("train", "t10k")
    ]
    return np.concatenate([x for x, _ in parts]).reshape(-1, 784) / 255.0, np.concatenate([y for _, y in parts]).astype(np.int64)


@dataclass(frozen=True)
class Black:
    """The perceptron: its probabilities, and adversarial images by the fast gradient sign (Goodfellow et al. 2015)."""

    net: MLPClassifier

    def layers(self, x: Any) -> tuple[list[Any], Any]:
        made = [x]
        for weight, bias in zip(self.net.coefs_[:-1], self.net.intercepts_[:-1], strict=True):
            made.append(np.maximum(made[-1] @ weight + bias, 0))
        z = made[-1] @ self.net.coefs_[-1] + self.net.intercepts_[-1]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return made, e / e.sum(axis=1, keepdims=True)

    def __call__(self, x: Any) -> Any:
        return self.layers(x)[1]

    def attack(self, x: Any, y: Any) -> Any:
        """Each image with the smallest step along the gradient's sign that changes the decision, at most 1."""
        if not len(x):
            return x
        made, chance = self.layers(x)
        slope = chance.copy()
        slope[np.arange(len(y)), y] -= 1
        for i in range(len(self.net.coefs_) - 1, -1, -1):
            slope = slope @ self.net.coefs_[i].T * (made[i] > 0 if i else 1)
        out, todo = x.copy(), np.arange(len(x))
        for step in np.linspace(0, 1, 101)[1:]:
            out[todo] = np.clip(x[todo] + step * np.sign(slope[todo]), 0, 1)
            todo = todo[self(out[todo]).argmax(axis=1) == y[todo]]
            if not len(todo):
                break
        return out


def columns(one: Any, two: Any) -> float:
    """KS on every column, Bonferroni: quick, for many columns."""
    p = ks_p_values(ks_distances(one, two), len(one), len(two))
    return min(1.0, float(p.min()) * len(p))


def run(name: str, seed: int, quick: bool) -> list[tuple[str, str, float, int, float]]:
    """One split of one data set: (method, shift, share, n, p) of every test."""
    warnings.simplefilter("ignore")
    x, y = images(SETS[name])
    order = np.random.default_rng(0).permutation(len(x))
    train, rest = order[:TRAIN], order[TRAIN:]
    net = Black(MLPClassifier((256, 128), max_iter=12, batch_size=256, random_state=0).fit(x[train].astype(np.float32), y[train]))
    maps = {
        "NoRed": lambda rows: rows,
        "PCA": principal_components(x[train][:20_000]),
        "SRP": sparse_projection(x[train][:1]),
        "UAE": untrained_encoder(28, seed),
        "BBSDs": softmax(net),
    } | ({} if quick else {"TAE": trained_encoder(x[train])})
    rng = np.random.default_rng(1000 + seed)
    split = rng.permutation(rest)
    val, test = split[:POOL], split[POOL:]
    source = {key: made(x[val]) for key, made in maps.items()}
    reference = rank_embedding.fit(x[val], source["BBSDs"], seed=seed)
    rows: list[tuple[str, str, float, int, float]] = []

    def judge(shift: str, share: float, window: Any, n: int) -> None:
        target = {key: made(window) for key, made in maps.items()}
        first = rng.permutation(POOL)[: len(window)]
        near = {key: made[first] for key, made in source.items()}
        tests: dict[str, Callable[[], float | None]] = {f"univ {k}": partial(columns, near[k], target[k]) for k in maps}
        mine = np.random.default_rng((seed, n))
        tests["chi2 BBSDh"] = lambda: chi_squared(near["BBSDs"].argmax(1), decision(net)(window)).p_value
        tests["MMD UAE"] = lambda: mmd(near["UAE"], target["UAE"], rng=mine).p_value
        tests["MMD PCA"] = lambda: mmd(near["PCA"], target["PCA"], rng=mine).p_value
        linear = LogisticRegression(max_iter=200)
        tests["classifier"] = lambda: classifier(near["PCA"], target["PCA"], rng=mine, by="accuracy", model=linear).p_value
        tests["univ BBSDs, 10,000 reference rows"] = lambda: kolmogorov_smirnov(source["BBSDs"], target["BBSDs"]).p_value
        tests[DEFAULT] = lambda: reference.check(window, target["BBSDs"]).evidence[0].p_value
        for method, test_it in tests.items():
            p = test_it()
            assert p is not None
            rows.append((method, shift, share, n, p))

    for n in SIZES:
        for _ in range(NULLS):
            judge("none", 0.0, x[test[rng.permutation(POOL)[:n]]], n)
    for shift in SHIFTS:
        for share in SHARES:
            pool = rng.permutation(test)
            made, _ = shifted(shift, share, x[pool], y[pool], max(SIZES), rng, net.attack)
            for n in SIZES:
                judge(shift, share, made[:n], n)
    return rows


def sixes() -> float:
    """Train against test sixes of MNIST as published, pixel by pixel: the least p-value (the paper: 2.7e-10)."""
    x, y = images(SETS["MNIST"])
    one, two = x[:60_000][y[:60_000] == 6], x[60_000:][y[60_000:] == 6]
    return float(ks_p_values(ks_distances(one, two), len(one), len(two)).min())


def rates(rows: list[Any], method: str, level: float, null: bool, n: int | None = None) -> float:
    hits = [p <= level for m, s, _, size, p in rows if m == method and (s == "none") == null and n in (None, size)]
    return float(np.mean(hits))


def matched(rows: list[Any], method: str, rate: float) -> float:
    """The level at which a method rejects nulls as often as `rate`."""
    nulls = np.sort([p for m, s, _, _, p in rows if m == method and s == "none"])
    k = int(np.floor(rate * len(nulls)))
    return float(nulls[k - 1]) if k else 0.0


def line(label: str, values: list[float]) -> str:
    return f"{label:<42}" + "".join(f"{v:7.2f}" for v in values) + f"   mean {np.mean(values):.3f}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="leave the trained autoencoder out")
    given = parser.parse_args()
    if not (DATA / "mnist_full").exists():
        print(f"LOUD: {DATA} has no mnist_full; nothing was measured")
        return 0
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(run, name, seed, given.quick) for seed in range(given.runs) for name in SETS]
        rows: list[Any] = []
        for done, job in enumerate(jobs, 1):
            rows += job.result()
            print(f"\r{done} of {len(jobs)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tell(rows, given.runs)


def tell(rows: list[Any], runs: int) -> int:
    nulls, methods = NULLS * len(SIZES) * runs * len(SETS), list(dict.fromkeys(r[0] for r in rows))
    print(f"Detection rate over {len(SHIFTS)} shifts x {len(SHARES)} strengths x {runs} runs x {len(SETS)} data sets, alpha 0.05")
    print(f"{'':<42}" + "".join(f"{n:7d}" for n in SIZES))
    wrong, limit = [], 0.05 + 2 * np.sqrt(0.05 * 0.95 / nulls)
    for method in methods:
        ours = [rates(rows, method, 0.05, False, n) for n in SIZES]
        alarm = rates(rows, method, 0.05, True)
        print(line(method, ours) + f"   false alarms {alarm:.3f} of {nulls}")
        if method in KNOWN:
            print(line("    measured before, same data", list(KNOWN[method][0])))
            print(line("    paper, MNIST and CIFAR-10", list(KNOWN[method][1])))
        if alarm > limit:
            wrong.append(f"{method} raises {alarm:.3f} false alarms, above {limit:.3f}")
    # The MMD measured before raised .064 false alarms (200 permutations); ours is compared at that rate.
    for method, level in ((BEST, 0.05), ("MMD UAE", matched(rows, "MMD UAE", 0.064))):
        gap = max(abs(rates(rows, method, level, False, n) - k) for n, k in zip(SIZES, KNOWN[method][0], strict=True))
        print(f"{method} at p <= {level:.3f}: largest difference to what was measured before: {gap:.3f}")
        if gap > 0.08:
            wrong.append(f"{method} differs by {gap:.3f} from what was measured before")
    rate = rates(rows, DEFAULT, 0.05, True)
    for method in (BEST, "univ BBSDs, 10,000 reference rows"):
        level = matched(rows, method, rate)
        theirs = [rates(rows, method, level, False, n) for n in SIZES]
        gain = [rates(rows, DEFAULT, 0.05, False, n) - t for n, t in zip(SIZES, theirs, strict=True)]
        print(line(f"{method} at {rate:.3f} false alarms", theirs))
        print(line("    loudly's default gains", gain))
        if min(gain) <= 0:
            wrong.append(f"the default does not beat {method} at every n")
    by = {
        s: [float(np.mean([p <= 0.05 for m, t, _, size, p in rows if (m, t, size) == (DEFAULT, s, n)])) for n in SIZES]
        for s in SHIFTS
    }
    print("loudly's default by shift")
    for shift, values in by.items():
        print(line(f"    {shift}", values))
    least = sixes()
    print(f"train against test sixes, least p of 784 pixels: {least:.2e} (paper 2.7e-10)")
    if not 2.5e-10 < least < 3.1e-10:
        wrong.append("the sixes differ")
    out = Path("out/papers")
    out.mkdir(parents=True, exist_ok=True)
    (out / "failing_loudly.json").write_text(json.dumps(rows))
    for text in wrong:
        print(f"NOT AS PROMISED: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
