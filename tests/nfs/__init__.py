"""START HERE: moorline on real NFS, on one plain machine, and on a share that imitates EFS.

Three rigs, from real to quick; `conftest` starts each once. In a guest every program is a fork of
one process, `guest_server`.

    solo.SoloRig          one User-Mode Linux: the kernel's NFS server and two clients with caches
                          of their own. No privileges, 5 s.
    pair.Rig              two User-Mode Linux machines against nfs-ganesha with EFS's manners: 177
                          links, latency, errors on order, power cuts. Root, tun, 4 s.
    simulator.Simulator   a FUSE mount with EFS's latency, limits and faults. /dev/fuse, 0.3 s.

"Real" is Linux's NFSv4.1 client with the options of the EFS mount helper. No EFS is involved: where
two servers differ, EFS is unknown. Nothing is skipped: what a machine lacks is said by `needs`.
"""
