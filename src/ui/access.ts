/** What a visitor may do, and the way to more. */

/** Whether this visitor may change things, and as whom. */
export interface Access {
  /** False: this daemon asks nobody for a token. */
  readonly required: boolean;
  readonly mayChange: boolean;
  /** The token's name; absent for who is not signed in here. */
  readonly name?: string;
}

/** An address of this page only: who signs in is led nowhere else. */
export function readNext(text: string | undefined): string {
  const next = text ?? "";
  return /^\/ui\/[\w./?&=%~+:@-]*$/.test(next) && !next.includes("//") ? next : "/ui/";
}

export const signInUrl = (next: string): string =>
  `/ui/sign-in?${new URLSearchParams({ next }).toString()}`;
