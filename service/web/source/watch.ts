// Looking again and again at what changes on the service, while someone looks.
import { ask, Refused, type Schemas } from "./client";

type Job = Schemas["JobRow"];
const AGAIN = 3000; // milliseconds before a stream that broke is opened again

const locked = (error: unknown): boolean => error instanceof Refused && error.status === 401;

export const unfinished = (job: Job): boolean => job.state === "queued" || job.state === "running";

/** Do this every so many milliseconds, one at a time and not in a hidden tab, until what it returns is called or the token is refused. */
export function every(pause: number, act: () => Promise<unknown>): () => void {
  let over = false;
  let busy = false;
  const stop = (): void => {
    over = true;
    clearInterval(timer);
  };
  const timer = setInterval(() => {
    if (over || busy || document.hidden) return;
    busy = true;
    void act()
      .catch((error: unknown) => {
        if (locked(error)) stop(); // otherwise the next look may succeed
      })
      .finally(() => (busy = false));
  }, pause);
  return stop;
}

/** Follow a job through its server-sent events until it has ended; a hidden tab listens no more until it is shown. */
export function follow(id: string, changed: (job: Job) => void, failed: (error: unknown) => void): () => void {
  let stop = new AbortController();
  let over = false;
  let timer = 0;
  const listen = async (): Promise<void> => {
    stop.abort();
    const mine = (stop = new AbortController());
    try {
      for await (const job of events(id, mine.signal)) {
        if (mine.signal.aborted) return;
        changed(job);
        if (!unfinished(job)) return end();
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      failed(error);
      if (locked(error)) return end();
    }
    if (!over && !document.hidden) timer = setTimeout(() => void listen(), AGAIN); // a stream lasts an hour at most
  };
  const shown = (): void => {
    clearTimeout(timer);
    if (document.hidden) stop.abort();
    else void listen();
  };
  const end = (): void => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", shown);
    stop.abort();
  };
  document.addEventListener("visibilitychange", shown);
  if (!document.hidden) void listen();
  return end;
}

/** The states of a job, as its event stream has them; read with fetch, which can carry a token. */
async function* events(id: string, signal: AbortSignal): AsyncGenerator<Job> {
  const response = await ask(`api/v1/jobs/${encodeURIComponent(id)}/events`, { signal });
  const reader = (response.body ?? new ReadableStream<Uint8Array>()).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true }).replaceAll("\r", "");
    const parts = rest.split("\n\n");
    rest = parts.pop() ?? "";
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5).trimStart()).join("\n")) as Job;
    }
  }
}
