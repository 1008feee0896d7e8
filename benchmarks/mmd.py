"""MMD with 500 permutations, n = m = 2,000, d = 32: ours against hyppo, torchdrift and a plain torch loop, interleaved in one run.

The peers live in an environment of their own under out/bench/mmd, made at the first run (torchdrift 0.1.0 without its dependencies:
it asks for torchvision of 2021). Every program gets the same rows, the median bandwidth and 500 permutations, and must come to the
same p-value within what permutations allow. A peer that takes more than a minute is asked once.
Run: python benchmarks/mmd.py [--n 2000] [--repeats 3]
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
# Seconds; a peer that takes longer is not asked again.
PATIENCE = 60.0
PROMISED = 10
PEER = """
import sys, time, json, numpy as np
name, path, width = sys.argv[1], sys.argv[2], float(sys.argv[3])
data = np.load(path); x, y = data["x"], data["y"]
if name == "torch loop":
    import torch
    torch.set_num_threads(int(sys.argv[4]))
    def run():
        z = torch.cat([torch.from_numpy(x), torch.from_numpy(y)]).float()
        k = torch.exp(-torch.cdist(z, z) ** 2 / (2 * width ** 2)); n = len(x); p = len(z)
        def stat(i):
            k_ = k[i][:, i]; a, b, c = k_[:n, :n], k_[n:, n:], k_[:n, n:]
            within = a.sum() - a.diagonal().sum() + b.sum() - b.diagonal().sum()
            return (within / (n * (n - 1)) - 2 * c.mean()).item()
        seen = stat(torch.arange(p)); null = [stat(torch.randperm(p)) for _ in range(500)]
        return (1 + sum(v >= seen for v in null)) / 501
elif name == "torchdrift":
    import torch
    from torchdrift.detectors.mmd import kernel_mmd
    torch.set_num_threads(int(sys.argv[4]))
    def run():
        a, b = torch.from_numpy(x).float(), torch.from_numpy(y).float()
        return float(kernel_mmd(a, b, n_perm=500, kernel=lambda d: torch.exp(-d ** 2 / (2 * width ** 2)))[1])
else:
    from hyppo.ksample import MMD
    test = MMD(compute_kernel="gaussian", gamma=1 / (2 * width ** 2)).test
    def run():
        return float(test(x, y, reps=500, workers=int(sys.argv[4]), auto=False)[1])
run() if len(x) <= 200 else None
for line in sys.stdin:
    begun = time.perf_counter(); p = run(); print(json.dumps([time.perf_counter() - begun, p]), flush=True)
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
    """A peer as a process of its own: one line in, one run, one line out."""

    def __init__(self, name: str, path: Path, width: float) -> None:
        command = [str(environment()), str(HOME / "peer.py"), name, str(path), str(width), "2"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []
        self.p = float("nan")
        self.over = False

    def run(self) -> None:
        """One more run, unless the last one took longer than PATIENCE or was the end of it."""
        if self.over:
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        if not told:
            self.over = True
            return
        spent, self.p = json.loads(told)
        self.seconds.append(spent)
        self.over = spent > PATIENCE


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(given.n, 32)), rng.normal(size=(given.n, 32)) + 0.02
    environment()
    path = HOME / "rows.npz"
    np.savez(path, x=x, y=y)
    width = float(np.median(np.linalg.norm(x[:1000, None] - y[None, :1000], axis=2)))
    (HOME / "peer.py").write_text(PEER)
    peers = {name: Asked(name, path, width) for name in ("torch loop", "torchdrift", "hyppo")}
    ours: list[float] = []
    p = float("nan")
    for _ in range(given.repeats):
        begun = time.perf_counter()
        p = float(mmd(x, y, rng=np.random.default_rng(1), permutations=PERMUTATIONS, bandwidth=width).p_value or 0.0)
        ours.append(time.perf_counter() - begun)
        for peer in peers.values():
            peer.run()
    for peer in peers.values():
        peer.process.kill()
    middle = statistics.median(ours)
    print(f"MMD, {PERMUTATIONS} permutations, n = m = {given.n:,}, d = 32, medians of {given.repeats}, two threads each")
    print(f"  {'loudly':<12}{middle:9.3f} s             p = {p:.3f}")
    for name, peer in peers.items():
        if not peer.seconds:
            print(f"  {name:<12} ended without an answer")
            continue
        spent = statistics.median(peer.seconds)
        runs = "" if len(peer.seconds) == given.repeats else f"   ({len(peer.seconds)} run)"
        print(f"  {name:<12}{spent:9.3f} s   {spent / middle:7.1f} x ours   p = {peer.p:.3f}{runs}")
    answered = [peer for peer in peers.values() if peer.seconds]
    fastest = min((statistics.median(peer.seconds) for peer in answered), default=float("nan"))
    allowed = 3 * float(np.sqrt(0.25 / PERMUTATIONS) * np.sqrt(2))
    agree = all(abs(peer.p - p) <= allowed for peer in answered)
    print(f"{'holds' if fastest / middle >= PROMISED else 'FAILS'}  fastest peer / ours: {fastest / middle:.1f} >= {PROMISED}")
    print(f"{'holds' if agree else 'FAILS'}  all p-values within {allowed:.3f} of ours, three standard errors of 500 permutations")
    return 0 if fastest / middle >= PROMISED and agree and len(answered) == len(peers) else 1


if __name__ == "__main__":
    raise SystemExit(main())
