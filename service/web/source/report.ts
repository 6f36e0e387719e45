// A report: the page over files, with no service behind it. The mark in index.html says where they are.
const folder = document.querySelector<HTMLMetaElement>('meta[name="report"]')?.content ?? null;

interface Index {
  partition: string;
  code_version: string;
  answers: Record<string, string>;
}

let index: Promise<Index> | null = null;

/** Whether this is a report: answers are files, and nothing can be changed. */
export const reports = (): boolean => folder !== null;

/** What the report is of, and where its answers are. */
export function contents(): Promise<Index> {
  index ??= fetch(`${folder}index.json`).then((response) => {
    if (!response.ok) throw new Error("The data of this report are not here: its folder is not whole.");
    return response.json() as Promise<Index>;
  });
  return index;
}

/** The file of an answer; null where the report does not have it. */
export async function answer(address: string): Promise<string | null> {
  const [path = "", query = ""] = address.split("?", 2);
  const given = [...new URLSearchParams(query)].map(([name, value]) => `${name}=${value}`).sort();
  const wanted = decodeURIComponent(path) + (given.length ? `?${given.join("&")}` : "");
  const { answers } = await contents();
  return Object.hasOwn(answers, wanted) ? `${folder}${answers[wanted]}` : null;
}
