"""MMD with 500 permutations, n = m = 2,000, d = 32: ours against hyppo, torchdrift and a plain torch loop, interleaved in one run.

The peers live in an environment of their own under out/bench/mmd, made at the first run (torchdrift 0.1.0 without its dependencies:
it asks for torchvision of 2021). Every program gets the same rows, the median bandwidth and 500 permutations, and must come to the
same p-value within what permutations allow. A peer is asked for 1, 4, 16, … permutations until these take seconds; where they are
fewer than 500 (hyppo: a quarter hour or more), its time is that in proportion, for all peers take every permutation by itself.
It is asked again only where 500 are quick. Ours is timed after each. Of 300 rows a side every peer takes all 500, so that p-values
are held as tightly as these allow.
Run: python benchmarks/mmd.py [--n 2000 300] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from loudly.shift.two_sample.mmd import mmd

HOME = Path("out/bench/mmd")
PERMUTATIONS = 500
# Seconds that permutations must take to be told from the rest of a run, and how many more each run is asked for.
TOLD, MORE = 6.0, 4
# Up to so many rows a side all permutations are taken, whatever the time.
FEW = 300
THREADS = 2
PROMISED = 10
PEER = """
import sys, time, json, numpy as np
name, path, width, threads = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
data = np.load(path); x, y = data["x"], data["y"]
if name == "torch loop":
    import torch
    torch.set_num_threads(threads)
    def run(permutations):
        z = torch.cat([torch.from_numpy(x), torch.from_numpy(y)]).float()
        k = torch.exp(-torch.cdist(z, z) ** 2 / (2 * width ** 2)); n = len(x); p = len(z)
        def stat(i):
            k_ = k[i][:, i]; a, b, c = k_[:n, :n], k_[n:, n:], k_[:n, n:]
            within = a.sum() - a.diagonal().sum() + b.sum() - b.diagonal().sum()
            return (within / (n * (n - 1)) - 2 * c.mean()).item()
        seen = stat(torch.arange(p)); null = [stat(torch.randperm(p)) for _ in range(permutations)]
        return (1 + sum(v >= seen for v in null)) / (1 + permutations), seen
elif name == "torchdrift":
    import torch
    from torchdrift.detectors.mmd import kernel_mmd
    torch.set_num_threads(threads)
    def run(permutations):
        a, b = torch.from_numpy(x).float(), torch.from_numpy(y).float()
        kernel = lambda d: torch.exp(-d ** 2 / (2 * width ** 2))
        seen, p = kernel_mmd(a, b, n_perm=permutations, kernel=kernel)
        return float(p), float(seen)
else:
    from hyppo.ksample import MMD
    test = MMD(compute_kernel="gaussian", bias=False, gamma=1 / (2 * width ** 2)).test
    def run(permutations):
        seen, p = test(x, y, reps=permutations, workers=threads, auto=False)
        return float(p), float(seen)
for line in sys.stdin:
    begun = time.perf_counter(); p, seen = run(int(line)); print(json.dumps([time.perf_counter() - begun, p, seen]), flush=True)
