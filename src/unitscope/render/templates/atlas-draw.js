"use strict";
// What is drawn: maps on tiles, histograms, bars, curves, and how numbers are written. Nothing here knows of pages.
const unitscopeDraw = (() => {
  // The namespace is taken from the page's own SVG, so that no address stands here.
  const namespace = document.querySelector("svg.namespace").namespaceURI;

  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Numbers

  const superscript = (exponent) =>
    String(exponent)
      .replace("-", "⁻")
      .replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
  const power = (value) => {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${mantissa} × 10${superscript(Number(exponent))}`;
  };
  const number = (value, digits = 2, signed = false) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const text = value !== 0 && (size < 0.5 * 10 ** -digits || size >= 1e5) ? power(size) : size.toFixed(digits);
    return (value < 0 ? "−" : signed && value > 0 ? "+" : "") + text;
  };
  const percent = (value, digits = 1) => {
    if (value === null || value === undefined) return "–";
    if (value > 0 && value < 0.5 * 10 ** -(digits + 2)) return `<${(10 ** -digits).toFixed(digits)}%`;
    const text = (100 * value).toFixed(digits);
    return value < 1 && Number(text) === 100 ? `>${(100 - 10 ** -digits).toFixed(digits)}%` : `${text}%`;
  };
  const points = (value) => `${number(100 * value, 2, true)} points`;
  const count = (value, noun) => {
    const shown = String(value).replace(/\B(?=(\d{3})+$)/g, " ");
    return `${shown} ${noun}${value === 1 ? "" : /s$/.test(noun) ? "es" : "s"}`;
  };

  // Maps: one byte a cell, in steps of the map's own peak

  const unpacked = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  // The maps of several images, each as activations.
  const mapsOf = (part, layer) => {
    const bytes = unpacked(part.maps);
    const cells = layer.map.rows * layer.map.cols;
    return part.peaks.map((peak, place) => {
      const values = new Float32Array(cells);
      for (let cell = 0; cell < cells; cell++) {
        const share = bytes[place * cells + cell] / 254;
        values[cell] = peak * (layer.signed ? 2 * share - 1 : share);
      }
      return values;
    });
  };

  // Where parts of the input lie between the centres of a map's cells: held constant beyond the outermost ones.
  const along = (fractions, inputs, [start, step], cells) =>
    fractions.map((fraction) => {
      const position = Math.min(cells - 1, Math.max(0, (fraction * inputs - start) / step));
      const cell = Math.min(Math.floor(position), Math.max(0, cells - 2));
      return [cell, Math.min(cell + 1, cells - 1), position - cell];
    });

  // A map laid on the input, bilinear between the centres of its cells.
  const laid = (values, layer, input, down, across) => {
    const { rows, cols } = layer.map;
    const ys = along(down, input[0], layer.map.down, rows);
    const xs = along(across, input[1], layer.map.across, cols);
    const field = new Float32Array(ys.length * xs.length);
    let place = 0;
    for (const [above, below, dy] of ys) {
      for (const [left, right, dx] of xs) {
        const top = values[above * cols + left] * (1 - dx) + values[above * cols + right] * dx;
        const bottom = values[below * cols + left] * (1 - dx) + values[below * cols + right] * dx;
        field[place++] = top * (1 - dy) + bottom * dy;
      }
    }
    return field;
  };

  // The line at a level as an SVG path in a square of 100: marching squares on a lattice of so many squares a side.
  const contourPath = (values, level, layer, input, squares) => {
    let reached = false;
    for (const value of values) if (value >= level) reached = true;
    if (!reached) return "";
    const lines = Array.from({ length: squares + 1 }, (_, place) => place / squares);
    const field = laid(values, layer, input, lines, lines);
    const width = squares + 1;
    const scale = 100 / squares;
    const parts = [];
    const at = (x, y) => `${(x * scale).toFixed(1)} ${(y * scale).toFixed(1)}`;
    const part = (a, b) => (level - a) / (b - a);
    for (let y = 0; y < squares; y++) {
      for (let x = 0; x < squares; x++) {
        const [a, b] = [field[y * width + x], field[y * width + x + 1]];
        const [d, c] = [field[(y + 1) * width + x], field[(y + 1) * width + x + 1]];
        const inside = (a >= level) + (b >= level) + (c >= level) + (d >= level);
        if (inside === 0 || inside === 4) continue;
        const cuts = [];
        if (a >= level !== b >= level) cuts.push(at(x + part(a, b), y));
        if (b >= level !== c >= level) cuts.push(at(x + 1, y + part(b, c)));
        if (d >= level !== c >= level) cuts.push(at(x + part(d, c), y + 1));
        if (a >= level !== d >= level) cuts.push(at(x, y + part(a, d)));
        if (cuts.length === 4 && a + b + c + d >= 4 * level !== a >= level) cuts.push(cuts.shift());
        for (let end = 0; end < cuts.length; end += 2) parts.push(`M${cuts[end]}L${cuts[end + 1]}`);
      }
    }
    return parts.join("");
  };

  const contour = (values, level, layer, input, squares = 64) => {
    const path = contourPath(values, level, layer, input, squares);
    const box = { class: "contour", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" };
    return svg(
      "svg",
      box,
      ...(path ? [svg("path", { class: "halo", d: path }), svg("path", { class: "line", d: path })] : []),
    );
  };

  // Opacity grows with the activation, so that cold places show the plain photo; as in the reports.
  const heat = (values, largest, layer, input, colours) => {
    const canvas = document.createElement("canvas");
    const longest = 144 / Math.max(...input);
    canvas.height = Math.round(input[0] * longest);
    canvas.width = Math.round(input[1] * longest);
    canvas.className = "heat";
    if (!(largest > 0)) return canvas;
    const centres = (length) => Array.from({ length }, (_, place) => (place + 0.5) / length);
    const field = laid(values, layer, input, centres(canvas.height), centres(canvas.width));
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, canvas.height);
    field.forEach((value, place) => {
      const strength = Math.min(1, Math.max(0, value / largest));
      const colour = parseInt(colours[Math.round(255 * strength)], 16);
      picture.data.set([colour >> 16, (colour >> 8) & 255, colour & 255, 255 * 0.86 * strength ** 0.85], 4 * place);
    });
    context.putImageData(picture, 0, 0);
    return canvas;
  };

  const colourBar = (largest, colours) => {
    const stops = colours
      .filter((_, place) => place % 15 === 0)
      .map((colour, place, all) => svg("stop", { offset: place / (all.length - 1), "stop-color": `#${colour}` }));
    const [left, wide] = [18, 224];
    const drawn = svg(
      "svg",
      {
        class: "colour-bar",
        viewBox: "0 0 260 34",
        width: 260,
        height: 34,
        role: "img",
        "aria-label": `Colour scale from 0 to ${number(largest)}`,
      },
      svg("defs", {}, svg("linearGradient", { id: "ember" }, ...stops)),
      svg("rect", { x: left, y: 1, width: wide, height: 12, fill: "url(#ember)" }),
    );
    for (const share of [0, 0.5, 1]) {
      const x = left + share * wide;
      drawn.append(
        svg("path", { class: "tick", d: `M${x} 13v4` }),
        svg("text", { x, y: 29, "text-anchor": "middle" }, number(share * largest, share ? 2 : 0)),
      );
    }
    return drawn;
  };

  // Histograms: both axes logarithmic

  // A unit's as a sparkline, from its letters: one a bin, 0 to z.
  const spark = (letters, edges, threshold) => {
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

  const histogram = (shares, edges, floor, threshold, written, label) => {
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
  const bar = (value, from, to, low, high) => {
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
  const curves = (series, label) => {
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

  return { number, percent, points, count, power, mapsOf, contour, heat, colourBar, spark, histogram, bar, curves };
})();
