import { html, join, nothing, type Html } from "../html.ts";
import { formFields, submitButton, type PageContext } from "../layout.ts";
import type { Field, FormProblems, FormValues } from "../form.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox } from "../fragments/bits.ts";

interface Input {
  readonly name: Field;
  readonly label: string;
  readonly hint: string;
  readonly kind?: "text" | "password" | "number" | "lines";
  readonly required?: boolean;
}

const MAIN: readonly Input[] = [
  {
    name: "source_image_ref",
    label: "Image",
    hint: "As in docker pull, or oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE",
    required: true,
  },
  {
    name: "writable_layer_size",
    label: "Writable layer size",
    hint: "Free space for the sandbox, such as 512Mi or 2Gi",
    required: true,
  },
  {
    name: "display_name",
    label: "Name",
    hint: "Lower-case letters, digits and dashes; may be left out",
  },
];
const REGISTRY: readonly Input[] = [
  { name: "registry_username", label: "Registry user", hint: "Only for images that need one" },
  {
    name: "registry_password",
    label: "Registry password",
    hint: "Used for this pull; never stored or logged",
    kind: "password",
  },
];
const GUEST: readonly Input[] = [
  { name: "exposed_ports", label: "Ports", hint: "That sandboxes offer, such as 8080, 9000" },
  {
    name: "probe_port",
    label: "Readiness port",
    hint: "An HTTP port that answers",
    kind: "number",
  },
  { name: "probe_path", label: "Readiness path", hint: "/health when left out" },
  { name: "cpu", label: "Processors", hint: "Such as 1 or 500m" },
  { name: "mem", label: "Memory", hint: "Such as 256Mi" },
  {
    name: "command",
    label: "Command",
    hint: "One word per line; the image's own if left out",
    kind: "lines",
  },
  { name: "envs", label: "Environment", hint: "NAME=value, one per line", kind: "lines" },
  { name: "labels", label: "Labels", hint: "key=value, one per line", kind: "lines" },
];

function control(input: Input, value: string, described: string, wrong: boolean): Html {
  const state = html`id="f-${input.name}" name="${input.name}" aria-describedby="${described}"
  ${wrong ? html`aria-invalid="true"` : nothing}
  ${input.required === true ? html`required` : nothing}`;
  switch (input.kind ?? "text") {
    case "lines":
      return html`<textarea ${state} rows="3" spellcheck="false">${value}</textarea>`;
    case "password":
      return html`<input type="password" ${state} autocomplete="off" />`;
    case "number":
      return html`<input type="number" min="1" max="65535" ${state} value="${value}" />`;
    case "text":
      return html`<input
        type="text"
        ${state}
        value="${value}"
        spellcheck="false"
        autocapitalize="off"
        autocomplete="off"
      />`;
  }
}

/** The password is never given back. */
function field(input: Input, values: FormValues, problems: FormProblems): Html {
  const problem = problems[input.name];
  const ids = `h-${input.name}${problem === undefined ? "" : ` e-${input.name}`}`;
  return html`<div class="field">
    <label for="f-${input.name}">${input.label}</label>
    ${control(input, values[input.name] ?? "", ids, problem !== undefined)}
    <p class="hint" id="h-${input.name}">${input.hint}</p>
    ${problem === undefined ? nothing : html`<p class="err" id="e-${input.name}">${problem}</p>`}
  </div>`;
}

function summary(problems: FormProblems): Html {
  const entries = Object.entries(problems);
  if (entries.length === 0) return nothing;
  return html`<div class="problems" role="alert" id="problems">
    <p><b>Not sent.</b> Correct this and send it again:</p>
    <ul>
      ${join(
        entries.map(([name, text]) =>
          name === "form"
            ? html`<li>${text}</li>`
            : html`<li><a href="#f-${name}">${name.replaceAll("_", " ")}</a>: ${text}</li>`,
        ),
      )}
    </ul>
  </div>`;
}

/** The form, empty or as it was sent, with its problems. */
export function newTemplatePage(
  page: PageContext,
  values: FormValues,
  problems: FormProblems,
): Html {
  const group = (inputs: readonly Input[]): Html =>
    join(inputs.map((input) => field(input, values, problems)));
  const opened = [...REGISTRY, ...GUEST].some(
    ({ name }) => (values[name] ?? "") !== "" || problems[name] !== undefined,
  );
  return html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/templates">Templates</a></p>
        <h1>New template</h1>
        <p class="lead">
          The image is pulled, written as a root filesystem, booted once and snapshotted.
        </p>
      </div>
    </div>
    <form class="card form" method="post" action="/ui/templates" id="new-template">
      ${formFields(page)}${summary(problems)}${group(MAIN)}
      <details id="registry-options" ${opened ? html`open` : nothing}>
        <summary>Registry credentials and guest options</summary>
        <div class="grid">${group([...REGISTRY, ...GUEST])}</div>
      </details>
      <div class="acts">
        ${submitButton(page, "Create template", "primary")}<a class="btn" href="/ui/templates"
          >Back</a
        >
      </div>
    </form>
    ${commandBox(
      commandLines.create(values.source_image_ref ?? "", values.writable_layer_size || "1Gi"),
    )}`;
}
