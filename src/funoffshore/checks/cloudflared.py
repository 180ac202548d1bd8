"""The tunnel: its Secret came from the env file, its routes are those in Git, and unmatched traffic ends in 404."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import yaml

from funoffshore.checks.base import (
    CONFIG_MAP,
    DEPLOYMENT,
    SECRET,
    Answer,
    Check,
    Object,
    Sight,
    failed,
    judge,
    passed,
    unknown,
)
from funoffshore.reading import Absent, Present, Reading, Unreadable

NAMESPACE = "cloudflared"
CONFIG = "infra/k8s/cloudflared/config.yaml"
CLOSING = "http_status:404"


def enabled(sight: Sight) -> bool:
    return sight.config.switches.get("CLOUDFLARED_ENABLED", False)


def _named(reading: Reading[list[Object]], name: str) -> Object | Answer | None:
    match reading:
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return None
        case Present(objects):
            found = [
                o for o in objects if o["metadata"].get("namespace") == NAMESPACE and o["metadata"]["name"] == name
            ]
            return found[0] if found else None


def token(sight: Sight) -> Answer:
    """The Secret holds the token of the env file. Neither value is ever part of the answer."""
    secret = _named(sight.list(SECRET), "cloudflared-token")
    if isinstance(secret, tuple):
        return secret
    wanted = sight.config.app_secrets.get("CF_TUNNEL_TOKEN")
    if wanted is None:
        return failed("CF_TUNNEL_TOKEN is not set in the env file", fix="set it, or CLOUDFLARED_ENABLED=false")
    if secret is None:
        return failed("the Secret cloudflared/cloudflared-token is missing", fix="fo bootstrap")
    there = base64.b64decode(secret.get("data", {}).get("token", ""))
    if not hmac.compare_digest(there, wanted.get_secret_value().encode()):
        return failed("the Secret holds another token than the env file", fix="fo bootstrap")
    return passed("the Secret holds the env file's token")


def routes(sight: Sight) -> Answer:
    """The tunnel's config on the cluster is the one in Git, and its last rule answers 404."""
    there = _named(sight.list(CONFIG_MAP), "cloudflared-config")
    if isinstance(there, tuple):
        return there
    match sight.files():
        case Present(files):
            pass
        case Unreadable(why):
            return unknown(why)
        case Absent():
            return failed("infra/k8s is not in the repository")
    if CONFIG not in files:
        return failed(f"{CONFIG} is not in the repository's commit", fix="git add and commit it")
    if there is None:
        return failed("the ConfigMap cloudflared/cloudflared-config is missing")
    wanted = _tunnel(yaml.safe_load(files[CONFIG].decode()), sight)
    seen = _tunnel(there, sight)
    if seen != wanted:
        return failed("the tunnel's routes on the cluster are not those in Git", fix="wait for Flux, or fo bootstrap")
    rules = seen.get("ingress") if isinstance(seen, dict) else None
    if not rules or rules[-1] != {"service": CLOSING}:
        return failed(f"the last ingress rule is not the closing {CLOSING}", fix=f"end the rules in {CONFIG} with it")
    return passed(f"{len(rules) - 1} routes and the closing {CLOSING}, as in Git")


def _tunnel(config_map: Object, sight: Sight) -> Any:
    """The tunnel's settings inside the ConfigMap, with the cluster's public settings filled in as Flux does."""
    text = str(config_map.get("data", {}).get("config.yaml", ""))
    for key, value in sight.config.settings.items():
        text = text.replace("${" + key + "}", value)
    return yaml.safe_load(text)


def connected(sight: Sight) -> Answer:
    """The tunnel's Deployment is available; its readiness probe is cloudflared's own count of connections."""
    deployment = _named(sight.list(DEPLOYMENT), "cloudflared")
    if isinstance(deployment, tuple):
        return deployment
    if deployment is None:
        return failed("the Deployment cloudflared/cloudflared is missing")
    return judge(Present([deployment]), "tunnel Deployments")


CHECKS = (
    Check("FO-CFD-001", "the tunnel's Secret to hold the env file's token", token),
    Check("FO-CFD-002", "the tunnel's routes to be those in Git", routes),
    Check("FO-CFD-003", "the tunnel to be connected", connected),
)
