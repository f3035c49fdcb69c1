// Elements: all text is put in as text, never as markup.

export const h = (tag, properties, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
};
// A short notice, for a while; `trouble` stays until the next.
let noticed = 0;
export const say = (text, trouble = false) => {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.toggle("trouble", trouble);
  clearTimeout(noticed);
  if (text && !trouble) noticed = setTimeout(() => say(""), 6000);
};
export const link = (href, ...children) => h("a", { href }, ...children);
// A label may be broken after a slash or an underscore.
export const breakable = (label) =>
  String(label)
    .split(/(?<=[/_])/)
    .flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

// The namespace is taken from the page's own SVG, so that no address stands here.
const namespace = document.querySelector("svg.namespace").namespaceURI;

export const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export const table = (caption, heads, rows) =>
  h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map(([text, kind]) => h("th", { scope: "col", class: kind || false }, text)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );
export const cell = (shown, kind) => h("td", { class: kind || false }, shown);
export const rowHead = (shown) => h("th", { scope: "row" }, shown);
