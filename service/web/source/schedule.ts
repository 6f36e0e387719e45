// A form that asks for a job of any task, made from the service's description of its choices.
import { get, submit, type Schemas } from "./client";
import { called, failure, h, show, type Child } from "./dom";
import { field, type Field, type Schema } from "./fields";
import { here, to } from "./route";

type Form = Schemas["TaskForm"];
const MOST = { limit: 1000, newest: true };

/** The form; `task`, `target` and choices that the query names are filled in. */
export async function jobForm(query: URLSearchParams): Promise<JobForm> {
  const form = new JobForm((await get("/api/v1/recipes")).items);
  form.fill(query);
  return form;
}

export class JobForm {
  readonly element: HTMLDetailsElement;
  private readonly task: HTMLSelectElement;
  private readonly target = h("input", { id: "target", list: "targets", required: true, autocomplete: "off", "aria-describedby": "target-about" });
  private readonly known = h("datalist", { id: "targets" });
  private readonly about = h("small", { id: "task-about" });
  private readonly aim = h("small", { id: "target-about" });
  private readonly choices = h("div", { class: "choices" });
  private readonly said = h("div", { role: "alert" });
  private readonly button = h("button", { type: "submit" }, "Ask for this job");
  private readonly queue = field("queue", { type: "string", default: "default", description: "Only workers of this queue take the job." });
  private readonly priority = field("priority", { type: "integer", default: 0, description: "Jobs with smaller numbers go first, from -1000 to 1000." });
  private readonly timeout = field("timeout", { type: "number", description: "Seconds until a run is stopped. Default: none." });
  private fields: Field[] = [];
  private kind = "";

  constructor(private readonly forms: Form[]) {
    const option = (form: Form): Child => h("option", { value: form.task }, form.task);
    this.task = h("select", { id: "task", change: () => this.choose(), "aria-describedby": "task-about" }, forms.map(option));
    const form = h(
      "form",
      { novalidate: true, submit: (event: Event) => void this.send(event) },
      h(
        "div",
        { class: "choices" },
        h("div", {}, h("label", { for: "task" }, "Task"), this.task, this.about),
        h("div", {}, h("label", { for: "target" }, "Target"), this.target, this.known, this.aim),
      ),
      h("h3", {}, "Choices; empty ones are left to the service"),
      this.choices,
      h("h3", {}, "When and where"),
      h("div", { class: "choices" }, this.queue.element, this.priority.element, this.timeout.element),
      h("p", {}, this.button),
      this.said,
    );
    this.element = h("details", {}, h("summary", {}, "Ask for a job"), form);
    this.choose();
  }

  /** Open the form with what the address names; without a task it stays as it is. */
  fill(query: URLSearchParams): void {
    const task = query.get("task");
    if (!this.forms.some((form) => form.task === task)) return;
    this.element.open = true;
    this.task.value = task ?? "";
    this.choose();
    this.target.value = query.get("target") ?? "";
    for (const one of this.fields) one.control.value = query.get(one.name) ?? "";
  }

  /** Show the choices of the chosen task. */
  private choose(): void {
    const form = this.forms.find((one) => one.task === this.task.value) ?? this.forms[0];
    if (!form) return;
    const properties = (form.choices as { properties?: Record<string, Schema> }).properties ?? {};
    this.fields = Object.entries(properties).map(([name, schema]) => field(name, schema));
    show(this.choices, this.fields.map((one) => one.element));
    const scale = form.task === "llc" ? " It needs a loss scale: epsilon (a number, in units of the loss), seeds (other checkpoints, whose distance is the scale), temperature, or curve (a range of scales)." : "";
    show(this.about, form.about + scale);
    show(this.aim, form.target === "file" ? "The sha256:... of an upload." : `A ${form.target}: an ID, or a name such as model@step.`);
    show(this.said);
    if (form.target === this.kind) return;
    this.kind = form.target;
    this.target.value = "";
    show(this.known);
    void this.offer(form.target);
  }

  /** Offer what there is of this kind. */
  private async offer(kind: string): Promise<void> {
    const rows = await candidates(kind).catch(() => []);
    if (kind !== this.kind) return;
    show(this.known, rows.map(([id, name]) => h("option", { value: id }, name)));
  }

  private async send(event: Event): Promise<void> {
    event.preventDefault();
    this.button.disabled = true;
    show(this.said);
    for (const one of this.fields) one.control.removeAttribute("aria-invalid");
    const given = this.fields.map((one): [string, unknown] => [one.name, one.value()]);
    const choices = Object.fromEntries(given.filter(([, value]) => value !== undefined));
    const extra = [this.queue, this.priority, this.timeout].map((one): [string, unknown] => [one.name, one.value()]);
    const rest = Object.fromEntries(extra.filter(([, value]) => value !== undefined));
    try {
      const body = { task: this.task.value, target: this.target.value.trim(), choices, ...rest };
      const job = await submit(body as Partial<Schemas["JobRequest"]>);
      if (this.element.isConnected && here().name === "jobs") location.hash = to("jobs", job.id);
    } catch (error) {
      this.refuse(error);
    }
    this.button.disabled = false;
  }

  /** Say what the service said, and mark the choice that it named. */
  private refuse(error: unknown): void {
    const message = h("p", { class: "error" }, error instanceof Error ? error.message : failure(error));
    show(this.said, message);
    const named = /^\w+: (\w+) is /.exec(message.textContent ?? "")?.[1];
    const found = this.fields.find((one) => one.name === named);
    found?.control.setAttribute("aria-invalid", "true");
    found?.control.focus();
  }
}

async function candidates(kind: string): Promise<[string, string][]> {
  if (kind === "checkpoint") return (await get("/api/v1/checkpoints", {}, MOST)).items.filter((row) => row.family !== "graph").map((row) => [row.id, called(row)]);
  if (kind === "graph") return (await get("/api/v1/graphs", {}, MOST)).items.map((row) => [row.id, called(row)]);
  if (kind === "run") return (await get("/api/v1/runs", {}, MOST)).items.map((row) => [row.id, `${row.model}#${row.number}`]);
  if (kind !== "partition") return [];
  return (await get("/api/v1/partitions", {}, MOST)).items.map((row) => [row.id, `${row.n_modules} modules of ${called(row)}`]);
}
