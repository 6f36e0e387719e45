// The service over HTTP. Types of paths, queries and answers are those of the OpenAPI document.
import type { components, paths } from "./api";
import { answer, reports } from "./report";

export type Schemas = components["schemas"];

type Json<T> = T extends { responses: { 200: { content: { "application/json": infer Body } } } } ? Body : never;
type Get<P extends keyof paths> = paths[P] extends { get: infer Operation } ? Operation : never;
export type Readable = { [P in keyof paths]: Json<Get<P>> extends never ? never : P }[keyof paths];
type Query<P extends keyof paths> = Get<P> extends { parameters: { query?: infer Q } } ? Partial<NonNullable<Q>> : object;
type Filled = Record<string, string | number>;

const KEY = "interbasis-token";
/** Raised at the window where a token is refused; the detail says why, null where none was given. */
export const LOCKED = "interbasis-locked";
let kept: string | null = null; // where the browser keeps nothing

/** An answer that is no success; `status` 0 where there was none. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

/** The token of this tab, null where none was given. */
export function token(): string | null {
  try {
    return sessionStorage.getItem(KEY) ?? kept;
  } catch {
    return kept;
  }
}

/** Keep a token for this tab; null forgets it. */
export function keep(given: string | null): void {
  kept = given;
  try {
    if (given === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, given);
  } catch {
    // a browser without storage: the token lasts until the page is left
  }
}

/** Send a request with the token of this tab; an answer that is no success is thrown as `Refused`. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const known = token();
  if (known) headers.set("Authorization", `Bearer ${known}`);
  let response: Response;
  const file = reports() ? await answer(path) : path;
  if (file === null) throw new Refused(404, "This is not in the report, which holds one division and the training that it is of.");
  try {
    response = await fetch(file, { ...init, headers });
  } catch {
    init.signal?.throwIfAborted();
    throw new Refused(0, "The service does not answer. Is `interbasis serve` still running?");
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => ({}))) as { detail?: string };
  if (response.status === 401 && known === token()) {
    keep(null); // it is not tried again: the service locks out an address that goes on with a wrong one
    dispatchEvent(new CustomEvent(LOCKED, { detail: known ? (problem.detail ?? null) : null }));
  }
  throw new Refused(response.status, problem.detail ?? `the service answered ${response.status}`);
}

function address(path: string, refs: Filled, query: object): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String(refs[name]).replaceAll("/", "%2F")),
  );
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== null && value !== undefined) asked.append(name, String(value));
  const text = asked.toString();
  return filled.slice(1) + (text ? `?${text}` : "");
}

/** Read a route; names in braces are filled from `refs`. */
export async function get<P extends Readable>(path: P, refs: Filled = {}, query?: Query<P>): Promise<Json<Get<P>>> {
  return (await ask(address(path, refs, query ?? {}))).json() as Promise<Json<Get<P>>>;
}

type Row<P extends Readable> = Json<Get<P>> extends { items: (infer Item)[] } ? Item : never;
const PAGE = 1000; // rows in an answer

/** Read a list to its end, page after page. */
export async function all<P extends Readable>(path: P, refs: Filled = {}): Promise<Row<P>[]> {
  const rows: Row<P>[] = [];
  let cursor: string | null = null;
  do {
    const answer = await ask(address(path, refs, { limit: PAGE, cursor }));
    const page = (await answer.json()) as { items: Row<P>[]; next_cursor?: string | null };
    rows.push(...page.items);
    cursor = page.next_cursor ?? null;
  } while (cursor !== null);
  return rows;
}

type Act<P extends keyof paths, M extends "put" | "post"> = paths[P] extends { [K in M]: infer Operation } ? Operation : never;
type Sent<P extends keyof paths, M extends "put" | "post"> = Act<P, M> extends { requestBody: { content: { "application/json": infer Body } } } ? Body : never;

/** Change what is stored. */
export async function send<P extends keyof paths>(path: P, method: "PUT", refs: Filled, body: Sent<P, "put">): Promise<Json<Act<P, "put">>> {
  const headers = { "Content-Type": "application/json" };
  return (await ask(address(path, refs, {}), { method, headers, body: JSON.stringify(body) })).json() as Promise<Json<Act<P, "put">>>;
}

/** Remove what is stored. */
export async function remove(path: keyof paths, refs: Filled, query: object): Promise<void> {
  await ask(address(path, refs, query), { method: "DELETE" });
}

/** Ask for a job. */
export async function submit(body: Partial<Schemas["JobRequest"]>): Promise<Schemas["JobRow"]> {
  const headers = { "Content-Type": "application/json" };
  const response = await ask("api/v1/jobs", { method: "POST", headers, body: JSON.stringify(body) });
  return response.json() as Promise<Schemas["JobRow"]>;
}

/** Stop a job, or queue it again. */
export async function change(job: string, action: "cancel" | "retry"): Promise<Schemas["JobRow"]> {
  const response = await ask(`api/v1/jobs/${encodeURIComponent(job)}/${action}`, { method: "POST" });
  return response.json() as Promise<Schemas["JobRow"]>;
}
