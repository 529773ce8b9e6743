#!/bin/bash
# guest.sh FOLDER PROGRAM: makes FOLDER/vmlinuz and FOLDER/initramfs, Debian's kernel and a guest that runs PROGRAM on its serial
# line, with a disk (virtio). Ends with 77 where it cannot be made; stdout says why.
set -euo pipefail
. "$(dirname "$0")/../vm/guest.sh"

folder=$1 program=$2
need qemu-system-x86_64 strip
unpack_kernel
begin_root "$folder/root"
put "$program" /guest
strip "$root/guest"
put_modules virtio_pci virtio_blk
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
while [ ! -b /dev/vda ]; do sleep 0.1; done
/guest </dev/ttyS0 >/dev/ttyS0 2>&1
echo "guest ended: $?" >/dev/ttyS0
poweroff -f
INIT
chmod +x "$root/init"
pack "$folder/initramfs"
cp "$cache/$release/boot/vmlinuz-$release" "$folder/vmlinuz"
rm -rf "$root"
