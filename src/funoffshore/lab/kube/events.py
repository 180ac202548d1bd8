"""Events: what the cluster says of objects that do not get where they should be."""

from __future__ import annotations

import zlib

from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.core import Core


class Events:
    """Writes ``v1/Event`` objects beside those that they are about; the same event again only counts."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def warn(self, obj: Object, reason: str, message: str, component: str) -> None:
        """``component`` is who says it: kubelet, default-scheduler, …"""
        self.say(obj, reason, message, component, type_="Warning")

    def say(self, obj: Object, reason: str, message: str, component: str, *, type_: str = "Normal") -> None:
        """Nothing happens when this was the last that was said with this reason."""
        meta, kind, now = obj["metadata"], self._core.kinds.get("v1/Event"), self._core.stamp()
        namespace = meta.get("namespace") or "default"
        seed = f"{meta['uid']} {reason}"
        name = f"{meta['name']}.{zlib.crc32(seed.encode()):016x}"
        with self._core.objects.lock:
            kept = self._core.find(kind, namespace, name)
            if kept and kept.body.get("message") == message:
                return
            if kept:
                again = {"message": message, "lastTimestamp": now, "count": kept.body.get("count", 1) + 1}
                self._core.change(kind, namespace, name, lambda o: o.update(again))
                return
            about = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "name": meta["name"], "uid": meta["uid"],
                     "resourceVersion": meta["resourceVersion"]}  # fmt: skip
            about |= {"namespace": namespace} if meta.get("namespace") else {}
            self._core.create(kind, {
                "metadata": {"name": name, "namespace": namespace}, "type": type_, "reason": reason,
                "message": message, "involvedObject": about, "source": {"component": component}, "count": 1,
                "reportingComponent": component, "firstTimestamp": now, "lastTimestamp": now,
            }, component)  # fmt: skip
