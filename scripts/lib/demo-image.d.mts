export function assembleDemoImage(
  dir: string,
  options?: { text?: string; pages?: Readonly<Record<string, string>> },
): Promise<{ reference: string; layers: number; bytes: number }>;
