// Follows migrations that go on by their events, which come sooner than the next look at all jobs.

import { follow } from "./events";
import { hasEnded, type Job, type Migration } from "./schema";

/** Streams at a time: browsers have six connections to one server, and the rest of the page needs some. */
const STREAMS_MAX = 2;
/** After a stream has ended without the end of its job. */
const RETRY_MS = 5000;

export class Watcher {
  private readonly streams = new Map<string, AbortController>();

  constructor(private readonly told: (job: Job) => void) {}

  /** Follows the newest of those that go on. */
  update(migrations: Migration[]): void {
    for (const job of migrations.filter((job) => !hasEnded(job))) {
      if (this.streams.size >= STREAMS_MAX) {
        return;
      }
      if (!this.streams.has(job.id)) {
        void this.watch(job.id);
      }
    }
  }

  /** Whoever was logged in is not any more. */
  stop(): void {
    this.streams.forEach((stream) => stream.abort());
    this.streams.clear();
  }

  private async watch(id: string): Promise<void> {
    const stream = new AbortController();
    this.streams.set(id, stream);
    let ended = false;
    try {
      const path = `/api/v1/dwcp/migrations/${encodeURIComponent(id)}/events`;
      await follow(
        path,
        (event) => {
          ended ||= event.name === "end";
          this.told(JSON.parse(event.data) as Job);
        },
        stream.signal,
      );
    } catch {
      // The look at all jobs says why, if it is more than this stream.
    }
    if (!ended) {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    if (this.streams.get(id) === stream) {
      this.streams.delete(id);
    }
  }
}
