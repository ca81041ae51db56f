#!/bin/sh
# In the guest of a SoloRig: the kernel's NFS server on an ext4 image, and clients a and b, each in
# a network namespace of its own and so with an NFS client id, sessions and caches of its own.
set -e
for module in loop nfsd veth sch_netem; do modprobe -d /mnt/host/modules $module; done
mkdir -p /mnt/export /mnt/a /mnt/b
truncate -s "${SIZE_MB}M" /mnt/tmp/image
mkfs.ext4 -q -F -m 0 -J size=8 /mnt/tmp/image
mount -o loop /mnt/tmp/image /mnt/export
rmdir /mnt/export/lost+found
chmod 1777 /mnt/export

mount -t tmpfs tmp /var/lib/nfs
mkdir /var/lib/nfs/v4recovery
: > /var/lib/nfs/etab
: > /var/lib/nfs/rmtab
mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,no_root_squash,fsid=0,no_subtree_check,insecure '*:/mnt/export'
rpc.mountd -N 3 2>/dev/null
echo 0 > /proc/sys/fs/leases-enable # EFS gives no delegations
# Long: no test waits for a lease to end, and a machine that is busy must not lose one.
echo 60 > /proc/fs/nfsd/nfsv4leasetime
echo 60 > /proc/fs/nfsd/nfsv4gracetime
echo 1048576 > /proc/fs/nfsd/max_block_size
rpc.nfsd -N 3 -U -V 4.1 -N 4.2 8
echo Y > /proc/fs/nfsd/v4_end_grace

# A host name each: an NFSv4.1 client is known by it, and two of one name throw each other out.
# nsenter and not "ip netns exec", which would mount into a mount namespace of its own.
client() { # name, number
  ip netns add "$1"
  ip link add "v$1" type veth peer name e0 netns "$1"
  ip addr add "10.78.$2.1/30" dev "v$1"
  ip link set "v$1" up
  ip -n "$1" addr add "10.78.$2.2/30" dev e0
  ip -n "$1" link set e0 up
  ip -n "$1" link set lo up
  nsenter --net="/run/netns/$1" unshare --uts sh -c \
    "hostname $1; exec mount -t nfs4 -o $EFS_OPTIONS 10.78.$2.1:/ /mnt/$1"
  mkdir "/mnt/tmp/$1"
}
client a 1
client b 2
