import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { describe, expect, test } from "vitest";
import {
  describeConfig,
  environmentName,
  exampleConfig,
  loadConfig,
} from "../../../src/daemon/config.ts";
import { ERRORS, isAppError } from "../../../src/domain/index.ts";

const path = "/etc/templatecenter/config.toml";
const root = join(import.meta.dirname, "../../..");

function load(
  input: {
    flags?: Record<string, unknown>;
    environment?: Record<string, string>;
    toml?: string;
  } = {},
) {
  return loadConfig({
    flags: input.flags ?? {},
    environment: input.environment ?? {},
    hostname: "host-a",
    ...(input.toml === undefined ? {} : { file: { path, text: input.toml } }),
  });
}

/** The lines of the error that loading ends with. */
function problems(input: Parameters<typeof load>[0]): string[] {
  try {
    load(input);
  } catch (error) {
    if (!isAppError(error, "config_invalid")) throw error;
    return error.message.split("\n");
  }
  throw new Error("the configuration was accepted");
}

describe("the exec driver", () => {
  test("needs its executable, by an absolute path", () => {
    const driver = { flags: { driver: "exec" } };
    expect(problems(driver)).toEqual([
      '--driver: driver = "exec" needs exec_driver, the executable\'s path',
    ]);
    const relative = { ...driver, environment: { TEMPLATECENTER_EXEC_DRIVER: "bin/vm" } };
    expect(problems(relative)).toEqual([
      'TEMPLATECENTER_EXEC_DRIVER: exec_driver = "bin/vm": must be an absolute path',
    ]);
    const toml = 'driver = "exec"\nexec_driver = "/usr/local/lib/vm"';
    expect(load({ toml }).config).toMatchObject({
      driver: "exec",
      exec_driver: "/usr/local/lib/vm",
    });
  });
});

describe("where a value comes from", () => {
  test("nothing given: the defaults, and the host's name", () => {
    const { config, sources } = load();
    expect(config).toMatchObject({
      data_dir: "/var/lib/templatecenter",
      node_id: "host-a",
      listen: { host: "127.0.0.1", port: 7330 },
      driver: "auto",
      job_deadline_ms: 3_600_000,
      artifact_grace_ms: 3_600_000,
      resnapshot_interval_ms: 0,
      retention_unused_ttl_ms: 0,
      allowed_hosts: [],
    });
    expect(new Set(Object.values(sources))).toEqual(new Set(["default"]));
  });

  const everywhere = {
    flags: { log_level: "error" },
    environment: { TEMPLATECENTER_LOG_LEVEL: "warn" },
    toml: 'log_level = "debug"',
  };
  test.each([
    ["flag", "error", everywhere],
    ["environment", "warn", { environment: everywhere.environment, toml: everywhere.toml }],
    ["file", "debug", { toml: everywhere.toml }],
  ])("%s wins over what is below it", (source, level, input) => {
    const { config, sources } = load(input);
    expect([config.log_level, sources["log_level"]]).toEqual([level, source]);
  });

  test("every key can be set by its variable, every list by commas, every number by digits", () => {
    expect(environmentName("job_deadline")).toBe("TEMPLATECENTER_JOB_DEADLINE");
    const { config } = load({
      environment: {
        TEMPLATECENTER_ALLOWED_HOSTS: "a.example, b.example,",
        TEMPLATECENTER_CONCURRENT_BUILDS: "7",
        TEMPLATECENTER_JOB_DEADLINE: "90s",
      },
    });
    expect(config.allowed_hosts).toEqual(["a.example", "b.example"]);
    expect(config.concurrent_builds).toBe(7);
    expect(config.job_deadline_ms).toBe(90_000);
  });

  test.each([
    ["127.0.0.1:0", { host: "127.0.0.1", port: 0 }],
    ["[::1]:7330", { host: "::1", port: 7330 }],
    ["node-1.example:65535", { host: "node-1.example", port: 65_535 }],
  ])("listen = %s is understood", (listen, expected) => {
    expect(load({ flags: { listen } }).config.listen).toEqual(expected);
  });
});