"""


def environment() -> Path:
    """An environment with the peers."""
    python = HOME / "venv" / "bin" / "python"
    if not (HOME / "made").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "venv")], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "hyppo==0.5.2", "torch==2.13.0", "numpy", "tqdm"], check=True)
        subprocess.run([*install, "--no-deps", "torchdrift==0.1.0"], check=True)
        (HOME / "made").touch()
    return python


class Asked:
    """A peer as a process of its own: permutations in, one run, one line out."""

    def __init__(self, name: str, path: Path, width: float) -> None:
        command = [str(environment()), "-W", "ignore", str(HOME / "peer.py"), name, str(path), str(width), str(THREADS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []
        self.p = self.statistic = float("nan")
        self.permutations = 1

    def ask(self, permutations: int) -> float:
        """Seconds of one run; NaN where the peer has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{permutations}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return float("nan")
        told = self.process.stdout.readline()
        if not told:
            return float("nan")
        spent, self.p, self.statistic = json.loads(told)
        return float(spent)

    def probe(self, told: float) -> None:
        """Asks for more and more permutations until they take so many seconds, and counts the last run in proportion."""
        self.ask(1)
        one = spent = self.ask(1)
        while spent - one < told and self.permutations < PERMUTATIONS:
            self.permutations = min(MORE * self.permutations, PERMUTATIONS)
            spent = self.ask(self.permutations)
        if np.isfinite(spent):
            self.seconds.append(one + (spent - one) * (PERMUTATIONS - 1) / (self.permutations - 1))

    def again(self) -> None:
        """One more run, where all permutations are quick."""
        if self.seconds and self.permutations == PERMUTATIONS:
            self.seconds.append(self.ask(PERMUTATIONS))

    @property
    def allowed(self) -> float:
        """How far two p-values may lie apart: three standard errors of the permutations on either side."""
        return 3 * float(np.sqrt(0.25 / PERMUTATIONS + 0.25 / self.permutations))


def compare(n: int, repeats: int) -> dict[str, bool]:
    """Prints what each takes for n rows a side; returns the promises, and whether they hold."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 32)), rng.normal(size=(n, 32)) + 0.02
    environment()
    path = HOME / f"rows{n}.npz"
    np.savez(path, x=x, y=y)
    width = float(np.median(np.linalg.norm(x[:1000, None] - y[None, :1000], axis=2)))
    (HOME / "peer.py").write_text(PEER)
    peers = {name: Asked(name, path, width) for name in ("torch loop", "torchdrift", "hyppo")}
    ours: list[float] = []
    for number in range(repeats):
        for peer in peers.values():
            peer.again() if number else peer.probe(float("inf") if n <= FEW else TOLD)
            begun = time.perf_counter()
            found = mmd(x, y, rng=np.random.default_rng(1), permutations=PERMUTATIONS, bandwidth=width)
            ours.append(time.perf_counter() - begun)
    for peer in peers.values():
        peer.process.kill()
    p, statistic, middle = float(found.p_value or 0.0), float(found.effect or 0.0), statistics.median(ours)
    print(f"MMD, {PERMUTATIONS} permutations, n = m = {n:,}, d = 32, {THREADS} threads each, ours the median of {len(ours)}")
    print(f"  {'loudly':<12}{middle:9.3f} s             p = {p:.3f}   MMD² = {statistic:.6f}")
    for name, peer in peers.items():
        if not peer.seconds:
            print(f"  {name:<12} ended without an answer")
            continue
        spent = statistics.median(peer.seconds)
        part = "" if peer.permutations == PERMUTATIONS else f"   (of {peer.permutations} permutations, in proportion)"
        said = f"p = {peer.p:.3f}   statistic {peer.statistic:.6f}{part}"
        print(f"  {name:<12}{spent:9.3f} s   {spent / middle:7.1f} x ours   {said}")
    answered = [peer for peer in peers.values() if peer.seconds]
    fastest = min((statistics.median(peer.seconds) for peer in answered), default=float("nan"))
    same = abs(peers["torch loop"].statistic - statistic) <= 1e-5
    agree = all(abs(peer.p - p) <= peer.allowed for peer in answered)
    widest = max((peer.allowed for peer in answered), default=float("nan"))
    return {
        f"{n:,}: fastest peer / ours: {fastest / middle:.1f} >= {PROMISED}": fastest / middle >= PROMISED,
        f"{n:,}: the torch loop's statistic is ours, to 1e-5 (it is in single precision)": same,
        f"{n:,}: p-values within three standard errors of the permutations ({widest:.3f} at most)": agree,
        f"{n:,}: every peer has answered": len(answered) == len(peers),
    }


def main() -> int:
    """Compares at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[2000, 300])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    checks: dict[str, bool] = {}
    for n in given.n:
        checks |= compare(n, given.repeats)
    for what, holds in checks.items():
        print(f"{'holds' if holds else 'FAILS'}  {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
