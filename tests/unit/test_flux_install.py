"""The published install manifest carries no release; fo writes it down, so that a rerun knows what is there."""

from __future__ import annotations

import yaml

from funoffshore.lab.flux.install import install_manifest
from funoffshore.stages.flux import work

LABEL = "app.kubernetes.io/version"


def test_the_published_manifest_does_not_say_which_release_it_is() -> None:
    documents = list(yaml.safe_load_all(install_manifest("v2.9.4")))
    assert len(documents) > 20
    assert not [d for d in documents if LABEL in (d["metadata"].get("labels") or {})]


def test_what_fo_applies_says_it_on_every_object_and_in_no_pod_template() -> None:
    objects = work.stamped(work.default_components(install_manifest("v2.9.4").encode()), "v2.9.4")
    assert {o["metadata"]["labels"][LABEL] for o in objects} == {"v2.9.4"}
    deployments = [o for o in objects if o["kind"] == "Deployment"]
    assert len(deployments) == 4
    assert not [d for d in deployments if LABEL in d["spec"]["template"]["metadata"]["labels"]]
