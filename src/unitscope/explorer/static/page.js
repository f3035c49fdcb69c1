// The page that is shown: its title, its contents, where it stands in the navigation, and what keys do on it.
import { address } from "./addresses.js";
import { index, site } from "./data.js";
import { h, link } from "./dom.js";

export const main = document.getElementById("main");

// What a page says when it only went to another state of itself: nobody is to be moved about in it.
export const SAME_PAGE = Symbol("same page");

// `keys` are what keys do on this page alone; `told` says so in the help; `leave` is called when another is shown;
// `refresh` draws it anew after a choice; `render` shows the page of the address. `turn` counts how often somebody went
// to another state: what was waited for meanwhile is not shown any more.
export const page = { keys: {}, told: [], leave: () => {}, refresh: () => {}, render: () => {}, turn: 0 };

// `place` is the part of the navigation that the page belongs to: "photo", "network", a layer's name …
export const show = (title, place, ...children) => {
  page.leave();
  Object.assign(page, { keys: {}, told: [], leave: () => {}, refresh: () => {} });
  document.title = `${title} – ${site.architecture} – unitscope`;
  const places = [
    site.live || site.photos.length ? ["photo", "Photo", ["photo"]] : null,
    site.model ? ["network", "Network", ["network"]] : null,
    ...(index ? index.layers.map((layer) => [`layer ${layer.name}`, layer.name, ["layer", layer.name]]) : []),
    index ? ["classes", "Classes", ["classes"]] : null,
    index ? ["about", "About", ["about"]] : null,
  ].filter(Boolean);
  const links = places.map(([name, text, parts]) =>
    h("a", { href: address(parts), "aria-current": name === place ? "page" : false }, text),
  );
  document.getElementById("places").replaceChildren(...links);
  main.inert = false;
  main.replaceChildren(...children.flat(Infinity).filter(Boolean));
};

export const lost = (text, title = "Not found") =>
  show(title, null, h("h1", { tabindex: "-1" }, title), h("p", {}, text, " ", link("#/", "To the start")));
