"""The layers of a node, from the ground up: data only. All code that needs the layers reads them here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer; its name is also its tag in the playbooks."""

    name: str
    #: The role that states its expectation and reaches it.
    role: str
    #: Layers that it depends on: its role runs again if theirs does.
    builds_on: tuple[str, ...] = ()
    #: Layers whose roles have to run before its own: they work out its inputs.
    runs_with: tuple[str, ...] = ()
    #: Rollback records of the packages that its role installs, the newest first.
    records: tuple[str, ...] = ()


#: The node itself. Role stack checks it and changes nothing, so site.yml runs no role for it.
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
