"""The outside mirror of runs and versions (MLflow), made again from the ledger: the ledger is the truth, the mirror a fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loudly.core.seams import Blobs, Tracker
from loudly.core.values import ModelVersion, Recorded, Run, version_of


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What a mirror was told: runs, versions and the champion's reference."""

    runs: int
    versions: int
    champion: str | None


def mirror(events: Iterable[Recorded], blobs: Blobs, tracker: Tracker) -> Mirrored:
    """Tells a tracker all runs, versions and the champion of a ledger, in their order; what it knows already is left alone.

    Raises: DatasetCorrupt where a model's bytes are not what the ledger says.
    """
    runs: dict[str, Run] = {}
    gates: dict[str, str] = {}
    versions: dict[str, ModelVersion] = {}
    champion: ModelVersion | None = None
    for recorded in events:
        data: Mapping[str, Any] = recorded.event.data
        match recorded.event.kind:
            case "run_finished":
                run = Run(**data["run"])
                runs[data["version"]] = run
                tracker.ran(run, {})
            case "gate_judged":
                gates[data["version"]] = data["verdict"]["decision"]
            case "version_registered":
                version = version_of(data["model_version"])
                versions[version.ref] = version
                with blobs.open(version.model) as stream:
                    tracker.registered(version, runs[version.ref], stream.read(), {"gate": gates.get(version.ref, "UNDECIDED")})
            case "champion_changed":
                champion = versions[data["version"]]
    if champion is not None:
        tracker.aliased(champion.name, "champion", champion)
    tracker.flush()
    return Mirrored(len(runs), len(versions), champion.ref if champion else None)
