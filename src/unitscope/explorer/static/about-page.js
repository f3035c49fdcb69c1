// What was scanned, and how it is drawn.
import { index } from "./data.js";
import { h } from "./dom.js";
import { percent } from "./numbers.js";
import { show } from "./page.js";

export const aboutPage = () => {
  const said = (text) =>
    Array.isArray(text)
      ? h(
          "ul",
          {},
          text.map((line) => h("li", {}, line)),
        )
      : text;
  const plain = (term, text) => [
    h("dt", {}, term),
    h("dd", { class: /SHA|fingerprint/.test(term) ? "hash" : false }, said(text)),
  ];
  show(
    "About",
    "about",
    h("h1", { tabindex: "-1" }, "About this atlas"),
    h(
      "section",
      {},
      h("h2", {}, "What was scanned"),
      h(
        "dl",
        { class: "about" },
        index.about.map(([term, text]) => plain(term, text)),
      ),
    ),
    h(
      "section",
      {},
      h("h2", {}, "How it is drawn"),
      h(
        "dl",
        { class: "about" },
        plain(
          "photos",
          "The part that the network saw, in the shape of its input. A photo that is gone or is another by now has a grey tile.",
        ),
        plain(
          "activations",
          "As the network computed them, in its own unit, and not scaled. Those of different units or layers cannot be compared as such.",
        ),
        plain(
          "contour",
          `Encloses activations at or above the unit’s threshold, the least that at most ${percent(index.quantile)} of all cells of all images reach. Maps are laid by the centres of their cells’ receptive fields, bilinear between them. Another threshold can be chosen on a unit’s page; how many cells reach it is read off the histogram, on a straight line within a bar.`,
        ),
        plain(
          "heat",
          "From 0 to the unit’s maximum over the data set: one scale for all pictures of a unit, another for each unit. Opacity grows with the activation; the photo beneath is grey, so that every colour is the map’s.",
        ),
        plain(
          "histograms",
          "Over all cells of all images; both axes logarithmic, the same for all units of a layer. Cells of 0 and below are told in words.",
        ),
        plain(
          "units that respond alike",
          "Pearson’s correlation of their mean activations over the images; where those of a layer were not kept one by one, over the means by class, or over a random sample of images.",
        ),
        plain("maps", "Kept in 254 steps of their own largest value, so that they are right to 0.4% of it."),
        plain(
          "intervals",
          "95%, between images as a sample of all such images: they say nothing about images of another kind. Where many units or classes are looked at, some intervals miss by chance.",
        ),
        plain(
          "class selectivity",
          "(largest class mean − mean of the others) / (their sum), of class means of the mean activation (Morcos et al. 2018). A selective unit is not thereby an important one.",
        ),
      ),
    ),
  );
};
