// Asks again and again: each 2 s, more and more seldom while there is no answer, and not at all while nobody looks.

import { Problem } from "./api";

export const POLL_INTERVAL_MS = 2000;
const BACKOFF_MAX_MS = 30_000;
/** For an answer. */
const ANSWER_TIMEOUT_MS = 20_000;

/** What the pollers wait for: a login. */
let open = true;
let waiting: (() => void)[] = [];

export function pause(): void {
  open = false;
}

export function resume(): void {
  open = true;
  const wake = waiting;
  waiting = [];
  wake.forEach((call) => call());
}

/** Ends when something may be asked. */
async function allowed(): Promise<void> {
  while (!open) {
    await new Promise<void>((resolve) => waiting.push(resolve));
  }
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

/** When to ask next, after so many failures in a row. */
export function delayMs(failures: number, retryAfterSeconds: number, random: number): number {
  const backoff = Math.min(POLL_INTERVAL_MS * 2 ** Math.min(failures, 10), BACKOFF_MAX_MS);
  // Pages that lost the same server do not come back all at once.
  const spread = failures ? backoff * (0.75 + random / 2) : backoff;
  return Math.max(spread, retryAfterSeconds * 1000);
}

/** Looks for ever; `failed` is told why there is no answer, and `null` when there is one again. */
export function poll(look: (signal: AbortSignal) => Promise<void>, failed: (why: Problem | null) => void): () => void {
  let failures = 0;
  let wake: () => void = () => {};
  const run = async (): Promise<never> => {
    for (;;) {
      await allowed();
      let retryAfter = 0;
      try {
        await look(AbortSignal.timeout(ANSWER_TIMEOUT_MS));
        failures = 0;
        failed(null);
      } catch (error) {
        failures += 1;
        const problem = error instanceof Problem ? error : new Problem(0, "late", "no answer in time");
        retryAfter = problem.retryAfterSeconds;
        failed(problem);
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, delayMs(failures, retryAfter, Math.random()));
      });
    }
  };
  void run();
  return () => wake();
}
