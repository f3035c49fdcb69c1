// What the network says, with all units on and without some, side by side.
import { largest } from "./algebra.js";
import { breakable, h } from "./dom.js";
import { count, number, percent } from "./numbers.js";

// `said` is { logits, shares }; `before` the shares with all units on, where they are not the same.
const predictionRow = (one, label, said, before, { chosen, choose, preview }) => {
  const amount = h("span", { class: "amount" });
  amount.style.width = `${100 * said.shares[one]}%`;
  const change = before ? said.shares[one] - before[one] : 0;
  const changed = Math.abs(change) < 5e-4 ? "±0" : `${number(100 * change, 1, true)} points`;
  return h(
    "li",
    {},
    h(
      "button",
      {
        type: "button",
        class: "prediction",
        "aria-pressed": String(one === chosen),
        onclick: () => choose(one),
        onpointerenter: () => preview(one),
        onpointerleave: () => preview(chosen),
      },
      h(
        "span",
        { class: "named" },
        h("span", { class: "label" }, breakable(label)),
        h("span", { class: "share" }, percent(said.shares[one])),
      ),
      h("span", { class: "amounts", "aria-hidden": "true" }, amount),
      h("span", { class: "logit" }, `logit ${number(said.logits[one], 2)}`, before ? ` · ${changed}` : ""),
    ),
  );
};

// The class that is chosen stands at the end of a list that it is not among.
const ranking = (title, labels, said, before, top, actions) =>
  h(
    "div",
    {},
    h("h2", {}, title),
    h(
      "ol",
      { class: "ranking" },
      (top.includes(actions.chosen) ? top : [...top, actions.chosen]).map((one) =>
        predictionRow(one, labels[one], said, before, actions),
      ),
    ),
  );

// `first` are the classes of the largest logits with all units on; `off` is how many units are off.
export const predictionLists = (labels, first, on, without, off, actions) => [
  ranking("All units on", labels, on, null, first, actions),
  off
    ? ranking(`${count(off, "unit")} off`, labels, without, on.shares, largest(without.logits, first.length), actions)
    : h(
        "div",
        { class: "nothing-off" },
        h("h2", {}, "Without units"),
        h("p", { class: "soft" }, "Switch units off below: what the network would say then stands here at once."),
      ),
];

// The same in a line, for where there is no room for lists.
export const inShort = (labels, without, count) =>
  largest(without.logits, count)
    .map((one) => `${labels[one]} ${percent(without.shares[one])}`)
    .join(" · ");

export const whatBecame = (labels, on, without, off) => {
  const [was, is] = [largest(on.logits, 1)[0], largest(without.logits, 1)[0]];
  if (!off) return "All units are on.";
  return was === is
    ? `Still ${labels[was]}: ${percent(on.shares[was])} → ${percent(without.shares[was])}.`
    : `${labels[was]} becomes ${labels[is]} (${percent(without.shares[is])}).`;
};
