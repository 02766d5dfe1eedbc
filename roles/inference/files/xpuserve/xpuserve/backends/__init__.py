"""One module for each engine library; a library is imported only when its engine is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpuserve.engine.backend import Backend
    from xpuserve.settings import Settings


def create(settings: Settings, instance: int) -> Backend:
    """The backend that `settings.engine` names, not loaded yet; `instance` picks the GPU where several are visible."""
    if settings.engine == "openvino":
        from xpuserve.backends.openvino import OpenVINOBackend  # noqa: PLC0415

        return OpenVINOBackend(settings, instance)
    if settings.engine == "torch":
        from xpuserve.backends.torch import TorchBackend  # noqa: PLC0415

        return TorchBackend(settings)
    from xpuserve.backends.bigdl import BigDLBackend  # noqa: PLC0415

    return BigDLBackend(settings)
