"""Disks that are full, read-only, unmounted, frozen or gone: real mounts, real processes.

namespace   a mount namespace of its own: whatever happens, nothing stays mounted
acting      the command line with somebody else's command in the middle
shop        a store and a target on such mounts, driven by the command line
"""
