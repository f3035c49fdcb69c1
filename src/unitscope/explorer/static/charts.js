// Charts: histograms, bars and curves.
import { svg } from "./dom.js";
import { power, superscript } from "./numbers.js";

// Histograms: both axes logarithmic

// A unit's as a sparkline, from its letters: one a bin, 0 to z.
export const spark = (letters, edges, threshold) => {
  const logs = edges.map(Math.log2);
  const [low, high] = [logs[0], logs[logs.length - 1]];
  const x = (value) => (100 * (value - low)) / (high - low);
  const limit = threshold > 0 ? Math.log2(threshold) : Infinity;
  const steps = [...letters].map((letter) => parseInt(letter, 36));
  let [below, above] = ["", ""];
  steps.forEach((step, place) => {
    if (!step) return;
    const height = (step * 24) / 35;
    const bar = (from, to) => `M${x(from).toFixed(1)} 24v${-height.toFixed(1)}H${x(to).toFixed(1)}V24z`;
    if (logs[place] < limit) below += bar(logs[place], Math.min(logs[place + 1], limit));
    if (logs[place + 1] > limit) above += bar(Math.max(logs[place], limit), logs[place + 1]);
  });
  const drawn = svg("svg", {
    class: "spark",
    viewBox: "0 0 100 25",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  drawn.append(svg("path", { class: "below", d: below }), svg("path", { class: "above", d: above }));
  drawn.append(svg("path", { class: "base", d: "M0 24.5H100" }));
  if (limit > low && limit < high)
    drawn.append(svg("path", { class: "threshold", d: `M${x(limit).toFixed(1)} 0V24` }));
  return drawn;
};

export const histogram = (shares, edges, floor, threshold, written, label) => {
  const [left, right, top, bottom] = [52, 408, 26, 190];
  const logs = edges.map(Math.log2);
  const [low, high] = [logs[0], logs[logs.length - 1]];
  const x = (value) => left + ((right - left) * (value - low)) / (high - low);
  const reach = -Math.log10(floor);
  const y = (share) => bottom - (bottom - top) * Math.max(0, 1 + Math.log10(share) / reach);
  const drawn = svg("svg", { class: "histogram", viewBox: "0 0 420 236", role: "img", "aria-label": label });
  for (let exponent = 0; exponent >= -reach; exponent -= reach > 5 ? 2 : 1) {
    const height = y(10 ** exponent).toFixed(1);
    const text = exponent > -3 ? `${Number((100 * 10 ** exponent).toPrecision(1))}%` : `10${superscript(exponent)}`;
    drawn.append(
      svg("path", { class: "rule", d: `M${left} ${height}H${right}` }),
      svg("text", { x: left - 6, y: Number(height) + 4, "text-anchor": "end" }, text),
    );
  }
  const limit = threshold > 0 ? Math.log2(threshold) : Infinity;
  shares.forEach((share, place) => {
    if (!(share > 0)) return;
    const bar = (kind, from, to) =>
      drawn.append(
        svg("rect", {
          class: kind,
          x: x(from) + 0.4,
          y: y(share),
          width: Math.max(0.2, x(to) - x(from) - 0.8),
          height: bottom - y(share),
        }),
      );
    if (logs[place] < limit) bar("below", logs[place], Math.min(logs[place + 1], limit));
    if (logs[place + 1] > limit) bar("above", Math.max(logs[place], limit), logs[place + 1]);
  });
  drawn.append(svg("path", { class: "base", d: `M${left} ${bottom}H${right}` }));
  for (let octave = Math.ceil(low); octave <= high; octave += 2) {
    const value = 2 ** octave;
    const text = value >= 1000 || value < 0.001 ? power(value) : String(Number(value.toPrecision(2)));
    drawn.append(
      svg("path", { class: "tick", d: `M${x(octave)} ${bottom}v4` }),
      svg("text", { x: x(octave), y: bottom + 17, "text-anchor": "middle" }, text),
    );
  }
  drawn.append(
    svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" }, "activation of a cell"),
    svg("text", { x: 2, y: 12 }, "share of cells"),
  );
  if (limit > low && limit < high) {
    const near = x(limit) > 300 ? "end" : "start";
    drawn.append(
      svg("path", { class: "threshold", d: `M${x(limit)} ${top - 8}V${bottom}` }),
      svg(
        "text",
        { class: "marked", x: x(limit) + (near === "end" ? -5 : 5), y: top, "text-anchor": near },
        `threshold ${written}`,
      ),
    );
  }
  return drawn;
};

// A bar from 0 to a value with its interval as a whisker, on a line from `low` to `high`.
export const bar = (value, from, to, low, high) => {
  const x = (one) => (100 * (one - low)) / (high - low || 1);
  const drawn = svg("svg", {
    class: "bar",
    viewBox: "0 0 100 12",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  if (value !== null) {
    const [begin, end] = [x(0), x(value)].sort((a, b) => a - b);
    drawn.append(
      svg("rect", {
        class: value < 0 ? "under" : "over",
        x: begin,
        y: 2,
        width: Math.max(0.4, end - begin),
        height: 8,
      }),
    );
  }
  if (low < 0) drawn.append(svg("path", { class: "zero", d: `M${x(0)} 0V12` }));
  if (from !== null && to !== null && from !== undefined && to !== undefined) {
    drawn.append(svg("path", { class: "whisker", d: `M${x(from)} 6H${x(to)}M${x(from)} 3.5v5M${x(to)} 3.5v5` }));
  }
  return drawn;
};

// Curves with their intervals as bands: what is left of a class as more units are off.
export const curves = (series, label) => {
  const [left, right, top, bottom] = [46, 408, 16, 206];
  const most = Math.max(1, ...series.flatMap((one) => one.rows.map((row) => row.units)));
  const x = (units) => left + ((right - left) * Math.log2(1 + units)) / Math.log2(1 + most);
  const ends = series
    .flatMap((one) => one.rows.flatMap((row) => [row.low, row.high, row.value]))
    .filter((one) => one !== null);
  const [low, high] = [Math.floor(10 * Math.min(...ends)) / 10, Math.ceil(10 * Math.max(...ends)) / 10];
  const y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low || 1);
  const drawn = svg("svg", { class: "curves", viewBox: "0 0 420 252", role: "img", "aria-label": label });
  for (let step = Math.round(10 * low); step <= Math.round(10 * high); step++) {
    drawn.append(
      svg("path", { class: "rule", d: `M${left} ${y(step / 10)}H${right}` }),
      svg("text", { x: left - 6, y: y(step / 10) + 4, "text-anchor": "end" }, `${10 * step}%`),
    );
  }
  let last = -Infinity;
  for (const units of [...new Set(series.flatMap((one) => one.rows.map((row) => row.units)))].sort((a, b) => a - b)) {
    if (x(units) - last < 26) continue;
    last = x(units);
    drawn.append(svg("text", { x: x(units), y: bottom + 17, "text-anchor": "middle" }, String(units)));
  }
  drawn.append(
    svg(
      "text",
      { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" },
      "units switched off (logarithmic)",
    ),
  );
  series.forEach((one, place) => {
    const known = one.rows.filter((row) => row.value !== null);
    const point = (row, value) => `${x(row.units).toFixed(1)} ${y(value).toFixed(1)}`;
    const banded = known.filter((row) => row.low !== null && row.high !== null);
    if (banded.length > 1)
      drawn.append(
        svg("path", {
          class: `band s${place}`,
          d: `M${banded.map((row) => point(row, row.high)).join("L")}L${[...banded]
            .reverse()
            .map((row) => point(row, row.low))
            .join("L")}z`,
        }),
      );
    if (known.length)
      drawn.append(
        svg("path", { class: `curve s${place}`, d: `M${known.map((row) => point(row, row.value)).join("L")}` }),
      );
    for (const row of known)
      drawn.append(svg("circle", { class: `s${place}`, cx: x(row.units), cy: y(row.value), r: 2.6 }));
  });
  return drawn;
};
