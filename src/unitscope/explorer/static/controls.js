// Controls whose state is in the address.
import { choose } from "./addresses.js";
import { h } from "./dom.js";
import { page } from "./page.js";

const option = (shown, text, chosen) => h("option", { value: shown, selected: shown === chosen }, text);
export const select = (label, name, chosen, options) =>
  h(
    "label",
    {},
    h("span", {}, label),
    h(
      "select",
      { name, onchange: (event) => (choose({ [name]: event.target.value }, true), page.refresh()) },
      ...options.map(([shown, text]) => option(shown, text, chosen || "")),
    ),
  );

export const radios = (legend, name, chosen, options, change) =>
  h(
    "fieldset",
    {},
    h("legend", {}, legend),
    ...options.map(([shown, text]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name,
          value: shown,
          checked: shown === chosen,
          onchange: () => (choose({ [name]: shown }, true), change()),
        }),
        text,
      ),
    ),
  );
