/** Sign-ins of the page: what is kept, for how long, and how fast one may guess. */
import { expect, test } from "vitest";
import { createPageSessions } from "../../../src/daemon/page-sessions.ts";
import { LIMITS } from "../../../src/domain/index.ts";
import { realRandom, tokenHash } from "../../support/http-app.ts";

const auth = { tokens: [{ name: "api", sha256: tokenHash("right-token-0123") }] };

function sessions(tokens = auth) {
  let now = 0;
  const clock = { now: () => 0, monotonic: () => now, sleep: async () => undefined, after };
  function after(): never {
    throw new Error("nothing here waits");
  }
  const made = createPageSessions({ auth: tokens, clock, random: realRandom });
  return { made, pass: (ms: number) => (now += ms) };
}
const code = (act: () => unknown): string => {
  try {
    act();
    return "";
  } catch (error) {
    return (error as { code: string }).code;
  }
};

test("the right token opens a session of its own secret, until it is closed or over", () => {
  const { made, pass } = sessions();
  const { secret, name } = made.signIn(" right-token-0123\n", "10.0.0.1");
  expect([name, secret.length]).toEqual(["api", 64]);
  expect(secret).not.toContain("right");
  const other = made.signIn("right-token-0123", "10.0.0.2").secret;
  expect(other).not.toBe(secret);
  expect([made.whoIs(secret), made.whoIs(""), made.whoIs("f".repeat(64))]).toEqual([
    "api",
    undefined,
    undefined,
  ]);
  made.signOut(other);
  expect([made.whoIs(other), made.whoIs(secret)]).toEqual([undefined, "api"]);
  pass(LIMITS.pageSessionMs - 1);
  expect(made.whoIs(secret)).toBe("api");
  pass(1);
  expect(made.whoIs(secret)).toBeUndefined();
});

test("an address that guesses has to wait, with the right token too; others do not", () => {
  const { made, pass } = sessions();
  const guess = (token: string, from = "10.0.0.1") => code(() => made.signIn(token, from));
  for (let time = 0; time < LIMITS.wrongTokensPerMinute; time += 1) {
    expect(guess(`wrong-${time}`)).toBe("unauthorized");
    pass(1_000);
  }
  expect(guess("wrong")).toBe("too_many_requests");
  expect(guess("right-token-0123")).toBe("too_many_requests");
  expect(() => made.signIn("x", "10.0.0.1")).toThrow("try again in 50 s");
  expect(guess("right-token-0123", "10.0.0.2")).toBe("");
  pass(50_000);
  expect(guess("right-token-0123")).toBe("");
});

test("sessions are bounded: the oldest one goes", () => {
  const { made } = sessions();
  const first = made.signIn("right-token-0123", "a").secret;
  let last = first;
  for (let at = 0; at < LIMITS.pageSessions; at += 1) {
    last = made.signIn("right-token-0123", "a").secret;
  }
  expect([made.whoIs(first), made.whoIs(last)]).toEqual([undefined, "api"]);
});

test("without tokens nothing is asked for, and no token opens anything", () => {
  const { made } = sessions({ tokens: [] });
  expect(made.required).toBe(false);
  expect(code(() => made.signIn("", "a"))).toBe("unauthorized");
});
