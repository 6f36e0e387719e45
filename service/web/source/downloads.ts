// Buttons that download what is stored, in every format; with fetch, which can carry a token.
import type { paths } from "./api";
import { ask, type Schemas } from "./client";
import { failure, h, note, show, type Child } from "./dom";
import type { Section } from "./evidenceparts";
import { reports } from "./report";

type Format = paths["/api/v1/partitions/{ref}/export"]["get"]["parameters"]["query"]["format"];

const FORMATS: Record<Format, string> = {
  graphml: "Gephi, yEd, NetworkX",
  gexf: "Gephi",
  "node-link": "JSON of NetworkX",
  "circuit-tracer": "attribution graph, modules as supernodes",
  safetensors: "arrays",
  masks: "a mask of nodes per module",
  eap: "EAP-IG",
  autocircuit: "AutoCircuit",
  components: "heads and hidden units",
};

const AGAIN: Format[] = ["eap", "autocircuit", "components"]; // these run the network

/** All downloads of a partition. */
export function downloads(partition: Schemas["PartitionDetail"], family: string): Section {
  if (reports()) return { element: null };
  const path = `api/v1/partitions/${partition.id}`;
  const again = !["graph", "mlp"].includes(family); // these have no heads, and no inputs that could be exchanged
  const formats = (Object.keys(FORMATS) as Format[]).filter((format) => again || !AGAIN.includes(format));
  const one = (address: string, name: string, what: string): Child => h("div", {}, downloadButton(address, name), h("small", {}, what));
  return {
    element: [
      h("h2", {}, "Downloads"),
      h(
        "div",
        { class: "choices" },
        formats.map((format) => one(`${path}/export?format=${format}`, format, FORMATS[format])),
        one(`${path}/file`, "Partition", "for Partition.load of interbasis.analysis"),
        one(`api/v1/graphs/${partition.graph}/file`, "Graph", "for InteractionGraph.load"),
      ),
      again ? note("eap, autocircuit and components run the network again, which takes a while and a token of scope submit.") : null,
    ],
  };
}

/** A button that downloads a file of the service, and says what went wrong. */
export function downloadButton(address: string, name: string): Child {
  if (reports()) return null;
  const said = h("span", { role: "status" });
  const button = h("button", { type: "button", "data-focus": address }, name);
  const work = async (): Promise<void> => {
    button.disabled = true;
    show(said, " fetching …");
    try {
      const response = await ask(address);
      save(await response.blob(), nameOf(response) ?? address.split("/").slice(-2).join("-"));
      show(said);
    } catch (error) {
      show(said, failure(error));
    }
    button.disabled = false;
  };
  button.addEventListener("click", () => void work());
  return h("span", {}, button, said);
}

const nameOf = (response: Response): string | undefined =>
  /filename="?([^";]+)"?/.exec(response.headers.get("content-disposition") ?? "")?.[1];

function save(content: Blob, name: string): void {
  const address = URL.createObjectURL(content);
  const link = h("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
