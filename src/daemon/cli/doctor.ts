/** `doctor`: is this host fit, and is the cluster well? Asks the daemon; says what to do. */
import type { Command } from "commander";
import {
  AppError,
  isActiveJob,
  isAppError,
  type ClusterView,
  type GcReport,
  type JobInfo,
  type NodeFact,
  type Page,
} from "../../domain/index.ts";
import type { Client } from "./client.ts";
import { withJson, type CliContext } from "./context.ts";
import { json, table } from "./table.ts";

export interface Finding {
  readonly check: string;
  readonly result: "ok" | "warn" | "fail";
  readonly detail: string;
}

/** A job that has not moved for so long is worth a look. */
const STUCK_MS = 10 * 60_000;
const OLDEST_NODE = [20, 19] as const;

export function registerDoctor(program: Command, context: CliContext): void {
  const { io } = context;
  withJson(program.command("doctor"))
    .description("check this host and its cluster; exit code 1 when something fails")
    .action(async (flags: { json?: boolean }, command: Command) => {
      const findings = [runtimeFinding()];
      try {
        await context.withClient(command, async (client) => {
          findings.push(...(await hostFindings(client)));
          findings.push(...clusterFindings((await client.json("/v1/cluster")) as ClusterView));
          findings.push(await jobFinding(client, io.clock.now()));
          findings.push(await orphanFinding(client));
        });
      } catch (error) {
        if (!isAppError(error)) throw error;
        findings.push({ check: "daemon", result: "fail", detail: error.message });
      }
      const rows = findings.map(({ check, result, detail }) => [result, check, detail]);
      io.out(flags.json === true ? json({ items: findings }) : table(["", "CHECK", ""], rows));
      const failed = findings.filter(({ result }) => result === "fail").length;
      if (failed > 0)
        throw new AppError("internal", `${failed} of ${findings.length} checks failed`);
    });
}

function runtimeFinding(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [least, leastMinor] = OLDEST_NODE;
  const isFit = major > least || (major === least && minor >= leastMinor);
  return {
    check: "Node.js",
    result: isFit ? "ok" : "fail",
    detail: `${process.versions.node}; ${least}.${leastMinor} or newer is needed`,
  };
}

async function hostFindings(client: Client): Promise<Finding[]> {
  const node = (await client.json("/v1/nodes/self")) as NodeFact;
  const { mode, usage_pct } = node.storage;
  const disk = mode === "healthy" ? "ok" : mode === "warn" || mode === "unknown" ? "warn" : "fail";
  return [
    { check: "daemon", result: "ok", detail: `${node.node_id}, version ${node.version}` },
    driverFinding(node),
    { check: "disk", result: disk, detail: `${usage_pct} % used, ${mode}` },
  ];
}

function driverFinding({ driver, driver_detail, driver_error }: NodeFact): Finding {
  if (driver_error !== undefined) {
    return {
      check: "driver",
      result: "fail",
      detail: `${driver}: ${driver_error}; see \`runtime check\``,
    };
  }
  const result = driver === "rootfs" ? "warn" : "ok";
  return { check: "driver", result, detail: `${driver}: ${driver_detail}` };
}

/** What of the cluster needs an operator. */
export function clusterFindings(view: ClusterView): Finding[] {
  const { quorum } = view;
  if (!view.clustered) {
    return [{ check: "cluster", result: "ok", detail: "this node is alone, its own quorum" }];
  }
  const findings: Finding[] = [
    {
      check: "quorum",
      result: !quorum.available ? "fail" : quorum.note === "" ? "ok" : "warn",
      detail: quorum.note || `voters ${quorum.voters.join(", ")}`,
    },
  ];
  const down = view.members.filter((member) => member.liveness !== "alive");
  findings.push({
    check: "members",
    result: down.some((member) => member.liveness === "dead")
      ? "fail"
      : down.length > 0
        ? "warn"
        : "ok",
    detail:
      down.length === 0
        ? `${view.members.length} alive`
        : down
            .map((one) => `${one.node_id} is ${one.liveness} since ${one.liveness_since}`)
            .join("; "),
  });
  for (const { node_id, since, count } of view.divergence) {
    findings.push({
      check: "agreement",
      result: "warn",
      detail: `${node_id} and ${view.node_id} disagree on ${count} entries since ${since}`,
    });
  }
  for (const { code, node_id, detail, advice, since } of view.warnings) {
    const text = `${node_id}: ${detail} (${code}, since ${since}); ${advice}`;
    findings.push({ check: "peers", result: "fail", detail: text });
  }
  const warming = view.members.filter((member) => member.liveness === "alive" && !member.warm);
  for (const { node_id, coverage_pct } of warming) {
    const detail = `${node_id} is being filled: ${coverage_pct} %`;
    findings.push({ check: "coverage", result: "warn", detail });
  }
  return findings;
}

async function jobFinding(client: Client, now: number): Promise<Finding> {
  const { items } = (await client.json("/v1/jobs")) as Page<JobInfo>;
  const stuck = items.filter(
    (job) => isActiveJob(job) && now - Date.parse(job.updated_at) > STUCK_MS,
  );
  return {
    check: "jobs",
    result: stuck.length === 0 ? "ok" : "warn",
    detail:
      stuck.length === 0
        ? `${items.filter(isActiveJob).length} active, none stands still`
        : `without a change for long: ${stuck.map((job) => job.job_id).join(", ")}`,
  };
}

/** A node that does not answer is told of elsewhere. */
async function orphanFinding(client: Client): Promise<Finding> {
  const plan = (await client.json("/v1/gc?dry_run=true", { method: "POST" })) as GcReport;
  return orphansFinding(plan);
}

/** Files that nothing knows, and when they go; those that are nowhere else by their names. */
export function orphansFinding({ orphans }: Pick<GcReport, "orphans">): Finding {
  const check = "orphans";
  const kept = orphans.filter(({ removed }) => !removed);
  if (kept.length === 0) return { check, result: "ok", detail: "no files that nothing knows" };
  const frozen = kept.filter(({ name }) => name.startsWith("snap-"));
  const what = `${kept.length} on the disks that nothing knows, see \`gc --dry-run\``;
  if (frozen.length === 0) return { check, result: "ok", detail: what };
  const names = frozen.map(({ node_id, folder, name, due_at }) => {
    return `${folder}/${name} on ${node_id} until ${due_at}`;
  });
  const detail = `snapshots of sandboxes without a record, move away what you need: ${names.join(", ")}`;
  return { check, result: "warn", detail };
}
