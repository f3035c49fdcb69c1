// Documents of a copy of the pages: scripts, as pages from disk may not fetch. Each calls `unitscope.add` by its name.

// The first document; the part of it that is of an atlas, if there is one.
export let site = null;
export let index = null;

const NO_SERVER = "This is a copy of the pages, and nothing can be computed anew: start `unitscope explore` for that.";

const scripts = new Map();

export const add = (name, value) => scripts.get(name).take(value);

// Parts of a document have files of their own: "?from=512" is name.from-512.
export const load = async (whole, query = "") => {
  const name = whole + query.replace(/^\?from=(\d+)$/, ".from-$1");
  if (name.includes("?")) throw new Error(NO_SERVER);
  if (!scripts.has(name)) {
    const entry = {};
    entry.found = new Promise((take, fail) => {
      entry.take = take;
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onerror = () => fail(new Error(`data/${name}.js is missing: copy the whole folder of these pages`));
      document.head.append(script);
    });
    scripts.set(name, entry);
  }
  return scripts.get(name).found;
};

export const send = async () => {
  throw new Error(NO_SERVER);
};

// Why a picture is not there: all that were drawn are, unless a part of the folder was left behind.
export const reasonOf = async () => "picture not found";

export const begin = async () => {
  site = await load("index");
  index = site.atlas;
};
