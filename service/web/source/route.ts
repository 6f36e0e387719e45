// Where the page is: after the #, so that a link to it works on any server, and can be sent.

export interface Route {
  name: string;
  ref: string;
  query: URLSearchParams;
}

export interface View {
  /** The same view with other details: called where only the query has changed. */
  update(query: URLSearchParams): void;
  leave(): void;
}

/** Read #/name/ref?query. */
export function here(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name = "", ref = ""] = path.split("/", 2);
  return { name, ref: safelyDecoded(ref), query: new URLSearchParams(query) };
}

function safelyDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a view. */
export function to(name: string, ref = "", query: Record<string, string | number | null> = {}): string {
  const given = Object.entries(query).filter((entry) => entry[1] !== null) as [string, string | number][];
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return `#/${name}${ref ? `/${encodeURIComponent(ref)}` : ""}${text ? `?${text}` : ""}`;
}

/** Put other details into the address without a step of the back button. */
export function replace(query: URLSearchParams): void {
  const text = query.toString();
  history.replaceState(null, "", location.hash.split("?", 1)[0] + (text ? `?${text}` : ""));
}
