"""`loudly export`: a Dockerfile, Kubernetes manifests or a KServe InferenceService for a project, as files to read and keep.

The image is the user's; no registry is named. One pod owns the ledger where the stores are files: more replicas are refused
there, because two pods would write one SQLite file, or each a ledger of its own. The log of traffic is each pod's own: several pods
are a StatefulSet, whose pods find their disk again.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loudly import __version__
from loudly.app.yaml import to_yaml
from loudly.config import Config, StoreConfig
from loudly.errors import ConfigError, nearest

KINDS = ("docker", "kubernetes", "kserve")
PORT = 8000
USER = 10001
DRAIN = 10
LEFT = 45
STORE, POD = "store", "loudly"
SHARED_LEDGERS, SHARED_BLOBS = ("postgres",), ("fsspec",)
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exporting:
    """What is exported. name: of the system.  file: the user's.  image: the user's.  replicas: at most so many pods."""

    name: str
    file: Path
    config: Config
    image: str
    replicas: int = 1

    @property
    def label(self) -> str:
        """The name as Kubernetes allows it."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:50] or "loudly"

    @property
    def shared(self) -> bool:
        """Whether there may be several pods."""
        return self.replicas > 1

    @property
    def ports(self) -> dict[str, int]:
        """Where the server listens in its pod."""
        grpc = self.config.server.grpc_port
        return {"http": PORT, "grpc": grpc} if grpc else {"http": PORT}

    @property
    def root(self) -> str:
        """Where the stores are inside the image."""
        return f"/app/{self.config.store.root}"


def export(kind: str, asked: Exporting, folder: Path) -> tuple[Path, ...]:
    """Writes the files of a kind and returns them. Raises: ConfigError for an unknown kind, no image, too many replicas."""
    if kind not in KINDS:
        raise ConfigError(f"There is no export called {kind!r}.", do=nearest(kind, KINDS))
    if kind != "docker" and not asked.image:
        raise ConfigError("A manifest needs the name of your image.", do=f"loudly export {kind} --image NAME:TAG -o {folder}")
    _refuse_two_ledgers(asked, kind)
    files = {"docker": docker, "kubernetes": kubernetes, "kserve": kserve}[kind](asked, folder)
    made = []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        made.append(path)
    return tuple(made)


def docker(asked: Exporting, folder: Path) -> dict[str, str]:
    """The files of an image: Dockerfile, what pip installs, and what stays outside."""
    here = Path(os.path.relpath(folder, asked.file.parent)).as_posix()
    extras = sorted({"serve", *_extras(asked.config)})
    lines = [
        "# Built from the project's folder: docker build -f " + f"{here}/Dockerfile -t NAME:TAG .",
        "ARG BASE=python:3.12-slim",
        "FROM ${BASE}",
        "ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp OMP_NUM_THREADS=1",
        "WORKDIR /app",
        f"COPY {here}/requirements.txt /tmp/requirements.txt",
        "RUN pip install --no-cache-dir -r /tmp/requirements.txt",
        "COPY . /app",
        f"RUN mkdir -p {asked.root} && chown {USER}:{USER} {asked.root}",
        f"USER {USER}:{USER}",
        f"EXPOSE {' '.join(map(str, asked.ports.values()))}",
        f"VOLUME {asked.root}",
        'HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", '
        f"\"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/health', timeout=2)\"]",
        'ENTRYPOINT ["loudly"]',
        f'CMD ["serve", "--file", "{asked.file.name}", "--host", "0.0.0.0", "--port", "{PORT}"]',
    ]
    outside = [".git", ".venv", "**/__pycache__", asked.config.store.root, "*.env"]
    return {
        "Dockerfile": "\n".join(lines) + "\n",
        "Dockerfile.dockerignore": "\n".join(outside) + "\n",
        "requirements.txt": f"loudly[{','.join(extras)}]=={__version__}\n",
    }


