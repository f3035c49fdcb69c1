// What can be chosen on a photo's page: shares, any class, any unit, the layer.
import { site } from "./data.js";
import { address, parsed } from "./addresses.js";
import { h, say } from "./dom.js";

const FOUND = 12;

// `slid` is called while it moves, `left` when it is let go.
export const slider = (label, slid, left) => {
  const input = h("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 1,
    oninput: () => slid(Number(input.value)),
    onchange: left,
  });
  const shown = h("span", { class: "shown" });
  const show = (value, text) => {
    input.value = value;
    input.setAttribute("aria-valuetext", text);
    shown.textContent = text;
  };
  return { element: h("label", { class: "slider" }, h("span", {}, label, " ", shown), input), show };
};

// Labels may be the same: the number tells such classes apart.
export const classSearch = (labels, choose) => {
  const text = (one) => `${labels[one]} · ${one}`;
  const options = h("datalist", { id: "classes-found" });
  const matching = (words, most) => {
    const found = [];
    for (let one = 0; one < labels.length && found.length < most; one++)
      if (text(one).toLowerCase().includes(words)) found.push(one);
    return found;
  };
  const chosen = (one) => {
    input.value = "";
    choose(one);
  };
  const input = h("input", {
    type: "search",
    list: "classes-found",
    placeholder: "name or number",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      const found = matching(input.value.toLowerCase(), FOUND);
      options.replaceChildren(...found.map((one) => h("option", { value: text(one) })));
      const exact = found.find((one) => text(one) === input.value);
      if (exact !== undefined) chosen(exact);
    },
    onkeydown: (event) => {
      const words = input.value.trim().toLowerCase();
      if (event.key !== "Enter" || !words) return;
      const number = /^\d+$/.test(words) && Number(words) < labels.length ? [Number(words)] : [];
      const [match] = [...number, ...matching(words, 1)];
      if (match !== undefined) chosen(match);
      else say(`No class has “${input.value.trim()}” in its name.`);
    },
  });
  return h("label", { class: "search" }, h("span", {}, "Another class"), input, options);
};

export const unitByNumber = (units, toggle) => {
  const input = h("input", { type: "number", min: 0, max: units - 1, step: 1, inputmode: "numeric" });
  const asked = (event) => {
    event.preventDefault();
    if (input.value !== "" && input.checkValidity()) toggle(Number(input.value));
  };
  return h(
    "form",
    { class: "by-number", onsubmit: asked },
    h("label", {}, h("span", {}, "Unit by number"), input),
    h("button", { type: "submit" }, "Off / on"),
  );
};

// Only a server can answer at another layer.
export const layerSelect = (id, layer) => {
  if (!site.live || !site.model || !site.model.layers.length) return null;
  const own = site.head && site.head.layer;
  // What is of this layer alone does not go along.
  const go = (name) => {
    const { query } = parsed();
    for (const one of ["off", "region", "list"]) query.delete(one);
    if (name === own) query.delete("layer");
    else query.set("layer", name);
    location.hash = address(["photo", id], query);
  };
  const options = [...new Set([own, ...site.model.layers].filter(Boolean))];
  const select = h(
    "select",
    { onchange: () => go(select.value) },
    options.map((name) =>
      h(
        "option",
        { value: name, selected: name === layer },
        `${name} (${name === own && site.head.exact ? "exact" : "measured"})`,
      ),
    ),
  );
  return h("label", {}, h("span", {}, "Layer"), select);
};
