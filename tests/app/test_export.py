"""What `loudly export` writes is valid against Kubernetes' own schemas, hardened, and runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.app.export import KINDS, Exporting, argo, export, flagger
from loudly.app.yaml import to_yaml
from loudly.config import Config, ServerConfig, StoreConfig
from loudly.errors import ConfigError

yaml = pytest.importorskip("yaml", reason="LOUD: no YAML reader is installed, exports are not tested")
SHARED = Config(store=StoreConfig(ledger="postgres", blobs="fsspec"))
LOCAL = Exporting("My Loans", Path("/project/app.py"), Config(), "loans:1")
MANY = Exporting("loans", Path("/project/app.py"), SHARED, "loans:1", 8)


def written(kind: str, asked: Exporting, folder: Path) -> dict[str, Any]:
    """Manifests by kind, as a YAML reader sees them."""
    paths = [p for p in export(kind, asked, folder) if p.suffix == ".yaml"]
    return {m["kind"]: m for m in (yaml.safe_load(p.read_text()) for p in paths)}


@pytest.mark.parametrize("asked", [LOCAL, MANY], ids=["one pod", "many pods"])
def test_manifests_are_valid_by_the_schemas_of_kubernetes(asked: Exporting, tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="LOUD: pip install kubernetes-validate to test manifests")
    made = written("kubernetes", asked, tmp_path)
    alone = {"Deployment", "PersistentVolumeClaim"}
    core = {"Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"} | ({"StatefulSet"} if asked.shared else alone)
    assert set(made) == core | {"AnalysisTemplate"} | (set() if asked.shared else {"Canary"})
    for kind in sorted(core):
        validate.validate(made[kind], validate.latest_version(), strict=True)
    workload = made["StatefulSet" if asked.shared else "Deployment"]
    wrong = {**workload, "spec": {**workload["spec"], "replica": 1}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, validate.latest_version(), strict=True)
    inference = written("kserve", LOCAL, tmp_path)["InferenceService"]
    # KServe's predictor is a pod's spec with the bounds of its own autoscaler: without these it is valid as a pod
    predictor = {k: v for k, v in inference["spec"]["predictor"].items() if k not in ("minReplicas", "maxReplicas")}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": predictor}
    validate.validate(pod, validate.latest_version(), strict=True)


@pytest.mark.parametrize("kind", ["kubernetes", "kserve"])
def test_a_pod_is_hardened_probed_and_drained(kind: str, tmp_path: Path) -> None:
    made = written(kind, LOCAL, tmp_path)
    pod = made["Deployment"]["spec"]["template"]["spec"] if kind == "kubernetes" else made["InferenceService"]["spec"]["predictor"]
    (container,) = pod["containers"]
    assert container["name"] == ("loudly" if kind == "kubernetes" else "kserve-container")
    assert container["image"] == "loans:1"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert {"requests", "limits"} <= set(container["resources"])
    assert container["lifecycle"]["preStop"]["exec"]["command"][0] == "sleep"
    assert (
        int(container["lifecycle"]["preStop"]["exec"]["command"][1]) + ServerConfig().drain < pod["terminationGracePeriodSeconds"]
    )
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert mounts == {"/app/.loudly", "/tmp"}, "all that is written to, under a root that may not be"


@pytest.mark.parametrize(("asked", "kind"), [(LOCAL, "Deployment"), (MANY, "StatefulSet")])
def test_parts_find_each_other(asked: Exporting, kind: str, tmp_path: Path) -> None:
    made = written("kubernetes", asked, tmp_path)
    workload = made[kind]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    for selector in (
        workload["spec"]["selector"]["matchLabels"],
        made["Service"]["spec"]["selector"],
        made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    scaler = made["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": kind, "name": workload["metadata"]["name"]}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (min(2, asked.replicas), asked.replicas)
    assert ("replicas" in workload["spec"]) is (asked is LOCAL), "of several the autoscaler's business"
    pod = workload["spec"]["template"]["spec"]
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == ({"store": made["PersistentVolumeClaim"]["metadata"]["name"]} if asked is LOCAL else {})


def test_several_pods_share_no_disk_and_have_one_key(tmp_path: Path) -> None:
    """Two that write one log of traffic are refused by the second; without a name of its own a pod does not find its log again."""
    made = written("kubernetes", MANY, tmp_path)
    spec = made["StatefulSet"]["spec"]
    assert spec["serviceName"] == made["Service"]["metadata"]["name"]
    (disk,) = spec["volumeClaimTemplates"]
    assert disk["spec"]["accessModes"] == ["ReadWriteOnce"]
    (container,) = spec["template"]["spec"]["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == {disk["metadata"]["name"], "tmp"}
    assert variables(container) == {"LOUDLY_KEY": False}
    with pytest.raises(ConfigError, match="log of its own"):
        export("kserve", MANY, tmp_path)


def variables(container: dict[str, Any]) -> dict[str, bool]:
    """Names of what a container is told out of a Secret, and whether it starts without."""
    told = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"]}
    assert all(found["key"] == name for name, found in told.items())
    return {name: found["optional"] for name, found in told.items()}


def test_a_pod_is_told_what_the_file_reads_from_the_environment(tmp_path: Path) -> None:
    store = StoreConfig(ledger="postgres", url="env:PG", key="env:SALT")
    config = Config(store=store, server=ServerConfig(keys=("predict=env:ASK", "predict+admin = env:RUN")))
    made = written("kubernetes", Exporting("m", Path("app.py"), config, "m:1"), tmp_path)
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert variables(container) == dict.fromkeys(("PG", "SALT", "ASK", "RUN"), False)
    (container,) = written("kubernetes", LOCAL, tmp_path)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert variables(container) == {"LOUDLY_KEY": True}


def test_grpc_is_installed_and_reached_where_the_project_serves_it(tmp_path: Path) -> None:
    asked = Exporting("loans", Path("/project/app.py"), Config(server=ServerConfig(grpc_port=9000)), "loans:1")
    made = {path.name: path.read_text() for path in export("docker", asked, tmp_path)}
    assert made["requirements.txt"].startswith("loudly[grpc,serve]==")
    assert "EXPOSE 8000 9000\n" in made["Dockerfile"]
    manifests = written("kubernetes", asked, tmp_path)
    (container,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8000, "grpc": 9000}
    served = manifests["Service"]["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in served} == {"http": 80, "grpc": 9000}
    (container,) = written("kserve", asked, tmp_path)["InferenceService"]["spec"]["predictor"]["containers"]
    assert [port["name"] for port in container["ports"]] == ["http"]


def test_many_pods_over_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="postgres"):
        export("kubernetes", Exporting("m", Path("app.py"), Config(), "m:1", 3), tmp_path)
    with pytest.raises(ConfigError, match="--image"):
        export("kserve", Exporting("m", Path("app.py"), Config(), ""), tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'kubernetes'"):
        export("kubernets", LOCAL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_examples_let_undecided_wait() -> None:
    (metric,) = argo(LOCAL)["spec"]["metrics"]
    assert metric["successCondition"] == 'result == "PASS"'
    assert metric["failureCondition"] == 'result == "FAIL"'
    assert metric["inconclusiveLimit"] > 1000
    assert metric["failureLimit"] == 0
    assert metric["provider"]["web"]["jsonPath"] == "{$.result}"
    hooks = {hook["type"]: hook["url"] for hook in flagger(LOCAL)["spec"]["analysis"]["webhooks"]}
    assert {kind: url.rsplit("/", 1)[1] for kind, url in hooks.items()} == {
        "confirm-traffic-increase": "promotion",
        "confirm-promotion": "promotion",
        "rollback": "rollback",
    }
    assert "rollout" not in hooks, "its refusals are counted and end in a rollback: UNDECIDED would be a failure"


def test_the_image_installs_what_the_project_needs_and_names_no_registry(tmp_path: Path) -> None:
    project = Exporting("loans", tmp_path / "app.py", SHARED, "")
    made = {p.name: p.read_text() for p in export("docker", project, tmp_path / "deploy")}
    assert made["requirements.txt"].startswith("loudly[postgres,s3,serve]==")
    dockerfile = made["Dockerfile"]
    assert "COPY deploy/requirements.txt" in dockerfile
    assert re.search(r"^USER 10001", dockerfile, re.M)
    assert ".loudly" in made["Dockerfile.dockerignore"]
    for kind in KINDS:
        for path in export(kind, LOCAL, tmp_path / kind):
            assert not re.search(r"extra.index|docker\.io|ghcr|gcr\.io|quay", path.read_text()), path


TEXT = st.text(max_size=8) | st.sampled_from(["yes", "1", "1e3", "null", "~", "a: b", "- a", "# a", "", " a", "2024-01-01", "0x1f"])
DATA = st.recursive(
    TEXT | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(DATA)
def test_a_reader_of_yaml_sees_the_same_data(data: Any) -> None:
    assert yaml.safe_load(to_yaml(data)) == data
