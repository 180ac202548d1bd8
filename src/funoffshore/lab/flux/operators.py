"""Readiness of custom resources: what their operators would say, once they run."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass

from funoffshore.lab.flux import conditions
from funoffshore.lab.flux.engine import Engine
from funoffshore.lab.flux.queue import Key
from funoffshore.lab.kube.api import ApiError, Object

_DAYS = 90


@dataclass(frozen=True, slots=True)
class _Rule:
    """How one kind becomes ready."""

    deployment: str
    """The operator's Deployment, in whatever namespace."""
    condition: str = "Ready"
    reason: str = "Ready"
    message: str = "ready"


_CERT = "cert-manager.io/v1/"
_ORIGIN = "cert-manager.k8s.cloudflare.com/v1/"
_ACME = ("ACMEAccountRegistered", "The ACME account was registered with the ACME server")
RULES: dict[str, _Rule] = {
    f"{_CERT}ClusterIssuer": _Rule("cert-manager", "Ready", *_ACME),
    f"{_CERT}Issuer": _Rule("cert-manager", "Ready", *_ACME),
    f"{_CERT}Certificate": _Rule("cert-manager", "Ready", "Ready", "Certificate is up to date and has not expired"),
    f"{_ORIGIN}ClusterOriginIssuer": _Rule("origin-ca-issuer", "Ready", "Verified", "OriginIssuer verified"),
    f"{_ORIGIN}OriginIssuer": _Rule("origin-ca-issuer", "Ready", "Verified", "OriginIssuer verified"),
    "tailscale.com/v1alpha1/Connector": _Rule("operator", "ConnectorReady", "ConnectorCreated", "ConnectorCreated"),
    "tailscale.com/v1alpha1/ProxyGroup": _Rule("operator", "ProxyGroupReady", "ProxyGroupReady", "ready"),
    "tailscale.com/v1alpha1/ProxyClass": _Rule("operator", "ProxyClassReady", "ProxyClassValid", "ProxyClass is valid"),
    "tailscale.com/v1alpha1/DNSConfig": _Rule("operator", "NameserverReady", "NameserverCreated", "ready"),
    "volsync.backube/v1alpha1/ReplicationSource": _Rule("volsync", "Synchronizing", "WaitingForSchedule", "waiting"),
    "k8up.io/v1/Schedule": _Rule("k8up", "Ready", "Ready", "resource is ready"),
    "postgresql.cnpg.io/v1/Cluster": _Rule("cloudnative-pg", "Ready", "ClusterIsReady", "Cluster is Ready"),
    "monitoring.coreos.com/v1/Prometheus": _Rule("kube-prometheus-stack-operator", "Available", "", ""),
    "monitoring.coreos.com/v1/Alertmanager": _Rule("kube-prometheus-stack-operator", "Available", "", ""),
}
DEPLOYMENT = "apps/v1/Deployment"


class Operators:
    """Plays every operator of ``RULES`` while its Deployment is available."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def concerned(self, kind: str, obj: Object) -> list[Key]:
        """What an event on ``obj`` may make ready."""
        if kind == DEPLOYMENT and conditions.is_true(obj, "Available"):
            kinds = [k for k, rule in RULES.items() if rule.deployment == obj["metadata"]["name"]]
        elif kind == f"{_CERT}ClusterIssuer" or kind == f"{_CERT}Issuer":
            kinds = [f"{_CERT}Certificate"] if conditions.is_true(obj) else []
        else:
            kinds = []
        found: list[Key] = []
        for each in kinds:
            if self._engine.cluster.known(each):
                found += [_key(each, o) for o in self._engine.cluster.list(each)]
        return found + ([_key(kind, obj)] if kind in RULES else [])

    def reconcile(self, key: Key) -> None:
        obj, rule = self._engine.get(key), RULES[key[0]]
        if obj is None or obj["metadata"].get("deletionTimestamp") or not self._runs(rule.deployment):
            return
        ready = conditions.find(obj, rule.condition)
        if ready and ready.get("observedGeneration") == obj["metadata"].get("generation"):
            return
        extra: Callable[[Object], None] = lambda fields: None  # noqa: E731 -- one of two values of one name
        if key[0] == f"{_CERT}Certificate":
            if not self._issuer_ready(key[1], obj["spec"]["issuerRef"]):
                return
            until = self._engine.now() + _DAYS * 86400
            self._issue(key, obj, until)
            extra = lambda fields: fields.update(_validity(self._engine.now(), until))  # noqa: E731

        def change(status: conditions.Status, _: Object) -> None:
            status.observed()
            status.set(rule.condition, "True", rule.reason, rule.message)
            if key[0].startswith("postgresql"):
                count = obj["spec"].get("instances", 1)
                status.fields |= {"phase": "Cluster in healthy state", "instances": count, "readyInstances": count}
            extra(status.fields)

        self._engine.write(key, change)

    def _runs(self, deployment: str) -> bool:
        return any(
            d["metadata"]["name"] == deployment and conditions.is_true(d, "Available")
            for d in self._engine.cluster.list(DEPLOYMENT)
        )

    def _issuer_ready(self, namespace: str, ref: Object) -> bool:
        kind, group = ref.get("kind") or "Issuer", ref.get("group") or "cert-manager.io"
        api = f"{group}/v1/{kind}"
        if not self._engine.cluster.known(api):
            return False
        issuer = self._engine.cluster.get(api, "" if kind.startswith("Cluster") else namespace, ref["name"])
        return issuer is not None and conditions.is_true(issuer)

    def _issue(self, key: Key, obj: Object, until: float) -> None:
        """The Secret of a Certificate, with a real key pair in it."""
        spec = obj["spec"]
        names = spec.get("dnsNames") or [spec.get("commonName") or obj["metadata"]["name"]]
        chain, private = _pair([str(n) for n in names], self._engine.now(), until)
        secret: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": spec["secretName"],
                "namespace": key[1],
                "annotations": {"cert-manager.io/certificate-name": key[2]},
                "labels": {"controller.cert-manager.io/fao": "true"},
            },
            "data": {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(private).decode()},
        }
        try:
            self._engine.cluster.apply(secret, "cert-manager-certificates-issuing")
        except ApiError:
            return


def _key(kind: str, obj: Object) -> Key:
    return kind, str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])


def _validity(since: float, until: float) -> Object:
    renewal = since + (until - since) * 2 / 3
    times = {"notBefore": since, "notAfter": until, "renewalTime": renewal}
    return {name: conditions.stamp(value) for name, value in times.items()} | {"revision": 1}


def _pair(names: list[str], since: float, until: float) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "funoffshore lab")])
    built = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(since, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(until, datetime.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private
