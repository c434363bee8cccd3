/**
 * What runs in a guest before its command: process 1 of the initial root, a busybox script, and the
 * script that becomes the command. The image's own root is mounted at /image and the command runs
 * chrooted into it; the initial root stays beside it, out of the command's sight, for process 1 and
 * the agent. Nothing is added to the image's files but mount points that are missing.
 */
import type { GuestSpec } from "../../domain/index.ts";
import { FILE_TYPE, makeCpio } from "./cpio.ts";
import { AGENT_PORT } from "./guest-agent.ts";

/** What process 1 writes on the console just before the command. */
export const STARTED_MARK = "templatecenter: command started";
/** What it writes when a trial boot got as far as running it. */
export const TRIAL_MARK = "templatecenter: trial guest runs";

/** In load order: each needs the ones before it. */
export const GUEST_MODULES = [
  "virtio_ring",
  "virtio",
  "virtio_pci_modern_dev",
  "virtio_pci_legacy_dev",
  "virtio_pci",
  "virtio_mmio",
  "virtio_blk",
  "failover",
  "net_failover",
  "virtio_net",
  "virtio-rng",
  "virtio_console",
] as const;

/** In the image's /dev, which is the kernel's own: seen by the command, but no file of its disk. */
const HIDDEN = "/dev/.templatecenter";

export const INIT_SCRIPT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
case " $(cat /proc/cmdline) " in
*" templatecenter.trial "*) echo "${TRIAL_MARK}"; poweroff -f ;;
esac
for module in ${GUEST_MODULES.join(" ")}; do
  [ ! -f /modules/$module.ko ] || insmod /modules/$module.ko
done
hostname sandbox
ip link set lo up
n=0
until [ -e /dev/vda ] || [ $n -ge 500 ]; do n=$((n + 1)); usleep 10000; done
mount -t ext4 -o rw,noatime /dev/vda /image || {
  echo "templatecenter: the root filesystem does not mount"
  poweroff -f
}
for dir in proc sys dev; do [ -d /image/$dir ] || mkdir -p /image/$dir; done
mount -t proc proc /image/proc
mount -t sysfs sys /image/sys
mount -o bind /dev /image/dev
mkdir -p /dev/pts /dev/shm ${HIDDEN}
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -o bind /dev/pts /image/dev/pts
mount -o bind /dev/shm /image/dev/shm
for link in fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  ln -sf \${link#*:} /dev/\${link%%:*}
done
n=0
until [ -e /sys/class/net/eth0 ] || [ $n -ge 100 ]; do n=$((n + 1)); usleep 10000; done
ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
[ -d /image/etc ] || mkdir -p /image/etc
[ -s /image/etc/resolv.conf ] || echo "nameserver 10.0.2.3" > /image/etc/resolv.conf
[ -s /image/etc/hosts ] || echo "127.0.0.1 localhost sandbox" > /image/etc/hosts
cp /bin/busybox ${HIDDEN}/busybox
cp /guest/run.sh /guest/envd.sh ${HIDDEN}/
n=0
agent=
until [ -n "$agent" ] || [ $n -ge 200 ]; do
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name 2>/dev/null)" != "${AGENT_PORT}" ] || agent=/dev/\${port##*/}
  done
  [ -n "$agent" ] || usleep 10000
  n=$((n + 1))
done
/agent $agent &
ulimit -n 1000000
if [ -f /image/usr/local/bin/envd ] && [ -x /image/usr/local/bin/envd ]; then
  chroot /image ${HIDDEN}/busybox sh ${HIDDEN}/envd.sh < /dev/null &
fi
echo "${STARTED_MARK}"
chroot /image ${HIDDEN}/busybox sh ${HIDDEN}/run.sh < /dev/null &
command=$!
wait $command
echo "templatecenter: command ended with code $?"
sync
mount -o remount,ro /image 2> /dev/null
poweroff -f
`;

/** For the shell: everything between single quotes is literal but the single quote. */
const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Replaces the shell by a program with exactly that environment; `setsid` ends the assignments. */
const become = (env: readonly string[], words: readonly string[]): string =>
  ["exec", `${HIDDEN}/busybox`, "env", "-i"]
    .concat(env.filter((pair) => pair.indexOf("=") > 0).map(quote))
    .concat([`${HIDDEN}/busybox`, "setsid"], words.map(quote))
    .join(" ");

/** The script that becomes the guest's command, inside the image's root. */
export function runScript(guest: GuestSpec): string {
  const words = [...guest.command, ...guest.args];
  const env = guest.env.some((pair) => pair.startsWith("PATH=")) ? guest.env : [PATH, ...guest.env];
  const dir = guest.workingDir.startsWith("/") ? guest.workingDir : `/${guest.workingDir}`;
  const box = `${HIDDEN}/busybox`;
  // An image without a command still makes a sandbox that stays up.
  const start = words.length === 0 ? `exec ${box} sleep 2147483647` : become(env, words);
  return `[ -d ${quote(dir)} ] || ${box} mkdir -p ${quote(dir)}\ncd ${quote(dir)} || exit 126\n${start}\n`;
}

/** What is joined to the initramfs for one guest. Words cannot hold NUL: no program can take it. */
export function guestArchive(guest: GuestSpec): Buffer {
  const script = (path: string, text: string) => ({
    path,
    mode: FILE_TYPE.file | 0o644,
    content: Buffer.from(text.replaceAll("\0", "")),
  });
  return makeCpio([
    script("guest/run.sh", runScript(guest)),
    script("guest/envd.sh", `cd /\n${become([PATH], ["/usr/local/bin/envd"])}\n`),
  ]);
}
