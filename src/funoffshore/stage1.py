"""Stage 1 as data: what the mission asks for, what Git holds for it, and what one cluster may set.

Nothing here acts or reads. ``config`` takes its keys from SETTINGS, SWITCHES and SECRET_KEYS, the flux stage renders
RENDERED_SECRETS, postcheck looks for COMPONENTS. Clusters differ in these values and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Setting:
    """A public value that Flux substitutes for ``${key}`` from ConfigMap ``cluster-settings``; never empty."""

    key: str
    default: str | None
    """None: the operator or the cluster config must give it."""
    help: str
    follows: str | None = None
    """Key whose value it takes when it is not set and has no default."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether an optional part is on; stands in ``cluster-settings`` as exactly ``true`` or ``false``."""

    key: str
    default: bool
    help: str


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A secret of the env file that ends in a Kubernetes Secret."""

    key: str
    generate: Literal["hex32", "password"] | None
    """How ``fo init`` makes it; None: it comes from a third party."""
    required_when: str | None
    """Switch that makes it necessary; None: always necessary."""
    help: str


@dataclass(frozen=True, slots=True)
class RenderedSecret:
    """An Opaque Secret that fo writes into the cluster and Git never holds."""

    namespace: str
    name: str
    keys: Mapping[str, str]
    """Key of the Secret → key of the env file."""
    switch: str | None = None
    """Rendered only while this switch is on; None: always."""
    literals: Mapping[str, str] = field(default_factory=dict)
    """Key of the Secret → public value that consumers want beside the secret ones."""


Workload = tuple[Literal["Deployment", "StatefulSet", "DaemonSet"], str]
"""Kind and name; the namespace is the component's."""


@dataclass(frozen=True, slots=True)
class Component:
    """One folder below ``infra/k8s`` and what it becomes on the cluster."""

    id: str
    title: str
    mission: str
    """The mission's line that it serves, word for word."""
    path: str
    kustomization: str
    """Name of its Flux Kustomization in ``flux-system``."""
    namespace: str
    releases: tuple[str, ...] = ()
    """HelmReleases in the namespace."""
    workloads: tuple[Workload, ...] = ()
    """What must be rolled out when it is ready, made by the folder itself or by its charts."""
    switch: str | None = None
    groups: tuple[str, ...] = ()
    """API groups whose CRDs it brings."""


SETTINGS: tuple[Setting, ...] = (
    Setting("CLUSTER_NAME", None, "Name of the cluster; from the cluster config."),
    Setting("DOMAIN", None, "Domain below which every app has its name; from the cluster config."),
    Setting("TIMEZONE", None, "IANA time zone of the apps, such as Europe/Berlin; from the cluster config."),
    Setting("VIP", None, "Address of the Kubernetes API; from the cluster config."),
    Setting("CLUSTER_CIDR", "10.42.0.0/16", "Network of the pods; from the cluster config. qBittorrent trusts it."),
    Setting("TRAEFIK_LB_ADDRESS", None, "Address that the apps' DNS names point to on the LAN.", follows="VIP"),
    Setting("NFS_SERVER", None, "Name or address of the Synology (any NFSv4.1 server)."),
    Setting("NFS_PATH", "/volume1/kubernetes", "Export below which volumes of class nfs and backups are made."),
    Setting("NFS_MEDIA_PATH", "/volume1/media", "Export with films, series and downloads, writable by uid 568."),
    Setting("ACME_EMAIL", None, "Where Let's Encrypt sends warnings about certificates."),
    Setting("ACME_SERVER", "https://acme-v02.api.letsencrypt.org/directory", "ACME directory; staging while trying."),
)

SWITCHES: tuple[Switch, ...] = (
    Switch("CLOUDFLARED_ENABLED", True, "Cloudflare Tunnel; needs CF_TUNNEL_TOKEN."),
    Switch("TAILSCALE_ENABLED", True, "Tailscale operator; needs TAILSCALE_CLIENT_ID and TAILSCALE_CLIENT_SECRET."),
    Switch("SYNCTHING_ENABLED", True, "Syncthing."),
    Switch("PORTAINER_ENABLED", False, "Portainer; it is cluster-admin by design."),
    Switch("CODE_SERVER_ENABLED", False, "code-server; a shell in the browser, behind Authentik."),
    Switch("ALERT_WEBHOOK_ENABLED", False, "Sends alerts to ALERTMANAGER_WEBHOOK_URL."),
)

