"""The custom resources that charts bring: group, version, scope, then Kind/plural. Names are those of their APIs."""

from __future__ import annotations

from funoffshore.lab.flux.crds import Crd

_TABLE: dict[str, str] = {
    "traefik": """
hub.traefik.io v1alpha1 Cluster AccessControlPolicy/accesscontrolpolicies
hub.traefik.io v1alpha1 Namespaced AIService/aiservices APIAuth/apiauths APIBundle/apibundles APIPlan/apiplans \
APICatalogItem/apicatalogitems APIPortalAuth/apiportalauths APIPortal/apiportals APIRateLimit/apiratelimits API/apis \
APIVersion/apiversions ContentItem/contentitems ManagedApplication/managedapplications Uplink/uplinks \
ManagedSubscription/managedsubscriptions
traefik.io v1alpha1 Namespaced IngressRoute/ingressroutes IngressRouteTCP/ingressroutetcps TLSStore/tlsstores \
IngressRouteUDP/ingressrouteudps Middleware/middlewares MiddlewareTCP/middlewaretcps TLSOption/tlsoptions \
ServersTransport/serverstransports ServersTransportTCP/serverstransporttcps TraefikService/traefikservices
""",
    "cert-manager": """
cert-manager.io v1 Namespaced CertificateRequest/certificaterequests Certificate/certificates Issuer/issuers
acme.cert-manager.io v1 Namespaced Challenge/challenges Order/orders
cert-manager.io v1 Cluster ClusterIssuer/clusterissuers
""",
    "prometheus-operator-crds": """
monitoring.coreos.com v1alpha1 Namespaced AlertmanagerConfig/alertmanagerconfigs PrometheusAgent/prometheusagents \
ScrapeConfig/scrapeconfigs
monitoring.coreos.com v1 Namespaced Alertmanager/alertmanagers PodMonitor/podmonitors Probe/probes \
Prometheus/prometheuses PrometheusRule/prometheusrules ServiceMonitor/servicemonitors ThanosRuler/thanosrulers
""",
    "alloy": "monitoring.grafana.com v1alpha2 Namespaced PodLogs/podlogs",
    "tailscale-operator": """
tailscale.com v1alpha1 Cluster Connector/connectors DNSConfig/dnsconfigs PeerRelay/peerrelays Tailnet/tailnets \
ProxyClass/proxyclasses ProxyGroup/proxygroups Recorder/recorders
tailscale.com v1alpha1 Namespaced ProxyGroupPolicy/proxygrouppolicies
""",
    "k8up": """
k8up.io v1 Namespaced Archive/archives Backup/backups Check/checks PodConfig/podconfigs PreBackupPod/prebackuppods \
Prune/prunes Restore/restores Schedule/schedules Snapshot/snapshots
""",
    "volsync": """
volsync.backube v1alpha1 Namespaced ReplicationDestination/replicationdestinations \
ReplicationSource/replicationsources
""",
    "cloudnative-pg": """
postgresql.cnpg.io v1 Namespaced Backup/backups Cluster/clusters DatabaseRole/databaseroles Database/databases \
FailoverQuorum/failoverquorums ImageCatalog/imagecatalogs Pooler/poolers Publication/publications \
ScheduledBackup/scheduledbackups Subscription/subscriptions
postgresql.cnpg.io v1 Cluster ClusterImageCatalog/clusterimagecatalogs
""",
    "velero": """
velero.io v1 Namespaced BackupRepository/backuprepositories Backup/backups Restore/restores Schedule/schedules \
BackupStorageLocation/backupstoragelocations DeleteBackupRequest/deletebackuprequests \
DownloadRequest/downloadrequests PodVolumeBackup/podvolumebackups PodVolumeRestore/podvolumerestores \
ServerStatusRequest/serverstatusrequests VolumeSnapshotLocation/volumesnapshotlocations
velero.io v2alpha1 Namespaced DataDownload/datadownloads DataUpload/datauploads
""",
    "external-dns": "externaldns.k8s.io v1alpha1 Namespaced DNSEndpoint/dnsendpoints DNSRecord/dnsrecords",
}
_TABLE["kube-prometheus-stack"] = _TABLE["prometheus-operator-crds"]


def brought_by(chart: str) -> tuple[Crd, ...]:
    """The definitions in ``chart``; empty for a chart that brings none, or is not known."""
    found = []
    for line in _TABLE.get(chart, "").strip().splitlines():
        group, version, scope, *names = line.split()
        for name in names:
            kind, _, plural = name.partition("/")
            found.append(Crd(group, kind, plural, version, scope=scope))
    return tuple(found)
