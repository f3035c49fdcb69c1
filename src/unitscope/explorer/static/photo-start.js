// Where a photo comes from: dropped, pasted, picked, or one of those at hand.
import { address } from "./addresses.js";
import { send, site } from "./data.js";
import { breakable, h, say } from "./dom.js";
import { show } from "./page.js";

const give = async (file) => {
  if (!file) return;
  say(`Sending ${file.name || "the photo"} …`);
  try {
    const { photo } = await send("photos", file, { "X-Photo-Name": encodeURIComponent(file.name || "pasted photo") });
    say("");
    location.hash = address(["photo", photo]);
  } catch (error) {
    say(error.message, true);
  }
};

// On every page. Only what a live server can explain is taken; text that is dropped or pasted is left alone.
const pictureIn = (transfer) => [...((transfer && transfer.files) || [])][0];
export const takePhotos = () => {
  if (!site.live || !site.model) return;
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  const away = (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  };
  const drop = (event) => {
    document.body.classList.remove("dropping");
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    give(pictureIn(event.dataTransfer));
  };
  const paste = (event) => {
    const file = pictureIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    give(file);
  };
  for (const [name, listener] of Object.entries({ dragover: over, dragleave: away, drop, paste }))
    document.addEventListener(name, listener);
};

export const pickPhoto = (text) =>
  h(
    "label",
    { class: "pick" },
    text,
    h("input", { type: "file", accept: "image/*", onchange: (event) => give(event.target.files[0]) }),
  );

const atHand = () =>
  h(
    "section",
    {},
    h("h2", {}, site.live && site.model ? "Or one of these" : "Photos"),
    h(
      "ol",
      { class: "at-hand" },
      site.photos.map(({ id, name, class: of }) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: address(["photo", id]) },
            h("img", { src: `data/photos/${id}.jpg`, alt: "", loading: "lazy", decoding: "async" }),
            h("span", { class: "name" }, breakable(of || name)),
            of ? h("small", {}, breakable(name)) : null,
          ),
        ),
      ),
    ),
  );

// `trouble` says why a photo that was asked for is not shown.
export const startPage = (trouble) => {
  const { head, model } = site;
  const how = !head
    ? ""
    : head.exact
      ? "Its head is exact: what every unit and every place of the photo adds to every class is computed here, in the browser, from one forward pass."
      : `Its head is not exact (${head.reason}): maps are gradient × activation, and switching units off is measured by running the network.`;
  show(
    "Photo",
    "photo",
    h("h1", { tabindex: "-1" }, trouble ? "This photo cannot be shown" : "Ask it about a photo"),
    trouble ? h("p", { class: "warning", role: "alert" }, trouble) : null,
    h(
      "p",
      { class: "lead" },
      site.live && model
        ? `Give ${site.architecture} a photo, and see what it says, why, and what it would say without any of its units.`
        : `What ${site.architecture} says of photos, why, and what it would say without any of its units.`,
    ),
    site.live && model
      ? h(
          "div",
          { class: "drop" },
          h("p", {}, h("strong", {}, "Drop a photo here"), ", paste one, or"),
          pickPhoto("Pick a file"),
          h("p", { class: "soft" }, "It stays in the memory of unitscope’s own server, and is forgotten when that ends."),
        )
      : site.live
        ? h(
            "p",
            { class: "warning" },
            "No model is loaded, only an atlas: photos of your own can be explained with `unitscope explore ATLAS --model SPEC`.",
          )
        : null,
    site.photos.length ? atHand() : null,
    how ? h("p", { class: "soft how" }, how) : null,
  );
};