SECRET_KEYS: tuple[SecretKey, ...] = (
    SecretKey("CF_TUNNEL_TOKEN", None, "CLOUDFLARED_ENABLED", "Token of a tunnel with local configuration."),
    SecretKey("CF_API_TOKEN", None, None, "Cloudflare token, Zone/DNS/Edit: ACME DNS-01."),
    SecretKey("CF_ORIGIN_CA_TOKEN", None, None, "Cloudflare token, Zone/SSL and Certificates/Edit: Origin CA."),
    SecretKey("TAILSCALE_CLIENT_ID", None, "TAILSCALE_ENABLED", "OAuth client with devices and auth keys, write."),
    SecretKey("TAILSCALE_CLIENT_SECRET", None, "TAILSCALE_ENABLED", "Secret of that OAuth client."),
    SecretKey("AUTHENTIK_SECRET_KEY", "hex32", None, "Signs sessions; changing it signs everybody out."),
    SecretKey("AUTHENTIK_BOOTSTRAP_PASSWORD", "password", None, "First password of akadmin; read once."),
    SecretKey("AUTHENTIK_BOOTSTRAP_TOKEN", "hex32", None, "First API token of akadmin; read once."),
    SecretKey("AUTHENTIK_POSTGRES_PASSWORD", "hex32", None, "Password of Authentik's database."),
    SecretKey("GRAFANA_ADMIN_PASSWORD", "password", None, "Password of Grafana's admin."),
    SecretKey("GRAFANA_OAUTH_CLIENT_SECRET", "hex32", None, "Shared by Authentik and Grafana."),
    SecretKey("SONARR_API_KEY", "hex32", None, "Sonarr's API key."),
    SecretKey("RADARR_API_KEY", "hex32", None, "Radarr's API key."),
    SecretKey("PROWLARR_API_KEY", "hex32", None, "Prowlarr's API key."),
    SecretKey("SEERR_API_KEY", "hex32", None, "Seerr's API key."),
    SecretKey("SYNCTHING_API_KEY", "hex32", "SYNCTHING_ENABLED", "Syncthing's API key."),
    SecretKey("PORTAINER_ADMIN_PASSWORD", "password", "PORTAINER_ENABLED", "Password of Portainer's admin."),
    SecretKey("BACKUP_PASSWORD", "hex32", None, "Encrypts every restic repository; without it no backup can be read."),
    SecretKey("ALERTMANAGER_WEBHOOK_URL", None, "ALERT_WEBHOOK_ENABLED", "URL that takes Alertmanager's JSON."),
)


def _backup(namespace: str, switch: str | None = None) -> RenderedSecret:
    return RenderedSecret(namespace, "backup-repository", {"password": "BACKUP_PASSWORD"}, switch)


