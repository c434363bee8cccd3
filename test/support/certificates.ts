import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** PEM of a fresh self-signed certificate (Ed25519, by openssl). */
export function makeCertificate(commonName: string): string {
  const dir = mkdtempSync(join(tmpdir(), "tc-cert-"));
  try {
    const out = join(dir, "cert.pem");
    const subject = ["-subj", `/CN=${commonName}`, "-keyout", join(dir, "key.pem"), "-out", out];
    const options = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "3650", ...subject];
    execFileSync("openssl", options, { stdio: "ignore" });
    return readFileSync(out, "utf8");
  } finally {
    rmSync(dir, { recursive: true });
  }
}
