// Elements. Text is always inserted as text, never parsed as markup.

/**
 * What an element contains; null, undefined and false stand for nothing.
 * @typedef {string | Node | null | undefined | false | Child[]} Child
 */
/**
 * The value of an attribute: true sets it empty; false, null and undefined leave it out.
 * @typedef {string | number | boolean | null | undefined} Attribute
 */
/**
 * The attributes in use. A name that is missing here is probably mistyped.
 * @typedef {"accept" | "alt" | "autocomplete" | "checked" | "class" | "data-unit" | "decoding"
 *   | "for" | "height" | "hidden" | "href" | "id" | "inputmode" | "list" | "loading" | "max"
 *   | "min" | "name" | "placeholder" | "rel" | "role" | "scope" | "selected" | "spellcheck"
 *   | "src" | "step" | "tabindex" | "title" | "type" | "value" | "width"
 *   | `aria-${string}`} AttributeName
 */
/**
 * Attributes and listeners of an element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @typedef {{ [Type in keyof HTMLElementEventMap as `on${Type}`]?:
 *     (event: HTMLElementEventMap[Type] & { currentTarget: HTMLElementTagNameMap[Tag] }) => unknown
 *   } & { [Name in AttributeName]?: Attribute }} Properties
 */

/**
 * The nodes and texts among nested children.
 * @param {Child[]} children
 * @returns {(string | Node)[]}
 */
export const flatten = (children) =>
  children.flatMap((child) => {
    if (Array.isArray(child)) return flatten(child);
    return child === null || child === undefined || child === false ? [] : [child];
  });

/**
 * An element with attributes, listeners (`onclick` …) and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties<Tag>} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export const h = (tag, properties, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (typeof value === "function")
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(...flatten(children));
  return element;
};

/**
 * An element that index.html holds.
 * @param {string} id
 * @returns {HTMLElement}
 */
export const byId = (id) => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element with the id "${id}"`);
  return element;
};

/**
 * The text of an error, whatever was thrown.
 * @param {unknown} error
 */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

let notice = 0;

/**
 * A short notice, for a few seconds; `trouble` stays until the next one.
 * @param {string} text
 * @param {boolean} [trouble]
 */
export const say = (text, trouble = false) => {
  const place = byId("said");
  place.textContent = text;
  place.classList.toggle("trouble", trouble);
  clearTimeout(notice);
  if (text && !trouble) notice = setTimeout(() => say(""), 6000);
};

/**
 * @param {string} href
 * @param {...Child} children
 */
export const link = (href, ...children) => h("a", { href }, ...children);

/**
 * A label that may break after a slash or an underscore.
 * @param {string} label
 * @returns {(string | HTMLElement)[]}
 */
export const breakable = (label) =>
  label.split(/(?<=[/_])/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

// The namespace is read from the page's own SVG, so that no address stands in the code.
const namespace = document.querySelector("svg.namespace")?.namespaceURI ?? null;

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...(string | Node)} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export const svg = (tag, attributes, ...children) => {
  const element = /** @type {SVGElementTagNameMap[Tag]} */ (
    document.createElementNS(namespace, tag)
  );
  for (const [name, value] of Object.entries(attributes ?? {}))
    element.setAttribute(name, String(value));
  element.append(...children);
  return element;
};

/**
 * A table that scrolls sideways on its own. `heads` are the text and the class of each column.
 * @param {string} caption
 * @param {[text: string, kind?: string][]} heads
 * @param {Child} rows
 */
export const table = (caption, heads, rows) =>
  h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), tableHead(heads), h("tbody", {}, rows)),
  );

/** @param {[text: string, kind?: string][]} heads */
export const tableHead = (heads) =>
  h(
    "thead",
    {},
    h(
      "tr",
      {},
      heads.map(([text, kind]) => {
        const of = kind || false;
        // A column without a title has no heading that could be read out.
        return text ? h("th", { scope: "col", class: of }, text) : h("td", { class: of });
      }),
    ),
  );

/**
 * @param {Child} content
 * @param {string} [kind]
 */
export const cell = (content, kind) => h("td", { class: kind || false }, content);

/** @param {Child} content */
export const rowHead = (content) => h("th", { scope: "row" }, content);

/**
 * A section with its heading.
 * @param {string} title
 * @param {...Child} children
 */
export const section = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);

/** @param {string} text */
export const titleCase = (text) => `${text[0].toUpperCase()}${text.slice(1)}`;

/**
 * A paragraph of small print.
 * @param {...Child} children
 */
export const small = (...children) => h("p", { class: "soft" }, ...children);