RENDERED_SECRETS: tuple[RenderedSecret, ...] = (
    RenderedSecret("cloudflared", "cloudflared-token", {"token": "CF_TUNNEL_TOKEN"}, "CLOUDFLARED_ENABLED"),
    RenderedSecret("cert-manager", "cloudflare-api-token", {"api-token": "CF_API_TOKEN"}),
    RenderedSecret("cert-manager", "cloudflare-origin-ca", {"token": "CF_ORIGIN_CA_TOKEN"}),
    RenderedSecret(
        "tailscale",
        "operator-oauth",
        {"client_id": "TAILSCALE_CLIENT_ID", "client_secret": "TAILSCALE_CLIENT_SECRET"},
        "TAILSCALE_ENABLED",
    ),
    RenderedSecret(
        "authentik",
        "authentik",
        {
            "AUTHENTIK_SECRET_KEY": "AUTHENTIK_SECRET_KEY",
            "AUTHENTIK_BOOTSTRAP_PASSWORD": "AUTHENTIK_BOOTSTRAP_PASSWORD",
            "AUTHENTIK_BOOTSTRAP_TOKEN": "AUTHENTIK_BOOTSTRAP_TOKEN",
            "AUTHENTIK_POSTGRESQL__PASSWORD": "AUTHENTIK_POSTGRES_PASSWORD",
            "GRAFANA_OAUTH_CLIENT_SECRET": "GRAFANA_OAUTH_CLIENT_SECRET",
        },
        literals={
            "AUTHENTIK_POSTGRESQL__HOST": "authentik-postgresql",
            "AUTHENTIK_POSTGRESQL__NAME": "authentik",
            "AUTHENTIK_POSTGRESQL__USER": "authentik",
            "AUTHENTIK_POSTGRESQL__PORT": "5432",
        },
    ),
    RenderedSecret("authentik", "authentik-postgresql", {"password": "AUTHENTIK_POSTGRES_PASSWORD"}),
    RenderedSecret(
        "monitoring", "grafana-admin", {"admin-password": "GRAFANA_ADMIN_PASSWORD"}, literals={"admin-user": "admin"}
    ),
    RenderedSecret(
        "monitoring",
        "grafana-oauth",
        {"GRAFANA_OAUTH_CLIENT_SECRET": "GRAFANA_OAUTH_CLIENT_SECRET"},
        literals={"GRAFANA_OAUTH_CLIENT_ID": "grafana"},
    ),
    RenderedSecret("monitoring", "alertmanager-webhook", {"url": "ALERTMANAGER_WEBHOOK_URL"}, "ALERT_WEBHOOK_ENABLED"),
    RenderedSecret("media", "sonarr", {"SONARR__AUTH__APIKEY": "SONARR_API_KEY"}),
    RenderedSecret("media", "radarr", {"RADARR__AUTH__APIKEY": "RADARR_API_KEY"}),
    RenderedSecret("media", "prowlarr", {"PROWLARR__AUTH__APIKEY": "PROWLARR_API_KEY"}),
    RenderedSecret("media", "seerr", {"API_KEY": "SEERR_API_KEY"}),
    RenderedSecret("syncthing", "syncthing", {"STGUIAPIKEY": "SYNCTHING_API_KEY"}, "SYNCTHING_ENABLED"),
    RenderedSecret("portainer", "portainer-admin", {"password": "PORTAINER_ADMIN_PASSWORD"}, "PORTAINER_ENABLED"),
    _backup("authentik"),
    _backup("media"),
    _backup("syncthing", "SYNCTHING_ENABLED"),
    _backup("portainer", "PORTAINER_ENABLED"),
    _backup("code-server", "CODE_SERVER_ENABLED"),
)


def _release(
    id: str,
    title: str,
    mission: str,
    namespace: str,
    *workloads: Workload,
    switch: str | None = None,
    groups: tuple[str, ...] = (),
) -> Component:
    """A component whose folder holds one HelmRelease of its own name."""
    return Component(id, title, mission, f"infra/k8s/{id}", id, namespace, (id,), workloads, switch, groups)


def _plain(
    id: str,
    title: str,
    mission: str,
    namespace: str,
    *workloads: Workload,
    switch: str | None = None,
    groups: tuple[str, ...] = (),
) -> Component:
    """A component whose folder holds manifests only."""
    return Component(id, title, mission, f"infra/k8s/{id}", id, namespace, (), workloads, switch, groups)


_CERTS = "Cert-manager / Origin CA"
_TUNNEL = "Cloudflare Tunnel (k3s Deployment + ConfigMap ingress)"
_ARRS = "Sonarr, Radarr, Prowlarr"
_TOOLS = "Optional Dev Tools (Portainer, VSCode Server)"

MISSION_BY_FO: Mapping[str, str] = {
    "Proxmox host with controller + worker VMs": "the machines stage",
    "Automated K3s bootstrap script": "the k3s stage",
}
"""Lines of the mission that fo itself fulfils, so that no folder below ``infra/k8s`` stands for them."""

