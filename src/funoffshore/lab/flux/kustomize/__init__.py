"""What ``kustomize build`` makes of a folder, for the fields that a GitOps tree uses. Pure: files in, objects out.

Behaviour as documented at kubectl.docs.kubernetes.io/references/kustomize and in kustomize's ``api`` module. A field
that exists in kustomize and not here is refused by name, as is one that does not exist.
"""

from __future__ import annotations

from funoffshore.lab.flux.kustomize.build import Overlay, build
from funoffshore.lab.flux.kustomize.documents import BuildError, Object, load_all

__all__ = ["BuildError", "Object", "Overlay", "build", "load_all"]