def kubernetes(asked: Exporting, folder: Path) -> dict[str, str]:
    """Manifests by file name; examples for Flagger and Argo Rollouts lie apart, for only their users have these kinds."""
    made = {
        "service.yaml": service(asked),
        "disruption.yaml": disruption(asked),
        "autoscaler.yaml": autoscaler(asked),
        "examples/argo-analysis.yaml": argo(asked),
    }
    if asked.shared:  # Flagger knows no StatefulSet
        made |= {"statefulset.yaml": stateful(asked)}
    else:
        made |= {"deployment.yaml": deployment(asked), "claim.yaml": claim(asked), "examples/flagger-canary.yaml": flagger(asked)}
    return {name: to_yaml(manifest) for name, manifest in made.items()}


def kserve(asked: Exporting, folder: Path) -> dict[str, str]:
    """An InferenceService with our server as its own container, and the claim of its stores."""
    pod = _pod(asked, "kserve-container", [_claimed(asked)])
    predictor = {"minReplicas": 1, "maxReplicas": 1, **pod}
    inference = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": asked.label, "labels": _labels(asked)},
        "spec": {"predictor": predictor},
    }
    return {"inferenceservice.yaml": to_yaml(inference), "claim.yaml": to_yaml(claim(asked))}


def deployment(asked: Exporting) -> Manifest:
    """The server. One pod that owns its ledger is replaced, never doubled."""
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": _selector(asked)},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": _labels(asked)}, "spec": _pod(asked, POD, [_claimed(asked)])},
    }
    return _manifest(asked, "apps/v1", "Deployment", spec)


def stateful(asked: Exporting) -> Manifest:
    """Several servers over shared stores, each with a log of its own, which it finds again under its name."""
    spec = {
        "serviceName": asked.label,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": _selector(asked)},
        "template": {"metadata": {"labels": _labels(asked)}, "spec": _pod(asked, POD, [])},
        "volumeClaimTemplates": [{"metadata": {"name": STORE}, "spec": _disk()}],
    }
    return _manifest(asked, "apps/v1", "StatefulSet", spec)


def service(asked: Exporting) -> Manifest:
    """One address for the pods."""
    ports = [
        {"name": name, "port": 80 if name == "http" else port, "targetPort": name, "protocol": "TCP"}
        for name, port in asked.ports.items()
    ]
    return _manifest(asked, "v1", "Service", {"selector": _selector(asked), "ports": ports})


def disruption(asked: Exporting) -> Manifest:
    """How many pods a drain of a node may take at once."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(asked)}}
    return _manifest(asked, "policy/v1", "PodDisruptionBudget", spec)


def autoscaler(asked: Exporting) -> Manifest:
    """Between one pod (two, where more are allowed) and `replicas`, by processor use; slow to shrink."""
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet" if asked.shared else "Deployment", "name": asked.label},
        "minReplicas": min(2, asked.replicas),
        "maxReplicas": asked.replicas,
        "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }
    return _manifest(asked, "autoscaling/v2", "HorizontalPodAutoscaler", spec)


def claim(asked: Exporting) -> Manifest:
    """The disk of ledger, blobs and traffic."""
    return _manifest(asked, "v1", "PersistentVolumeClaim", _disk())


def argo(asked: Exporting) -> Manifest:
    """Argo Rollouts asks until there is a verdict: UNDECIDED is inconclusive, and is waited out."""
    metric = {
        "name": "model-quality",
        "interval": "5m",
        "successCondition": 'result == "PASS"',
        "failureCondition": 'result == "FAIL"',
        "consecutiveSuccessLimit": 1,
        "failureLimit": 0,
        "inconclusiveLimit": 100_000,
        "provider": {
            "web": {
                "url": "http://{{args.judge}}/analysis/argo/{{args.version}}",
                "jsonPath": "{$.result}",
                "timeoutSeconds": 10,
            }
        },
    }
    arguments = [{"name": "judge", "value": asked.label}, {"name": "version"}]
    named = {"name": f"{asked.label}-model-quality", "labels": _labels(asked)}
    spec = {"args": arguments, "metrics": [metric]}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": named, "spec": spec}


def flagger(asked: Exporting) -> Manifest:
    """Flagger raises the canary's weight and promotes on PASS alone, and rolls back on FAIL."""
    judge, version = f"http://{asked.label}-judge/analysis/flagger", f"{asked.name}/2"
    hooks = [
        {"name": "model quality allows more traffic", "type": "confirm-traffic-increase", "url": f"{judge}/promotion"},
        {"name": "model quality allows promotion", "type": "confirm-promotion", "url": f"{judge}/promotion"},
        {"name": "model quality demands rollback", "type": "rollback", "url": f"{judge}/rollback"},
    ]
    named = [{**hook, "timeout": "10s", "metadata": {"version": version}} for hook in hooks]
    analysis = {"interval": "1m", "threshold": 5, "maxWeight": 50, "stepWeight": 10, "webhooks": named}
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": asked.label},
        "service": {"port": 80, "targetPort": PORT},
        "analysis": analysis,
    }
    return _manifest(asked, "flagger.app/v1beta1", "Canary", spec)


