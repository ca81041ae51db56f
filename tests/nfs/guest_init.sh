#!/bin/sh
# PID 1 of a User-Mode Linux guest. The root is the host's whole tree over hostfs, read-only, so a
# checkout and its virtual environment lie at the same path. Settings arrive on the kernel's command
# line as NAME=value.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mount -t tmpfs tmp /mnt
mkdir -p /mnt/host /mnt/tmp /mnt/home
mount -t hostfs none -o "$RIG_FOLDER" /mnt/host
export TMPDIR=/mnt/tmp HOME=/mnt/home
hostname "$RIG_NAME" # an NFSv4.1 client is known by it: two of one name throw each other out
ip link set lo up
if [ -n "$RIG_ADDRESS" ]; then
  ip addr add "$RIG_ADDRESS/30" dev vec0
  ip link set vec0 up
  ip route add default via "${RIG_ADDRESS%.*}.1"
  # TCP then tries a lost packet again after 0.5, 1.5, 3.5, 7.5 and 15.5 s, not after 12.6 and 25.4:
  # a partition of 15 s is over when it is over.
  ip route change "${RIG_ADDRESS%.*}.0/30" dev vec0 rto_min 500ms
fi
for module in nfsv4 sch_netem; do modprobe -d /mnt/host/modules $module; done
stty -F /dev/ttyS0 raw -echo
exec "$RIG_PYTHON" -S -E "$RIG_AGENT" </dev/null
