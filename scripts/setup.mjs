// Makes a fresh clone ready: npm packages, build, Debian packages, guest assets. Says what it does
// before it does it, and does nothing that is done already.
//   node scripts/setup.mjs build|demo|test|bench
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const goal = process.argv[2] ?? "build";
const say = (text) => console.error(`setup: ${text}`);
const run = (file, args, options = {}) =>
  execFileSync(file, args, { cwd: root, stdio: ["ignore", 2, 2], ...options });

/** Package → a program or file that shows it is there. */
const DEMO = {
  "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
  e2fsprogs: "/sbin/e2fsck",
  "busybox-static": "/bin/busybox",
};
const TEST = {
  ...DEMO,
  "qemu-utils": "/usr/bin/qemu-img",
  umoci: "/usr/bin/umoci",
  skopeo: "/usr/bin/skopeo",
  "docker-registry": "/usr/bin/docker-registry",
  chromium: "/usr/bin/chromium",
  "systemd-container": "/usr/bin/systemd-nspawn",
  attr: "/usr/bin/getfattr",
  "libcap2-bin": "/sbin/getcap",
  cpio: "/bin/cpio",
  zstd: "/usr/bin/zstd",
  curl: "/usr/bin/curl",
  openssl: "/usr/bin/openssl",
  procps: "/usr/bin/pgrep",
  iproute2: "/sbin/ip",
  faketime: "/usr/bin/faketime",
  xfsprogs: "/sbin/mkfs.xfs",
};
const PACKAGES = {
  build: {},
  demo: DEMO,
  test: TEST,
  bench: {
    ...TEST,
    debootstrap: "/usr/sbin/debootstrap",
    wrk: "/usr/bin/wrk",
    serf: "/usr/bin/serf",
    "etcd-server": "/usr/bin/etcd",
    aria2: "/usr/bin/aria2c",
  },
};
const wanted = PACKAGES[goal];
if (wanted === undefined) {
  say(`unknown goal ${goal}: one of ${Object.keys(PACKAGES).join(", ")}`);
  process.exit(2);
}

function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) time = Math.max(time, statSync(join(entry.parentPath, entry.name)).mtimeMs);
  }
  return time;
}

function installModules() {
  const lock = readFileSync(join(root, "package-lock.json"), "utf8");
  const mark = join(root, "node_modules/.templatecenter-lock");
  if (existsSync(mark) && readFileSync(mark, "utf8") === lock) return;
  say("npm ci: installing the packages of package-lock.json");
  run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
  writeFileSync(mark, lock);
}

function build() {
  const built = join(root, "dist/daemon/main.js");
  if (existsSync(built) && statSync(built).mtimeMs > newest(join(root, "src"))) return;
  say("building dist/ from src/");
  run(process.execPath, [join(root, "scripts/build.mjs")]);
}

function installPackages() {
  const missing = Object.keys(wanted).filter((name) => !existsSync(wanted[name]));
  if (missing.length === 0) return;
  if (spawnSync("apt-get", ["--version"]).status !== 0) {
    say(`please install what Debian calls: ${missing.join(" ")}`);
    process.exit(1);
  }
  if (process.getuid() !== 0) {
    say(`these Debian packages are missing; as root: apt-get install ${missing.join(" ")}`);
    process.exit(1);
  }
  say(`installing Debian packages: ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  run("apt-get", ["update", "-qq"], { env });
  run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...missing], { env });
}

function installGuest() {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
  const dir = process.env.TEMPLATECENTER_GUEST_DIR ?? join(cache, "templatecenter/guest");
  const main = join(root, "dist/daemon/main.js");
  const known = spawnSync(process.execPath, [main, "guest", "info", "--dir", dir]);
  if (known.status !== 0) say(`making the guest's kernel and initial root in ${dir}`);
  if (process.getuid() === 0 && readdirSync("/var/lib/apt/lists").length < 3) {
    run("apt-get", ["update", "-qq"]);
  }
  mkdirSync(dirname(dir), { recursive: true });
  // Does nothing when they are there, whole, and of this version.
  run(process.execPath, [main, "guest", "install", "--dir", dir]);
}

installModules();
build();
if (goal !== "build") {
  installPackages();
  installGuest();
}