describe("what is wrong is said with key, value, place and expectation", () => {
  test.each([
    [{ environment: { TEMPLATECENTER_LISTEN: "nonsense" } }, "TEMPLATECENTER_LISTEN: listen"],
    [{ flags: { listen: "nonsense" } }, "--listen: listen"],
    [{ toml: 'driver = "auto"\nlisten = "nonsense"' }, `${path}:2: listen`],
  ])("place of a wrong address in %j", (input, start) => {
    const expected = `${start} = "nonsense": must be HOST:PORT, as 127.0.0.1:7330`;
    expect(problems(input)).toEqual([expected]);
  });

  test.each([
    ["listen", "127.0.0.1:65536", "HOST:PORT"],
    ["listen", "127.0.0.1", "HOST:PORT"],
    ["listen", ":7330", "HOST:PORT"],
    ["driver", "docker", '"auto"|"qemu"|"rootfs"'],
    ["log_level", "loud", '"debug"|"info"|"warn"|"error"'],
    ["node_id", "../up", "letters, digits, dots and dashes"],
    ["data_dir", "", "1 character"],
    ["job_deadline", "1 hour", "30s, 15m or 2h"],
    ["job_deadline", "5", "30s, 15m or 2h"],
    ["concurrent_builds", "0", "1"],
    ["concurrent_builds", "2.5", "1 to 64"],
    ["concurrent_builds", "", "1 to 64"],
    ["sandbox_pool_size", "", "0 to 64"],
    ["sandbox_pool_size", "65", "64"],
  ])("%s = %j is refused", (key, value, expectation) => {
    const [line, ...more] = problems({ environment: { [environmentName(key)]: value } });
    expect(more).toEqual([]);
    expect(line).toContain(`${environmentName(key)}: ${key} = ${JSON.stringify(value)}: `);
    expect(line).toContain(expectation);
  });

  test("a value of the wrong type in the file", () => {
    expect(problems({ toml: "data_dir = 5\nconcurrent_boots = true" })).toEqual([
      `${path}:1: data_dir = 5: Invalid input: expected string, received number`,
      `${path}:2: concurrent_boots = true: must be 1 to 64`,
    ]);
  });

  test.each([
    ["listne", "; did you mean listen?"],
    ["concurent_builds", "; did you mean concurrent_builds?"],
    ["datadir", "; did you mean data_dir?"],
    ["entirely_different", ""],
  ])("the unknown key %s", (key, suggestion) => {
    const toml = `# a comment\n${key} = "x"\n`;
    expect(problems({ toml })).toEqual([`${path}:2: unknown key ${key}${suggestion}`]);
  });

  test("a variable that is nearly one of a key; the client's own are left alone", () => {
    const client = { TEMPLATECENTER_TOKEN: "t", TEMPLATECENTER_SERVER: "s", OTHER_LISTN: "x" };
    expect(load({ environment: client }).config.driver).toBe("auto");
    expect(problems({ environment: { ...client, TEMPLATECENTER_LISTN: "x" } })).toEqual([
      "TEMPLATECENTER_LISTN: unknown variable; did you mean TEMPLATECENTER_LISTEN?",
    ]);
  });

  test("a table is no key either", () => {
    expect(problems({ toml: "[http]\nlisten = 'x'" })).toEqual([`${path}:1: unknown key http`]);
  });

  test("a file that is not TOML is named with its line", () => {
    expect(problems({ toml: 'driver = "auto"\nlisten =\n' })[0]).toContain(`${path}:2: `);
  });

  test("all problems come at once, and the exit code is that of a wrong configuration", () => {
    const toml = 'listen = "x"\nlog_level = "loud"\nunknwon = 1';
    expect(problems({ toml })).toHaveLength(3);
    expect(ERRORS.config_invalid.exit).toBe(78);
  });
});

describe("what is in force", () => {
  test("is shown as the file would have it, with its source", () => {
    const environment = { TEMPLATECENTER_ALLOWED_HOSTS: "a,b" };
    const loaded = load({ flags: { listen: "[::1]:0" }, environment, toml: 'driver = "qemu"' });
    const lines = describeConfig(loaded).split("\n");
    for (const line of [
      'listen = "[::1]:0"  # flag',
      'allowed_hosts = ["a","b"]  # environment',
      'driver = "qemu"  # file',
      'job_deadline = "1h"  # default',
    ]) {
      expect(lines).toContain(line);
    }
    expect(lines.join("\n")).not.toContain("job_deadline_ms");
    const again = load({ toml: lines.join("\n") });
    expect(again.config).toEqual(loaded.config);
  });
});

describe("the example file", () => {
  const text = readFileSync(join(root, "systemd/config.toml"), "utf8");
  const uncommented = text.replaceAll(/^# (\w+ = )/gm, "$1");

  test("systemd/config.toml is what `config example` prints", () => {
    expect(text, "run: npm run docs").toBe(exampleConfig());
  });
  test("sets nothing as it is", () => {
    expect(parse(text)).toEqual({});
  });
  test("holds every key with its default", () => {
    const { config, sources } = load({ toml: uncommented });
    expect(new Set(Object.values(sources))).toEqual(new Set(["file"]));
    expect({ ...config, node_id: "host-a" }).toEqual(load().config);
  });
});
