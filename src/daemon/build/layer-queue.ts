/**
 * Pieces of one layer after the other, waiting for the build thread to take them. The sender keeps
 * what is under way within its window by the `taken` it gets for each piece.
 */
export class LayerQueue {
  private pieces: Uint8Array[] = [];
  private ended = false;
  private failure: unknown;
  private failed = false;
  private wake: (() => void) | undefined;
  private readonly onTaken: (bytes: number) => void;

  constructor(onTaken: (bytes: number) => void) {
    this.onTaken = onTaken;
  }

  push(bytes: Uint8Array): void {
    this.pieces.push(bytes);
    this.wake?.();
  }

  end(): void {
    this.ended = true;
    this.wake?.();
  }

  /** The sources have failed: whoever reads, now or later, gets the error. */
  fail(error: unknown): void {
    this.failed = true;
    this.failure = error;
    this.wake?.();
  }

  /** The next layer; only after the one before was read to its end. */
  async *next(): AsyncGenerator<Uint8Array> {
    this.ended = false;
    for (;;) {
      if (this.failed) throw this.failure;
      const piece = this.pieces.shift();
      if (piece !== undefined) {
        this.onTaken(piece.length);
        yield piece;
      } else if (this.ended) return;
      else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
        this.wake = undefined;
      }
    }
  }
}
