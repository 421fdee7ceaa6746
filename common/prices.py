"""What an hour of a machine costs: a default with its source, for those who do not set --gpu-price."""

from common.hardware import Machine

# On-demand prices in dollars per hour, seen in 2026; a slug of hardware.Machine, or "cpu".
PRICES = {"h100": (2.99, "Lambda, on-demand, 1 × H100 SXM"), "cpu": (0.0893, "AWS c7i.large, 2 vCPU, on-demand")}


def per_hour(machine: Machine, given: float | None) -> tuple[float | None, str]:
    """(dollars per hour, where the price comes from): `given` first, else ours, or None for hardware without one."""
    if given is not None:
        return given, "given with --gpu-price"
    return PRICES.get(machine.slug, (None, "no price known for this hardware: set --gpu-price"))
