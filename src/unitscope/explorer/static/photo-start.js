// Where a photo comes from: dropped, pasted, picked, or one of those offered.
import { address } from "./addresses.js";
import { send } from "./data.js";
import { breakable, h, messageOf, say, section } from "./dom.js";
import { show } from "./page.js";
import { site } from "./site.js";

/**
 * Send a photo to the server, and go to its page.
 * @param {File | undefined} file
 */
const sendPhoto = async (file) => {
  if (!file) return;
  say(`Sending ${file.name || "the photo"} …`);
  try {
    const name = encodeURIComponent(file.name || "pasted photo");
    const { photo } = await send("photos", file, { "X-Photo-Name": name });
    say("");
    location.hash = address(["photo", photo]);
  } catch (error) {
    say(messageOf(error), true);
  }
};

/**
 * @param {DataTransfer | null} transfer
 * @returns {File | undefined}
 */
const fileIn = (transfer) => transfer?.files[0];

/** @param {DragEvent} event */
const bringsFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));

/**
 * Take photos that are dropped or pasted on any page; text that is dropped or pasted is left alone.
 */
export const takePhotos = () => {
  if (!site.live || !site.model) return;
  const { classList } = document.body;
  document.addEventListener("dragover", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    classList.remove("dropping");
    if (!bringsFiles(event)) return;
    event.preventDefault();
    sendPhoto(fileIn(event.dataTransfer));
  });
  document.addEventListener("paste", (event) => {
    const file = fileIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    sendPhoto(file);
  });
};

/**
 * A button that picks a file.
 * @param {string} text
 */
export const pickPhoto = (text) => {
  const input = h("input", {
    type: "file",
    accept: "image/*",
    onchange: () => {
      sendPhoto(input.files?.[0]);
    },
  });
  return h("label", { class: "pick" }, text, input);
};

/** @param {Documents.PhotoChoice} photo */
const offeredPhoto = ({ id, name, class: label }) =>
  h(
    "li",
    {},
    h(
      "a",
      { href: address(["photo", id]) },
      h("img", { src: `data/photos/${id}.jpg`, alt: "", loading: "lazy", decoding: "async" }),
      h("span", { class: "name" }, breakable(label || name)),
      label ? h("small", {}, breakable(name)) : null,
    ),
  );

/** @param {Documents.Head} head */
const wordsOfHead = ({ exact, kind, reason }) => {
  if (exact)
    return (
      "Its head is exact: what every unit and every place of the photo adds to every class is " +
      "computed here, in the browser, from one forward pass."
    );
  if (kind === "residual")
    return (
      `Its ${site.scores.numbers} are read from a token that attends to others, so they are sums: ` +
      "of what heads of attention took from patches and other tokens, of what MLPs wrote, and of " +
      "what it began with. Switching heads off has a total effect, measured by running the " +
      "network, and a direct one, by algebra."
    );
  return (
    `Its head is not exact (${reason}): maps are gradient × activation, and the effect ` +
    "of switching units off is measured by running the network."
  );
};

/** How photos are explained, by the kind of head. */
const howExplained = () => {
  const { head } = site;
  if (!head) return null;
  return h("p", { class: "soft how" }, wordsOfHead(head));
};

/** Where a photo can be dropped; without a model, how to get one; nothing in a copy. */
const dropArea = () => {
  if (!site.live) return null;
  if (!site.model)
    return h(
      "p",
      { class: "warning" },
      "No model is loaded, only an atlas. To explain photos of your own, start `unitscope " +
        "explore ATLAS --model SPEC`.",
    );
  return h(
    "div",
    { class: "drop" },
    h("p", {}, h("strong", {}, "Drop a photo here"), ", paste one, or"),
    pickPhoto("Pick a file"),
    h(
      "p",
      { class: "soft" },
      "It stays in the memory of unitscope’s own server, and is forgotten when the server stops.",
    ),
  );
};

/** Why a copy has no photos, where its network has no exact head. */
const noPhotos = () => {
  const { live, head, photos } = site;
  if (live || head?.exact || photos.length) return null;
  return h(
    "p",
    { class: "warning" },
    "This copy has no photos: without an exact head every answer needs the network, which pages " +
      "from disk cannot run. Start `unitscope explore` for that.",
  );
};

/**
 * @param {string} [trouble] Why a photo that was asked for is not shown.
 */
export const startPage = (trouble) => {
  const explains = site.live && site.model;
  const photos = h("ol", { class: "at-hand" }, site.photos.map(offeredPhoto));
  const lead = explains
    ? `Give ${site.architecture} a photo, and see what it predicts, why, and what it would ` +
      "predict without any of its units."
    : `What ${site.architecture} predicts for photos, why, and what it would predict without ` +
      "any of its units.";
  show(
    "Photo",
    "photo",
    h("h1", { tabindex: "-1" }, trouble ? "This photo cannot be shown" : "Ask it about a photo"),
    trouble ? h("p", { class: "warning", role: "alert" }, trouble) : null,
    h("p", { class: "lead" }, lead),
    dropArea(),
    noPhotos(),
    site.photos.length > 0 && section(explains ? "Or one of these" : "Photos", photos),
    howExplained(),
  );
};

/** What is shown while the network explains a photo. */
export const showWaiting = () =>
  show(
    "Explaining",
    "photo",
    h("h1", { tabindex: "-1" }, "Explaining the photo …"),
    h("p", { class: "soft", role: "status" }, "The network is running."),
  );
