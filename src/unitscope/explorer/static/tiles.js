// Tiles: images of the data set as the network saw them.
import { index, reasonOf, site } from "./data.js";
import { h } from "./dom.js";
import { className, value } from "./units.js";

const pathOf = (image) => `images/${Math.floor(image / index.tiles.perFolder)}/${image}.${index.tiles.suffix}`;
export const spritePath = (place, unit) => `sprites/${place}/${unit}.${index.tiles.suffix}`;
export const told = (row) => (row[1] === null ? "" : className(row[1]));
// Why there is no picture of an image, as far as that is known; nothing where there may be one.
export const noteOf = (row) => (row[4] === index.tiles.drawn ? "" : index.tiles.states[row[4]]);

export const tile = (image, row, overlay, alt) => {
  const frame = h("span", { class: "tile" });
  const missing = (note) => {
    frame.classList.add("missing");
    frame.append(h("span", { class: "note", title: row[0] }, note));
  };
  if (noteOf(row)) missing(noteOf(row));
  else {
    const path = pathOf(image);
    const picture = h("img", {
      src: path,
      alt,
      title: row[0],
      decoding: "async",
      width: site.input[1],
      height: site.input[0],
    });
    picture.onerror = async () => {
      picture.remove();
      missing(await reasonOf(path));
    };
    frame.append(picture);
  }
  if (overlay) frame.append(overlay);
  return frame;
};
// Where nothing is below 0, all places are at a threshold of 0: there is no line to be drawn.
export const levelOf = (layer, unit) => {
  const threshold = value(layer, "threshold", unit);
  return threshold > 0 || (layer.signed && threshold !== null) ? threshold : Infinity;
};
