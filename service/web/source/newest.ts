// Which of several results of a checkpoint is shown: those that can be compared from checkpoint to checkpoint.
import type { Schemas } from "./client";
import { number } from "./dom";

interface Result {
  checkpoint: string;
  run?: string | null;
}

/** The result of a checkpoint; `usual` where it was made as those of most checkpoints of its run were. */
export interface Chosen<T> {
  row: T;
  usual: boolean;
}

/** The newest result of each checkpoint, of those made as most checkpoints of the run have one; otherwise the newest. Rows are newest first. */
export function comparable<T extends Result>(rows: T[], how: (row: T) => string): Map<string, Chosen<T>> {
  const chosen = new Map<string, Chosen<T>>();
  for (const mine of Map.groupBy(rows, (row) => row.run).values()) {
    const covered = (group: T[]): number => new Set(group.map((row) => row.checkpoint)).size;
    const groups = [...Map.groupBy(mine, how).values()];
    const most = Math.max(...groups.map(covered));
    const usual = groups.find((group) => covered(group) === most) ?? []; // of equal ones the newest
    for (const row of mine.toReversed()) chosen.set(row.checkpoint, { row, usual: false });
    for (const row of usual.toReversed()) chosen.set(row.checkpoint, { row, usual: true });
  }
  return chosen;
}

/** Learning coefficients of whole networks: at the same loss scale where they are `usual`. */
export function coefficients(rows: Schemas["LlcRow"][]): Map<string, Chosen<Schemas["LlcRow"]>> {
  const whole = rows.filter((row) => row.mode !== "modules" && row.mode !== "parts" && !row.recipe["parameters"]);
  return comparable(whole, (row) => JSON.stringify([row.loss, scale(row)]));
}

/** Divisions: of the same recipe where they are `usual`. */
export const divisions = (rows: Schemas["PartitionRow"][]): Map<string, Chosen<Schemas["PartitionRow"]>> => comparable(rows, (row) => row.recipe_hash);

/** The loss scale, or temperature, of a learning coefficient. */
export function scale(row: Schemas["LlcRow"]): string {
  const curve = row.mode === "curve" ? ", smallest of a curve" : "";
  return row.recipe["temperature"] ? `temperature ${number(row.temperature)}` : `ε ${number(row.epsilon)}${curve}`;
}

/** The loss scales of what is drawn, once each. */
export const scales = (rows: Iterable<Chosen<Schemas["LlcRow"]>>): string =>
  [...new Set([...rows].flatMap(({ row, usual }) => (usual ? [scale(row)] : [])))].join("; ");
