"""The memory of this process."""

from __future__ import annotations

import sys


def peak_mib() -> float:
    """The most memory that this process has had so far, in MiB; 0 where the system does not say (no ``/proc``).

    Not ``ru_maxrss``: that begins with what the parent held when it started this process, over ``exec`` too.
    """
    if sys.platform != "linux":
        return 0.0
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
