"""Env file in, ClusterConfig out; or one ConfigError with every problem that there is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from funoffshore import errors
from funoffshore.config import (
    envfile,
    files,
    keyfile,
    keys,
    kinds,
    locked,
    lockfile,
    machines,
    model,
    place,
    rules,
    values,
)
from funoffshore.config.files import Problem
from funoffshore.config.values import Values

if TYPE_CHECKING:
    from pydantic import SecretStr

_SHOW_AT_MOST = 200
"""Problems. More of them help nobody, and a hostile file has thousands."""
_NO_LINE = 1 << 30
LOCKED_BY = (
    "LAB",
    "MACHINES",
    "IMAGE_URL",
    "IMAGE_TEMPLATE",
    "K3S_DOWNLOAD_URL",
    "K3S_VERSION",
    "K3S_FOLDER",
    "K3S_SHA256",
    "K3S_SHA256_ARM64",
    "FLUX_VERSION",
    "FLUX_INSTALL_URL",
)
"""Keys that decide what a lock file holds, or stand in its place."""


def load(path: Path, root: Path | None = None) -> model.ClusterConfig:
    """The config that the env file at ``path`` describes. ``root`` is the operator's repository.

    The process' environment never changes a value. Raises ConfigError that names every problem of the file, by
    line where it has one, and holds no value of a secret key.
    """
    root = root or place.root(path.parent)
    shown = place.shown(path, root)
    data, problems = envfile.read(path)
    if data is None:
        raise _refusal(shown, path.stem, problems)
    lock = None
    if kinds.is_cluster(path.stem):
        lock, more = lockfile.read(root, path.stem)
        problems += more
    return _config(data, lock, problems, path.stem, root, shown)


def parse(text: str, name: str, root: Path, lock: str | None = None) -> model.ClusterConfig:
    """The config that ``text`` would describe as ``config/env/<name>.env``; raises as ``load`` does.

    ``lock`` is the text of ``config/lock/<name>.yaml``; None: there is none.
    """
    return _config(text.encode(), None if lock is None else lock.encode(), [], name, root, f"config/env/{name}.env")


def wanted(path: Path, root: Path) -> dict[str, str]:
    """What the env file at ``path`` wants to have locked, by key, whatever is locked and whatever else it lacks.

    A key that says nothing is left out; MACHINES is ``existing`` where fo makes none, and left out otherwise. Raises
    ConfigError when the file cannot be read, or one of these keys.
    """
    shown, table = place.shown(path, root), keys.known()
    data, problems = envfile.read(path)
    if data is None:
        raise _refusal(shown, path.stem, problems)
    lines = envfile.parse(data)
    seen, wrong = values.read(lines, path.stem, table)
    wrong += [*rules.flux_release(seen), *rules.moving_image(seen)]
    unreadable = not lines.broken.isdisjoint(LOCKED_BY)
    problems += [p for p in wrong if p.text.split(":")[0] in LOCKED_BY or (unreadable and p in lines.problems)]
    if problems:
        raise _refusal(shown, path.stem, problems)
    found = {key: seen.texts[key] for key in LOCKED_BY if key in seen.given or (key != "IMAGE_URL" and seen.texts[key])}
    found.pop("MACHINES", None)
    return {**found, "MACHINES": "existing"} if machines.makes(seen) is False else found


def _config(
    data: bytes, lock: bytes | None, problems: list[Problem], name: str, root: Path, shown: str
) -> model.ClusterConfig:
    table = keys.known()
    seen, wrong = values.read(envfile.parse(data), name, table)
    problems = [*problems, *wrong]
    if lock is not None:
        locks, more = lockfile.parse(lock, lockfile.shown(name))
        seen, differing = locked.apply(seen, locks, table)
        problems += more or differing
    seen, more = keyfile.apply(seen)
    problems += more
    where = lockfile.shown(name)
    damaged = any(problem.text.startswith(where) for problem in problems)
    # What a damaged lock file holds nobody can tell, so nothing is missing for want of it.
    problems += [problem for problem in rules.all_of(seen, table) if not (damaged and where in problem.text)]
    if problems:
        raise _refusal(shown, name, problems)
    return _build(_settled(seen), table, root)


def _settled(v: Values) -> Values:
    """Right values with those filled in that follow from others: without a VIP, the API is at the only controller."""
    if v.get("VIP") is not None:
        return v
    address = IPv4Address(machines.drafts(v)[0].address or 0)
    return dataclasses.replace(v, parsed={**v.parsed, "VIP": address}, texts={**v.texts, "VIP": str(address)})


def _refusal(shown: str, name: str, problems: Sequence[Problem]) -> errors.ConfigError:
    ordered = sorted(problems, key=lambda problem: problem.line or _NO_LINE)
    lines = [str(problem) for problem in ordered[:_SHOW_AT_MOST]]
    if len(ordered) > _SHOW_AT_MOST:
        lines.append(f"… and {len(ordered) - _SHOW_AT_MOST} more")
    count = f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    return errors.ConfigError(f"{shown}: {count}", fix=_fix(shown, name, ordered), evidence=tuple(lines))


def _fix(shown: str, name: str, problems: Sequence[Problem]) -> str:
    texts = [problem.text for problem in problems if problem.line == files.FILE]
    if any("No such file" in text for text in texts) and re.fullmatch(r"[a-z][a-z0-9-]*", name):
        return f"run `fo init {name}`, which writes it"
    if any(text.startswith("belongs to uid") for text in texts):
        return f"make the file your own: chown it to the user that runs fo, then chmod 600 {shown}"
    if any(text.startswith("has mode") for text in texts):
        return f"chmod 600 {shown}" + (", and correct the rest" if problems[1:] else "")
    if all(problem.text.startswith(lockfile.shown(name)) for problem in problems):
        return f"restore {lockfile.shown(name)} from Git, or run `fo lock update -c {name}`, which writes it anew"
    return "correct the file; docs/reference/config.md explains every key"


def _build(v: Values, table: keys.Table, root: Path) -> model.ClusterConfig:
    name: str = v["CLUSTER_NAME"]
    return model.ClusterConfig(
        name=name,
        root=root,
        domain=v["DOMAIN"],
        timezone=v["TIMEZONE"],
        proxmox=_proxmox(v),
        image=model.Image(v["IMAGE_URL"], v["IMAGE_SHA256"], v["IMAGE_SHA512"], v["IMAGE_TEMPLATE"]),
        network=_network(v),
        ssh=_ssh(v),
        k3s=_k3s(v),
        flux=model.Flux(v["FLUX_VERSION"], v["FLUX_INSTALL_URL"], v["FLUX_INSTALL_SHA256"]),
        git=_git(v),
        nodes=machines.nodes(v),
        settings=_settings(v, table),
        switches=MappingProxyType({switch.key: bool(v[switch.key]) for switch in table.switches}),
        app_secrets=MappingProxyType({s.key: _secret(v[s.key]) for s in table.secrets if v[s.key]}),
        sops_age_key=_optional(v["SOPS_AGE_KEY"]),
        evidence_key=_secret(v["EVIDENCE_KEY"]),
        lab=model.Lab(root / ".lab" / name, v["LAB_WEB_URL"].rstrip("/")) if v["LAB"] else None,
        shape=_shape(v),
        backup=_backup(v),
    )


def _network(v: Values) -> model.Network:
    return model.Network(
        subnet=v.get("SUBNET", IPv4Network("0.0.0.0/32")),
        gateway=v.get("GATEWAY", IPv4Address(0)),
        dns=v.get("DNS_SERVERS", ()),
        vip=v["VIP"],
        subnet_v6=v["SUBNET_V6"],
        gateway_v6=v["GATEWAY_V6"],
    )


def _proxmox(v: Values) -> model.Proxmox:
    return model.Proxmox(
        url=v.get("PROXMOX_URL", "").rstrip("/"),
        token_id=v.get("PROXMOX_TOKEN_ID", ""),
        token_secret=_secret(v.get("PROXMOX_TOKEN_SECRET", "")),
        fingerprint=v.get("PROXMOX_FINGERPRINT", ""),
        nodes=v["PROXMOX_NODES"],
        pool=v["PROXMOX_POOL"] or f"fo-{v['CLUSTER_NAME']}",
        disk_storage=v["STORAGE_DISK"],
        image_storage=v["STORAGE_IMAGE"],
        bridge=v["BRIDGE"],
        vlan=v["VLAN"],
        imports=v["STORAGE_PARALLEL"],
        vmid_first=v["VMID_FIRST"],
        vmid_last=machines.last_vmid(v),
        high_availability=v["HIGH_AVAILABILITY"],
        seed=v["SEED"],
    )


def _ssh(v: Values) -> model.Ssh:
    return model.Ssh(
        user=v["SSH_USER"],
        port=v["SSH_PORT"],
        private_key=_secret("" if v["SSH_AUTH"] == "agent" else v["SSH_PRIVATE_KEY"]),
        host_key_seed=_secret(v.get("HOST_KEY_SEED", "")),
        trust=_trust(v),
        known_hosts=v["SSH_KNOWN_HOSTS"],
        auth=v["SSH_AUTH"],
        key_file=v["SSH_KEY_FILE"] if v["SSH_AUTH"] == "file" else None,
        passphrase=_optional(v["SSH_KEY_PASSPHRASE"]),
        public_key_line=v["SSH_PUBLIC_KEY"] if v["SSH_AUTH"] == "agent" else "",
        sudo_password=_optional(v["SSH_SUDO_PASSWORD"]),
        jump=dataclasses.replace(v["SSH_JUMP"], host_key=v["SSH_JUMP_HOST_KEY"]) if v["SSH_JUMP"] else None,
    )


def _trust(v: Values) -> str:
    """Of the machines that fo makes; of the existing ones where it makes none."""
    if v["SSH_TRUST"] or machines.makes(v):
        return v["SSH_TRUST"] or "seed"
    return "known" if v["SSH_KNOWN_HOSTS"] else "first-use"


def _shape(v: Values) -> model.Shape:
    return model.Shape(
        cpu=v["CPU_TYPE"],
        uefi=v["UEFI"],
        firewall=v["FIREWALL"],
        onboot=v["ONBOOT"],
        startup=v["STARTUP_ORDER"],
        watchdog=v["WATCHDOG"],
        tags=v["MACHINE_TAGS"],
    )


def _backup(v: Values) -> model.Backup | None:
    if not v["VM_BACKUP_STORAGE"]:
        return None
    return model.Backup(v["VM_BACKUP_STORAGE"], v["VM_BACKUP_SCHEDULE"], v["VM_BACKUP_KEEP"])


def _k3s(v: Values) -> model.K3s:
    return model.K3s(
        version=v["K3S_VERSION"],
        download_url=v["K3S_DOWNLOAD_URL"].rstrip("/"),
        sha256=v["K3S_SHA256"],
        token=_secret(v["K3S_TOKEN"]),
        agent_token=_secret(v["K3S_AGENT_TOKEN"]),
        cluster_cidr=v["CLUSTER_CIDR"],
        service_cidr=v["SERVICE_CIDR"],
        disable=v["K3S_DISABLE"],
        secrets_encryption=v["SECRETS_ENCRYPTION"],
        extra_config=MappingProxyType(dict(v["K3S_EXTRA_CONFIG"])),
        kube_vip_image=v["KUBE_VIP_IMAGE"],
        sha256_arm64=v["K3S_SHA256_ARM64"],
        source="push" if v["K3S_FOLDER"] else v["K3S_SOURCE"],
        folder=v["K3S_FOLDER"],
        protect_kernel=v["K3S_PROTECT_KERNEL"],
        cis=v["K3S_CIS"],
        audit=v["K3S_AUDIT"],
        mirrors=v["REGISTRY_MIRRORS"],
        embedded_registry=v["EMBEDDED_REGISTRY"],
        cluster_cidr_v6=v["CLUSTER_CIDR_V6"],
        service_cidr_v6=v["SERVICE_CIDR_V6"],
        upgrade_batch=v["UPGRADE_BATCH"],
        snapshots=_snapshots(v),
        token_next=_optional(v["K3S_TOKEN_NEXT"]),
        agent_token_next=_optional(v["K3S_AGENT_TOKEN_NEXT"]),
    )


def _snapshots(v: Values) -> model.Snapshots:
    s3 = None
    if v["ETCD_S3_ENDPOINT"]:
        s3 = model.S3(
            endpoint=v["ETCD_S3_ENDPOINT"],
            region=v["ETCD_S3_REGION"] or "us-east-1",
            bucket=v["ETCD_S3_BUCKET"],
            folder=v["ETCD_S3_FOLDER"],
            access_key=_secret(v["ETCD_S3_ACCESS_KEY"]),
            secret_key=_secret(v["ETCD_S3_SECRET_KEY"]),
        )
    return model.Snapshots(v["ETCD_SNAPSHOT_SCHEDULE"], v["ETCD_SNAPSHOT_KEEP"], s3, v["ETCD_SNAPSHOT_NFS"])


def _git(v: Values) -> model.Git:
    return model.Git(
        url=v["GIT_URL"],
        branch=v["GIT_BRANCH"],
        path=v["GIT_PATH"],
        token=_optional(v["GIT_TOKEN"]),
        ssh_key=_optional(v["GIT_SSH_KEY"]),
        known_hosts=v["GIT_KNOWN_HOSTS"],
    )


def _settings(v: Values, table: keys.Table) -> Mapping[str, str]:
    """As they stand in the file; what is not set takes the value of the key it follows."""
    texts = {s.key: v.texts[s.key] or v.texts[s.follows or s.key] for s in table.settings}
    return MappingProxyType(texts)


def _secret(text: str) -> SecretStr:
    from pydantic import SecretStr

    return SecretStr(text)


def _optional(text: str) -> SecretStr | None:
    return _secret(text) if text else None
