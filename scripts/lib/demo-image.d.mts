export function assembleDemoImage(
  dir: string,
  options?: { text?: string },
): Promise<{ reference: string; layers: number; bytes: number }>;
