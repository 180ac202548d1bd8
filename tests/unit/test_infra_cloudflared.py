"""The tunnel: human-made Deployment, one file that routes, a closing 404, and a token that Git never sees."""

from __future__ import annotations

from typing import Any

from infra_tree import TREE, documents, flux_kustomizations, of_kind

FOLDER = TREE / "cloudflared"


def _deployment() -> dict[str, Any]:
    [item] = [i for i in of_kind("Deployment") if i.name == "cloudflared"]
    assert item.file == FOLDER / "deployment.yaml"
    return item.document


def _container() -> dict[str, Any]:
    [container] = _deployment()["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def _routes() -> list[dict[str, Any]]:
    [config_map] = documents((FOLDER / "config.yaml").read_text(encoding="utf-8"))
    assert config_map["kind"] == "ConfigMap"
    [config] = documents(config_map["data"]["config.yaml"])
    routes: list[dict[str, Any]] = config["ingress"]
    return routes


def test_last_rule_answers_404_and_only_the_last() -> None:
    *named, closing = _routes()
    assert closing == {"service": "http_status:404"}
    assert named
    assert all(rule["hostname"] for rule in named)


def test_routes_lead_to_traefik_over_verified_tls() -> None:
    for rule in _routes()[:-1]:
        assert rule["service"] == "https://traefik.traefik.svc.cluster.local:443"
        assert rule["originRequest"]["originServerName"] == rule["hostname"]
        assert "noTLSVerify" not in rule["originRequest"]
        assert rule["hostname"].endswith(".${DOMAIN}")


def test_routed_hosts_are_served_by_traefik() -> None:
    hosts = {
        str(value)
        for item in of_kind("HelmRelease")
        for line in [item.file.read_text(encoding="utf-8")]
        for value in line.split()
    }
    assert {rule["hostname"] for rule in _routes()[:-1]} <= hosts


def test_config_says_who_may_change_it() -> None:
    first = (FOLDER / "config.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert (
        first == "# The only file below infra/k8s that a persona may change, and only when a human asked for a route."
    )


def test_two_replicas_that_survive_a_drain() -> None:
    assert _deployment()["spec"]["replicas"] == 2
    [budget] = [i.document for i in of_kind("PodDisruptionBudget") if i.name == "cloudflared"]
    assert budget["spec"]["minAvailable"] == 1


def test_command_line_holds_no_token() -> None:
    args = _container()["args"]
    assert args[args.index("--config") + 1] == "/etc/cloudflared/config.yaml"
    assert args[args.index("--metrics") + 1] == "0.0.0.0:2000"
    assert "--no-autoupdate" in args
    assert "--token" not in args
    [env] = _container()["env"]
    assert env == {
        "name": "TUNNEL_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "cloudflared-token", "key": "token"}},
    }


def test_probes_ask_for_a_live_tunnel() -> None:
    for probe in ("readinessProbe", "livenessProbe"):
        assert _container()[probe]["httpGet"] == {"path": "/ready", "port": "metrics"}
    assert _container()["ports"] == [{"name": "metrics", "containerPort": 2000, "protocol": "TCP"}]


def test_pod_is_locked_down() -> None:
    pod = _deployment()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert _container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_changed_route_restarts_the_pods() -> None:
    assert _deployment()["metadata"]["annotations"]["reloader.stakater.com/auto"] == "true"


def test_tunnel_reaches_no_private_address_but_traefik() -> None:
    policies = {i.name: i.document["spec"] for i in of_kind("NetworkPolicy") if i.namespace == "cloudflared"}
    assert set(policies) == {"default-deny", "allow-metrics", "allow-dns", "allow-edge", "allow-traefik"}
    [edge] = policies["allow-edge"]["egress"]
    assert edge["to"][0]["ipBlock"]["except"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]


def test_switch_chooses_the_folder() -> None:
    path = flux_kustomizations()["cloudflared"]["spec"]["path"]
    assert path == "./infra/k8s/optional/${CLOUDFLARED_ENABLED}/cloudflared"
    [on] = documents((TREE / "optional/true/cloudflared/kustomization.yaml").read_text(encoding="utf-8"))
    [off] = documents((TREE / "optional/false/cloudflared/kustomization.yaml").read_text(encoding="utf-8"))
    assert on["resources"] == ["../../../cloudflared"]
    assert off["resources"] == []
