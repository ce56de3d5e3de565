"""Azure Resource Manager of the laptop AKS."""

from aksgpu.local.arm.context import Clusters
from aksgpu.local.arm.resource_manager import ResourceManager

__all__ = ["Clusters", "ResourceManager"]
