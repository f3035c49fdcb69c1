// What is chosen on a photo's page, as it stands in the address.
import { setOf, written } from "./sets.js";

const LISTED = 24;

// `first` is the class that is shown when none is chosen. What is typed wrong, or is of another photo, is left out.
export const stateOf = (query, told, classes, first) => {
  const asked = query.get("class") || "";
  const share = (name, usual) => {
    const value = query.get(name) || "";
    return /^\d+$/.test(value) && Number(value) <= 100 ? Number(value) : usual;
  };
  return {
    class: /^\d+$/.test(asked) && Number(asked) < classes ? Number(asked) : first,
    off: setOf(query.get("off"), told.units),
    region: setOf(query.get("region"), told.map.rows * told.map.cols),
    opacity: share("opacity", 100),
    level: share("level", 0),
    against: query.get("units") === "against",
    listed: Math.min(told.units, Math.max(LISTED, Math.floor(Number(query.get("list"))) || LISTED)),
  };
};

export const addressed = (state, first) => {
  const usual = { class: first, opacity: 100, level: 0 };
  const changed = (name) => (state[name] === usual[name] ? "" : String(state[name]));
  return {
    class: changed("class"),
    off: written(state.off),
    region: written(state.region),
    opacity: changed("opacity"),
    level: changed("level"),
    units: state.against ? "against" : "",
    list: state.listed > LISTED ? String(state.listed) : "",
  };
};
