// What has a name, an ID or a label, for the field that finds it; the service looks.
import { get, type Schemas } from "./client";
import { to } from "./route";

export interface Entry {
  shown: string;
  address: string;
}

const MOST = 20;

/** What has every word of a text, and how many there are in all. */
export async function search(text: string): Promise<{ entries: Entry[]; total: number }> {
  const found = await get("/api/v1/search", {}, { q: text, limit: MOST });
  return { entries: found.items.map((row) => ({ shown: `${row.kind} ${row.name} · ${row.id}`, address: address(row) })), total: found.total ?? 0 };
}

const ON_PARTITIONS = ["experiment", "comparison"]; // kinds that the view of evidence shows

function address(row: Schemas["FoundRow"]): string {
  const { kind, id, partition, model } = row;
  if (kind === "job") return to("jobs", id);
  if (kind === "run") return to("training", id);
  if (!partition) return to("", "", { model: model ?? null });
  if (ON_PARTITIONS.includes(kind)) return to("evidence", partition);
  if (kind === "description") return to("modules", partition);
  if (kind !== "label") return to("graph", partition);
  if (row.module !== null && row.module !== undefined) return to("graph", partition, { module: row.module });
  return to("graph", partition, { all: 1, node: `${row.cut}/${row.node}` });
}
