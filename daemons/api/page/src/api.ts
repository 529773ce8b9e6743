// Asks the API. Who logs in with a token has it in this tab's session storage, and nowhere else.

import type { List } from "./schema";

/** Pages of one list that are read. */
const PAGES_MAX = 10;
const TOKEN = "novacron-token";

/** What a problem document says (RFC 9457), or why there is no answer: then the status is 0. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    message: string,
    readonly retryAfterSeconds = 0,
  ) {
    super(message);
  }
}

let loginNeeded: () => void = () => {};

/** Calls this when an answer says that a login is needed. */
export function onLoginNeeded(call: () => void): void {
  loginNeeded = call;
}

export function token(): string {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(token: string): void {
  if (token) {
    sessionStorage.setItem(TOKEN, token);
  } else {
    sessionStorage.removeItem(TOKEN);
  }
}

/** Sends a request; throws a `Problem` unless it is answered with success. */
export async function send(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token()) {
    headers.set("Authorization", `Bearer ${token()}`);
  }
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (init.signal?.aborted) {
      throw error;
    }
    throw new Problem(0, "unreachable", "the server does not answer");
  }
  if (response.ok) {
    return response;
  }
  const problem = await problemOf(response);
  if (problem.status === 401) {
    loginNeeded();
  }
  throw problem;
}

async function problemOf(response: Response): Promise<Problem> {
  const retryAfter = Number(response.headers.get("Retry-After") ?? 0);
  try {
    const document = (await response.json()) as { type: string; title: string; detail: string };
    const kind = document.type.split(":").pop() ?? "";
    return new Problem(response.status, kind, `${document.title}: ${document.detail}`, retryAfter);
  } catch {
    return new Problem(response.status, "", `the server answers ${response.status}`, retryAfter);
  }
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

/** All of a list, its pages one after the other. */
export async function list<T>(path: string, signal: AbortSignal, query = ""): Promise<T[]> {
  const items: T[] = [];
  let cursor = "";
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const found: List<T> = await get(`${path}?limit=500${query}${cursor}`, signal);
    items.push(...found.items);
    if (!found.next) {
      break;
    }
    cursor = `&cursor=${encodeURIComponent(found.next)}`;
  }
  return items;
}

export async function post<T>(path: string, body: unknown, key?: string): Promise<T> {
  const headers: Record<string, string> = {};
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  if (key) {
    headers["Idempotency-Key"] = key;
  }
  const text = body === undefined ? null : JSON.stringify(body);
  const response = await send(path, { method: "POST", headers, body: text });
  return (await response.json()) as T;
}

/** Something that nobody else has, also where there is no `crypto.randomUUID`: on pages without TLS. */
export function idempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
