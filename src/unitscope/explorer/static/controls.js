// Controls whose state is in the address.
import { choose } from "./addresses.js";
import { h } from "./dom.js";
import { page } from "./page.js";
/** @import { Child } from "./dom.js" */

/**
 * The value of a choice and its text; an empty value is the usual choice.
 * @typedef {[value: string, text: string]} Choice
 */

/**
 * @param {string} label
 * @param {string} name
 * @param {string | null} chosen
 * @param {Choice[]} options
 */
export const select = (label, name, chosen, options) => {
  const field = h(
    "select",
    {
      name,
      onchange: () => {
        choose({ [name]: field.value }, true);
        page.refresh();
      },
    },
    options.map(([value, text]) =>
      h("option", { value, selected: value === (chosen || "") }, text),
    ),
  );
  return h("label", {}, h("span", {}, label), field);
};

/**
 * @param {string} legend
 * @param {string} name
 * @param {string} chosen
 * @param {Choice[]} options
 * @param {() => unknown} change Called after a choice.
 */
export const radios = (legend, name, chosen, options, change) => {
  /** @param {Choice} choice */
  const button = ([value, text]) => {
    const input = h("input", {
      type: "radio",
      name,
      value,
      checked: value === chosen,
      onchange: () => {
        choose({ [name]: value }, true);
        change();
      },
    });
    return h("label", {}, input, text);
  };
  return h("fieldset", {}, h("legend", {}, legend), options.map(button));
};

/**
 * A field to search with, whose words are in the address.
 * @param {string | null} words
 * @param {string} placeholder
 * @param {() => unknown} change Called after a key.
 */
export const searchField = (words, placeholder, change) => {
  const field = h("input", {
    type: "search",
    name: "q",
    value: words || "",
    placeholder,
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      choose({ q: field.value.trim() }, false);
      change();
    },
  });
  return field;
};

/**
 * The words of a search, in lower case.
 * @param {string | null} text
 */
export const wordsOf = (text) => (text || "").toLowerCase().split(/\s+/).filter(Boolean);

/**
 * Controls in a form that sends nothing.
 * @param {string | null} role
 * @param {...Child} children
 */
export const controlsForm = (role, ...children) =>
  h("form", { class: "controls", role, onsubmit: (event) => event.preventDefault() }, ...children);
