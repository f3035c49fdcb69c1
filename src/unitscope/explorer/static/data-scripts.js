// Documents of a copy of the pages. They are scripts, since pages from disk cannot fetch. Each one
// calls `unitscope.add` with its name.

const NO_SERVER =
  "This is a copy of the pages, which cannot compute anything new: start `unitscope explore` " +
  "for that.";

/** @type {Map<string, { document: Promise<any>, take: (document: any) => void }>} */
const scripts = new Map();

/**
 * @param {string} name
 * @param {unknown} document
 */
export const add = (name, document) => scripts.get(name)?.take(document);

/**
 * A document, loaded once. Parts of one have files of their own: "?from=512" is name.from-512.
 * @template {string} Name
 * @param {Name} whole
 * @param {string} [query]
 * @returns {Promise<Documents.Named<Name>>}
 */
export const load = async (whole, query = "") => {
  const name = whole + query.replace(/^\?from=(\d+)$/, ".from-$1");
  if (name.includes("?")) throw new Error(NO_SERVER);
  const known = scripts.get(name);
  if (known) return known.document;
  /** @type {(document: any) => void} */
  let take = () => {};
  const loading = new Promise((resolve, reject) => {
    take = resolve;
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onerror = () =>
      reject(new Error(`data/${name}.js is missing: copy the whole folder of these pages`));
    document.head.append(script);
  });
  scripts.set(name, { document: loading, take });
  return loading;
};

/**
 * @template {string} Name
 * @param {Name} _name
 * @param {BodyInit} _body
 * @param {HeadersInit} _headers
 * @returns {Promise<Documents.Named<Name>>}
 */
export const send = async (_name, _body, _headers) => {
  throw new Error(NO_SERVER);
};

/**
 * Why a picture is missing: all of them were drawn, so part of the folder was left behind.
 * @param {string} _address
 */
export const reasonOf = async (_address) => "picture not found";
