// A form that asks for another division of the same graph, and follows the job.
import { get, submit, type Schemas } from "./client";
import { failure, h, note, number, show, type Child } from "./dom";
import { to } from "./route";

const OBJECTIVES = ["layered_modularity", "layered_cpm", "modularity", "cpm"];
const PAUSE = 700; // milliseconds between two looks at the job

/** The form; empty fields leave the choice to the service. */
export function requestForm(partition: Schemas["PartitionDetail"]): HTMLElement {
  const said = h("div", { role: "status" });
  const field = (id: string, label: string, hint: string): [HTMLInputElement, Child] => {
    const input = h("input", { id, type: "number", step: "any", min: 0, placeholder: hint });
    return [input, h("div", {}, h("label", { for: id }, label), input)];
  };
  const [epsilon, epsilonRow] = field("epsilon", "Loss scale ε", `chosen by the service (now ${number(partition.epsilon)})`);
  const [resolution, resolutionRow] = field("resolution", "Resolution", "chosen by the service");
  const options = OBJECTIVES.map((name) => h("option", { value: name, selected: name === partition.objective }, name));
  const objective = h("select", { id: "objective" }, options);
  const button = h("button", { type: "submit" }, "Divide again");
  const send = async (event: Event): Promise<void> => {
    event.preventDefault();
    button.disabled = true;
    const choices: Record<string, unknown> = { objective: objective.value };
    if (epsilon.value !== "") choices["epsilon"] = Number(epsilon.value);
    if (resolution.value !== "") choices["resolution"] = Number(resolution.value);
    try {
      await follow(await submit({ task: "partition", target: partition.graph, choices }), said);
    } catch (error) {
      show(said, failure(error));
    }
    button.disabled = false;
  };
  return h(
    "details",
    {},
    h("summary", {}, "Another division of this graph"),
    h(
      "form",
      { class: "form", submit: (event: Event) => void send(event) },
      h("div", {}, h("label", { for: "objective" }, "Objective"), objective),
      epsilonRow,
      resolutionRow,
      button,
      said,
    ),
  );
}

async function follow(job: Schemas["JobRow"], said: HTMLElement): Promise<void> {
  let now = job;
  while (now.state === "queued" || now.state === "running") {
    const share = now.fraction === null ? "" : ` ${Math.round(100 * now.fraction)} %`;
    show(said, note(`${now.id} ${now.state}${share} ${now.message}`));
    await new Promise((done) => setTimeout(done, PAUSE));
    if (!said.isConnected) return;
    now = await get("/api/v1/jobs/{ref}", { ref: job.id });
  }
  const made = now.results.find((result) => result["kind"] === "partition") as { id?: string } | undefined;
  if (now.state !== "succeeded") show(said, failure(new Error(now.error ?? `The job was ${now.state}.`)));
  else if (made?.id) show(said, h("p", {}, "Done: ", h("a", { href: to("graph", made.id) }, `open ${made.id}`)));
  else show(said, note("Done."));
}
