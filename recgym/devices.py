"""Devices that a simulation can run on."""

from __future__ import annotations

import torch

from recgym.errors import RecGymError


def usable(device: str | torch.device) -> torch.device:
    """The device called ``device``, once it has been seen to compute.

    Raises:
        RecGymError: there is no such device here; the message lists those there are.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:  # torch's, by kind of device
        cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        reason = str(error).strip().splitlines()[0]
        raise RecGymError(f"device {device!r} cannot be used ({reason}). Here: {', '.join(['cpu', *cuda])}.") from error
    return found
