"""The laptop's Azure Resource Manager."""

from aksgpu.local.arm.context import Clusters
from aksgpu.local.arm.manager import ResourceManager

__all__ = ["Clusters", "ResourceManager"]
