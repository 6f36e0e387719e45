// How far a division agrees with others: modules that match, agreement with its p-value, and shared nodes.
import { get, type Schemas } from "./client";
import { h, note, number, type Child } from "./dom";
import { later, missing, verdict, type Section } from "./evidenceparts";
import { to } from "./route";
import { table, type Cells } from "./tables";

type Row = Schemas["ComparisonRow"];
const MOST = 30; // modules of one side, up to which all shared nodes are shown

/** Comparisons on either side of which the partition stands; `same` divide the same graph. */
export function comparisons(partition: Schemas["PartitionDetail"], rows: Row[], same: Set<string>): Section {
  const nothing = missing("No comparison is stored. This compares with another division, or with labels in a file:", `interbasis compare ${partition.id} OTHER`, partition.id, "compare");
  return { element: [h("h2", {}, "Comparison with other divisions"), rows.length ? rows.map((row) => one(partition.id, row, same)) : nothing] };
}

function one(mine: string, row: Row, same: Set<string>): Child {
  const first = row.partition === mine;
  const other = first ? row.other : row.partition;
  const name = other ?? row.name;
  const matches = row.matches as unknown as { first: string; second: string; shared: number; jaccard: number }[];
  const cells = matches.map((match): Cells => {
    const [here, there] = first ? [match.first, match.second] : [match.second, match.first];
    return [`module ${here}`, other ? `module ${there}` : there, number(match.shared), match.jaccard.toFixed(2)];
  });
  const measures = [
    ["adjusted mutual information", number(row.ami), number(row.ami_by_chance), number(row.p_value, 2)],
    ["adjusted Rand index", number(row.ari), number(row.ari_by_chance), number(row.ari_p_value, 2)],
  ];
  const left = row.only_first + row.only_second;
  return h(
    "section",
    {},
    h("h3", {}, "With ", other ? h("a", { href: to("evidence", other) }, name) : name),
    note(`${number(row.n_nodes)} nodes that both put into a module, matched by ${row.matched_by}${left ? `; ${number(left)} that only one does are left out` : ""}.`),
    table(`Agreement ${row.id}`, ["Measure", "Agreement", "By chance", "p"], measures, ["Agreement", "By chance", "p"]),
    cells.length ? table(`Modules that match ${row.id}`, ["Here", "There", "Shared nodes", "Jaccard"], cells, ["Shared nodes", "Jaccard"]) : null,
    other && same.has(other) ? later(overlaps(mine, other)) : null,
    verdict(row.verdict, row.reason),
  );
}

async function overlaps(mine: string, other: string): Promise<Child> {
  const found = await get("/api/v1/partitions/{ref}/compare/{other}", { ref: mine, other });
  const side = (name: "first" | "second"): number[] => [...new Set(found.overlaps.map((row) => row[name]))].sort((a, b) => a - b);
  const [here, there] = [side("first"), side("second")];
  if (here.length > MOST || there.length > MOST) return note(`${here.length} modules here and ${there.length} there share nodes.`);
  const shared = new Map(found.overlaps.map((row) => [`${row.first} ${row.second}`, row.n_nodes]));
  const rows = here.map((a): Cells => [`module ${a} here`, ...there.map((b) => number(shared.get(`${a} ${b}`) ?? 0))]);
  const heads = ["Shared nodes", ...there.map((b) => `module ${b} there`)];
  return table(`Shared nodes with ${other}`, heads, rows, heads.slice(1));
}
