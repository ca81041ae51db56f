"""START HERE: moorline on real NFS, on one plain machine, and on a share that imitates EFS.

Three rigs, from real to quick. Each test module uses one of them; `conftest` starts each once.

    solo.SoloRig          one User-Mode Linux: the kernel's NFS server and two clients with caches
                          of their own. No privileges, 5 s.
    pair.Rig              two User-Mode Linux machines against nfs-ganesha with EFS's manners: 177
                          links, latency, errors on order, power cuts. Root, tun, 4 s.
    simulator.Simulator   a FUSE mount with EFS's latency, limits and faults. /dev/fuse, 0.3 s.

"Real" is Linux's NFSv4.1 client with the options of the EFS mount helper. No EFS is involved: where
two servers differ, EFS is unknown. What a machine lacks is said by `needs`: a missing package fails
the tests, and only a missing feature of the kernel, or of the user's rights, skips them.
"""
