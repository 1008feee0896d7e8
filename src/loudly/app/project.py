"""A user's project: its file with the App loaded, or a new one made that works."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from loudly.app.app import App
from loudly.core.whence import whence
from loudly.errors import LoudlyError, UserFileError
from loudly.store.travel import USERS

TEMPLATE = '''"""A loan book: who will be late? Replace the table and the fit by your own."""

from sklearn.ensemble import HistGradientBoostingClassifier

import loudly

app = loudly.App("loans", label="late", time="asked_at", key="loan_id", metric="roc_auc")


@app.data
def loans():
    return "loans.csv"


@app.train
def fit(X, y, *, learning_rate=0.1):
    return HistGradientBoostingClassifier(learning_rate=learning_rate, max_iter=60, random_state=0).fit(X, y)


app.labels(arrive_within="7d")
app.rollout("shadow 1d", "canary 5% 25% 100%", margin=0.02)
'''

TOML = """# Where things are. Everything else is said in app.py.
[store]
root = ".loudly"

[server]
host = "127.0.0.1"
port = 8000
"""

ROWS = 6_000


def load_app(file: Path) -> App:
    """The App of a user's file, which may import modules that lie beside it, as a script may.

    Raises: UserFileError for a file that cannot be loaded, without an App, or with two.
    """
    if not file.exists():
        raise UserFileError(f"There is no file {file}.", do="Run `loudly init`, or name yours: --file my_app.py")
    spec = importlib.util.spec_from_file_location(f"{USERS}{file.stem}", file) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise UserFileError(f"{file} is no Python file.", do="Name the file that holds your App: --file my_app.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if (beside := str(file.resolve().parent)) not in sys.path:
        sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
    except LoudlyError:
        raise
    except (Exception, SystemExit) as wrong:  # whatever the user's file does
        do = f"Mend it until `python {file}` runs."
        raise UserFileError(f"{file} cannot be loaded.", seen=whence(wrong, spec.origin or file), do=do) from wrong
    apps = [value for value in vars(module).values() if isinstance(value, App)]
    if len(apps) != 1:
        raise UserFileError(f"{file} must hold one App.", seen=f"{len(apps)} of them", do='app = loudly.App("name", ...)')
    apps[0].folder = apps[0].folder or file.resolve().parent
    return apps[0]


def load_apps(files: Sequence[Path]) -> list[App]:
    """The Apps of several files.

    Raises: UserFileError where two files, or modules beside them, have one name: pickled models, and imports, could not tell
    them apart.
    """
    stems = [file.stem for file in files]
    twice = sorted({str(file) for file in files if stems.count(file.stem) > 1})
    if twice:
        raise UserFileError("Files of one process need different names.", seen=", ".join(twice), do="Rename one.")
    apps = []
    for file in files:
        folder = file.resolve().parent
        for name, there in _imported_beside(files).items():
            if there.parent != folder and (folder / f"{name}.py").exists():
                seen = f"{there} and {folder / name}.py"
                raise UserFileError("Modules beside the files of one process need different names.", seen=seen, do="Rename one.")
        apps.append(load_app(file))
    return apps


def _imported_beside(files: Sequence[Path]) -> dict[str, Path]:
    """The modules that were imported from the folders of these files, but for the files themselves."""
    folders = {file.resolve().parent for file in files}
    modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if not name.startswith(USERS)}
    found = {name: Path(there).resolve() for name, there in modules.items() if there}
    return {name: there for name, there in found.items() if there.parent in folders}


def make_project(folder: Path) -> tuple[Path, ...]:
    """Writes app.py, loudly.toml and loans.csv. Raises: UserFileError rather than write over a file."""
    if folder.exists() and not folder.is_dir():
        raise UserFileError("A project needs a folder.", seen=f"{folder} is a file", do="loudly init another_folder")
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "app.py", folder / "loudly.toml", folder / "loans.csv")
    taken = [p.name for p in paths if p.exists()]
    if taken:
        raise UserFileError("The folder already has a project.", seen=", ".join(taken), do="loudly init another_folder")
    paths[0].write_text(TEMPLATE)
    paths[1].write_text(TOML)
    loans(ROWS, 0).write_csv(paths[2])
    return paths


def loans(rows: int, seed: int) -> pl.DataFrame:
    """A made-up loan book over the last year: income, debt, region and purpose drive who is late."""
    rng = np.random.default_rng(seed)
    end = datetime.combine(datetime.now().date(), datetime.min.time())  # noqa: DTZ005 - a made-up table up to today
    times = [end - timedelta(days=365) + timedelta(days=365) * float(x) for x in np.sort(rng.random(rows))]
    income = rng.lognormal(10.3, 0.5, rows).round(-2)
    debt = (income * rng.beta(2, 5, rows)).round(-1)
    region = rng.choice(["north", "south", "east", "west"], rows, p=[0.4, 0.3, 0.2, 0.1])
    purpose = rng.choice(["car", "house", "study"], rows)
    strain = 5 * debt / income - 1.2 + 0.6 * (region == "west") + 0.4 * (purpose == "car") - 0.3 * np.log(income / 30_000)
    late = rng.random(rows) < 1 / (1 + np.exp(-1.5 * strain))
    return pl.DataFrame(
        {
            "loan_id": [f"L{i:06d}" for i in range(rows)],
            "asked_at": pl.Series(times, dtype=pl.Datetime("us")).dt.truncate("1s"),
            "income": income,
            "debt": debt,
            "region": region,
            "purpose": purpose,
            "late": late,
        }
    )
