// Hosts of a small network on this machine: network namespaces on one bridge, with the kernel's own
// counters of what went over each one's cable. Needs root.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";

const ip = (...args) => execFileSync("ip", args, { encoding: "utf8" });
const living = new Set();
process.on("exit", () => living.forEach((remove) => remove()));

/**
 * @param {number} count
 * @returns {{hub: {name: string, address: string}, hosts: {name: string, address: string,
 *   traffic: () => {sent: number, received: number}}[], remove: () => void}} the hub is the bridge;
 *   traffic in bytes since the host was made, headers included
 */
export function makeNetwork(count) {
  const id = randomBytes(3).toString("hex");
  const hub = { name: `tcb-${id}-hub`, address: "10.78.0.254" };
  const made = [];
  const remove = () => {
    living.delete(remove);
    for (const name of made.splice(0)) {
      try {
        ip("netns", "del", name);
      } catch {
        // Gone already.
      }
    }
  };
  living.add(remove);
  const add = (name) => {
    ip("netns", "add", name);
    made.push(name);
    ip("-n", name, "link", "set", "lo", "up");
  };
  add(hub.name);
  ip("-n", hub.name, "link", "add", "br0", "type", "bridge");
  ip("-n", hub.name, "address", "add", `${hub.address}/24`, "dev", "br0");
  ip("-n", hub.name, "link", "set", "br0", "up");
  const hosts = Array.from({ length: count }, (_, index) => {
    const host = { name: `tcb-${id}-${index}`, address: `10.78.0.${index + 1}` };
    add(host.name);
    const peer = ["peer", "name", `b${index}`, "netns", hub.name];
    ip("link", "add", "eth0", "netns", host.name, "type", "veth", ...peer);
    ip("-n", hub.name, "link", "set", `b${index}`, "master", "br0", "up");
    ip("-n", host.name, "address", "add", `${host.address}/24`, "dev", "eth0");
    ip("-n", host.name, "link", "set", "eth0", "up");
    const traffic = () => {
      const [link] = JSON.parse(ip("-n", host.name, "-s", "-j", "link", "show", "dev", "eth0"));
      return { sent: link.stats64.tx.bytes, received: link.stats64.rx.bytes };
    };
    return { ...host, traffic };
  });
  return { hub, hosts, remove };
}

/** The command as one that runs in the namespace; it keeps the process id. */
export const inside = (namespace, command) =>
  namespace === undefined ? command : ["ip", "netns", "exec", namespace, ...command];
