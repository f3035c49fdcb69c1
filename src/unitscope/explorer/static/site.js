// The first document: the network and the atlas that the pages are about.
import { load } from "./data.js";

/** @type {Documents.Index} */
export let site;

/** Load the first document. To be called before any page is shown. */
export const begin = async () => {
  site = await load("index");
};

/** The atlas, on pages that need one. */
export const theAtlas = () => {
  if (!site.atlas) throw new Error("There is no atlas: name one with `unitscope explore ATLAS`.");
  return site.atlas;
};
