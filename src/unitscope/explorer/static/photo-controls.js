// What can be chosen on a photo's page: shares, any class, any unit, the layer.
import { address, parsed } from "./addresses.js";
import { h, say } from "./dom.js";
import { site } from "./site.js";

// So many matching classes are offered.
const MATCHES = 12;

/**
 * A slider from 0 to 100.
 * @param {string} label
 * @param {(value: number) => void} moved Called while it moves.
 * @param {() => void} left Called when it is let go.
 */
export const slider = (label, moved, left) => {
  const input = h("input", {
    type: "range",
    min: 0,
    max: 100,
    step: 1,
    oninput: () => {
      moved(Number(input.value));
    },
    onchange: left,
  });
  const shown = h("span", { class: "shown" });
  /**
   * @param {number} value
   * @param {string} text
   */
  const show = (value, text) => {
    input.value = String(value);
    input.setAttribute("aria-valuetext", text);
    shown.textContent = text;
  };
  const element = h("label", { class: "slider" }, h("span", {}, label, " ", shown), input);
  return { element, show };
};

/**
 * A field that finds a class by a part of its name or by its number. The key "/" leads to the
 * `main` one of the page.
 * @param {string} title
 * @param {string[]} labels
 * @param {(index: number) => void} choose
 * @param {{ id: string, main: boolean }} field
 */
export const classSearch = (title, labels, choose, { id, main }) => {
  // Labels may be the same: the number tells such classes apart.
  const texts = labels.map((label, index) => `${label} · ${index}`);
  /**
   * @param {string} words
   * @param {number} most
   */
  const matching = (words, most) => {
    const matches = [];
    for (const [index, text] of texts.entries()) {
      if (matches.length === most) break;
      if (text.toLowerCase().includes(words)) matches.push(index);
    }
    return matches;
  };
  /** @param {number} index */
  const chosen = (index) => {
    input.value = "";
    choose(index);
  };
  const typed = () => {
    const matches = matching(input.value.toLowerCase(), MATCHES);
    options.replaceChildren(...matches.map((index) => h("option", { value: texts[index] })));
    const exact = matches.find((index) => texts[index] === input.value);
    if (exact !== undefined) chosen(exact);
  };
  /** @param {KeyboardEvent} event */
  const pressed = (event) => {
    const words = input.value.trim();
    if (event.key !== "Enter" || !words) return;
    const isNumber = /^\d+$/.test(words) && Number(words) < labels.length;
    const [match] = isNumber ? [Number(words)] : matching(words.toLowerCase(), 1);
    if (match !== undefined) chosen(match);
    else say(`No class has “${words}” in its name.`);
  };
  const options = h("datalist", { id });
  const input = h("input", {
    type: main ? "search" : "text",
    list: id,
    placeholder: "name or number",
    autocomplete: "off",
    spellcheck: "false",
    oninput: typed,
    onkeydown: pressed,
  });
  return h("label", { class: "search" }, h("span", {}, title), input, options);
};

/**
 * A field that switches a head of attention off or on by its name.
 * @param {string[]} names
 * @param {(unit: number) => void} toggle
 */
export const headByName = (names, toggle) => {
  // A field that is said to be wrong keeps its form from being sent.
  const typed = () => {
    input.setCustomValidity("");
  };
  const input = h("input", {
    type: "text",
    inputmode: "decimal",
    placeholder: names[0],
    oninput: typed,
  });
  /** @param {SubmitEvent} event */
  const asked = (event) => {
    event.preventDefault();
    const head = names.indexOf(input.value.trim());
    input.setCustomValidity(
      head < 0 ? `Heads are called ${names[0]} to ${names[names.length - 1]}: block.head` : "",
    );
    if (input.reportValidity()) toggle(head);
  };
  return h(
    "form",
    { class: "by-number", onsubmit: asked },
    h("label", {}, h("span", {}, "Head by name"), input),
    h("button", { type: "submit" }, "Off / on"),
  );
};

/**
 * A field that switches a unit off or on by its number.
 * @param {number} units
 * @param {(unit: number) => void} toggle
 */
export const unitByNumber = (units, toggle) => {
  const input = h("input", {
    type: "number",
    min: 0,
    max: units - 1,
    step: 1,
    inputmode: "numeric",
  });
  /** @param {SubmitEvent} event */
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

/** How the answers of the network's own head come about. */
const kindOfHead = () => {
  if (site.head?.exact) return "exact";
  return site.head?.kind === "residual" ? "adds up" : "measured";
};

/**
 * A choice of the layer that the photo is explained at; null where only one can be had.
 * @param {string} id
 * @param {string} layer
 */
export const layerSelect = (id, layer) => {
  // Another layer needs a forward pass.
  if (!site.live || !site.model?.layers.length) return null;
  const own = site.head?.layer ?? null;
  /** @param {string} name */
  const go = (name) => {
    const { query } = parsed();
    // These belong to one layer.
    for (const key of ["off", "region", "list"]) query.delete(key);
    if (name === own) query.delete("layer");
    else query.set("layer", name);
    location.hash = address(["photo", id], query);
  };
  const names = [...new Set(own ? [own, ...site.model.layers] : site.model.layers)];
  const options = names.map((name) => {
    const kind = name === own ? kindOfHead() : "measured";
    return h("option", { value: name, selected: name === layer }, `${name} (${kind})`);
  });
  const onchange = () => {
    go(field.value);
  };
  const field = h("select", { onchange }, options);
  return h("label", {}, h("span", {}, "Layer"), field);
};
