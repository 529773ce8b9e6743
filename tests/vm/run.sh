#!/bin/bash
# run.sh [-f FILE]... [-m MODULE]... [-t SECONDS] 'COMMANDS': boots Debian's kernel with Soft-RoCE (rdma_rxe) under QEMU,
# runs COMMANDS in it as root, and ends with their exit code.
#
# The guest is busybox, the modules of Soft-RoCE and each MODULE, and each FILE at its own path with the libraries it is
# linked with. It has no disk and no network but lo and two ends of a veth pair, v0 (10.9.0.1, with the RDMA device rxe0)
# and v1.
# Codes of its own: 77, something is missing here (stdout says what: "SKIP: ..."); 125, the guest ended without a code.
set -euo pipefail

files=()
modules=()
seconds=600
while getopts f:m:t: option; do
    case $option in
        f) files+=("$OPTARG") ;;
        m) modules+=("$OPTARG") ;;
        t) seconds=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
commands=${1:?commands for the guest}
. "$(dirname "$0")/guest.sh"

need qemu-system-x86_64 ip rdma
provider=$(find /usr/lib -name 'librxe-rdmav*.so' -print -quit 2>/dev/null)
[ -n "$provider" ] || skip "no provider for Soft-RoCE here (Debian: ibverbs-providers)"
library=$(ldconfig -p | sed -n 's/.*libibverbs\.so\.1 .*=> //p' | head -1)
[ -n "$library" ] || skip "no libibverbs here (Debian: libibverbs1)"

unpack_kernel

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# qemu SECONDS INITRAMFS OPTION...: a guest, and what it writes to its console.
qemu() {
    timeout "$1" qemu-system-x86_64 "${@:3}" -smp 2 -m 1024 -nodefaults -no-user-config -display none -serial stdio \
        -no-reboot -kernel "$cache/$release/boot/vmlinuz-$release" -initrd "$2" \
        -append 'console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check' </dev/null 2>&1
}

# Whether a guest comes to its end with KVM: /dev/kvm may be there and not work (a nested guest that stops).
kvm_works() {
    [ -w /dev/kvm ] || return 1
    mkdir -p "$work/probe/bin"
    cp "$(command -v busybox)" "$work/probe/bin/busybox"
    printf '%s\n' '#!/bin/busybox sh' 'echo GUEST_LIVES' '/bin/busybox poweroff -f' >"$work/probe/init"
    chmod +x "$work/probe/init"
    (cd "$work/probe" && find . | cpio -o -H newc --quiet) >"$work/probe.cpio"
    qemu "$PROBE_SECONDS" "$work/probe.cpio" -accel kvm -cpu host >"$work/probe.log" || return 1
    grep -q GUEST_LIVES "$work/probe.log"
}
PROBE_SECONDS=30

# Asked once, until the machine is booted again.
verdict=$cache/kvm-$(cat /proc/sys/kernel/random/boot_id)-$release
if [ ! -e "$verdict" ]; then
    rm -f "$cache"/kvm-*
    if kvm_works; then echo kvm; else echo tcg; fi >"$verdict"
fi
flock -u 9
case $(cat "$verdict") in
    kvm) accelerator=(-accel kvm -cpu host) && echo "guest: with KVM" ;;
    *) accelerator=(-accel tcg,thread=multi -cpu max) && echo "guest: emulated, as KVM is not here or does not work" ;;
esac

begin_root "$work/root"
mkdir -p "$root/etc/libibverbs.d"
for file in "$provider" "$library" "${files[@]}"; do
    put "$(realpath -s "$file")"
done
put "$(command -v ip)" /usr/sbin/ip
put "$(command -v rdma)" /usr/sbin/rdma
cp /etc/libibverbs.d/rxe.driver "$root/etc/libibverbs.d/"

put_modules crc32_generic rdma_rxe ib_uverbs veth "${modules[@]}"

printf '%s\n' "$commands" >"$root/commands"
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /run
for module in /modules/*; do insmod \$module; done
mkdir -p /dev/infiniband
ulimit -l unlimited
# The shell's own ip does less.
ip() { /usr/sbin/ip "\$@"; }
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 10.9.0.1/24 dev v0
ip link set v0 mtu 9000 up
ip link set v1 mtu 9000 up
rdma link add rxe0 type rxe netdev v0
sh /commands
echo "GUEST_EXIT=\$?"
poweroff -f
INIT
chmod +x "$root/init"
pack "$work/initramfs"

# On a busy machine the kernel finds an emulator's timer too slow to be one, and goes on with a worse or stops
# (no_timer_check); and its clock would be one that every look leaves the guest for (tsc=reliable).
qemu "$seconds" "$work/initramfs" "${accelerator[@]}" |
    sed -u 's/\r//g; s/\x1b\[[0-9;?]*[A-Za-z]//g; s/\x1bc//g' | tee "$work/log" || true
code=$(sed -n 's/.*GUEST_EXIT=\([0-9]*\).*/\1/p' "$work/log" | tail -1)
exit "${code:-125}"
