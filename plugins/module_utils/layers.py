"""The layers of a node, from the ground up: data only. Whatever has to know the layers reads it here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer; its name is its tag in the playbooks too."""

    name: str
    #: The role that says what is expected of it, and brings it about.
    role: str
    #: Layers whose change this one has to follow: its role runs again where theirs does.
    builds_on: tuple[str, ...] = ()
    #: Layers without whose roles its own does not run: they work out what it needs.
    runs_with: tuple[str, ...] = ()
    #: Rollback records of the packages that its role installs, the one that was begun last first.
    records: tuple[str, ...] = ()


#: What the node itself is. Role stack looks at it and changes nothing, so site.yml runs no role for it.
PLATFORM = "platform"

LAYERS = (
    Layer(PLATFORM, "stack"),
    Layer("repository", "graphics_repository"),
    Layer("kernel", "kernel", builds_on=(PLATFORM, "repository"), records=("kernel",)),
    Layer("driver", "gpu_driver", builds_on=(PLATFORM, "repository", "kernel"), records=("driver", "modules")),
    Layer("access", "render_access"),
    Layer("oneapi", "oneapi", builds_on=(PLATFORM,), records=("oneapi",)),
    Layer("python", "python_runtime", records=("python",)),
    Layer("model", "model", builds_on=("python",)),
    Layer("service", "inference", builds_on=("driver", "access", "oneapi", "python", "model"), runs_with=("model",)),
)
NAMES = tuple(layer.name for layer in LAYERS)
#: The role that site.yml runs for a layer, by the layer's name.
ROLES = {layer.name: layer.role for layer in LAYERS if layer.name != PLATFORM}
