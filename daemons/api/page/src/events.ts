// Server-sent events by `fetch`, which, unlike `EventSource`, sends a login.

import { send } from "./api";

/** Longest line that is kept, in characters: a job is far smaller. */
const LINE_MAX = 1 << 20;

export interface ServerEvent {
  id: string;
  name: string;
  data: string;
}

/** Takes text as it comes; gives events as they are whole. */
export class Parser {
  private rest = "";
  private event: ServerEvent = { id: "", name: "message", data: "" };
  private id = "";

  /** Throws if a line does not end. */
  push(text: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    const lines = (this.rest + text).split(/\r\n|\n/);
    this.rest = lines.pop() ?? "";
    if (this.rest.length > LINE_MAX) {
      throw new Error("a line of events without an end");
    }
    for (const line of lines) {
      if (line !== "") {
        this.field(line);
      } else {
        if (this.event.data) {
          events.push({ ...this.event, id: this.id });
        }
        this.event = { id: "", name: "message", data: "" };
      }
    }
    return events;
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") {
      this.id = value;
    } else if (name === "event") {
      this.event.name = value;
    } else if (name === "data") {
      this.event.data += (this.event.data ? "\n" : "") + value;
    }
  }
}

/** Follows a stream to its end. */
export async function follow(path: string, told: (event: ServerEvent) => void, signal: AbortSignal): Promise<void> {
  const response = await send(path, { signal });
  if (!response.body) {
    return;
  }
  const parser = new Parser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    parser.push(value).forEach(told);
  }
}
