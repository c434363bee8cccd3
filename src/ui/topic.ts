/** What of a page is live, and what touches it. */
import type { ChangeEvent } from "../domain/index.ts";
import type { Html } from "./html.ts";

export interface Region {
  /** Also the id of the element it renders. */
  readonly id: string;
  render(now: number): Html | undefined;
}

/** The live part of one page. */
export interface Topic {
  /** The regions an event touches. */
  touched(event: ChangeEvent): readonly Region[];
  /** A block that the page refetches itself with its own filter, by this event name. */
  refetch(event: ChangeEvent): string | undefined;
  /** The job whose log the page follows. */
  readonly logJob: string | undefined;
  /** One sentence for people who listen; said again only when it changes. */
  sentence(now: number): string;
}