COMPONENTS: tuple[Component, ...] = (
    Component(
        "flux",
        "Flux",
        "GitOps (Flux or ArgoCD) fully operational",
        "infra/k8s/flux",
        "cluster",
        "flux-system",
        (),
        (
            ("Deployment", "source-controller"),
            ("Deployment", "kustomize-controller"),
            ("Deployment", "helm-controller"),
            ("Deployment", "notification-controller"),
        ),
    ),
    _plain("sources", "Shared chart sources", "GitOps (Flux or ArgoCD) fully operational", "flux-system"),
    _plain("secrets", "SOPS secrets", "Secrets via SOPS or Vault", "flux-system"),
    _release(
        "prometheus-operator-crds", "Monitoring API", "Prometheus", "monitoring", groups=("monitoring.coreos.com",)
    ),
    _release(
        "reloader", "Reloader", "GitOps (Flux or ArgoCD) fully operational", "reloader", ("Deployment", "reloader")
    ),
    _release(
        "cert-manager",
        "cert-manager",
        _CERTS,
        "cert-manager",
        ("Deployment", "cert-manager"),
        ("Deployment", "cert-manager-webhook"),
        ("Deployment", "cert-manager-cainjector"),
        groups=("cert-manager.io", "acme.cert-manager.io"),
    ),
    _release(
        "origin-ca-issuer",
        "Cloudflare Origin CA",
        _CERTS,
        "cert-manager",
        ("Deployment", "origin-ca-issuer"),
        groups=("cert-manager.k8s.cloudflare.com",),
    ),
    _plain("issuers", "Certificate issuers", _CERTS, "cert-manager"),
    _release("traefik", "Traefik", "Reverse proxy", "traefik", ("Deployment", "traefik"), groups=("traefik.io",)),
    _plain("certificates", "Wildcard certificate", "Networking + DNS + TLS:", "traefik"),
    _plain(
        "cloudflared",
        "Cloudflare Tunnel",
        _TUNNEL,
        "cloudflared",
        ("Deployment", "cloudflared"),
        switch="CLOUDFLARED_ENABLED",
    ),
    _release(
        "tailscale-operator",
        "Tailscale",
        "Tailscale",
        "tailscale",
        ("Deployment", "operator"),
        switch="TAILSCALE_ENABLED",
        groups=("tailscale.com",),
    ),
    _release(
        "csi-driver-nfs",
        "NFS volumes",
        "Synology NFS",
        "csi-driver-nfs",
        ("Deployment", "csi-nfs-controller"),
        ("DaemonSet", "csi-nfs-node"),
    ),
    _plain("storage", "Storage classes", "PVC provisioning", "csi-driver-nfs"),
    _release("k8up", "Backups", "VM + media backup strategy", "k8up", ("Deployment", "k8up"), groups=("k8up.io",)),
    _release(
        "authentik",
        "Authentik",
        "Authentik for SSO",
        "authentik",
        ("Deployment", "authentik-server"),
        ("Deployment", "authentik-worker"),
        ("StatefulSet", "authentik-postgresql"),
    ),
    _plain("sso", "Sign-on before apps", "Centralized OAuth for sample apps", "authentik"),
    _release(
        "kube-prometheus-stack",
        "Prometheus",
        "Prometheus",
        "monitoring",
        ("Deployment", "kube-prometheus-stack-operator"),
        ("Deployment", "kube-prometheus-stack-kube-state-metrics"),
        ("DaemonSet", "kube-prometheus-stack-prometheus-node-exporter"),
        ("StatefulSet", "prometheus-kube-prometheus-stack-prometheus"),
        ("StatefulSet", "alertmanager-kube-prometheus-stack-alertmanager"),
    ),
    _plain("alerting", "Alert receiver", "Loki + Alertmanager", "monitoring", switch="ALERT_WEBHOOK_ENABLED"),
    _release("loki", "Loki", "Loki + Alertmanager", "monitoring", ("StatefulSet", "loki")),
    _release(
        "alloy",
        "Alloy",
        "Loki + Alertmanager",
        "monitoring",
        ("DaemonSet", "alloy"),
        groups=("monitoring.grafana.com",),
    ),
    _release("grafana", "Grafana", "Grafana", "monitoring", ("Deployment", "grafana")),
    _plain("dashboards", "Dashboards", "Dashboards for cluster, nodes, Arrs, networking", "monitoring"),
    _plain("media", "Media share", "Synology NFS", "media"),
    _release("jellyfin", "Jellyfin", "Jellyfin", "media", ("Deployment", "jellyfin")),
    _release("seerr", "Seerr", "Jellyseerr", "media", ("Deployment", "seerr")),
    _release("sonarr", "Sonarr", _ARRS, "media", ("Deployment", "sonarr")),
    _release("radarr", "Radarr", _ARRS, "media", ("Deployment", "radarr")),
    _release("prowlarr", "Prowlarr", _ARRS, "media", ("Deployment", "prowlarr")),
    _release("qbittorrent", "qBittorrent", "qBittorrent", "media", ("Deployment", "qbittorrent")),
    _release("bazarr", "Bazarr", "Bazarr", "media", ("Deployment", "bazarr")),
    _release(
        "syncthing",
        "Syncthing",
        "Syncthing or backups",
        "syncthing",
        ("Deployment", "syncthing"),
        switch="SYNCTHING_ENABLED",
    ),
    _release("portainer", "Portainer", _TOOLS, "portainer", ("Deployment", "portainer"), switch="PORTAINER_ENABLED"),
    _release(
        "code-server",
        "code-server",
        _TOOLS,
        "code-server",
        ("Deployment", "code-server"),
        switch="CODE_SERVER_ENABLED",
    ),
)
