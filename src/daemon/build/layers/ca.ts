/** The CubeEgress root CA as PEM (spec §3.9). */
import { createHash, X509Certificate } from "node:crypto";
import { AppError } from "../../../domain/core.ts";

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[^]*?-----END \1-----/g;

export interface CaCertificate {
  /** DER bytes. */
  readonly der: Buffer;
  /** The block in the form it is written to files, newline at its end. */
  readonly pem: string;
}

/**
 * @param pem exactly one CERTIFICATE block; text around it is dropped, other blocks are refused.
 * @throws AppError ca_invalid
 */
export function parseCa(pem: Uint8Array): CaCertificate {
  const blocks = [...Buffer.from(pem).toString("latin1").matchAll(BLOCK)];
  const [block] = blocks;
  if (blocks.length !== 1 || block?.[1] !== "CERTIFICATE") {
    throw new AppError(
      "ca_invalid",
      "the CubeEgress root CA must be exactly one PEM certificate block",
      { meta: { blocks: blocks.length } },
    );
  }
  try {
    return { der: new X509Certificate(block[0]).raw, pem: `${block[0].replace(/\r/g, "")}\n` };
  } catch (cause) {
    throw new AppError("ca_invalid", "the CubeEgress root CA is not a valid certificate", {
      cause,
    });
  }
}

/**
 * Hex SHA-256 of the certificate's DER form.
 * @throws AppError ca_invalid
 */
export const caFingerprint = (pem: Uint8Array): string =>
  createHash("sha256").update(parseCa(pem).der).digest("hex");

/** True when a bundle of certificates holds one with the same DER bytes, however it is wrapped. */
export function bundleHolds(bundle: Uint8Array, der: Buffer): boolean {
  const text = Buffer.from(bundle.buffer, bundle.byteOffset, bundle.length).toString("latin1");
  for (const [block] of text.matchAll(
    /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g,
  )) {
    const body = block.replace(/-----[A-Z ]+-----/g, "").replace(/[^A-Za-z0-9+/=]/g, "");
    if (der.equals(Buffer.from(body, "base64"))) return true;
  }
  return false;
}