def _refuse_two_ledgers(asked: Exporting, kind: str) -> None:
    store = asked.config.store
    if asked.shared and kind == "kserve":
        told = "Pods of an InferenceService share one claim, and each writes a log of its own."
        raise ConfigError(told, seen=f"--replicas {asked.replicas}", do="Leave --replicas at 1, or export kubernetes.")
    if asked.shared and (store.ledger not in SHARED_LEDGERS or store.blobs not in SHARED_BLOBS):
        raise ConfigError(
            f"{asked.replicas} pods cannot share stores that are files.",
            seen=f'ledger = "{store.ledger}", blobs = "{store.blobs}"',
            do='Set [store] ledger = "postgres" and blobs = "fsspec", or leave --replicas at 1.',
        )


def _extras(config: Config) -> set[str]:
    """The extras whose libraries the project's loudly.toml needs."""
    asked = {
        "postgres": config.store.ledger == "postgres",
        "s3": config.store.blobs == "fsspec",
        "mlflow": config.tracker.kind == "mlflow",
        "ray": config.executor.kind == "ray",
        "grpc": config.server.grpc_port > 0,
    }
    return {name for name, needed in asked.items() if needed}


def _disk() -> Manifest:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}


def _claimed(asked: Exporting) -> Manifest:
    return {"name": STORE, "persistentVolumeClaim": {"claimName": asked.label}}


def _variables(asked: Exporting) -> list[Manifest]:
    """What loudly.toml reads from the environment, out of a Secret. Several pods need one key of pseudonyms; one makes its own."""
    store, server = asked.config.store, asked.config.server
    said = (
        store.url,
        store.key,
        asked.config.tracker.url,
        asked.config.notify.webhook,
        *(key.partition("=")[2] for key in server.keys),
    )
    own = StoreConfig().key
    named = {text.strip()[4:]: text == own and not asked.shared for text in said if text.strip().startswith("env:")}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": asked.label, "key": name, "optional": optional}}}
        for name, optional in named.items()
    ]


def _pod(asked: Exporting, container: str, disks: list[Manifest]) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": DRAIN + math.ceil(asked.config.server.drain) + LEFT,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(asked, container)],
        "volumes": [*disks, {"name": "tmp", "emptyDir": {}}],
    }


def _container(asked: Exporting, name: str) -> Manifest:
    ports = asked.ports if name == POD else {"http": PORT}  # a container of KServe has one
    return {
        "name": name,
        "image": asked.image,
        "args": ["serve", "--file", asked.file.name, "--host", "0.0.0.0", "--port", str(PORT)],
        "env": _variables(asked),
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in ports.items()],
        "startupProbe": _probe("/health", period=2, failures=60),
        "livenessProbe": _probe("/health", period=10, failures=3),
        "readinessProbe": _probe("/ready", period=5, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN)]}}},
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": STORE, "mountPath": asked.root}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    asked = {"path": path, "port": PORT}
    return {"httpGet": asked, "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures}


def _manifest(asked: Exporting, version: str, kind: str, spec: Manifest) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": asked.label, "labels": _labels(asked)}, "spec": spec}


def _selector(asked: Exporting) -> dict[str, str]:
    return {"app.kubernetes.io/name": "loudly", "app.kubernetes.io/instance": asked.label}


def _labels(asked: Exporting) -> dict[str, str]:
    return {**_selector(asked), "app.kubernetes.io/version": __version__, "app": asked.label}
