// The frame of the page: token, header, and the view that the address names.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { get, keep, LOCKED, Refused } from "./client";
import { failure, h, note, show, type Child } from "./dom";
import { evidenceView } from "./evidence";
import { graphView } from "./graph";
import { homeView } from "./home";
import { search, type Entry } from "./find";
import { modulesView } from "./modules";
import { jobsView } from "./jobs";
import { contents, reports } from "./report";
import { here, to, type View } from "./route";
import { trainingView } from "./training";

const header = document.getElementById("header") as HTMLElement;
const main = document.getElementById("main") as HTMLElement;
const views: Record<string, (main: HTMLElement, ref: string, query: URLSearchParams) => Promise<View>> = {
  "": homeView,
  evidence: evidenceView,
  graph: graphView,
  jobs: jobsView,
  modules: modulesView,
  training: trainingView,
};

const WAIT = 200; // milliseconds after a key, before the service looks for what was typed

let current: { key: string; view: View | null } | null = null;

async function open(): Promise<void> {
  const { name, ref, query } = here();
  const key = `${name}/${ref}`;
  if (current?.key === key && current.view) {
    current.view.update(query);
    return;
  }
  current?.view?.leave();
  const mine = (current = { key, view: null } as { key: string; view: View | null });
  const place = h("div", { "aria-busy": "true" }, note("Loading …"));
  show(main, place);
  scrollTo(0, 0);
  try {
    const make = views[name];
    if (!make) throw new Error("There is no such page.");
    const view = await make(place, ref, query);
    if (current === mine) mine.view = view;
    else view.leave();
  } catch (error) {
    if (!locked(error)) show(place, failure(error), h("p", {}, h("a", { href: to("") }, "To the start")));
  }
  place.removeAttribute("aria-busy");
}

const locked = (error: unknown): boolean => error instanceof Refused && error.status === 401; // `LOCKED` is answered

function askForToken(why: string | null): void {
  current?.view?.leave();
  current = null;
  show(header, h("span", { class: "name" }, "interbasis"));
  const field = h("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "why" });
  const form = h(
    "form",
    {
      class: "login form",
      submit: (event: Event) => {
        event.preventDefault();
        keep(field.value.trim());
        void begin();
      },
    },
    h("h1", {}, "This service needs a token"),
    h("p", { id: "why", class: why ? "error" : "note", role: why ? "alert" : null }, why ?? "It begins with ib_. This tab keeps it until it is closed."),
    h("label", { for: "token" }, "Token"),
    field,
    h("button", { type: "submit" }, "Open"),
  );
  show(main, form);
  field.focus();
}

function finder(): HTMLElement {
  let timer = 0;
  const list = h("ul", { class: "found", id: "found" });
  const field = h("input", {
    type: "search",
    placeholder: "Find a name, ID or label",
    "aria-label": "Find a name, ID or label",
    "aria-controls": "found",
    autocomplete: "off",
    maxlength: 200,
  });
  const find = async (): Promise<Entry[]> => {
    const text = field.value.trim();
    if (!text) {
      show(list);
      return [];
    }
    const found = await search(text);
    if (field.value.trim() !== text) return [];
    const shown = found.entries.map((one) => h("li", {}, h("a", { href: one.address }, one.shown)));
    const rest = found.total - shown.length;
    const more = rest > 0 ? h("li", {}, h("p", { class: "note" }, `and ${rest} more: another word finds fewer`)) : null;
    show(list, shown.length ? [...shown, more] : h("li", {}, h("p", { class: "note" }, "Nothing has this name.")));
    return found.entries;
  };
  const close = (): void => show(list);
  const fail = (error: unknown): void => show(list, h("li", {}, failure(error)));
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => void find().catch(fail), WAIT);
  });
  const form = h(
    "form",
    {
      class: "find",
      role: "search",
      submit: (event: Event) => {
        event.preventDefault();
        find().then((found) => {
          if (found[0]) location.hash = found[0].address;
        }, fail);
      },
      keydown: (event: Event) => {
        if ((event as KeyboardEvent).key === "Escape") close();
      },
      focusout: (event: Event) => {
        if (!form.contains((event as FocusEvent).relatedTarget as Node | null)) close();
      },
    },
    field,
    list,
  );
  addEventListener("hashchange", () => {
    field.value = "";
    close();
  });
  return form;
}

async function begin(): Promise<void> {
  try {
    await get("/api/v1/health"); // one request alone, so that a wrong token is tried once
  } catch (error) {
    if (!locked(error)) show(main, failure(error));
    return;
  }
  const name = h("a", { class: "name", href: to("") }, "interbasis");
  const links = [h("a", { href: to("") }, "Models"), h("a", { href: to("jobs") }, "Jobs"), h("a", { href: "docs" }, "API")];
  if (reports()) show(header, name, await reportLinks());
  else show(header, name, h("nav", { "aria-label": "Pages" }, links), finder());
  await open();
}

/** What a report has: it begins with the division that it is of. */
async function reportLinks(): Promise<Child> {
  const { partition, code_version: version } = await contents();
  if (!location.hash) history.replaceState(null, "", to("graph", partition));
  const shown = ([["graph", "Graph"], ["modules", "Modules"], ["evidence", "Evidence"]] as const).filter(([view]) => view in views);
  return [
    h("nav", { "aria-label": "Pages" }, shown.map(([view, text]) => h("a", { href: to(view, partition) }, text)), h("a", { href: to("") }, "All checkpoints")),
    h("span", { class: "small" }, `Report of ${partition}, interbasis ${version}`),
  ];
}

addEventListener(LOCKED, (event) => askForToken((event as CustomEvent<string | null>).detail));
addEventListener("hashchange", () => void open());
void begin();
